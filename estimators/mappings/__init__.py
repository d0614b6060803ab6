"""Sparse mappings from scores to probabilities, as pure functions of tensors.

Nothing here knows of estimators or tasks: the folder can be used on its own.
"""

from estimators.mappings.bit_sparsemap import BitSolver, SparseSolution, sparsemap_bits
from estimators.mappings.bits import all_bit_vectors, top_bit_vectors, topk_sparsemax
from estimators.mappings.categoricals import (
    SparseAssignments,
    TopKAssignments,
    sparsemap_categoricals,
    top_assignments,
    topk_sparsemax_categoricals,
)
from estimators.mappings.chains import (
    ChainParts,
    TopKChains,
    below_the_best,
    best_chains,
    chain_points,
    join_chain,
    split_chain,
    sums_along,
    top_chains,
    topk_sparsemax_chains,
)
from estimators.mappings.closed_form import Parametrisation, bit_marginals, subset_marginals
from estimators.mappings.oracles import best_bits, best_bits_within, best_chain
from estimators.mappings.structures import ActiveSetSolution, Oracle, sparsemap
from estimators.mappings.subsets import above_the_rest, top_subsets, topk_sparsemax_subsets
from estimators.mappings.support import sparsemax

__all__ = [
    "ActiveSetSolution",
    "BitSolver",
    "ChainParts",
    "Oracle",
    "Parametrisation",
    "SparseAssignments",
    "SparseSolution",
    "TopKAssignments",
    "TopKChains",
    "above_the_rest",
    "all_bit_vectors",
    "below_the_best",
    "best_bits",
    "best_bits_within",
    "best_chain",
    "best_chains",
    "bit_marginals",
    "chain_points",
    "join_chain",
    "sparsemap",
    "sparsemap_bits",
    "sparsemap_categoricals",
    "sparsemax",
    "split_chain",
    "subset_marginals",
    "sums_along",
    "top_assignments",
    "top_bit_vectors",
    "top_chains",
    "top_subsets",
    "topk_sparsemax",
    "topk_sparsemax_categoricals",
    "topk_sparsemax_chains",
    "topk_sparsemax_subsets",
]
