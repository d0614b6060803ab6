"""Measured gradient quality against what can be enumerated."""

import itertools
from typing import cast

import pytest
import torch
from torch import Tensor, nn

from analysis.gradient_rows import Z
from bench.cells.building import build_task
from bench.cells.cell import plan
from bench.cells.step import CountedCost
from bench.cells.training import Row, Trainer
from bench.gradients import measure as gradients
from bench.gradients.cell import fixed_batches
from bench.gradients.measure import GROUPS, Gradients, GradientSettings, joint, measure, warm_up
from bench.gradients.statistics import Quality
from bench.profiles.profile import Profile
from estimators.base import Estimator
from estimators.registry import all_estimators
from estimators.sampled.baselines import MovingAverage
from estimators.sampler import Sampler
from estimators.spaces import Space
from estimators.summed.support_sum import Dense
from tasks.base import Encoding, Task
from tasks.streams import Streams
from tests.estimators.contract import (
    BITS,
    CATEGORICAL,
    FEATURES,
    SEVERAL,
    Problem,
    network,
    steep,
)
from tests.estimators.every_outcome import EveryOutcome

SETTINGS = GradientSettings(precision=0.005, draws=256)
FEW = GradientSettings(precision=0.02, draws=64)

SHIFTS = (0.0, 1.5)
"""Of the scores of two batches, whose gradients are far apart."""


class TinyModel(nn.Module):
    """Scores from a parameter, a decoder of another, and a cost of the contract tests.

    A batch is how many rows it has, all alike, and what is added to the first score.
    """

    name = "tiny"
    latent_weight = 1.0
    entropy_weight = 1.0
    activation_size = 1

    def __init__(self, space: Space, constant: float = 0.0) -> None:
        super().__init__()
        self.problem = Problem.random(space)
        self.constant = constant
        self.scores = nn.Parameter(self.problem.scores.clone())
        self.theta = nn.Parameter(self.problem.theta.clone())

    def encode(self, batch: object) -> Encoding:
        rows, shift = cast(tuple[int, float], batch)
        features = torch.ones(rows, FEATURES, dtype=torch.float64)
        context = (self.theta.expand(rows, -1),)
        first = torch.zeros_like(self.scores)
        first.view(-1)[0] = shift
        scores = (self.scores + first).expand(rows, *self.scores.shape) * 1.0
        return Encoding(scores, features, context)

    def cost(self, context: tuple[Tensor, ...], z: Tensor, row: Tensor) -> Tensor:
        return self.constant + network(self.problem.point(z), context[0][row])


def make(name: str, space: Space, **settings: object) -> Estimator:
    torch.manual_seed(0)
    return all_estimators()[name].make(space, features=FEATURES, **settings).double()


def batches_of(model: TinyModel, rows: int = 1) -> list[Gradients]:
    return [Gradients(cast(Task, model), (rows, shift), model.entropy_weight) for shift in SHIFTS]


def measured(
    estimator: Estimator, model: TinyModel, settings: GradientSettings = SETTINGS, seed: int = 0
) -> tuple[dict[str, Quality], Row]:
    batches, streams = batches_of(model), Streams(seed)
    exact = joint([one.exact(estimator) for one in batches])

    def sampler(draw: int, batch: int) -> Sampler:
        return Sampler(streams.generator(f"draw of batch {batch}", draw))

    return measure(batches, estimator, exact, sampler, settings)


def enumerated(estimator: Estimator, model: TinyModel) -> tuple[Tensor, float]:
    """Over every outcome of the draws, of the scores' gradients for both batches: their means
    (2, K), and the trace of the variance, as the mean over the batches."""
    recording = EveryOutcome.recording()
    batches_of(model)[0].estimate(estimator, cast(Sampler, recording))
    rows = 1
    for outcomes in recording.draws:
        rows *= outcomes
    means, variances = [], []
    for many in batches_of(model, rows):
        dealer = EveryOutcome(recording.draws)
        found = many.estimate(estimator, cast(Sampler, dealer))
        drawn = rows * found["scores"].view(rows, -1)
        mean = dealer.weight @ drawn
        means.append(mean)
        variances.append(float(dealer.weight @ (drawn - mean).square().sum(dim=1)))
    return torch.stack(means), sum(variances) / len(variances)


UNBIASED: list[tuple[str, dict[str, object]]] = [
    ("sfe", {"samples": 1}),
    ("sfe", {"samples": 2}),
    ("sfe", {"entropy": "sampled"}),
    ("sfe-ma", {}),
    ("sfe-learned", {}),
    ("sfe-selfcritic", {}),
    ("sfe-second-sample", {}),
    ("rloo", {"samples": 2}),
    ("sum-and-sample", {}),
    ("sum-and-sample", {"k": 2, "samples": 2}),
]


def with_state(estimator: Estimator) -> Estimator:
    """Its moving average, if it has one, has seen costs of 1."""
    if isinstance(average := getattr(estimator, "average", None), MovingAverage):
        average.update(torch.ones(()))
    return estimator


@pytest.mark.parametrize(("name", "settings"), UNBIASED)
def test_mean_and_variance_are_the_enumerated_ones(name: str, settings: dict[str, object]) -> None:
    estimator = with_state(make(name, CATEGORICAL, **settings))
    model = TinyModel(CATEGORICAL)
    found, cost = measured(estimator, model)
    scores = found["scores"]
    means, variance = enumerated(estimator, model)
    exact = torch.stack([one.exact(estimator)["scores"] for one in batches_of(model)])
    torch.testing.assert_close(means, exact)
    assert scores.exact_norm == pytest.approx(float(exact.square().sum() / 2) ** 0.5)
    assert scores.bias_low < 0.01 * scores.exact_norm
    assert abs(scores.variance - variance) < 4 * scores.variance_error
    assert scores.variance_error < 0.15 * variance
    assert cost["decoder_calls"] == estimator.calls_per_row


def test_slopes_and_oracle_calls_are_of_one_estimate(monkeypatch: pytest.MonkeyPatch) -> None:
    real = Gradients.estimate

    def estimate(self: Gradients, estimator: Estimator, sampler: Sampler) -> dict[str, Tensor]:
        self.cost.calls["slopes"] += 3 * self.rows
        self.cost.calls["oracle"] += 2 * self.rows
        return real(self, estimator, sampler)

    monkeypatch.setattr(Gradients, "estimate", estimate)
    _, cost = measured(make("dense", CATEGORICAL), TinyModel(CATEGORICAL))
    assert cost["draws"] > 1
    assert [cost[name] for name in ("slopes", "oracle_calls")] == [3, 2]


@pytest.mark.parametrize(
    ("name", "space"),
    [
        ("dense", CATEGORICAL),
        ("dense", BITS),
        ("sparsemax", CATEGORICAL),
        ("sparsemax", BITS),
        ("sparsemap", SEVERAL),
        ("sparsemap", BITS),
        ("topk-sparsemax", SEVERAL),
        ("topk-sparsemax", BITS),
    ],
)
def test_exact_sums_have_neither_bias_nor_variance(name: str, space: Space) -> None:
    settings = {"k": 4} if name == "topk-sparsemax" else {}
    found, cost = measured(make(name, space, **settings), TinyModel(space))
    for group in GROUPS:
        quality = found[group]
        assert quality.bias_high <= 1e-12 * quality.exact_norm
        assert quality.variance <= 1e-20
    assert cost["draws"] == 3


def test_a_relaxation_is_found_to_be_biased() -> None:
    found, _ = measured(
        make("gumbel", CATEGORICAL, initial=2.0, minimum=2.0), TinyModel(CATEGORICAL)
    )
    scores = found["scores"]
    assert scores.bias_low > 0.1 * scores.exact_norm
    assert scores.cosine < 0.999


def test_scaled_estimates_are_compared_without_their_scale() -> None:
    estimator, model = make("nvil", CATEGORICAL), TinyModel(CATEGORICAL)
    model.cost = lambda context, z, row: steep(model.problem.point(z), context[0][row])  # type: ignore[method-assign]
    estimator.variance.update(torch.tensor(400.0))  # type: ignore[union-attr, operator]
    found, _ = measured(estimator, model)
    scores = found["scores"]
    assert scores.bias_low < 0.02 * scores.exact_norm
    assert abs(scores.cosine - 1) < 0.05


def test_a_constant_blows_up_what_has_no_baseline() -> None:
    variances = {
        (name, constant): measured(make(name, CATEGORICAL), TinyModel(CATEGORICAL, constant), FEW)[
            0
        ]["scores"].variance
        for name in ("sfe", "rloo")
        for constant in (0.0, 100.0)
    }
    assert variances["sfe", 100.0] > 100 * variances["sfe", 0.0]
    assert variances["rloo", 100.0] == pytest.approx(variances["rloo", 0.0], rel=1e-6)


@pytest.mark.parametrize("k", [1, 2, 3])
@pytest.mark.parametrize("samples", [1, 2])
def test_summing_lowers_the_variance_of_the_same_baseline(k: int, samples: int) -> None:
    """As many samples: never above SFE. As many calls: not where the k summed are likely enough.

    As Var ≥ (1 − q(C)) Var_rest, (1 − q(C))² Var_rest / S ≤ Var / (k + S) if
    (1 − q(C)) (k + S) ≤ S.
    """
    model = TinyModel(CATEGORICAL)
    with torch.no_grad():
        model.scores[0, 0] += 3
    rest = 1 - float(model.scores.detach()[0].softmax(dim=0).topk(k).values.sum())
    assert rest * (k + samples) <= samples
    summed = with_state(make("sum-and-sample", CATEGORICAL, k=k, samples=samples))
    found = enumerated(summed, model)[1]
    for draws in (samples, k + samples):
        sampled = with_state(make("sfe-ma", CATEGORICAL, samples=draws))
        assert found < enumerated(sampled, model)[1]


class Gaussian:
    """Stands in for `Gradients`: normal estimates of a mean and deviations that are known."""

    rows = 1

    def __init__(self, mean: list[float], deviation: list[float]) -> None:
        self.mean, self.deviation = torch.tensor([mean, deviation], dtype=torch.float64)
        self.cost = CountedCost(cast(Task, None))

    def estimate(self, estimator: object, sampler: Sampler) -> dict[str, Tensor]:
        noise = torch.randn(3, generator=sampler._generator, dtype=torch.float64)
        nothing = torch.zeros(1, dtype=torch.float64)
        drawn = self.mean + self.deviation * noise
        return {"scores": drawn, "encoder": nothing, "decoder": nothing}


def test_intervals_cover_with_the_stopping_rule_and_several_batches() -> None:
    """‖bias‖² and the variance are the batches' means, whose gradients and biases are far apart."""
    batches = [Gaussian([3.0, 0.5, 4.0], [1.0, 2.0, 0.5]), Gaussian([-1.0, 1.0, 1.0], [1, 1, 1])]
    exact = [torch.tensor([3.0, 0.0, 4.0]), torch.tensor([0.0, 1.0, 0.0])]
    nothing = torch.zeros(1, dtype=torch.float64)
    target = joint([{"scores": e.double(), "encoder": nothing, "decoder": nothing} for e in exact])
    bias, variance, runs = ((0.25 + 2) / 2) ** 0.5, (5.25 + 3) / 2, 60
    rule = GradientSettings(precision=0.055, draws=256)
    covered = near = 0
    counts = set()
    for seed in range(runs):
        streams = Streams(seed)

        def sampler(draw: int, batch: int, streams: Streams = streams) -> Sampler:
            return Sampler(streams.generator(f"draw of batch {batch}", draw))

        found, cost = measure(
            cast(list[Gradients], batches), make("gumbel", CATEGORICAL), target, sampler, rule
        )
        scores = found["scores"]
        covered += scores.bias_low <= bias <= scores.bias_high
        near += abs(scores.variance - variance) <= Z * scores.variance_error
        counts.add(cost["draws"])
    assert len(counts) > 1  # the rule has something to decide
    assert covered / runs > 0.9
    assert near / runs > 0.85


@pytest.mark.parametrize(("name", "draws"), [("gumbel", 32), ("sfe", 8 * 64), ("nvil", 8 * 64)])
def test_a_bias_that_should_not_be_is_looked_into(name: str, draws: int) -> None:
    """The precision is had with the first draws; who says to be unbiased is not left at that."""
    biased = cast(Gradients, Gaussian([3.0, 0.5, 4.0], [1e-3, 1e-3, 1e-3]))
    nothing = torch.zeros(1, dtype=torch.float64)
    exact = torch.tensor([3.0, 0.0, 4.0], dtype=torch.float64)
    target = {"scores": exact, "encoder": nothing, "decoder": nothing}

    def sampler(draw: int, batch: int) -> Sampler:
        return Sampler(Streams(0).generator("draw", draw))

    _, cost = measure([biased], make(name, CATEGORICAL), target, sampler, FEW)
    assert cost["draws"] == draws


def test_an_exact_gradient_in_parts_is_the_whole_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows a few at a time, and the rows' own context with them."""
    task = build_task("bitvector", {"bits": 3, "hidden": 8}, 5, 0, None).double()
    one = Gradients(task, task.training_batch(0, Streams(0)), 1.0)
    dense = Dense.make(task.space)
    whole, seen = one.exact(dense), []
    monkeypatch.setattr(gradients, "SUMMED_AT_ONCE", 16)
    parts = one.exact(dense, seen.append)
    assert seen == pytest.approx([0.4, 0.8, 1.0])
    for group in GROUPS:
        torch.testing.assert_close(parts[group], whole[group], rtol=1e-12, atol=1e-15)


def test_seconds_are_those_of_an_estimate(monkeypatch: pytest.MonkeyPatch) -> None:
    """By a clock that ticks when it is looked at: once for both batches of a draw."""
    monkeypatch.setattr(gradients.time, "perf_counter", itertools.count().__next__)
    _, cost = measured(make("sfe", CATEGORICAL), TinyModel(CATEGORICAL), FEW)
    assert cost["seconds"] == 1 / 2


@pytest.mark.parametrize("name", ["sfe-ma", "sfe-learned"])
def test_state_is_warm_at_the_parameters_and_free_of_the_measured_batches(
    profile: Profile, name: str
) -> None:
    (item,) = plan(["bitvector"], [name], 1, profile)
    states, errors = [], []
    for batches in (1, 3):
        trainer = Trainer(item.cell)
        trainer.task.double()
        trainer.estimator.double()
        fixed = fixed_batches(trainer, batches)
        warm_up(trainer, 60)
        states.append(trainer.estimator.state_dict())
        encoding = trainer.task.encode(fixed[0].batch)
        with torch.no_grad():
            b = trainer.estimator.baseline(encoding.features)  # type: ignore[operator]
            q = trainer.estimator.distribution(encoding.scores)
            rows = torch.arange(len(b))
            f = trainer.task.cost(encoding.context, q.mode(), rows)  # type: ignore[attr-defined]
        errors.append(float((f - b).square().mean() / f.square().mean()))
    assert all(torch.equal(states[0][key], states[1][key]) for key in states[0])
    assert errors[0] < 0.02
