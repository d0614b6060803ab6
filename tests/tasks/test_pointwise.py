"""The tiled network of single numbers against the plain one."""

import pytest
import torch
from torch import Tensor

from tasks import pointwise as module
from tasks.pointwise import plain_pointwise, pointwise


def arguments(dtype: torch.dtype) -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    shapes: tuple[tuple[int, ...], ...] = ((3, 4), (5,), (5,))
    return [
        torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype).requires_grad_()
        for shape in shapes
    ]


@pytest.mark.parametrize("tile", [1, 25, 10**6])
@pytest.mark.parametrize(("dtype", "close"), [(torch.float64, 1e-12), (torch.float32, 1e-5)])
def test_value_and_gradients_are_the_plain_ones(
    tile: int, dtype: torch.dtype, close: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "TILE", tile)
    inputs = arguments(dtype)
    upstream = torch.linspace(-1, 2, 12, dtype=dtype).view(3, 4)
    found, wanted = (f(*inputs) for f in (pointwise, plain_pointwise))
    torch.testing.assert_close(found, wanted, rtol=close, atol=close)
    gradients = [torch.autograd.grad(value, inputs, upstream) for value in (found, wanted)]
    for a, b in zip(*gradients, strict=True):
        torch.testing.assert_close(a, b, rtol=close, atol=close)


def test_gradcheck() -> None:
    assert torch.autograd.gradcheck(pointwise, arguments(torch.float64))


def test_second_derivatives_are_refused() -> None:
    inputs = arguments(torch.float64)
    value = pointwise(*inputs).square().sum()
    (gradient,) = torch.autograd.grad(value, inputs[:1], create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        gradient.sum().backward()
