"""Evaluation against sums over every assignment."""

import math

import pytest
import torch
from torch import Tensor

from bench.evaluation import EvaluationSettings, evaluate, log_evidence
from bench.step import CountedCost
from estimators.base import Estimator, Latent
from estimators.distributions import BernoulliBits, SparseBits
from estimators.mappings import all_bit_vectors
from estimators.registry import all_estimators
from estimators.sampler import Sampler
from tasks.base import Task
from tasks.streams import Streams
from tests.tasks.conftest import make_task

EXACT = EvaluationSettings(batch_size=100)


def make(task: Task, name: str) -> Estimator:
    return all_estimators()[name].make(Latent(task.family, task.size, task.features)).double()


def by_hand(task: Task, estimator: Estimator, split: str) -> dict[str, float]:
    """Expected cost and entropy over all assignments, and accuracy at the mode, in a loop."""
    cost = entropy = correct = rows = 0.0
    for batch in task.evaluation_batches(split, 100, Streams(0)):  # type: ignore[arg-type]
        encoding = task.encode(batch)
        count = len(encoding.scores)
        q = estimator.distribution(encoding.scores)
        every: Tensor = (
            torch.arange(task.size)
            if task.family == "categorical"
            else all_bit_vectors(task.size, encoding.scores)
        )
        p = q.log_prob(every.expand(count, *every.shape)).exp()
        for index, z in enumerate(every):
            same = z.expand(count, *z.shape)
            cost += float(
                (p[:, index] * task.cost(encoding.context, same, torch.arange(count))).sum()
            )
        entropy -= float(torch.special.xlogy(p, p).sum())
        if task.chance is not None:
            right = task.correct(encoding, every[p.argmax(dim=1)])
            assert right is not None
            correct += float(right.sum())
        rows += count
    return {"cost": cost / rows, "entropy": entropy / rows, "accuracy": correct / rows}


@pytest.mark.parametrize(
    ("task_name", "name"),
    [
        ("ssvae", "dense"),
        ("ssvae", "sfe"),
        ("ssvae", "gumbel"),
        ("ssvae", "sparsemax"),
        ("signal_game", "sparsemax"),
        ("signal_game", "st-gumbel"),
        ("bitvector", "sfe"),
        ("bitvector", "gumbel"),
        ("bitvector", "sparsemap"),
        ("bitvector", "sparsemap-budget"),
        ("bitvector", "topk-sparsemax"),
        ("bitvector", "sparsemax"),
    ],
)
@torch.no_grad()
def test_metrics_are_those_of_q(task_name: str, name: str) -> None:
    task = make_task(task_name)
    estimator = make(task, name)
    found = evaluate(task, estimator, CountedCost(task), EXACT, "validation", Streams(0))
    wanted = by_hand(task, estimator, "validation")
    rate = task.log_assignments - wanted["entropy"]
    assert found["loss"] == pytest.approx(
        wanted["cost"] - task.entropy_weight * wanted["entropy"], abs=1e-9
    )
    if task.is_likelihood:
        assert found["elbo"] == pytest.approx(-(wanted["cost"] + rate), abs=1e-9)
    else:
        assert found["elbo"] is None
    if task.chance is None:
        assert found["accuracy"] is None
        assert found["rate"] == pytest.approx(rate, abs=1e-9)
        assert found["distortion"] == pytest.approx(wanted["cost"], abs=1e-9)
    else:
        assert found["accuracy"] == pytest.approx(wanted["accuracy"])


@torch.no_grad()
def test_sampled_expectation_is_close_to_the_summed_one() -> None:
    task = make_task("bitvector")
    estimator = make(task, "sfe")
    sampled = EvaluationSettings(max_summed=1, samples=500)
    results = [
        evaluate(task, estimator, CountedCost(task), settings, "validation", Streams(0))["elbo"]
        for settings in (EXACT, sampled)
    ]
    assert results[0] != results[1]
    assert results[0] == pytest.approx(results[1], rel=1e-3)


@torch.no_grad()
def test_evaluation_counts_its_calls_apart() -> None:
    task = make_task("ssvae")
    counted = CountedCost(task)
    evaluate(task, make(task, "dense"), counted, EXACT, "test", Streams(0))
    assert counted.calls["latent"] == 0
    assert counted.calls["evaluation"] == 500 * 10


@pytest.mark.parametrize("name", ["sfe", "sparsemap", "sparsemap-budget", "topk-sparsemax"])
@pytest.mark.parametrize("size", [4, 10])
@torch.no_grad()
def test_importance_sampling_agrees_with_the_exact_likelihood(name: str, size: int) -> None:
    task = make_task("bitvector", bits=size)
    # A posterior that some of the samples hit: the bound below is on a mean of many.
    for parameter in task.decoder.parameters():
        parameter.mul_(0.5)
    estimator = make(task, name)
    encoding = task.encode(task.training_batch(0, Streams(0)))
    q = estimator.distribution(3 * encoding.scores)
    assert isinstance(q, BernoulliBits | SparseBits)
    sampler = Sampler(torch.Generator().manual_seed(0))
    counted = CountedCost(task)
    exact, all_of_them = log_evidence(counted, encoding.context, q, sampler, EXACT)
    z = all_bit_vectors(size, encoding.scores)
    row = torch.zeros(len(z), dtype=torch.int64)
    first = (-task.cost(encoding.context, z, row)).logsumexp(dim=0) - size * math.log(2)
    torch.testing.assert_close(exact[0], first)
    assert (all_of_them == 2**size).all()

    samples = 10_000
    settings = EvaluationSettings(nll_max_summed=1, nll_samples=samples)
    found, effective = log_evidence(counted, encoding.context, q, sampler, settings)
    assert (effective > 50).all()
    assert (effective < samples).all()
    # The relative error of the estimate of p(x) is about √(1/effective − 1/samples).
    assert ((found - exact).abs() < 5 * (1 / effective - 1 / samples).sqrt()).all()


@torch.no_grad()
def test_nll_is_in_bits_per_pixel() -> None:
    """A decoder that ignores z and gives all levels the same logit costs log2(levels) a pixel."""
    task = make_task("bitvector")
    for parameter in task.to_levels.parameters():
        parameter.zero_()
    estimator = make(task, "sfe")
    for settings in (EXACT, EvaluationSettings(nll_max_summed=1, nll_samples=64, nll_images=50)):
        found = evaluate(task, estimator, CountedCost(task), settings, "test", Streams(0))
        close = 1e-9 if settings is EXACT else 1e-2
        assert found["nll"] == pytest.approx(math.log2(17), abs=close)
