"""Measured gradient quality against what can be enumerated."""

from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest
import torch
from torch import Tensor, nn

from bench.cells import plan
from bench.gradient_plan import plan_gradients
from bench.gradients import Gradients, GradientSettings, gradient_cell, measure, trained_models
from bench.profiles import Profile
from bench.training import Trainer
from estimators.base import Estimator, Latent
from estimators.registry import all_estimators
from estimators.sampler import Sampler
from estimators.sum_and_sample import SumAndSample
from tasks.base import Encoding, Task
from tasks.streams import Streams
from tests.estimators.contract import BITS, CATEGORICAL, EveryOutcome, Problem, network, steep

SETTINGS = GradientSettings(precision=0.005, draws=4096)
FEW = GradientSettings(precision=0.02, draws=512)


class TinyModel(nn.Module):
    """One row: scores from a parameter, a decoder of another, and a cost of the contract tests."""

    latent_weight = 1.0
    entropy_weight = 1.0
    activation_size = 1

    def __init__(self, latent: Latent, constant: float = 0.0) -> None:
        super().__init__()
        self.problem = Problem.random(latent)
        self.constant = constant
        self.scores = nn.Parameter(self.problem.scores.clone())
        self.theta = nn.Parameter(self.problem.theta.clone())

    def encode(self, batch: object) -> Encoding:
        rows = cast(int, batch)
        features = torch.ones(rows, self.problem.latent.features, dtype=torch.float64)
        context = (self.theta.expand(rows, -1),)
        return Encoding(self.scores.expand(rows, -1) * 1.0, features, context)

    def cost(self, context: tuple[Tensor, ...], z: Tensor, row: Tensor) -> Tensor:
        return self.constant + network(self.problem.point(z), context[0][row])


def make(name: str, latent: Latent, **settings: object) -> Estimator:
    torch.manual_seed(0)
    return all_estimators()[name].make(latent, **settings).double()


def measured(
    estimator: Estimator, model: TinyModel, settings: GradientSettings = SETTINGS
) -> tuple[dict[str, object], dict[str, object]]:
    gradients = Gradients(cast(Task, model), 1, model.entropy_weight)
    exact = gradients.exact(estimator)

    def sampler(number: int) -> Sampler:
        return Sampler(Streams(0).generator("draw", number))

    found, cost = measure(gradients, estimator, exact, sampler, settings)
    return cast(dict[str, object], found), cost


def enumerated(estimator: Estimator, model: TinyModel) -> tuple[Tensor, float]:
    """Mean and trace of the variance of the scores' gradient, over every outcome of the draws."""
    recording = EveryOutcome.recording()
    gradients = Gradients(cast(Task, model), 1, model.entropy_weight)
    gradients.estimate(estimator, cast(Sampler, recording))
    rows = 1
    for outcomes in recording.draws:
        rows *= outcomes
    dealer = EveryOutcome(recording.draws)
    many = Gradients(cast(Task, model), rows, model.entropy_weight)
    drawn = rows * many.estimate(estimator, cast(Sampler, dealer))["scores"].view(rows, -1)
    mean = dealer.weight @ drawn
    return mean, float(dealer.weight @ (drawn - mean).square().sum(dim=1))


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("sfe", {"samples": 1}),
        ("sfe", {"samples": 2}),
        ("sfe-selfcritic", {}),
        ("sfe-second-sample", {}),
        ("rloo", {"samples": 2}),
        ("sum-and-sample", {}),
    ],
)
def test_mean_and_variance_are_the_enumerated_ones(name: str, settings: dict[str, int]) -> None:
    estimator, model = make(name, CATEGORICAL, **settings), TinyModel(CATEGORICAL)
    found, cost = measured(estimator, model)
    scores = cast(SimpleNamespace, found["scores"])
    mean, variance = enumerated(estimator, model)
    exact = Gradients(cast(Task, model), 1, 1.0).exact(estimator)["scores"]
    torch.testing.assert_close(mean, exact)
    assert scores.bias_low == 0 or scores.bias_low < 0.01 * scores.exact_norm
    assert abs(scores.variance - variance) < 4 * scores.variance_error
    assert cost["decoder_calls"] == estimator.calls_per_row


@pytest.mark.parametrize(
    ("name", "latent"),
    [
        ("dense", CATEGORICAL),
        ("dense", BITS),
        ("sparsemax", CATEGORICAL),
        ("sparsemax", BITS),
        ("sparsemap", BITS),
        ("topk-sparsemax", BITS),
    ],
)
def test_exact_sums_have_neither_bias_nor_variance(name: str, latent: Latent) -> None:
    settings = {"k": 4} if name == "topk-sparsemax" else {}
    found, cost = measured(make(name, latent, **settings), TinyModel(latent))
    for group in ("scores", "encoder", "decoder"):
        quality = cast(SimpleNamespace, found[group])
        assert quality.bias_high <= 1e-12 * quality.exact_norm
        assert quality.variance <= 1e-20
    assert cost["draws"] == 4


def test_a_relaxation_is_found_to_be_biased() -> None:
    found, _ = measured(
        make("gumbel", CATEGORICAL, initial=2.0, minimum=2.0), TinyModel(CATEGORICAL)
    )
    scores = cast(SimpleNamespace, found["scores"])
    assert scores.bias_low > 0.1 * scores.exact_norm
    assert scores.cosine < 0.999


def test_scaled_estimates_are_compared_without_their_scale() -> None:
    estimator, model = make("nvil", CATEGORICAL), TinyModel(CATEGORICAL)
    model.cost = lambda context, z, row: steep(model.problem.point(z), context[0][row])  # type: ignore[method-assign]
    estimator.variance.update(torch.tensor(400.0))  # type: ignore[union-attr, operator]
    found, _ = measured(estimator, model)
    scores = cast(SimpleNamespace, found["scores"])
    assert scores.bias_low < 0.02 * scores.exact_norm
    assert abs(scores.cosine - 1) < 0.05


def test_a_constant_blows_up_what_has_no_baseline() -> None:
    variances = {
        (name, constant): cast(
            SimpleNamespace,
            measured(make(name, CATEGORICAL), TinyModel(CATEGORICAL, constant), FEW)[0]["scores"],
        ).variance
        for name in ("sfe", "rloo")
        for constant in (0.0, 100.0)
    }
    assert variances["sfe", 100.0] > 100 * variances["sfe", 0.0]
    assert variances["rloo", 100.0] == pytest.approx(variances["rloo", 0.0], rel=1e-6)


def test_summing_lowers_the_variance_of_the_same_baseline() -> None:
    """Sum-and-sample against as many plain samples, with the same baseline of nothing."""
    model = TinyModel(CATEGORICAL)
    summed = enumerated(SumAndSample.make(CATEGORICAL).double(), model)[1]
    sampled = enumerated(make("sfe", CATEGORICAL, samples=2), model)[1]
    assert summed < sampled


def test_cells_are_the_knob_s_values_and_rows_the_groups(profile: Profile, tmp_path: Path) -> None:
    quick = profile.model_copy(
        update={"gradients": {"checkpoints": [0.0, 1.0], "warm_up": 3, "draws": 64}}
    )
    models = plan(["bitvector"], ["dense"], 1, quick)
    grid = plan(["bitvector"], ["sfe", "sum-and-sample"], 1, quick)
    planned = plan_gradients(grid, models, quick)
    samples = [item.cell.estimator_settings.get("samples") for item in planned if not item.skip]
    assert samples == [1, 4, 16]
    assert [item.skip for item in planned if item.skip] == [
        "sum-and-sample takes categorical latents only"
    ]
    assert len({item.cell.key for item in planned}) == 4
    assert [item.cell.name for item in planned[:2]] == [
        "bitvector/sfe/0 samples=1", "bitvector/sfe/0 samples=4"
    ]  # fmt: skip
    rows = list(gradient_cell(planned[0].cell, tmp_path))
    assert [(row["share"], row["group"]) for row in rows] == [
        (share, group) for share in (0.0, 1.0) for group in ("scores", "encoder", "decoder")
    ]
    assert rows[0]["step"] == 0 < rows[-1]["step"]
    assert rows[0]["objective_distance"] == 0
    again = list(gradient_cell(planned[0].cell, tmp_path))  # the models come from the folder
    assert [repr(row | {"seconds": 0}) for row in rows] == [
        repr(row | {"seconds": 0}) for row in again
    ]


def test_models_are_those_of_the_training(profile: Profile, tmp_path: Path) -> None:
    quick = profile.model_copy(update={"gradients": {"checkpoints": [0.5]}})
    models = plan(["bitvector"], ["dense"], 1, quick)
    (item, *_) = plan_gradients(plan(["bitvector"], ["sfe"], 1, quick), models, quick)
    ((step, state),) = trained_models(item.cell, tmp_path).values()
    trainer = Trainer(models[0].cell)
    trainer.train(step)
    assert step == round(trainer.steps / 2)
    for name, value in trainer.task.state_dict().items():
        assert torch.equal(value, state[name])
