"""The likelihood of an evaluation, against sums over every assignment."""

import math
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, Literal, cast

import pytest
import torch
from torch import Tensor

from bench.cells.evaluation import EvaluationSettings, evaluate, log_evidence
from bench.cells.step import CountedCost
from estimators.mappings import all_bit_vectors
from estimators.sampler import Sampler
from estimators.spaces import Categoricals, Space, Subsets
from estimators.spaces.distribution import Distribution, FiniteDistribution
from tasks.base import Context, Task
from tasks.streams import Streams
from tests.bench.cells.test_evaluation import EXACT, NO_SAMPLER, make
from tests.bench.unlisted import Unlisted
from tests.estimators.contract import Problem, network
from tests.estimators.every_outcome import EveryOutcome
from tests.tasks.conftest import make_task


@torch.no_grad()
def test_the_likelihood_is_summed_over_all_bit_vectors() -> None:
    task = make_task("bitvector", bits=10)
    encoding = task.encode(task.training_batch(0, Streams(0)))
    q = task.space.plain(encoding.scores)
    sampler = Sampler(torch.Generator().manual_seed(0))
    found, effective = log_evidence(CountedCost(task), encoding.context, q, sampler, EXACT)
    z = all_bit_vectors(10, encoding.scores)
    for row in range(len(found)):
        joint = -task.cost(encoding.context, z, torch.full((len(z),), row)) - 10 * math.log(2)
        torch.testing.assert_close(found[row], joint.logsumexp(dim=0))
    assert (effective == 2**10).all()


@pytest.mark.parametrize("name", ["sfe", "sparsemax"])
@torch.no_grad()
def test_the_likelihood_is_summed_over_all_categories(name: str) -> None:
    """Also those that a sparse q gives nothing, and however few may be summed over."""
    task = make_task("signal_game")
    task.pixels = 3
    estimator, settings = make(task, name), EvaluationSettings(nll_max_summed=1, nll_samples=2)
    found = evaluate(task, estimator, CountedCost(task), settings, "test", Streams(0), True)
    (batch,) = task.evaluation_batches("test", 10_000, Streams(0))
    context = task.encode(batch).context
    rows = torch.arange(len(context[1]))
    costs = [
        task.cost(context, torch.full_like(rows, z)[:, None], rows) for z in range(task.space.count)
    ]
    nats = -((-torch.stack(costs)).exp().mean(dim=0)).log()
    assert found["nll"] == pytest.approx(float(nats.mean()) / (3 * math.log(2)))
    assert found["nll_effective_samples"] == task.space.count


BITS, CATEGORICALS, SUBSETS = "bitvector", "categoricals", "subsets"
EVIDENCE = [
    *((BITS, name) for name in ("sfe", "sparsemap", "sparsemap-budget", "topk-sparsemax")),
    *(
        (others, name)
        for others in (CATEGORICALS, SUBSETS)
        for name in ("sfe", "sparsemap", "topk-sparsemax")
    ),
]
OTHERS: dict[str, Space] = {CATEGORICALS: Categoricals(2, 3), SUBSETS: Subsets(1, 4, 2)}


def with_a_smooth_cost(name: str) -> Task:
    """What evaluation may know of a task with such a latent variable."""
    space = OTHERS[name]

    def cost(context: Context, z: Tensor, row: Tensor) -> Tensor:
        return network(space.point(z, torch.float64).flatten(1), context[0][row])

    given = {"activation_size": 1, "prior_in_cost": False, "prior_is_q": False, "features": 0}
    return cast(Task, SimpleNamespace(name=name, space=space, cost=cost, **given))


def an_image(name: str) -> tuple[Task, Context, Tensor]:
    """A task, and one row of its context and scores."""
    if name in OTHERS:
        problem = Problem.random(OTHERS[name])
        return with_a_smooth_cost(name), (problem.theta[None],), problem.scores[None]
    task = make_task("bitvector", bits=3)
    encoding = task.encode(task.training_batch(0, Streams(0)))
    return task, (encoding.context[0][:1],), encoding.scores[:1]


def mean_estimate(
    task_name: str,
    name: str,
    scale: float,
    settings: EvaluationSettings,
    seen: Callable[[Distribution], Distribution] = lambda q: q,
) -> tuple[Tensor, ...]:
    """Of an image: log of the mean estimate of p(x), over every outcome of its draws; log p(x) by
    enumeration; log of the support's part of it.

    Args:
        seen: what the estimate is to make of q.
    """
    task, context, scores = an_image(task_name)
    estimator, scores = make(task, name), scale * scores
    space, plain = task.space, task.space.plain(scores)
    exact, _ = log_evidence(CountedCost(task), context, plain, NO_SAMPLER, EXACT)
    z, row = space.every(scores), torch.zeros(space.count, dtype=torch.int64)
    by_hand = (-task.cost(context, z, row) - math.log(space.count)).logsumexp(dim=0)
    torch.testing.assert_close(exact[0], by_hand)

    def estimate(sampler: EveryOutcome, rows: int) -> Tensor:
        q = seen(estimator.distribution(scores.expand(rows, *space.scores_shape)))
        every = (context[0].expand(rows, -1),)
        return log_evidence(CountedCost(task), every, q, sampler, settings)[0]

    recording = EveryOutcome.recording()
    estimate(recording, 1)
    dealer = EveryOutcome(recording.draws)
    estimates = estimate(dealer, math.prod(recording.draws))
    mean = (dealer.weight.log() + estimates).logsumexp(dim=0)
    q = estimator.distribution(scores)
    assert isinstance(q, FiniteDistribution)
    z, row, _ = q.support
    of_support = (-task.cost(context, z, row) - math.log(space.count)).logsumexp(dim=0)
    return mean, exact[0], of_support


@pytest.mark.parametrize(("task", "name"), EVIDENCE)
@pytest.mark.parametrize("scale", [1.0, 20.0])
@torch.no_grad()
def test_importance_sampling_is_unbiased_whatever_q_is(task: str, name: str, scale: float) -> None:
    """An odd number of samples has one left over, which is not drawn. Subsets have samples of
    three kinds."""
    samples = 5 if task == SUBSETS else 3
    settings = EvaluationSettings(nll_max_summed=1, nll_samples=samples)
    mean, exact, _ = mean_estimate(task, name, scale, settings)
    torch.testing.assert_close(mean, exact)


@pytest.mark.parametrize("task", [BITS, CATEGORICALS])
@torch.no_grad()
def test_what_has_no_support_to_list_is_sampled(task: str) -> None:
    """Though there would be few enough to sum over."""
    settings = EvaluationSettings(nll_samples=2)
    mean, exact, _ = mean_estimate(task, "sfe", 1.0, settings, Unlisted)
    torch.testing.assert_close(mean, exact)


@torch.no_grad()
def test_a_support_that_is_not_known_is_in_no_column(monkeypatch: pytest.MonkeyPatch) -> None:
    task = make_task("bitvector")
    estimator = make(task, "sfe")
    listed = evaluate(task, estimator, CountedCost(task), EXACT, "validation", Streams(0))
    plain = estimator.distribution
    monkeypatch.setattr(estimator, "distribution", lambda scores: Unlisted(plain(scores)))
    settings, cost = EvaluationSettings(samples=500), CountedCost(task)
    found = evaluate(task, estimator, cost, settings, "validation", Streams(0))
    assert [found[f"support_{which}"] for which in ("mean", "median", "max")] == [None] * 3
    assert cost.calls["evaluation"] == 500 * len(task.part("validation").inputs)
    assert found["entropy"] == listed["entropy"]
    assert found["elbo"] == pytest.approx(listed["elbo"], rel=1e-3)


@pytest.mark.parametrize("how", [{}, {"nll_max_summed": 1}, {"nll_as": "published"}], ids=str)
@pytest.mark.parametrize("name", ["sfe", "sparsemap"])
@torch.no_grad()
def test_a_prior_in_the_cost_is_counted_once(
    name: str, how: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A uniform one: all stays as it is, but for the rate, which is in the cost."""
    task, settings = make_task("bitvector"), EvaluationSettings(nll_samples=4, **how)
    estimator, plain = make(task, name), task.cost
    beside = evaluate(task, estimator, CountedCost(task), settings, "test", Streams(0), True)
    log_prior = -task.space.log_assignments
    monkeypatch.setattr(task, "cost", lambda *given: plain(*given) - log_prior)
    monkeypatch.setattr(task, "prior_in_cost", True)
    inside = evaluate(task, estimator, CountedCost(task), settings, "test", Streams(0), True)
    for column in ("elbo", "nll", "nll_effective_samples", "entropy"):
        assert inside[column] == pytest.approx(beside[column], rel=1e-9)
    assert (inside["rate"], inside["distortion"]) == (None, None)


@pytest.mark.parametrize(("task", "name"), EVIDENCE)
@pytest.mark.parametrize("scale", [1.0, 20.0])
@torch.no_grad()
def test_the_published_likelihood_counts_a_sparse_support_twice(
    task: str, name: str, scale: float
) -> None:
    """And nothing of what only fills a row up."""
    settings = EvaluationSettings(nll_as="published", nll_samples=2)
    mean, exact, of_support = mean_estimate(task, name, scale, settings)
    expected = exact if name == "sfe" else torch.logaddexp(exact, of_support)
    torch.testing.assert_close(mean, expected)


@pytest.mark.parametrize("task", [BITS, CATEGORICALS])
@torch.no_grad()
def test_the_bound_has_samples_of_q_alone(task: str) -> None:
    """The mean of p(x, z) / q(z) is p(x), however few z there are; of its log, less."""
    settings = EvaluationSettings(nll_as="bound", nll_samples=2)
    mean, exact, _ = mean_estimate(task, "sfe", 1.0, settings)
    torch.testing.assert_close(mean, exact)


@torch.no_grad()
def test_importance_sampling_comes_close_with_many_samples() -> None:
    task = make_task("bitvector", bits=4)
    encoding = task.encode(task.training_batch(0, Streams(0)))
    q = task.space.plain(encoding.scores)
    sampler = Sampler(torch.Generator().manual_seed(0))
    counted = CountedCost(task)
    exact, _ = log_evidence(counted, encoding.context, q, sampler, EXACT)
    settings = EvaluationSettings(nll_max_summed=1, nll_samples=20_000)
    found, effective = log_evidence(counted, encoding.context, q, sampler, settings)
    assert (effective > 500).all()
    assert (effective < 20_000).all()
    # The relative error of the estimate of p(x) is about 1 / √(effective samples).
    assert ((found - exact).abs() < 5 / effective.sqrt()).all()


@pytest.mark.parametrize("nll_as", ["corrected", "published", "bound"])
@torch.no_grad()
def test_effective_samples_are_those_of_the_weights(
    nll_as: Literal["corrected", "published", "bound"],
) -> None:
    """(Σw)² / Σw² of w = p(x, z) / the density that z was drawn from."""
    task = make_task("bitvector")
    encoding = task.encode(task.training_batch(0, Streams(0)))
    q, rows = task.space.plain(20 * encoding.scores), len(encoding.scores)
    settings = EvaluationSettings(nll_as=nll_as, nll_max_summed=1, nll_samples=6)
    samplers = [Sampler(torch.Generator().manual_seed(0)) for _ in range(2)]
    _, found = log_evidence(CountedCost(task), encoding.context, q, samplers[0], settings)
    if nll_as != "corrected":
        z = q.sample(samplers[1], 6)
        density = q.log_prob(z).exp()
    else:
        clipped = task.space.plain(q.marginals().clamp(0.05, 0.95).logit())
        z = torch.cat([q.sample(samplers[1], 3), clipped.sample(samplers[1], 3)], dim=1)
        density = (q.log_prob(z).exp() + clipped.log_prob(z).exp()) / 2
    row = torch.arange(rows).repeat_interleave(6)
    costs = task.cost(encoding.context, z.flatten(0, 1), row).view(rows, 6)
    w = (costs.amin(dim=1, keepdim=True) - costs).exp() / density
    torch.testing.assert_close(found, w.sum(dim=1).square() / w.square().sum(dim=1))


@torch.no_grad()
def test_nll_is_in_bits_per_pixel() -> None:
    """A decoder that ignores z and gives all levels the same logit costs log2(levels) a pixel."""
    task = make_task("bitvector")
    for parameter in task.to_levels.parameters():
        parameter.zero_()
    estimator = make(task, "sfe")
    for settings in (EXACT, EvaluationSettings(nll_max_summed=1, nll_samples=64, nll_images=50)):
        found = evaluate(task, estimator, CountedCost(task), settings, "test", Streams(0), True)
        close = 1e-9 if settings is EXACT else 1e-2
        assert found["nll"] == pytest.approx(math.log2(17), abs=close)
