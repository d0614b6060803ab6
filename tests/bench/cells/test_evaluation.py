"""Evaluation against sums over every assignment."""

import math
from statistics import median_low

import pytest
import torch
from torch import Tensor

from bench.cells import evaluation, step
from bench.cells.evaluation import EvaluationSettings, evaluate, log_evidence
from bench.cells.step import CountedCost
from estimators.base import Estimator
from estimators.mappings import all_bit_vectors
from estimators.registry import all_estimators
from estimators.sampler import Sampler
from estimators.spaces import Categoricals
from tasks.base import Task
from tasks.streams import Streams
from tests.tasks.conftest import make_task

EXACT = EvaluationSettings(batch_size=100)
NO_SAMPLER = Sampler(torch.Generator())


LOG_ASSIGNMENTS = {"ssvae": math.log(10), "signal_game": math.log(6), "bitvector": 4 * math.log(2)}


def make(task: Task, name: str) -> Estimator:
    settings = {"k": 4} if name == "topk-sparsemax" else {}
    return all_estimators()[name].make(task.space, features=task.features, **settings).double()


def by_hand(task: Task, estimator: Estimator, split: str) -> dict[str, float]:
    """Expected cost, entropy and support over all assignments, accuracy at the mode, in a loop."""
    cost = entropy = correct = rows = 0.0
    support: list[int] = []
    for batch in task.evaluation_batches(split, 100, Streams(0)):  # type: ignore[arg-type]
        encoding = task.encode(batch)
        count = len(encoding.scores)
        q = estimator.distribution(encoding.scores)
        every: Tensor = (
            torch.arange(task.space.categories)[:, None]
            if isinstance(task.space, Categoricals)
            else all_bit_vectors(task.space.size, encoding.scores)
        )
        p = q.log_prob(every.expand(count, *every.shape)).exp()
        for index, z in enumerate(every):
            same = z.expand(count, *z.shape)
            cost += float(
                (p[:, index] * task.cost(encoding.context, same, torch.arange(count))).sum()
            )
        entropy -= float(torch.special.xlogy(p, p).sum())
        support += (p > 0).sum(dim=1).tolist()
        if task.chance is not None:
            right = task.correct(encoding, every[p.argmax(dim=1)])
            assert right is not None
            correct += float(right.sum())
        rows += count
    sums = {"cost": cost, "entropy": entropy, "accuracy": correct, "support_mean": sum(support)}
    means = {name: total / rows for name, total in sums.items()}
    return means | {"support_median": median_low(support), "support_max": max(support)}


@pytest.mark.parametrize(
    ("task_name", "name"),
    [
        ("ssvae", "dense"),
        ("ssvae", "sfe"),
        ("ssvae", "gumbel"),
        ("ssvae", "sparsemax"),
        ("ssvae", "sparsemap"),
        ("signal_game", "sparsemax"),
        ("signal_game", "topk-sparsemax"),
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
def test_metrics_are_those_of_q(task_name: str, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Though the decoder takes no more than 70 assignments at once."""
    task = make_task(task_name)
    monkeypatch.setattr(step, "MAX_ACTIVATION", 70 * task.activation_size)
    estimator = make(task, name)
    found = evaluate(task, estimator, CountedCost(task), EXACT, "validation", Streams(0))
    wanted = by_hand(task, estimator, "validation")
    rate = LOG_ASSIGNMENTS[task_name] - wanted["entropy"]
    assert found["loss"] == pytest.approx(
        wanted["cost"] - task.entropy_weight * wanted["entropy"], abs=1e-9
    )
    assert found["expected_cost"] == pytest.approx(wanted["cost"], abs=1e-9)
    assert found["entropy"] == pytest.approx(wanted["entropy"], abs=1e-9)
    for name in ("support_mean", "support_median", "support_max"):
        assert found[name] == pytest.approx(wanted[name])
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
def test_each_batch_has_random_numbers_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    seeds: list[int] = []

    def noted(generator: torch.Generator) -> Sampler:
        seeds.append(generator.initial_seed())
        return Sampler(generator)

    monkeypatch.setattr(evaluation, "Sampler", noted)
    monkeypatch.setattr(evaluation, "_NLL_NUMBERS", 100 * 16 * 4)
    task = make_task("bitvector")
    evaluate(task, make(task, "sfe"), CountedCost(task), EXACT, "test", Streams(0), True)
    assert len(set(seeds)) == len(seeds) == 5 + 5


@torch.no_grad()
def test_sampled_expectation_is_close_to_the_summed_one() -> None:
    task = make_task("bitvector")
    estimator = make(task, "sfe")
    rows, results = len(task.part("validation").inputs), []
    sampled = EvaluationSettings(max_summed=1, samples=500)
    for settings, calls in ((EXACT, task.space.count), (sampled, 500)):
        cost = CountedCost(task)
        found = evaluate(task, estimator, cost, settings, "validation", Streams(0))
        assert cost.calls["evaluation"] == calls * rows
        results.append(found["elbo"])
    assert results[0] != results[1]
    assert results[0] == pytest.approx(results[1], rel=1e-3)


@torch.no_grad()
def test_a_support_too_large_to_list_is_counted_all_the_same() -> None:
    task = make_task("bitvector", bits=40)
    estimator = make(task, "sfe")
    settings = EvaluationSettings(samples=1, nll_samples=2, nll_images=1)
    found = evaluate(task, estimator, CountedCost(task), settings, "validation", Streams(0))
    assert found["support_mean"] == found["support_max"] == 2**40


@torch.no_grad()
def test_a_small_support_among_many_categories_is_summed_over() -> None:
    """Sparsemax of a vocabulary that is too large to sum over, were all of it in the support."""
    task = make_task("signal_game", vocabulary=40)
    settings = EvaluationSettings(max_summed=39)
    task.get_parameter("to_scores.weight").mul_(100)
    estimator = make(task, "sparsemax")
    found, again = (
        evaluate(task, estimator, CountedCost(task), settings, "validation", Streams(seed))
        for seed in range(2)
    )
    assert 1 < (found["support_max"] or 0) <= 39
    assert found["loss"] == again["loss"]  # nothing was sampled
    just = EvaluationSettings(max_summed=int(found["support_max"] or 0))
    again = evaluate(task, estimator, CountedCost(task), just, "validation", Streams(2))
    assert found["loss"] == again["loss"]


@torch.no_grad()
def test_the_likelihood_is_that_of_as_many_images_as_were_asked_for() -> None:
    task = make_task("bitvector")
    estimator = make(task, "sfe")
    settings = EvaluationSettings(nll_images=7)
    found = evaluate(task, estimator, CountedCost(task), settings, "test", Streams(0), True)
    encoding = task.encode(task.part("test").inputs[:7])
    q = task.space.plain(encoding.scores)
    log_p, _ = log_evidence(CountedCost(task), encoding.context, q, NO_SAMPLER, settings)
    assert found["nll"] == pytest.approx(-float(log_p.mean()) / math.log(2) / 64)


@torch.no_grad()
def test_evaluation_counts_its_calls_apart() -> None:
    task = make_task("ssvae")
    counted = CountedCost(task)
    evaluate(task, make(task, "dense"), counted, EXACT, "test", Streams(0), True)
    assert counted.calls["latent"] == 0
    assert counted.calls["evaluation"] == 500 * 10
