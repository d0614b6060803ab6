"""The network of single numbers in compiled loops and in tiles against the plain one."""

import pytest
import torch
from torch import Tensor

from tasks.likelihoods import pointwise as module
from tasks.likelihoods.pointwise import plain_pointwise, pointwise


@pytest.fixture(params=["loops", "tiles"], autouse=True)
def path(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """By which way the test goes."""
    if request.param == "tiles":
        monkeypatch.setattr(module, "compiled", lambda *_: None)
    else:  # the test is to fail where these are not taken
        monkeypatch.setattr(module, "_tiles", None)
    return request.param


def arguments(dtype: torch.dtype, rows: int = 3, units: int = 5) -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    shapes: tuple[tuple[int, ...], ...] = ((rows, 4), (units,), (units,))
    return [
        torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype).requires_grad_()
        for shape in shapes
    ]


@pytest.mark.parametrize("tile", [1, 25, 10**6])
@pytest.mark.parametrize(("rows", "units"), [(3, 5), (130, 33), (256, 512), (0, 5)])
@pytest.mark.parametrize(("dtype", "close"), [(torch.float64, 1e-11), (torch.float32, 2e-5)])
def test_value_and_gradients_are_the_plain_ones(
    tile: int,
    rows: int,
    units: int,
    dtype: torch.dtype,
    close: float,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if tile == 1 and rows > 3:
        tile = 2000
    monkeypatch.setattr(module, "TILE", tile)
    inputs = arguments(dtype, rows, units)
    upstream = torch.linspace(-1, 2, 4 * rows, dtype=dtype).view(rows, 4)
    found, wanted = (f(*inputs) for f in (pointwise, plain_pointwise))
    torch.testing.assert_close(found, wanted, rtol=close, atol=close)
    gradients = [torch.autograd.grad(value, inputs, upstream) for value in (found, wanted)]
    for a, b in zip(*gradients, strict=True):
        torch.testing.assert_close(a, b, rtol=close, atol=close * max(1, rows))


@pytest.mark.parametrize("size", [1e3, 1e30])
def test_large_arguments_saturate(size: float) -> None:
    x = torch.tensor([-size, size]).requires_grad_()
    w, v = torch.ones(2), torch.tensor([2.0, 3.0])
    value = pointwise(x, w, v)
    torch.testing.assert_close(value, torch.tensor([0.0, 5.0]))
    (slope,) = torch.autograd.grad(value.sum(), x)
    torch.testing.assert_close(slope, torch.zeros(2))


@pytest.mark.usefixtures("threads")
@pytest.mark.parametrize("path", ["loops"], indirect=True)
def test_numbers_do_not_depend_on_the_threads() -> None:
    found = []
    for threads in (1, 2):
        torch.set_num_threads(threads)
        inputs = arguments(torch.float32, 1000, 512)
        value = pointwise(*inputs)
        found.append([value, *torch.autograd.grad(value.square().sum(), inputs)])
    for one, two in zip(*found, strict=True):
        torch.testing.assert_close(one, two, rtol=0, atol=0)


def test_gradcheck() -> None:
    assert torch.autograd.gradcheck(pointwise, arguments(torch.float64))


def test_second_derivatives_are_refused() -> None:
    inputs = arguments(torch.float64)
    value = pointwise(*inputs).square().sum()
    (gradient,) = torch.autograd.grad(value, inputs[:1], create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        gradient.sum().backward()
