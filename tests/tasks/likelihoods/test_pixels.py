"""The likelihood in compiled loops and in tiles against the plain one."""

import pytest
import torch
from torch import Tensor

from tasks.likelihoods import pixels as pixel_likelihood
from tasks.likelihoods.pixels import pixel_nll, plain_pixel_nll

PATHS = ("loops", "tiles")


@pytest.fixture(params=PATHS, autouse=True)
def path(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """By which way the test goes."""
    if request.param == "tiles":
        monkeypatch.setattr(pixel_likelihood, "compiled", lambda *_: None)
    else:  # the test is to fail where these are not taken
        monkeypatch.setattr(pixel_likelihood, "_in_tiles", None)
    return request.param


def problem(
    dtype: torch.dtype, scale: float = 1.0, pixels: int = 7, levels: int = 11
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    count, size = 5, 3

    def draw(*shape: int) -> Tensor:
        numbers = scale * torch.randn(*shape, generator=generator, dtype=torch.float64)
        return numbers.to(dtype).requires_grad_()

    target = torch.randint(levels, (count, pixels), generator=generator)
    return draw(count, pixels, size), draw(levels, size), draw(levels), target


@pytest.mark.parametrize("tile", [1, 2 * 7 * 11, 10**6])
@pytest.mark.parametrize(("pixels", "levels"), [(7, 11), (8, 1), (1, 2), (4, 259)])
@pytest.mark.parametrize(("dtype", "close"), [(torch.float64, 1e-11), (torch.float32, 2e-5)])
def test_value_and_gradients_are_the_plain_ones(
    tile: int,
    pixels: int,
    levels: int,
    dtype: torch.dtype,
    close: float,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(pixel_likelihood, "TILE", tile)
    *inputs, target = problem(dtype, pixels=pixels, levels=levels)
    upstream = torch.linspace(-1, 2, 5, dtype=dtype)
    found, wanted = (f(*inputs, target) for f in (pixel_nll, plain_pixel_nll))
    torch.testing.assert_close(found, wanted, rtol=close, atol=close)
    gradients = [torch.autograd.grad(value, inputs, upstream) for value in (found, wanted)]
    for a, b in zip(*gradients, strict=True):
        torch.testing.assert_close(a, b, rtol=close, atol=close)


def test_gradcheck() -> None:
    *inputs, target = problem(torch.float64)
    assert torch.autograd.gradcheck(lambda *p: pixel_nll(*p, target), inputs)


def test_without_gradients_the_value_is_the_same() -> None:
    *inputs, target = problem(torch.float32)
    with torch.no_grad():
        alone = pixel_nll(*inputs, target)
    torch.testing.assert_close(alone, pixel_nll(*inputs, target).detach())


def test_large_scores_do_not_overflow() -> None:
    *inputs, target = problem(torch.float32, scale=60.0)
    value = pixel_nll(*inputs, target)
    torch.testing.assert_close(value, plain_pixel_nll(*inputs, target), rtol=1e-4, atol=1e-2)
    assert all(torch.isfinite(g).all() for g in torch.autograd.grad(value.sum(), inputs))


@pytest.mark.parametrize("wrong", [float("nan"), float("inf")])
def test_what_is_no_number_is_seen_where_it_is(wrong: float) -> None:
    features, weight, bias, target = problem(torch.float32)
    with torch.no_grad():
        features[2, 3, 1] = wrong
    found = pixel_nll(features, weight, bias, target).isnan()
    assert found.tolist() == [False, False, True, False, False]


@pytest.mark.parametrize("level", [-1, 11])
def test_a_level_that_there_is_not_is_refused(level: int) -> None:
    *inputs, target = problem(torch.float32)
    target[1, 2] = level
    with pytest.raises((IndexError, RuntimeError), match=r"a grey level|out of bounds"):
        pixel_nll(*inputs, target)


def test_types_without_loops_go_in_tiles(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    *inputs, target = problem(torch.bfloat16)
    wanted = pixel_nll(*(t.float() for t in inputs), target)
    torch.testing.assert_close(pixel_nll(*inputs, target).float(), wanted, rtol=0.02, atol=0.02)


@pytest.mark.usefixtures("threads")
@pytest.mark.parametrize("path", ["loops"], indirect=True)
def test_numbers_do_not_depend_on_the_threads() -> None:
    found = []
    for threads in (1, 2):
        torch.set_num_threads(threads)
        *inputs, target = problem(torch.float32, pixels=64, levels=256)
        value = pixel_nll(*inputs, target)
        found.append([value, *torch.autograd.grad(value.sum(), inputs)])
    for one, two in zip(*found, strict=True):
        torch.testing.assert_close(one, two, rtol=0, atol=0)


def test_second_derivatives_are_refused() -> None:
    *inputs, target = problem(torch.float64)
    value = pixel_nll(*inputs, target).square().sum()
    (gradient,) = torch.autograd.grad(value, inputs[:1], create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        gradient.sum().backward()
