"""The VAE with subsets: pixels, likelihood, and bounds by sums over every assignment."""

import math

import pytest
import torch
from pydantic import ValidationError
from torch.nn import functional as F

from bench.cells.evaluation import EvaluationSettings, evaluate
from bench.cells.step import CountedCost
from estimators.registry import all_estimators
from tasks.streams import Streams
from tasks.subset_vae import SubsetVAE
from tests.tasks.conftest import make_task


def test_the_published_widths_and_subsets() -> None:
    published = {"variables": 20, "items": 20, "chosen": 10, "wide": 512, "narrow": 256}
    task = make_task("subset_vae", **published)
    assert [layer.weight.shape[::-1] for layer in [*task.encoder[::2], *task.decoder[::2]]] == [
        (64, 512), (512, 256), (256, 400), (400, 256), (256, 512), (512, 64),
    ]  # fmt: skip
    assert task.space.log_assignments == pytest.approx(20 * math.log(math.comb(20, 10)))
    assert task.encode(task.training_batch(0, Streams(0))).scores.shape == (8, 20, 20)


@torch.no_grad()
def test_the_cost_is_that_of_independent_binary_pixels() -> None:
    task = make_task("subset_vae")
    x = task.training_batch(0, Streams(0))
    z, row = task.space.every(x)[[3, 20]], torch.tensor([5, 1])
    p = task.decoder(z.flatten(1)).sigmoid()
    wanted = F.binary_cross_entropy(p, x[row], reduction="none").sum(dim=1)
    torch.testing.assert_close(task.cost((x,), z, row), wanted)
    image = torch.zeros(2, 64, dtype=x.dtype)
    image[1, 7] = 1  # one pixel is on or off, whatever the others are
    both = (-task.cost((image,), z[:1].expand(2, -1, -1), torch.arange(2))).exp().sum()
    others = torch.cat([1 - p[0, :7], 1 - p[0, 8:]]).prod()
    torch.testing.assert_close(both, others)


def test_pixels_are_binarised_anew_in_training_and_once_for_an_evaluation() -> None:
    task = make_task("subset_vae")
    grey = task.grey(task.part("train").inputs)
    task.batch_size = len(grey)
    order = [Streams(0).shuffled("order", len(grey), len(grey), step) for step in (0, 1)]
    one, two = (task.training_batch(step, Streams(0))[order[step].argsort()] for step in (0, 1))
    assert set(one.unique().tolist()) == {0, 1}
    assert 0.05 < (one != two).double().mean() < 0.5
    mean, expected = torch.stack([one, two]).mean(dim=(0, 1)), grey.mean(dim=0)
    noise = (grey * (1 - grey)).sum(dim=0).sqrt() / (2**0.5 * len(grey))
    assert ((mean - expected).abs() <= 5 * noise + 1e-9).all()
    whole, parts = (
        torch.cat([*task.evaluation_batches("test", size, Streams(0))]) for size in (1000, 7)
    )
    assert torch.equal(whole, parts)


@pytest.mark.parametrize("name", ["dense", "sparsemap"])
@torch.no_grad()
def test_bounds_and_likelihood_are_those_of_sums_over_every_assignment(name: str) -> None:
    task = make_task("subset_vae")
    estimator = all_estimators()[name].make(task.space).double()
    cost, settings = CountedCost(task), EvaluationSettings()
    found = evaluate(task, estimator, cost, settings, "test", Streams(0), True)
    x = torch.cat([*task.evaluation_batches("test", 500, Streams(0))])
    every = task.space.every(x)
    q = estimator.distribution(task.encode(x).scores)
    p = q.log_prob(every.expand(len(x), *every.shape)).exp()
    costs = torch.stack(
        [task.cost((x,), z.expand(len(x), -1, -1), torch.arange(len(x))) for z in every], dim=1
    )
    distortion = float((p * costs).sum(dim=1).mean())
    rate = float((torch.special.xlogy(p, p * len(every))).sum(dim=1).mean())
    nats = float(-(-costs).exp().mean(dim=1).log().mean())
    assert len(every) == math.comb(4, 2) ** 2
    assert found["rate"] == pytest.approx(rate)
    assert found["distortion"] == pytest.approx(distortion)
    assert found["elbo"] == pytest.approx(-rate - distortion)
    assert found["nll"] == pytest.approx(nats / (64 * math.log(2)))
    assert -found["elbo"] > nats


def test_more_chosen_than_there_are_is_refused() -> None:
    with pytest.raises(ValidationError, match="chosen is 7, of 6 items"):
        SubsetVAE.Settings(items=6, chosen=7)
