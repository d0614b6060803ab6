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
from estimators.mappings.closed_form import Parametrisation, bit_marginals, subset_marginals
from estimators.mappings.oracles import best_bits, best_bits_within, best_chain
from estimators.mappings.structures import ActiveSetSolution, Oracle, sparsemap
from estimators.mappings.subsets import above_the_rest, top_subsets, topk_sparsemax_subsets
from estimators.mappings.support import sparsemax

__all__ = [
    "ActiveSetSolution",
    "BitSolver",
    "Oracle",
    "Parametrisation",
    "SparseAssignments",
    "SparseSolution",
    "TopKAssignments",
    "above_the_rest",
    "all_bit_vectors",
    "best_bits",
    "best_bits_within",
    "best_chain",
    "bit_marginals",
    "sparsemap",
    "sparsemap_bits",
    "sparsemap_categoricals",
    "sparsemax",
    "subset_marginals",
    "top_assignments",
    "top_bit_vectors",
    "top_subsets",
    "topk_sparsemax",
    "topk_sparsemax_categoricals",
    "topk_sparsemax_subsets",
]
