"""The likelihood of binary pixels against the library's."""

import math

import pytest
import torch
from torch import Tensor

from tasks.likelihoods.binary import binary_nll, plain_binary_nll


def arguments(dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Log-odds from −200 to 200, each with both values of the pixel."""
    logits = torch.cat([torch.linspace(-200, 200, 41), torch.linspace(-3, 3, 40)]).to(dtype)
    x = torch.arange(81) % 2
    both = torch.stack([x, 1 - x]).to(dtype)
    return logits.expand(2, 81).clone().requires_grad_(), both


@pytest.mark.parametrize(("dtype", "close"), [(torch.float64, 1e-13), (torch.float32, 1e-6)])
def test_value_and_gradient_are_the_librarys(dtype: torch.dtype, close: float) -> None:
    logits, x = arguments(dtype)
    upstream = torch.tensor([2.0, -3.0], dtype=dtype)
    found, wanted = (f(logits, x) for f in (binary_nll, plain_binary_nll))
    torch.testing.assert_close(found, wanted, rtol=close, atol=0)
    gradients = [torch.autograd.grad(value, logits, upstream)[0] for value in (found, wanted)]
    torch.testing.assert_close(*gradients, rtol=close, atol=close)


@pytest.mark.parametrize("logit", [-200.0, -41.0, -25.0, -15.0, 0.0, 15.0, 25.0, 41.0, 200.0])
@pytest.mark.parametrize("pixel", [0.0, 1.0])
def test_a_single_pixel_to_the_last_digits(logit: float, pixel: float) -> None:
    """A sum of pixels would hide the small terms, and the library's have fewer digits."""
    found = binary_nll(torch.tensor([[logit]]).double(), torch.tensor([[pixel]]).double())
    wanted = math.log1p(math.exp(logit if pixel == 0 else -logit))
    assert found.item() == pytest.approx(wanted, rel=1e-14, abs=0)


def test_gradcheck() -> None:
    logits = torch.linspace(-4, 4, 12, dtype=torch.float64).view(3, 4).requires_grad_()
    x = (torch.arange(12).view(3, 4) % 3 == 0).double()
    assert torch.autograd.gradcheck(binary_nll, (logits, x))
