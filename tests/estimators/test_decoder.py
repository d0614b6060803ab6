"""The decoder's runs: each gradient goes where the weights say, and slopes know no weight."""

import pytest
import torch
from torch import Tensor

from estimators import decoder
from estimators.decoder import Context, Run, Wanted, run

N, SIZE = 7, 3
ROW = torch.tensor([0, 0, 1, 2, 2, 3, 3])


class Model:
    """A cost with a parameter θ, a context with a graph, and points."""

    def __init__(self) -> None:
        generator = torch.Generator().manual_seed(0)

        def random(*shape: int) -> Tensor:
            return torch.randn(*shape, generator=generator, dtype=torch.float64)

        self.theta = random(SIZE).requires_grad_()
        self.embedding = random(4, SIZE).requires_grad_()
        self.z = random(N, SIZE)
        self.assignments = 0
        self.largest = 0

    def context(self) -> Context:
        return (2 * self.embedding, torch.arange(4))

    def cost(self, context: Context, z: Tensor, row: Tensor) -> Tensor:
        self.assignments += len(row)
        self.largest = max(self.largest, len(row))
        return ((z * self.theta + context[0][row]).sin()).sum(dim=1)

    def gradients(self, term: Tensor) -> list[Tensor]:
        """Of θ and the context, after a backward pass."""
        term.backward()  # type: ignore[no-untyped-call]
        found = [self.theta.grad, self.embedding.grad]
        return [torch.zeros(()) if gradient is None else gradient for gradient in found]


WEIGHTS = {
    "all": torch.linspace(0.5, 2, N, dtype=torch.float64),
    "some-zero": torch.linspace(0.5, 2, N, dtype=torch.float64) * (torch.arange(N) % 3 > 0),
    "none": torch.zeros(N, dtype=torch.float64),
    "negative": torch.linspace(-1, 2.1, N, dtype=torch.float64),
}
SLOPES = {"everywhere": True, "first": slice(4), "nowhere": False, "some": torch.arange(N) % 2 == 0}


def check_run(weight: Tensor, slopes: Tensor | slice | bool, at_once: int | None) -> Run:
    """Costs, slopes and gradients against formulas by autograd, each on its own."""
    model, plain = Model(), Model()
    found = run(model.cost, model.context(), Wanted(model.z, ROW, weight, slopes), at_once)
    points = plain.z.clone().requires_grad_()
    costs = plain.cost(plain.context(), points, ROW)
    (wanted_slopes,) = torch.autograd.grad(costs.sum(), points, retain_graph=True)
    wanted = torch.autograd.grad((weight * costs).sum(), [plain.theta, plain.embedding])
    torch.testing.assert_close(found.costs, costs.detach())
    assert not found.costs.requires_grad
    if slopes is False:
        assert found.slopes is None
    else:
        assert found.slopes is not None
        assert not found.slopes.requires_grad
        chosen = wanted_slopes if slopes is True else wanted_slopes[slopes]
        torch.testing.assert_close(found.slopes, chosen)
    assert found.term is not None
    for gradient, target in zip(model.gradients(found.term), wanted, strict=True):
        torch.testing.assert_close(gradient + torch.zeros_like(target), target)
    assert model.assignments == N
    assert at_once is None or model.largest <= at_once
    return found


@pytest.mark.parametrize("at_once", [None, 1, 3, 100])
@pytest.mark.parametrize("slopes", SLOPES.values(), ids=SLOPES)
@pytest.mark.parametrize("weight", WEIGHTS.values(), ids=WEIGHTS)
def test_costs_slopes_and_gradients(
    weight: Tensor, slopes: Tensor | slice | bool, at_once: int | None
) -> None:
    """Each assignment goes through the decoder once, in chunks of at most so many."""
    check_run(weight, slopes, at_once)


@pytest.mark.parametrize("slopes", SLOPES.values(), ids=SLOPES)
@pytest.mark.parametrize("at_once", [None, 3])
def test_weights_that_are_not_known_yet_leave_the_graph(
    slopes: Tensor | slice | bool, at_once: int | None
) -> None:
    model = Model()
    found = run(model.cost, model.context(), Wanted(model.z, ROW, None, slopes), at_once)
    assert found.term is None
    assert found.costs.requires_grad
    assert (found.slopes is None) == (slopes is False)
    weight = found.costs.detach().softmax(dim=0)
    wanted = check_run(weight, slopes, None)
    torch.testing.assert_close(found.costs.detach(), wanted.costs)
    if found.slopes is not None:
        torch.testing.assert_close(found.slopes, wanted.slopes)


def test_without_a_step_to_take_gradients_are_left_to_the_backward_pass() -> None:
    """A user clears the gradients between the loss and its backward pass, as many do."""
    for slopes in (True, False):
        model = Model()
        run(model.cost, model.context(), Wanted(model.z, ROW, WEIGHTS["all"], slopes), None)
        assert model.theta.grad is None


def test_a_frozen_decoder_has_slopes_all_the_same() -> None:
    model = Model()
    model.theta.requires_grad_(False)
    model.embedding.requires_grad_(False)
    for at_once in (None, 3):
        wanted = Wanted(model.z, ROW, WEIGHTS["all"], True)
        found = run(model.cost, model.context(), wanted, at_once)
        points = model.z.clone().requires_grad_()
        costs = model.cost(model.context(), points, ROW)
        (slopes,) = torch.autograd.grad(costs.sum(), points)
        torch.testing.assert_close(found.slopes, slopes)


def test_slopes_times_the_weight_are_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    right = decoder._run_at_once

    def weighted(cost: object, context: Context, wanted: Wanted, at_once: int) -> Run:
        found = right(cost, context, wanted, at_once)  # type: ignore[arg-type]
        assert found.slopes is not None
        assert wanted.weight is not None
        return found._replace(slopes=found.slopes * wanted.weight[:, None])

    monkeypatch.setattr(decoder, "_run_at_once", weighted)
    with pytest.raises(AssertionError):
        check_run(WEIGHTS["all"], True, 100)
