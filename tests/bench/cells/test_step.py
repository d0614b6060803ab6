"""The training step sends each gradient where the weights say, in chunks or at once."""

import re
from collections.abc import Callable
from copy import copy
from types import SimpleNamespace
from typing import Any, cast

import pytest
import torch
from torch import Tensor, nn

from bench.cells import step
from bench.cells.step import (
    CountedCost,
    NotFiniteError,
    StepResult,
    latent_loss,
    training_loss,
)
from estimators.base import Estimate, Estimator, Evaluated, Proposal
from estimators.registry import all_estimators
from estimators.sampled.score_function import NVIL, ScoreFunction
from estimators.sampler import Sampler
from estimators.shapes import ShapeError
from estimators.spaces import Bits
from estimators.summed.support_sum import Dense
from tasks.base import Encoding, Supervised, Task
from tasks.streams import Streams
from tests.tasks.conftest import make_task

NO_SAMPLER = Sampler(torch.Generator())


@pytest.mark.parametrize("trained", [(), ("scores",), ("decoder",), ("scores", "decoder")])
@pytest.mark.parametrize("name", ["sfe", "dense", "gumbel"])
def test_chunks_train_what_can_be_trained(name: str, trained: tuple[str, ...]) -> None:
    """A cost without parameters, an encoder that is frozen, or both: as it is at once."""
    seen = []
    for at_once in (2**25, 5):
        generator = torch.Generator().manual_seed(0)
        scores = torch.randn(8, 4, generator=generator, dtype=torch.float64)
        scores.requires_grad_("scores" in trained)
        theta = torch.full((4,), 0.45, dtype=torch.float64, requires_grad="decoder" in trained)
        task = cast(Task, SimpleNamespace(
            cost=lambda context, z, row, theta=theta: (z - theta).square().sum(dim=1), name="test",
            activation_size=2**25 // at_once, latent_weight=1.0,
        ))  # fmt: skip
        result = latent_loss(
            task, all_estimators()[name].make(Bits(4)).double(), CountedCost(task),
            Encoding(scores, torch.zeros(8, 1), ()), Sampler(generator), 1.0,
        )  # fmt: skip
        assert result.loss.requires_grad or not trained
        if result.loss.requires_grad:
            result.loss.backward()
        seen.append([result.objective, scores.grad, theta.grad])
    for a, b in zip(*seen, strict=True):
        torch.testing.assert_close(a, b)
    assert [seen[0][1] is not None, seen[0][2] is not None] == [
        "scores" in trained,
        "decoder" in trained,
    ]


class LateWeights(ScoreFunction):
    """The decoder's weights come from the costs, as importance weights do."""

    def propose(self, q: object, features: Tensor, sampler: Sampler) -> Proposal:
        known = super().propose(q, features, sampler)  # type: ignore[arg-type]
        return Proposal(known.z, known.row, None, extras=known.extras)

    def combine(self, q: object, proposal: Proposal, evaluated: Evaluated) -> Estimate:
        known = super().combine(q, proposal, evaluated)  # type: ignore[arg-type]
        weight = evaluated.costs.softmax(dim=0)
        return Estimate(known.objective, known.surrogate, decoder_weight=weight)


def test_weights_may_depend_on_the_costs() -> None:
    task = make_task("ssvae")
    encoding = task.encode(task.training_batch(0, Streams(0)))
    counted = CountedCost(task)
    sampler = Sampler(torch.Generator().manual_seed(0))
    result = latent_loss(task, LateWeights.make(task.space), counted, encoding, sampler, 1.0)
    assert result.update is not None
    loss, (proposal, evaluated, _) = result.loss, result.update
    weight = task.decoder[-1].weight  # type: ignore[index]
    (found,) = torch.autograd.grad(loss, weight, retain_graph=True)
    again = task.cost(encoding.context, proposal.z, proposal.row)
    scale = task.latent_weight / len(encoding.scores)
    part = encoding.supervised
    assert part is not None
    known = task.cost(encoding.context, part.target, part.row).mean()
    objective = (evaluated.costs.softmax(dim=0) * again).sum() * scale + known
    (wanted,) = torch.autograd.grad(objective, weight)
    torch.testing.assert_close(found, wanted)


def wide(tensor: Tensor) -> Tensor:
    """With a dimension too many, which broadcasts."""
    return tensor[:, None].expand(-1, 2, *tensor.shape[1:])


def changed(given: Any, **parts: object) -> Any:
    """As `replace`, but unchecked, as where no tests are run."""
    other = copy(given)
    vars(other).update(parts)
    return other


class Misshapen(ScoreFunction):
    """Gives one tensor, "propose z" say, with a dimension too many."""

    wrong = ""

    def wrongly(self, method: str, given: Proposal | Estimate) -> dict[str, Tensor]:
        of, _, part = self.wrong.partition(" ")
        if of != method:
            return {}
        right = getattr(given, part)
        if right is None:  # of an estimate
            right = given.surrogate  # type: ignore[union-attr]
        return {part: wide(right)}

    def propose(self, q: object, features: Tensor, sampler: Sampler) -> Proposal:
        right = super().propose(q, features, sampler)  # type: ignore[arg-type]
        return cast(Proposal, changed(right, **self.wrongly("propose", right)))

    def combine(self, q: object, proposal: Proposal, evaluated: Evaluated) -> Estimate:
        right = super().combine(q, proposal, evaluated)  # type: ignore[arg-type]
        return cast(Estimate, changed(right, **self.wrongly("combine", right)))


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ("propose row", "(6, 2), not (6,)"),
        ("propose z", "(6, 2, 1), not (6, 1)"),
        ("propose decoder_weight", "(6, 2), not (6,)"),
        ("combine objective", "(6, 2), not (6,)"),
        ("combine surrogate", "(6, 2), not (6,)"),
        ("combine entropy", "(6, 2), not (6,)"),
        ("combine decoder_weight", "(6, 2), not (6,)"),
        ("combine own_loss", "(6, 2), not ()"),
    ],
)
def test_a_tensor_of_a_wrong_shape_is_refused_with_who_gave_it(
    wrong: str, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    task = make_task("signal_game", batch_size=6)
    encoding = task.encode(task.training_batch(0, Streams(0)))
    estimator = Misshapen.make(task.space, features=task.features)
    monkeypatch.setattr(Misshapen, "wrong", wrong)
    with pytest.raises(ShapeError) as error:
        latent_loss(task, estimator, CountedCost(task), encoding, NO_SAMPLER, 1.0)
    method, part = wrong.split()
    assert str(error.value) == f"{method} of sfe gives {part} of shape {said}"


@pytest.mark.parametrize(
    ("method", "given", "said"),
    [
        ("propose", lambda right: None, "no Proposal"),
        ("propose", lambda right: changed(right, z=right.z.long()), "bits of type torch.int64"),
        ("combine", lambda right: None, "no Estimate"),
        (
            "combine",
            lambda right: changed(right, surrogate=right.surrogate.detach()),
            "a surrogate without a gradient",
        ),
        (
            "combine",
            lambda right: changed(right, entropy=right.objective),
            "an entropy without a gradient",
        ),
        ("combine", lambda right: changed(right, diagnostics={"b": 0.5}), "b that is no tensor"),
        (
            "combine",
            lambda right: changed(right, diagnostics={"b": right.objective}),
            "b of shape (6,), not ()",
        ),
    ],
)
def test_what_would_fail_elsewhere_or_pass_in_silence_is_refused(
    method: str, given: Callable[[Any], object], said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    task = make_task("bitvector", batch_size=6)
    encoding = task.encode(task.training_batch(0, Streams(0)))
    estimator = ScoreFunction.make(task.space, features=task.features)
    real = getattr(estimator, method)
    monkeypatch.setattr(estimator, method, lambda *arguments: given(real(*arguments)))
    with pytest.raises(ShapeError, match=re.escape(f"{method} of sfe gives {said}")):
        latent_loss(task, estimator, CountedCost(task), encoding, NO_SAMPLER, 1.0)


def test_costs_with_a_dimension_too_many_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    task = make_task("signal_game")
    encoding = task.encode(task.training_batch(0, Streams(0)))
    right, row = task.cost, torch.tensor([0, 0, 1])
    monkeypatch.setattr(task, "cost", lambda *given: right(*given)[:, None])
    with pytest.raises(ShapeError, match=r"cost of signal_game gives costs of shape \(3, 1\)"):
        CountedCost(task)(encoding.context, row[:, None], row)


@pytest.mark.parametrize("name", ["dense", "nvil"])
def test_the_entropy_weight_of_the_training_takes_the_place_of_the_tasks(name: str) -> None:
    """In the objective that is noted too, which has no scale."""
    task = make_task("signal_game")
    batch = task.training_batch(0, Streams(0))
    estimator = all_estimators()[name].make(task.space, features=task.features).double()
    if isinstance(estimator, NVIL):
        estimator.variance.update(torch.tensor(100.0))

    def objective(weight: float | None) -> Tensor:
        sampler = Sampler(torch.Generator().manual_seed(0))
        result = training_loss(
            task, estimator, CountedCost(task), batch, sampler, entropy_weight=weight
        )
        return result.objective

    entropy = (
        Dense.make(task.space).distribution(task.encode(batch).scores).entropy().mean().detach()
    )
    torch.testing.assert_close(objective(None), objective(task.entropy_weight))
    torch.testing.assert_close(objective(0.0) - objective(0.7), 0.7 * entropy)


def test_scores_that_are_not_finite_are_found_before_anything_is_sampled() -> None:
    task = make_task("ssvae")
    with torch.no_grad():
        cast(nn.Module, task.classifier).get_parameter("0.weight").fill_(torch.nan)
    for name in ("sfe", "sparsemax", "dense", "none"):
        estimator = all_estimators()[name].make(task.space, features=task.features)
        with pytest.raises(NotFiniteError, match="the scores are not finite"):
            training_loss(
                task, estimator, CountedCost(task), task.training_batch(0, Streams(0)), NO_SAMPLER
            )


@pytest.mark.parametrize("name", ["ssvae", "signal_game", "bitvector"])
def test_dense_step_is_the_gradient_of_the_written_out_objective(name: str) -> None:
    """Data, encoder, latent sum, entropy, labelled part and weights, all in one formula."""
    task = make_task(name)
    batch = task.training_batch(0, Streams(0))
    counted = CountedCost(task)
    result = training_loss(
        task,
        Dense.make(task.space),
        counted,
        batch,
        Sampler(torch.Generator().manual_seed(0)),
    )
    found = torch.autograd.grad(result.loss, [*task.parameters()], allow_unused=True)

    encoding = task.encode(batch)
    q = Dense.make(task.space).distribution(encoding.scores)
    rows = len(encoding.scores)
    z, row, p = q.support
    expected = (p * task.cost(encoding.context, z, row)).sum() / rows
    entropy = -(p * p.log()).sum() / rows
    objective = task.latent_weight * (expected - task.entropy_weight * entropy)
    if encoding.supervised is not None:
        scores, target, labelled = encoding.supervised
        known = task.cost(encoding.context, target, labelled).mean()
        cross_entropy = torch.nn.functional.cross_entropy(scores[:, 0], target[:, 0])
        objective = objective + known + cross_entropy
        assert counted.calls["supervised"] == len(target)
    wanted = torch.autograd.grad(objective, [*task.parameters()], allow_unused=True)
    torch.testing.assert_close(result.objective, objective.detach(), rtol=1e-6, atol=1e-6)
    for a, b in zip(found, wanted, strict=True):
        torch.testing.assert_close(a, b)
    assert counted.calls["latent"] == len(z)
    assert result.rows == rows


@pytest.mark.parametrize("name", ["dense", "gumbel", "st-gumbel", "sparsemax", "sfe", "none"])
def test_a_step_in_chunks_is_the_step_at_once(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Labelled rows and others, hard and relaxed, through one decoder or a piece at a time."""
    gradients = []
    for at_once in (2**25, 7 * 64):
        monkeypatch.setattr(step, "MAX_ACTIVATION", at_once)
        task = make_task("ssvae")
        estimator = all_estimators()[name].make(task.space, features=task.features)
        counted = CountedCost(task)
        result = training_loss(
            task, estimator.double(), counted, task.training_batch(0, Streams(0)),
            Sampler(torch.Generator().manual_seed(0)),
        )  # fmt: skip
        result.loss.backward()
        gradients.append([parameter.grad for parameter in task.parameters()])
        assert counted.calls["supervised"] == 8
    for a, b in zip(*gradients, strict=True):
        torch.testing.assert_close(a, b)


def test_labels_go_through_the_decoder_as_they_would_alone() -> None:
    """The gradient of a step is that of its labelled part and of its latent part."""
    task = make_task("ssvae")
    estimator = all_estimators()["gumbel"].make(task.space, features=task.features)
    batch = task.training_batch(0, Streams(0))

    def gradient(estimator: Estimator, encoding: Encoding) -> list[Tensor]:
        task.zero_grad()
        cost, sampler = CountedCost(task), Sampler(torch.Generator().manual_seed(0))
        stand_in = cast(Task, SimpleNamespace(
            encode=lambda batch: encoding, latent_weight=task.latent_weight, entropy_weight=1.0
        ))  # fmt: skip
        training_loss(stand_in, estimator, cost, None, sampler).loss.backward()
        return [p.grad if p.grad is not None else torch.zeros_like(p) for p in task.parameters()]

    both = gradient(estimator.double(), task.encode(batch))
    latent = gradient(estimator, task.encode(batch)._replace(supervised=None))
    labels = gradient(all_estimators()["none"].make(estimator.space), task.encode(batch))
    for whole, one, other in zip(both, latent, labels, strict=True):
        torch.testing.assert_close(whole, one + other)


@pytest.mark.parametrize("name", ["dense", "sparsemax", "none"])
def test_no_labels_are_a_loss_of_zero(name: str) -> None:
    task = make_task("ssvae")
    estimator = all_estimators()[name].make(task.space, features=task.features).double()
    encoding = task.encode(task.training_batch(0, Streams(0)))
    part = encoding.supervised
    assert part is not None
    without = encoding._replace(supervised=None)
    empty = encoding._replace(supervised=Supervised(*(field[:0] for field in part)))

    def result(encoding: Encoding) -> StepResult:
        stand_in = cast(Task, SimpleNamespace(
            encode=lambda batch: encoding, latent_weight=task.latent_weight, entropy_weight=1.0
        ))  # fmt: skip
        return training_loss(stand_in, estimator, CountedCost(task), None, NO_SAMPLER)

    for wanted, found in zip(result(without), result(empty), strict=True):
        if isinstance(wanted, Tensor):
            torch.testing.assert_close(found, wanted)


def test_own_loss_alone_trains_the_baseline_and_nothing_else() -> None:
    """The gradient of a step for a baseline is that of its own loss, whatever the step's scale."""
    task = make_task("ssvae")
    encoding: Encoding = task.encode(task.training_batch(0, Streams(0)))
    for name, estimator_class in all_estimators().items():
        if estimator_class.refusal(task.space, estimator_class.Settings()) is not None:
            continue
        estimator = estimator_class.make(task.space, features=task.features).double()
        parameters = [*estimator.parameters()]
        sampler = Sampler(torch.Generator().manual_seed(0))
        result = latent_loss(task, estimator, CountedCost(task), encoding, sampler, 1.0)
        assert result.update is not None
        q = estimator.distribution(encoding.scores)
        own = estimator.combine(q, *result.update[:2]).own_loss
        assert (own is not None) == (len(parameters) > 0), name
        if own is not None:
            wanted = torch.autograd.grad(own, parameters, retain_graph=True)
            result.loss.backward(retain_graph=True)
            for parameter, right in zip(parameters, wanted, strict=True):
                torch.testing.assert_close(parameter.grad, right)


def test_slopes_and_oracle_calls_are_counted() -> None:
    """For training alone: an evaluation asks for modes, and is no part of it."""
    for name, slopes, oracle in (
        ("st-gumbel", 8, 8), ("gumbel", 8, 0), ("sfe-selfcritic", 0, 8),
        ("imle", 8, 16), ("perturbed", 8, 8 * 8), ("spigot", 8, 8),
    ):  # fmt: skip
        task = make_task("ssvae")
        estimator = all_estimators()[name].make(task.space, features=task.features).double()
        counted, batch = CountedCost(task), task.training_batch(0, Streams(0))
        rows = len(task.encode(batch).scores)
        assert rows == 8
        estimator.distribution(task.encode(batch).scores).mode()
        training_loss(task, estimator, counted, batch, Sampler(torch.Generator().manual_seed(0)))
        assert (counted.calls["slopes"], counted.calls["oracle"]) == (slopes, oracle), name


def test_slopes_need_no_other_run_of_the_decoder() -> None:
    task = make_task("bitvector")
    estimator = all_estimators()["gumbel"].make(task.space).double()
    counted = CountedCost(task)
    sampler = Sampler(torch.Generator().manual_seed(0))
    training_loss(task, estimator, counted, task.training_batch(0, Streams(0)), sampler)
    assert counted.calls["latent"] == 8
