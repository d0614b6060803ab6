"""Sparse mappings from scores to probabilities, as pure functions of tensors.

Nothing here knows of estimators or tasks: the folder can be used on its own.
"""

from entmax import sparsemax

from estimators.mappings.bits import all_bit_vectors, top_bit_vectors, topk_sparsemax
from estimators.mappings.sparsemap import SparseSolution, bit_marginals, sparsemap_bits

__all__ = [
    "SparseSolution",
    "all_bit_vectors",
    "bit_marginals",
    "sparsemap_bits",
    "sparsemax",
    "top_bit_vectors",
    "topk_sparsemax",
]
