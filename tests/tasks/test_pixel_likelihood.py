"""The tiled likelihood against the plain one."""

import pytest
import torch
from torch import Tensor

from tasks import pixel_likelihood
from tasks.pixel_likelihood import pixel_nll, plain_pixel_nll


def problem(dtype: torch.dtype, scale: float = 1.0) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    count, pixels, size, levels = 5, 7, 3, 11

    def draw(*shape: int) -> Tensor:
        numbers = scale * torch.randn(*shape, generator=generator, dtype=torch.float64)
        return numbers.to(dtype).requires_grad_()

    target = torch.randint(levels, (count, pixels), generator=generator)
    return draw(count, pixels, size), draw(levels, size), draw(levels), target


@pytest.mark.parametrize("tile", [1, 2 * 7 * 11, 10**6])
@pytest.mark.parametrize(("dtype", "close"), [(torch.float64, 1e-10), (torch.float32, 1e-4)])
def test_value_and_gradients_are_the_plain_ones(
    tile: int, dtype: torch.dtype, close: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pixel_likelihood, "TILE", tile)
    *inputs, target = problem(dtype)
    upstream = torch.linspace(-1, 2, 5, dtype=dtype)
    found, wanted = (f(*inputs, target) for f in (pixel_nll, plain_pixel_nll))
    torch.testing.assert_close(found, wanted, rtol=close, atol=close)
    gradients = [torch.autograd.grad(value, inputs, upstream) for value in (found, wanted)]
    for a, b in zip(*gradients, strict=True):
        torch.testing.assert_close(a, b, rtol=close, atol=close)


def test_gradcheck() -> None:
    *inputs, target = problem(torch.float64)
    assert torch.autograd.gradcheck(lambda *p: pixel_nll(*p, target), inputs)


def test_large_scores_do_not_overflow() -> None:
    *inputs, target = problem(torch.float32, scale=60.0)
    value = pixel_nll(*inputs, target)
    torch.testing.assert_close(value, plain_pixel_nll(*inputs, target), rtol=1e-4, atol=1e-2)
    assert all(torch.isfinite(g).all() for g in torch.autograd.grad(value.sum(), inputs))


def test_second_derivatives_are_refused() -> None:
    *inputs, target = problem(torch.float64)
    value = pixel_nll(*inputs, target).square().sum()
    (gradient,) = torch.autograd.grad(value, inputs[:1], create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        gradient.sum().backward()
