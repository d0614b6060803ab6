"""Every mapping, and every q, keeps to the dtype of its scores, which are floats."""

from collections.abc import Callable
from typing import Any

import jaxtyping
import pytest
import torch
from torch import Tensor

from estimators import mappings
from estimators.distributions.sparse import SparseDistribution
from estimators.mappings import best_bits, sparsemap_bits
from estimators.spaces import Bits, Categoricals, Chains, Ranked, Subsets

# (B, 4) scores of bits, or of a variable.
MAPPINGS: dict[str, Callable[[Tensor], object]] = {
    "bit_marginals": lambda s: mappings.bit_marginals(s, 1),
    "sparsemap": lambda s: mappings.sparsemap(s, best_bits),
    "sparsemap_bits": lambda s: sparsemap_bits(s, 1),
    "sparsemap_categoricals": lambda s: mappings.sparsemap_categoricals(s[:, None]),
    "sparsemax": mappings.sparsemax,
    "subset_marginals": lambda s: mappings.subset_marginals(s, 2),
    "top_assignments": lambda s: mappings.top_assignments(s[:, None], 3),
    "top_bit_vectors": lambda s: mappings.top_bit_vectors(s, 3),
    "top_chains": lambda s: mappings.top_chains(s, 1, 4, 3),
    "top_subsets": lambda s: mappings.top_subsets(s, 2, 3),
    "topk_sparsemax": lambda s: mappings.topk_sparsemax(s, 3),
    "topk_sparsemax_categoricals": lambda s: mappings.topk_sparsemax_categoricals(s[:, None], 3),
    "topk_sparsemax_chains": lambda s: mappings.topk_sparsemax_chains(s, 1, 4, 3),
    "topk_sparsemax_subsets": lambda s: mappings.topk_sparsemax_subsets(s[:, None], 2, 3),
}
OTHERS = {
    *("above_the_rest", "all_bit_vectors", "best_bits", "best_bits_within", "best_chain"),
    *("below_the_best", "best_chains", "chain_points", "join_chain", "split_chain", "sums_along"),
}
"""Functions of no scores, or of those of a q, and oracles, which `sparsemap` calls with float64."""

SPACES = [Bits(4), Categoricals(1, 4), Categoricals(2, 3), Subsets(2, 4, 2), Chains(2, 3)]


def scores(*shape: int) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return (0.5 * torch.randn(3, *shape, generator=generator)).requires_grad_()


def tensors(found: Any) -> list[Tensor]:
    if isinstance(found, Tensor):
        return [found]
    parts = found if isinstance(found, tuple) else vars(found).values()
    return [part for part in parts if isinstance(part, Tensor)]


def under(
    dtype: torch.dtype | None, function: Callable[[Tensor], object], s: Tensor
) -> list[Tensor]:
    """What a function gives under autocast to a dtype, or without, and the slope of its squares."""
    with torch.autocast("cpu", dtype=dtype, enabled=dtype is not None):
        found = tensors(function(s))
    through = [one.square().sum() for one in found if one.requires_grad]
    return found + ([*torch.autograd.grad(sum(through), s)] if through else [])  # type: ignore[arg-type]


def test_all_public_mappings_are_tested() -> None:
    functions = {name for name in mappings.__all__ if name == name.lower()}
    assert functions - OTHERS == {*MAPPINGS}


@pytest.mark.parametrize("name", MAPPINGS)
@pytest.mark.parametrize("dtype", [torch.int64, torch.int32, torch.bool])
def test_a_mapping_refuses_integers(name: str, dtype: torch.dtype) -> None:
    with pytest.raises(TypeError, match=f"^the scores are {dtype}: give floating-point numbers$"):
        MAPPINGS[name](torch.tensor([[3, -1, 2, 0]]).to(dtype))


@pytest.mark.parametrize("name", MAPPINGS)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_a_mapping_keeps_to_its_dtype_under_autocast(name: str, dtype: torch.dtype) -> None:
    s = scores(4)
    found, wanted = under(dtype, MAPPINGS[name], s), under(None, MAPPINGS[name], s)
    for one, other in zip(found, wanted, strict=True):
        assert one.dtype == other.dtype
        assert torch.equal(one, other)


@pytest.mark.parametrize("space", SPACES, ids=repr)
def test_a_q_refuses_integers(space: Ranked, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)  # as outside of tests
    with pytest.raises(TypeError, match=r"^the scores are torch.int64: give floating-point"):
        space.plain(torch.zeros(3, *space.scores_shape, dtype=torch.int64))


@pytest.mark.parametrize("space", SPACES, ids=repr)
@pytest.mark.parametrize("sparse", [False, True])
def test_a_q_keeps_to_its_dtype_under_autocast(space: Ranked, sparse: bool) -> None:
    s = scores(*space.scores_shape)

    def everything(s: Tensor) -> tuple[Tensor, ...]:
        q = space.plain(s)
        if sparse:
            q = SparseDistribution(space, s, *space.topk_sparsemax(s, 3))  # type: ignore[assignment]
        every = space.every(s).expand(3, *space.every(s).shape)
        label = [q.label_loss(q.mode())] if isinstance(space, Categoricals) else []
        likely = q.log_prob(every).exp()  # of those beyond the support too
        return (likely, q.entropy(), q.marginals(), q.support.probability, *label)

    found, wanted = under(torch.bfloat16, everything, s), under(None, everything, s)
    for one, other in zip(found, wanted, strict=True):
        assert one.dtype == other.dtype == torch.float32
        torch.testing.assert_close(one, other, rtol=0, atol=0, equal_nan=True)
