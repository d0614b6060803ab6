"""One evaluation for all estimators: on hard z, under the distribution that each of them trains.

Accuracy is that of the mode of q. E_q[f] is summed over the support where that is small enough,
else averaged over a stated number of samples. −log p(x) is summed over every z
where that is feasible, else estimated by importance sampling from one proposal for all.
"""

import math
from collections import defaultdict
from typing import Literal

import torch
from pydantic import BaseModel, Field
from torch import Tensor

from bench.cells.step import CountedCost, NotFiniteError
from estimators.base import Estimator
from estimators.distributions.base import BernoulliBits, BitDistribution, Distribution, SparseBits
from estimators.mappings import all_bit_vectors
from estimators.mappings.bits import MAX_ENUMERATED_BITS
from estimators.sampler import Sampler
from tasks.base import Context, Split, Task
from tasks.streams import Streams

CLIP = 0.05
"""The bits of the importance proposal are on with a probability in [CLIP, 1 − CLIP]."""

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
    nll_as: Literal["corrected", "published"] = Field(
        "corrected", description="one proposal for all, or the published estimate; docs/PROTOCOL.md"
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
    for number, batch in enumerate(task.evaluation_batches(split, settings.batch_size, streams)):
        encoding = task.encode(batch)
        if not encoding.scores.isfinite().all():
            raise NotFiniteError("the scores are not finite")
        q = estimator.distribution(encoding.scores)
        sampler = Sampler(streams.generator(f"{split} samples", number))
        columns["cost"].append(expected_cost(counted, encoding.context, q, sampler, settings))
        columns["entropy"].append(q.entropy())
        correct = task.correct(encoding, q.mode())
        if correct is not None:
            columns["correct"].append(correct.double())
        columns["support"].append(q.support_sizes)
        if q.unsolved is not None:
            columns["unsolved"].append(q.unsolved)
    rows = {name: torch.cat(parts).double() for name, parts in columns.items()}
    metrics = _metrics(task, rows)
    if task.pixels is not None and log_evidence_too:
        metrics |= _negative_log_likelihood(task, estimator, counted, settings, split, streams)
    return metrics


def _metrics(task: Task, rows: dict[str, Tensor]) -> dict[str, float | None]:
    """Columns of the results table from values of each row, (rows of the split,)."""
    cost, entropy = float(rows["cost"].mean()), float(rows["entropy"].mean())
    rate = task.log_assignments - entropy
    has_rate = task.pixels is not None
    return {
        "expected_cost": cost,
        "entropy": entropy,
        "accuracy": float(rows["correct"].mean()) if "correct" in rows else None,
        "loss": cost - task.entropy_weight * entropy,
        "elbo": -(cost + rate) if task.is_likelihood else None,
        "rate": rate if has_rate else None,
        "distortion": cost if has_rate else None,
        "support_mean": float(rows["support"].mean()),
        "support_median": float(rows["support"].median()),
        "support_max": float(rows["support"].max()),
        "unsolved": float(rows["unsolved"].mean()) if "unsolved" in rows else None,
    }


def expected_cost(
    cost: CountedCost,
    context: Context,
    q: Distribution,
    sampler: Sampler,
    settings: EvaluationSettings,
) -> Tensor:
    """E_q[f(z)] for each row, (B,), in nats."""
    if q.support_sizes.max() <= settings.max_summed:
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
    """log p(x) in nats and the effective number of samples, (B,) each, for a uniform p(z).

    Summed over all categories, and over all 2^D bit-vectors where these are few (every one then
    counts as a sample).
    Else importance sampling with half the samples from q and half from independent bits with
    q's marginals clipped to [CLIP, 1 − CLIP]. Both halves are weighted by the mixture's density,
    which is positive for every z, so that the estimate of p(x) is unbiased whatever q is.
    As published, if the settings say so.
    """
    rows, size = q.scores.shape
    if not isinstance(q, BitDistribution):
        categories = torch.arange(size, device=q.scores.device).expand(rows, -1)
        return _summed_log_evidence(cost, context, categories, math.log(size))
    if settings.nll_as == "published":
        return published_log_evidence(cost, context, q, sampler, settings.nll_samples)
    if size < 63 and 2**size <= settings.nll_max_summed:
        every = all_bit_vectors(size, q.scores).expand(rows, -1, -1)
        return _summed_log_evidence(cost, context, every, size * math.log(2))
    half = settings.nll_samples // 2
    independent = BernoulliBits(q.marginals().clamp(CLIP, 1 - CLIP).logit())
    z = torch.cat([q.sample(sampler, half), independent.sample(sampler, half)], dim=1)
    log_mixture = torch.logaddexp(q.log_prob(z), independent.log_prob(z)) - math.log(2)
    log_weight = -_rectangular(cost, context, z) - size * math.log(2) - log_mixture
    log_total = log_weight.logsumexp(dim=1)
    effective = (2 * log_total - (2 * log_weight).logsumexp(dim=1)).exp()
    return log_total - math.log(2 * half), effective


def _summed_log_evidence(
    cost: CountedCost, context: Context, every: Tensor, log_assignments: float
) -> tuple[Tensor, Tensor]:
    """log p(x) summed over every assignment (B, M, ...), and M, (B,) each."""
    log_p = (-_rectangular(cost, context, every) - log_assignments).logsumexp(dim=1)
    return log_p, torch.full_like(log_p, every.shape[1])


def published_log_evidence(
    cost: CountedCost, context: Context, q: BitDistribution, sampler: Sampler, samples: int
) -> tuple[Tensor, Tensor]:
    """log p(x) as the public code of Correia et al. 2020 estimates it, to be compared with.

    Independent bits: importance sampling from q. Sparse q: the mass of the support, and on top
    of it the mean of p(x | z) over uniform z from all bit-vectors, which has that mass in it
    already: the estimate of p(x) is too large by up to a factor of two.

    Returns:
        log p(x) in nats and the effective number of terms, (B,) each.
    """
    size = q.scores.shape[1]
    if isinstance(q, SparseBits):
        of_support = -_rectangular(cost, context, q.vertices) - size * math.log(2)
        z = BernoulliBits(torch.zeros_like(q.scores)).sample(sampler, samples)
        of_samples = -_rectangular(cost, context, z) - math.log(samples)
        log_weight = torch.cat([of_support.where(q.positive, -torch.inf), of_samples], dim=1)
    else:
        z = q.sample(sampler, samples)
        log_joint = -_rectangular(cost, context, z) - size * math.log(2)
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
    if task.family == "categorical":
        numbers = task.size
    else:
        every = 2.0**task.size
        looked_at = every if every <= settings.nll_max_summed else settings.nll_samples
        numbers = int(looked_at) * task.size
    batch_size = max(1, _NLL_NUMBERS // numbers)
    nats, effective = [], []
    for number, batch in enumerate(task.evaluation_batches(split, batch_size, streams)):
        if number * batch_size >= settings.nll_images:
            break
        encoding = task.encode(batch)
        q = estimator.distribution(encoding.scores)
        sampler = Sampler(streams.generator("importance", number))
        log_p, samples = log_evidence(cost, encoding.context, q, sampler, settings)
        nats.append(-log_p.double())
        effective.append(samples.double())
    counted = slice(settings.nll_images)
    bits = float(torch.cat(nats)[counted].mean()) / (math.log(2) * task.pixels)
    return {"nll": bits, "nll_effective_samples": float(torch.cat(effective)[counted].mean())}


def _rectangular(cost: CountedCost, context: Context, z: Tensor) -> Tensor:
    """Costs (B, M) of assignments (B, M, ...)."""
    row = torch.arange(len(z), device=z.device).repeat_interleave(z.shape[1])
    return in_chunks(cost, context, z.flatten(0, 1), row).view(z.shape[:2])


def in_chunks(cost: CountedCost, context: Context, z: Tensor, row: Tensor) -> Tensor:
    """Costs (N,) without a graph, as many at once as fit."""
    size = cost.at_once
    parts = zip(z.split(size), row.split(size), strict=True)
    return torch.cat([cost(context, some, rows) for some, rows in parts])
