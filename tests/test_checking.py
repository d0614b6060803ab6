"""What does not go with its annotation is refused, in the tests."""

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from jaxtyping import Float, TypeCheckError
from torch import Tensor

from estimators.mappings import (
    ActiveSetSolution,
    best_bits,
    sparsemap,
    sparsemap_bits,
    top_bit_vectors,
)
from estimators.mappings.active_set import on_its_support
from tests.checking import checked


@checked
def transposed(x: Float[Tensor, "A B"]) -> Float[Tensor, "B A"]:
    return x


@pytest.mark.parametrize(
    ("call", "problem"),
    [
        (lambda: top_bit_vectors(torch.zeros(3), 2), "parameter 'scores'"),
        (lambda: best_bits(torch.zeros(1, 3).long()), "parameter 'scores'"),
        (lambda: top_bit_vectors(torch.zeros(1, 3), 2.0), "parameter 'k'"),  # type: ignore[arg-type]
        (
            lambda: on_its_support(torch.zeros(1, 2, 3), torch.zeros(1, 4), torch.zeros(1, 3)),
            "parameter 'weights'",
        ),
        (lambda: sparsemap(torch.zeros(1, 3), lambda s: s[:, :2]), "the return value"),
        (lambda: transposed(torch.zeros(1, 2)), "the return value"),
        (
            lambda: replace(sparsemap_bits(torch.zeros(1, 3)), marginals=torch.zeros(1, 4)),
            "parameter 'marginals'",
        ),
        (lambda: ActiveSetSolution(*[torch.zeros(1, 2)] * 5), "parameter 'residual'"),
    ],
    ids=[
        "dimensions",
        "dtype",
        "number",
        "axes",
        "of-an-oracle",
        "return",
        "data-class",
        "named-tuple",
    ],
)
def test_it_is_refused(call: Callable[[], object], problem: str) -> None:
    with pytest.raises(TypeCheckError, match=problem):
        call()
