"""Gradient estimators for models with discrete latent variables, for anybody's model.

    from estimators import Bits, expected_cost, make

    estimator = make("rloo", Bits(200), samples=4)
    loss = expected_cost(estimator, scores, cost)
    loss.backward()

docs/LIBRARY.md shows whole models.
"""

from estimators.registry import all_estimators, make
from estimators.spaces import Bits, Categoricals, Chains, Subsets, Trees
from estimators.step import expected_cost

__all__ = [
    "Bits", "Categoricals", "Chains", "Subsets", "Trees", "all_estimators", "expected_cost", "make",
]  # fmt: skip
