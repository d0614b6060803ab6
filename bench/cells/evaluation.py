"""One evaluation for all estimators: on hard z, under the distribution that each of them trains.

Accuracy is that of the mode of q, as is its agreement with a truth that is known. E_q[f] is summed
over the support where that is small enough, else averaged over a stated number of samples.
−log p(x) is summed over every z where that is feasible, else estimated by importance sampling from
one proposal for all. A q that is no list of assignments, of a mixed variable, is evaluated on its
own samples, and once more with each of them rounded to the nearest assignment, as the q over these
that it then is.
"""

import math
from collections import defaultdict
from typing import Literal

import torch
from pydantic import BaseModel, Field
from torch import Tensor

from bench.cells.step import CountedCost, NotFiniteError
from estimators.base import Estimator
from estimators.distributions.mixed import MixedDistribution
from estimators.distributions.sparse import SparseDistribution
from estimators.mappings.bits import MAX_ENUMERATED_BITS
from estimators.sampler import Sampler
from estimators.spaces import Factorised, Space
from estimators.spaces.distribution import Distribution, FiniteDistribution
from tasks.base import Context, Split, Task
from tasks.streams import Streams

CLIP = 0.05
"""The bits of the importance proposal are on with a probability in [CLIP, 1 − CLIP]; of other
variables and structures, 2 CLIP is the share of the uniform distribution in it."""

_NLL_NUMBERS = 2**22
"""Numbers in the assignments of one batch that p(x) is computed for."""


class EvaluationSettings(BaseModel, extra="forbid", frozen=True):
    """How to evaluate; the same for all estimators of a table."""

    batch_size: int = Field(500, ge=1, description="rows encoded at once")
    max_summed: int = Field(
        256, ge=1, le=2**MAX_ENUMERATED_BITS, description="largest support that E_q[f] sums over"
    )
    samples: int = Field(16, ge=1, description="samples of z for E_q[f] beyond that")
    nll_max_summed: int = Field(
        1024, ge=1, le=2**MAX_ENUMERATED_BITS, description="most z that p(x) is summed over"
    )
    nll_samples: int = Field(1024, ge=2, description="importance samples for p(x) beyond that")
    nll_images: int = Field(10_000, ge=1, description="test images that p(x) is computed for")
    nll_as: Literal["corrected", "published", "bound"] = Field(
        "corrected",
        description="one proposal for all, as published, or a bound from q's samples; "
        "docs/PROTOCOL.md",
    )


@torch.no_grad()
def evaluate(
    task: Task,
    estimator: Estimator,
    cost: CountedCost,
    settings: EvaluationSettings,
    split: Split,
    streams: Streams,
    log_evidence_too: bool = False,
) -> dict[str, float | None]:
    """Metrics of a split, named as the columns of the results table.

    The same seed gives every estimator the same rows, noise and number of samples. −log p(x), the
    one that takes long, is left out unless asked for.

    Raises:
        NotFiniteError: the scores are not finite.
    """
    counted = cost.counting("evaluation")
    columns: dict[str, list[Tensor]] = defaultdict(list)
    modes: list[Tensor] = []
    truths: list[Tensor] = []
    for number, batch in enumerate(task.evaluation_batches(split, settings.batch_size, streams)):
        encoding = task.encode(batch)
        if not encoding.scores.isfinite().all():
            raise NotFiniteError("the scores are not finite")
        q = estimator.distribution(encoding.scores)
        sampler = Sampler(streams.generator(f"{split} samples", number))
        columns["cost"].append(expected_cost(counted, encoding.context, q, sampler, settings))
        columns["entropy"].append(q.entropy())
        mode, truth = q.mode(), task.truth(encoding)
        if truth is not None:
            modes.append(mode)
            truths.append(truth)
        correct = task.correct(encoding, mode)
        if correct is not None:
            columns["correct"].append(correct.double())
        if isinstance(q, FiniteDistribution):
            columns["support"].append(q.support_sizes)
        if q.unsolved is not None:
            columns["unsolved"].append(q.unsolved)
        if isinstance(q, MixedDistribution):
            hard = q.rounded()
            found = expected_cost(counted, encoding.context, hard, sampler, settings)
            columns["rounded_cost"].append(found)
            columns["rounded_entropy"].append(hard.entropy())
            columns["on_vertex"].append(q.on_vertex())
            sizes = q.face_sizes(q.sample(sampler, settings.samples)).flatten(1)
            columns["on_edge"].append((sizes == 2).double().mean(dim=1))
            columns["face_vertices"].append(sizes.double().mean(dim=1))
    rows = {name: torch.cat(parts).double() for name, parts in columns.items()}
    metrics = _metrics(task, rows, q.log_volume)
    metrics["agreement"] = task.agreement(torch.cat(modes), torch.cat(truths)) if modes else None
    if task.pixels is not None and log_evidence_too:
        metrics |= _negative_log_likelihood(task, estimator, counted, settings, split, streams)
    return metrics


def _metrics(task: Task, rows: dict[str, Tensor], log_volume: float) -> dict[str, float | None]:
    """Columns of the results table from values of each row, (rows of the split,)."""
    mean = {name: float(values.mean()) for name, values in rows.items()}
    cost, entropy, support = mean["cost"], mean["entropy"], rows.get("support")
    loss, elbo = _bounds(task, cost, entropy, log_volume)
    hard: tuple[float | None, float | None] = (None, None)
    if "on_vertex" in mean:
        among = task.space.log_assignments
        hard = _bounds(task, mean["rounded_cost"], mean["rounded_entropy"], among)
    has_rate = task.pixels is not None and not (task.prior_in_cost or task.prior_is_q)
    return {
        "expected_cost": cost,
        "entropy": entropy,
        "accuracy": mean.get("correct"),
        "loss": loss,
        "elbo": elbo,
        "rate": log_volume - entropy if has_rate else None,
        "distortion": cost if has_rate else None,
        "support_mean": mean.get("support"),
        "support_median": None if support is None else float(support.median()),
        "support_max": None if support is None else float(support.max()),
        "unsolved": mean.get("unsolved"),
        "on_vertex": mean.get("on_vertex"),
        "on_edge": mean.get("on_edge"),
        "face_vertices": mean.get("face_vertices"),
        "rounded_loss": hard[0],
        "rounded_elbo": hard[1],
    }


def _bounds(
    task: Task, cost: float, entropy: float, log_volume: float
) -> tuple[float, float | None]:
    """The objective, and the ELBO where there is one."""
    # A prior that the cost has in it leaves the entropy alone, and a rate that is not known apart.
    rate = -entropy if task.prior_in_cost else log_volume - entropy
    if task.prior_is_q:
        rate = 0.0
    return cost - task.entropy_weight * entropy, -(cost + rate) if task.is_likelihood else None


def expected_cost(
    cost: CountedCost,
    context: Context,
    q: Distribution,
    sampler: Sampler,
    settings: EvaluationSettings,
) -> Tensor:
    """E_q[f(z)] for each row, (B,), in nats: exact where the task knows how, or q has few z."""
    if isinstance(q, FiniteDistribution):
        exact = cost.task.exact_cost(context, q)
        if exact is not None:
            return exact
    if isinstance(q, FiniteDistribution) and q.support_sizes.max() <= settings.max_summed:
        z, row, probability = q.support
        terms = probability * in_chunks(cost, context, z, row)
        return terms.new_zeros(len(q.scores)).index_add(0, row, terms)
    z = q.sample(sampler, settings.samples)
    return _rectangular(cost, context, z).mean(dim=1)


def log_evidence(
    cost: CountedCost,
    context: Context,
    q: Distribution,
    sampler: Sampler,
    settings: EvaluationSettings,
) -> tuple[Tensor, Tensor]:
    """log p(x) in nats and the effective number of samples, (B,) each.

    p(z) is uniform, or in the cost. Summed over every z where these are few, or the categories of
    a single variable (every one then counts as a sample).
    Else importance sampling with half the samples from q and half from independent variables with
    q's marginals, smoothed by CLIP, or, of structures, from the plain q of the same scores and a
    few from the uniform one. All are weighted by the mixture's density, which is positive for
    every z, so that the estimate of p(x) is unbiased whatever q is. A q that is no list of
    assignments is sampled from alone; any q is where the settings want the bound of that many
    samples, whose mean is below log p(x). As published, if the settings say so.
    """
    space = cost.task.space
    if settings.nll_as == "bound" or not isinstance(q, FiniteDistribution):
        z = q.sample(sampler, settings.nll_samples)
        return _importance(_log_joint(cost, context, z, q, q.log_volume) - q.log_prob(z))
    if _is_summed(space, settings):
        every = space.every(q.scores)
        z = every.expand(len(q.scores), *every.shape)
        log_p = _log_joint(cost, context, z, q, space.log_assignments).logsumexp(dim=1)
        return log_p, torch.full_like(log_p, len(every))
    if settings.nll_as == "published":
        return published_log_evidence(cost, context, q, sampler, settings.nll_samples)
    half = settings.nll_samples // 2
    others = _others(space, q, half)
    z = torch.cat([p.sample(sampler, count) for p, count in [(q, half), *others]], dim=1)
    log_mixture = q.log_prob(z)
    for other, count in others:
        log_mixture = torch.logaddexp(log_mixture, other.log_prob(z) + math.log(count / half))
    log_joint = _log_joint(cost, context, z, q, space.log_assignments)
    return _importance(log_joint - (log_mixture - math.log(2)))


def _others(space: Space, q: FiniteDistribution, half: int) -> list[tuple[Distribution, int]]:
    """What half of the importance samples come from beside q, and how many of them."""
    if isinstance(space, Factorised):
        return [(space.plain(space.smoothed(q.marginals(), 2 * CLIP)), half)]
    uniform = max(1, round(2 * CLIP * half))
    others = [(q.scores, half - uniform), (torch.zeros_like(q.scores), uniform)]
    return [(space.plain(scores), count) for scores, count in others if count]


def _is_summed(space: Space, settings: EvaluationSettings) -> bool:
    """Whether p(x) is summed over every z."""
    if space.single:
        return True
    return settings.nll_as == "corrected" and space.count <= settings.nll_max_summed


def _log_joint(
    cost: CountedCost, context: Context, z: Tensor, q: Distribution, log_volume: float
) -> Tensor:
    """log p(x, z) for z (B, M, ...), (B, M)."""
    log_prior: Tensor | float = 0.0 if cost.task.prior_in_cost else -log_volume
    if cost.task.prior_is_q:
        log_prior = q.log_prob(z)
    return -_rectangular(cost, context, z) + log_prior


def _importance(log_weight: Tensor) -> tuple[Tensor, Tensor]:
    """The log of the mean weight and the effective number of samples, from (B, S), (B,) each."""
    log_total = log_weight.logsumexp(dim=1)
    effective = (2 * log_total - (2 * log_weight).logsumexp(dim=1)).exp()
    return log_total - math.log(log_weight.shape[1]), effective


def published_log_evidence(
    cost: CountedCost, context: Context, q: FiniteDistribution, sampler: Sampler, samples: int
) -> tuple[Tensor, Tensor]:
    """log p(x) as the public code of Correia et al. 2020 estimates it, to be compared with.

    Independent variables: importance sampling from q. Sparse q: the mass of the support, and on top
    of it the mean of p(x | z) over uniform z from all assignments, which has that mass in it
    already: the estimate of p(x) is too large by up to a factor of two.

    Returns:
        log p(x) in nats and the effective number of terms, (B,) each.
    """
    space = cost.task.space
    if isinstance(q, SparseDistribution):
        of_support = _log_joint(cost, context, q.listed, q, space.log_assignments)
        z = space.plain(torch.zeros_like(q.scores)).sample(sampler, samples)
        # The mean over uniform z is of p(x | z), or of p(x, z) where the prior is no uniform one.
        inside = cost.task.prior_in_cost or cost.task.prior_is_q
        of_samples = _log_joint(cost, context, z, q, 0.0) - math.log(samples)
        of_samples = of_samples + (space.log_assignments if inside else 0.0)
        log_weight = torch.cat([of_support.where(q.positive, -torch.inf), of_samples], dim=1)
    else:
        z = q.sample(sampler, samples)
        log_joint = _log_joint(cost, context, z, q, space.log_assignments)
        log_weight = log_joint - q.log_prob(z) - math.log(samples)
    log_p = log_weight.logsumexp(dim=1)
    return log_p, (2 * log_p - (2 * log_weight).logsumexp(dim=1)).exp()


def _negative_log_likelihood(
    task: Task,
    estimator: Estimator,
    cost: CountedCost,
    settings: EvaluationSettings,
    split: Split,
    streams: Streams,
) -> dict[str, float | None]:
    """Bits per pixel on a split, and the mean effective number of importance samples."""
    assert task.pixels is not None
    few = task.space.single or task.space.count <= settings.nll_max_summed
    looked_at = task.space.count if few and not estimator.own_model else settings.nll_samples
    numbers = looked_at * math.prod(task.space.z_shape)
    batch_size = max(1, _NLL_NUMBERS // numbers)
    nats, effective, of_rounded = [], [], []
    for number, batch in enumerate(task.evaluation_batches(split, batch_size, streams)):
        if number * batch_size >= settings.nll_images:
            break
        encoding = task.encode(batch)
        q = estimator.distribution(encoding.scores)
        sampler = Sampler(streams.generator("importance", number))
        log_p, samples = log_evidence(cost, encoding.context, q, sampler, settings)
        nats.append(-log_p.double())
        effective.append(samples.double())
        if isinstance(q, MixedDistribution):
            log_p, _ = log_evidence(cost, encoding.context, q.rounded(), sampler, settings)
            of_rounded.append(-log_p.double())
    counted, per_bit = slice(settings.nll_images), math.log(2) * task.pixels
    bits = [
        float(torch.cat(found)[counted].mean()) / per_bit if found else None
        for found in (nats, of_rounded)
    ]
    return {
        "nll": bits[0],
        "nll_effective_samples": float(torch.cat(effective)[counted].mean()),
        "rounded_nll": bits[1],
    }


def _rectangular(cost: CountedCost, context: Context, z: Tensor) -> Tensor:
    """Costs (B, M) of assignments (B, M, ...)."""
    row = torch.arange(len(z), device=z.device).repeat_interleave(z.shape[1])
    return in_chunks(cost, context, z.flatten(0, 1), row).view(z.shape[:2])


def in_chunks(cost: CountedCost, context: Context, z: Tensor, row: Tensor) -> Tensor:
    """Costs (N,) without a graph, as many at once as fit."""
    size = cost.at_once
    parts = zip(z.split(size), row.split(size), strict=True)
    return torch.cat([cost(context, some, rows) for some, rows in parts])
