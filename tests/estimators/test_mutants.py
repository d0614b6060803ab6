"""The checks have power: each planted bug makes one fail."""

from dataclasses import replace
from typing import ClassVar

import pytest
import torch
from jaxtyping import Float
from torch import Tensor

from estimators.base import Bias, Estimate, Estimator, Evaluated, Proposal
from estimators.oracles.differences import IMLE, Blackbox
from estimators.oracles.projected import Spigot
from estimators.oracles.through import ThroughOracle
from estimators.registry import all_estimators
from estimators.relaxed.gumbel import StraightThroughGumbel
from estimators.sampled.other_assignments import LeaveOneOut, SelfCritic
from estimators.sampled.score_function import NVIL, MovingAverageBaseline, ScoreFunction
from estimators.sampled.sum_and_sample import SumAndSample
from estimators.sampler import Sampler
from estimators.spaces import Space
from estimators.spaces.distribution import Distribution, FiniteDistribution
from estimators.summed.support_sum import Dense, Sparsemax
from tests.estimators.contract import (
    BITS,
    CATEGORICAL,
    FEATURES,
    FEW_CATEGORIES,
    SEVERAL,
    Problem,
    check_any_batch,
    check_expectation,
    check_joint_expectation,
    check_proposal,
    steep,
    two_rows,
)
from tests.estimators.relaxed.test_relaxations import check_samples


class LeakingSelfCritic(SelfCritic):
    """The baseline's cost sends the decoder a gradient."""

    def propose(self, q: Distribution, features: Tensor, sampler: Sampler) -> Proposal:
        right = super().propose(q, features, sampler)
        weight = torch.ones_like(right.row, dtype=q.scores.dtype)
        return Proposal(right.z, right.row, weight, extras=right.extras)


class WrongSign(ScoreFunction):
    """The scores go uphill."""

    def combine(self, q: Distribution, proposal: Proposal, evaluated: Evaluated) -> Estimate:
        right = super().combine(q, proposal, evaluated)
        assert right.surrogate is not None
        return replace(right, surrogate=-right.surrogate)


class EntropyUnscaled(NVIL):
    """The signal is divided by max(1, σ), and the entropy is not."""

    def combine(self, q: Distribution, proposal: Proposal, evaluated: Evaluated) -> Estimate:
        return replace(super().combine(q, proposal, evaluated), scale=1.0)


class ScaledInSilence(ScoreFunction):
    """An estimator that says it is unbiased divides its signal."""

    def scale(self) -> float:
        return 0.5


class NotTheWholeMean(ScoreFunction):
    """The value is right for one sample only: it is a sum where a mean belongs."""

    def combine(self, q: Distribution, proposal: Proposal, evaluated: Evaluated) -> Estimate:
        right = super().combine(q, proposal, evaluated)
        return replace(right, objective=evaluated.costs.view(-1, self.settings.samples).sum(dim=1))


class CountedTwice(Sparsemax):
    """Every assignment of the support stands in the list twice."""

    def propose(self, q: Distribution, features: Tensor, sampler: Sampler) -> Proposal:
        assert isinstance(q, FiniteDistribution)
        z, row, p = q.support
        return Proposal(z.repeat(2, 1), row.repeat(2), decoder_weight=p.detach().repeat(2))

    def combine(self, q: Distribution, proposal: Proposal, evaluated: Evaluated) -> Estimate:
        assert isinstance(q, FiniteDistribution)
        terms = q.support.probability.repeat(2) * evaluated.costs
        value = terms.new_zeros(len(q.scores)).index_add(0, proposal.row, terms)
        return Estimate(value.detach(), value)


class ModeCountedTwice(Sparsemax):
    """The likeliest assignment alone stands in the list twice, and in the decoder's sum alone."""

    def propose(self, q: Distribution, features: Tensor, sampler: Sampler) -> Proposal:
        right = super().propose(q, features, sampler)
        assert right.decoder_weight is not None
        most = right.decoder_weight == right.decoder_weight.max()
        return replace(right, decoder_weight=right.decoder_weight * (1 + most))


class SelfInBaseline(LeaveOneOut):
    """The sample's own cost is part of its baseline."""

    def combine(self, q: Distribution, proposal: Proposal, evaluated: Evaluated) -> Estimate:
        f = evaluated.costs.view(-1, self.settings.samples)
        signal = f - f.mean(dim=1, keepdim=True)
        surrogate = (signal * q.log_prob(proposal.extras["z"])).mean(dim=1)
        return Estimate(f.mean(dim=1), surrogate)


class BaselineOfTheSampleOnly(SumAndSample):
    """The moving average is taken off the sampled terms and not off the summed ones."""

    def combine(self, q: Distribution, proposal: Proposal, evaluated: Evaluated) -> Estimate:
        right = super().combine(q, proposal, evaluated)
        summed = proposal.extras["z"][:, : self.settings.k]
        weight = proposal.decoder_weight
        assert weight is not None
        assert right.surrogate is not None
        extra = weight.view(len(q.scores), -1)[:, : self.settings.k] * q.log_prob(summed)
        return Estimate(right.objective, right.surrogate + self.average.value * extra.sum(dim=1))


class BatchMean(ScoreFunction):
    """b is the mean cost of the batch that it is applied to."""

    def combine(self, q: Distribution, proposal: Proposal, evaluated: Evaluated) -> Estimate:
        costs = evaluated.costs
        centred = super().combine(q, proposal, Evaluated(costs - costs.mean()))
        return replace(centred, objective=super().combine(q, proposal, evaluated).objective)


class CentredByThisBatch(NVIL):
    """c is taken from the batch that it is applied to."""

    def combine(self, q: Distribution, proposal: Proposal, evaluated: Evaluated) -> Estimate:
        b, costs = proposal.extras["baseline"], evaluated.costs
        own = replace(proposal, extras=proposal.extras | {"baseline": b + (costs - b).mean()})
        return super().combine(q, own, evaluated)


class ScaledByThisBatch(NVIL):
    """σ is taken from the batch that it is applied to, and the estimate says so."""

    def combine(self, q: Distribution, proposal: Proposal, evaluated: Evaluated) -> Estimate:
        right = super().combine(q, proposal, evaluated)
        assert right.surrogate is not None
        residual = evaluated.costs - proposal.extras["baseline"].flatten().detach()
        scale = 1 / residual.std(correction=0).clamp(min=1)
        return replace(right, surrogate=right.surrogate / self.scale() * scale, scale=scale)


class TopOfTheFirstRow(SumAndSample):
    """Every row sums the category that is the likeliest in the first."""

    def propose(self, q: Distribution, features: Tensor, sampler: Sampler) -> Proposal:
        first = self.space.plain(q.scores.detach()[:1].expand_as(q.scores))
        right = super().propose(first, features, sampler)
        weight = q.log_prob(right.extras["z"]).exp().detach()
        weight[:, 1] = 1 - weight[:, 0]
        return replace(right, decoder_weight=weight.flatten())


class MissingWeight(Dense):
    """The decoder's weights are those of a mean, not the probabilities."""

    def propose(self, q: Distribution, features: Tensor, sampler: Sampler) -> Proposal:
        assert isinstance(q, FiniteDistribution)
        z, row, p = q.support
        return Proposal(z, row, decoder_weight=torch.full_like(p, 1 / self.calls_per_row).detach())


class ImpureCombine(MovingAverageBaseline):
    """The average moves before the estimate is used."""

    def combine(self, q: Distribution, proposal: Proposal, evaluated: Evaluated) -> Estimate:
        estimate = super().combine(q, proposal, evaluated)
        self.update(proposal, evaluated, estimate)
        return super().combine(q, proposal, evaluated)


@pytest.mark.parametrize(
    ("mutant", "settings"),
    [
        (LeakingSelfCritic, {}),
        (WrongSign, {}),
        (EntropyUnscaled, {}),
        (ScaledInSilence, {}),
        (NotTheWholeMean, {"samples": 2}),
        (CountedTwice, {}),
        (ModeCountedTwice, {}),
        (SelfInBaseline, {"samples": 2}),
        (BaselineOfTheSampleOnly, {}),
        (MissingWeight, {}),
    ],
)
def test_expectation_catches(mutant: type[Dense], settings: dict[str, int]) -> None:
    torch.manual_seed(0)
    estimator = mutant.make(CATEGORICAL, features=FEATURES, **settings)
    with pytest.raises(AssertionError):
        check_expectation(estimator, Problem.random(CATEGORICAL), steep)


@pytest.mark.parametrize(
    "mutant", [BatchMean, CentredByThisBatch, ScaledByThisBatch, TopOfTheFirstRow]
)
def test_joint_expectation_alone_catches(mutant: type[Estimator]) -> None:
    """One outcome of each row in a batch of them all looks right."""
    torch.manual_seed(0)
    estimator = mutant.make(FEW_CATEGORIES, features=FEATURES)
    check_expectation(estimator, Problem.random(FEW_CATEGORIES), steep)
    with pytest.raises(AssertionError, match="not close"):
        check_joint_expectation(estimator, two_rows(FEW_CATEGORIES), steep)


class ForgetsAVariable(ScoreFunction):
    """The score is that of the first variable alone."""

    def combine(self, q: Distribution, proposal: Proposal, evaluated: Evaluated) -> Estimate:
        right = super().combine(q, proposal, evaluated)
        first = q.scores[:, 0].log_softmax(dim=1).gather(1, proposal.extras["z"][:, :, 0])
        f = evaluated.costs.view_as(first)
        return replace(right, surrogate=(f * first).mean(dim=1))


class SumsOneVariable(Dense):
    """Every category of the first variable, beside the mode of the others."""

    def propose(
        self, q: Distribution, features: Float[Tensor, "B F"], sampler: Sampler
    ) -> Proposal:
        right = super().propose(q, features, sampler)
        z = right.z.clone()
        z[:, 1:] = q.mode()[right.row, 1:]
        return replace(right, z=z)


@pytest.mark.parametrize("mutant", [ForgetsAVariable, SumsOneVariable])
def test_a_forgotten_variable_is_caught(mutant: type[Estimator]) -> None:
    """Of a single one there is nothing to forget."""
    check_expectation(mutant.make(CATEGORICAL), Problem.random(CATEGORICAL), steep)
    with pytest.raises(AssertionError, match="not close"):
        check_expectation(mutant.make(SEVERAL), Problem.random(SEVERAL), steep)


class CentresTheCosts(ScoreFunction):
    """The costs that `update` gets are other ones."""

    def combine(self, q: Distribution, proposal: Proposal, evaluated: Evaluated) -> Estimate:
        evaluated.costs.sub_(evaluated.costs.mean())
        return super().combine(q, proposal, evaluated)


class NoGradientOfTheScores(ScoreFunction):
    """The decoder learns, and the encoder follows the entropy alone."""

    def combine(self, q: Distribution, proposal: Proposal, evaluated: Evaluated) -> Estimate:
        return replace(super().combine(q, proposal, evaluated), surrogate=None)


@pytest.mark.parametrize("mutant", [ImpureCombine, CentresTheCosts, NoGradientOfTheScores])
def test_a_malformed_estimate_is_caught(mutant: type[Estimator]) -> None:
    """Also of one that says it is biased, which nothing else is checked of."""
    with pytest.raises(AssertionError):
        check_proposal(mutant.make(CATEGORICAL), Problem.random(CATEGORICAL))


class ThresholdsTheScores(StraightThroughGumbel):
    """Straight-through that rounds the scores and not the sample."""

    bias: ClassVar[Bias] = "biased"

    def relax(self, q: Distribution, sampler: Sampler) -> Tensor:
        soft = super(StraightThroughGumbel, self).relax(q, sampler)
        hard = self.space.point(self.space.best(q.scores), soft.dtype)[:, None].expand_as(soft)
        return hard + (soft - soft.detach())


@pytest.mark.parametrize("space", [BITS, CATEGORICAL], ids=repr)
def test_straight_through_on_the_scores_is_caught(space: Space) -> None:
    check_samples(StraightThroughGumbel.make(space))
    with pytest.raises(AssertionError):
        check_samples(ThresholdsTheScores.make(space))


class StepOfTheBatch(ThroughOracle):
    """The step is as many times the setting as the batch has rows."""

    def combine(self, q: Distribution, proposal: Proposal, evaluated: Evaluated) -> Estimate:
        step = self.settings.step * len(q.scores)  # type: ignore[attr-defined]
        other = all_estimators()[self.name].make(self.space, step=step)
        return other.combine(q, proposal, evaluated)


@pytest.mark.parametrize("space", [BITS, CATEGORICAL], ids=repr)
@pytest.mark.parametrize("estimator", [IMLE, Blackbox, Spigot])
def test_a_step_that_depends_on_the_size_of_the_batch_is_caught(
    estimator: type[Estimator], space: Space
) -> None:
    mutant = type("Mutant", (StepOfTheBatch, estimator), {})
    check_any_batch(estimator.make(space, step=0.5), Problem.random(space), steep)
    with pytest.raises(AssertionError, match="not close"):
        check_any_batch(mutant.make(space, step=0.5), Problem.random(space), steep)
