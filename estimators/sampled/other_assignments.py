"""Score-function estimators whose baseline is the cost of another assignment.

    ∇ E_q[f(z)] = E[(f(z) − b) ∇ log q(z)],   b independent of z

b is the cost at the mode (`sfe-selfcritic`), of a second sample (`sfe-second-sample`), or the
mean cost of the other samples (`rloo`).
"""

from abc import abstractmethod
from typing import Annotated, ClassVar

import torch
from jaxtyping import Float, Shaped
from pydantic import Field
from torch import Tensor

from estimators.base import Bias, Estimate, Evaluated, Proposal
from estimators.registry import register
from estimators.sampled.sampling import Sampling, SamplingSettings
from estimators.sampler import Sampler
from estimators.searched import SAMPLES, Range
from estimators.spaces.distribution import Distribution


class ExtraAssignment(Sampling):
    """S samples, each with a baseline from further assignments that only serve as baselines.

    The decoder's gradient comes from the S samples alone: a baseline has weight zero.
    """

    bias: ClassVar[Bias] = "unbiased"

    class Settings(SamplingSettings, frozen=True):
        samples: Annotated[int, SAMPLES] = Field(
            1, ge=1, description="samples of z for each row, without baselines"
        )

    settings: Settings

    @abstractmethod
    def critics(self, q: Distribution, sampler: Sampler) -> Shaped[Tensor, "B M *z"]:
        """Assignments for the baseline: M is 1 or S."""

    def propose(
        self, q: Distribution, features: Float[Tensor, "B F"], sampler: Sampler
    ) -> Proposal:
        samples = self.settings.samples
        z = torch.cat([q.sample(sampler, samples), self.critics(q, sampler)], dim=1)
        weight = q.scores.new_zeros(z.shape[:2])
        weight[:, :samples] = 1 / samples
        return Proposal.rectangular(z, weight)

    def combine(self, q: Distribution, proposal: Proposal, evaluated: Evaluated) -> Estimate:
        samples = self.settings.samples
        f, b = evaluated.costs.view(len(q.scores), -1).tensor_split([samples], dim=1)
        surrogate = ((f - b) * q.log_prob(proposal.extras["z"][:, :samples])).mean(dim=1)
        error = (f - b).square().mean()
        return Estimate(f.mean(dim=1), surrogate, diagnostics={"baseline_error": error})


@register
class SelfCritic(ExtraAssignment):
    """b is the cost at the mode of q."""

    name = "sfe-selfcritic"
    citation = "Rennie et al. 2017"

    @property
    def calls_per_row(self) -> int:
        return self.settings.samples + 1

    def critics(self, q: Distribution, sampler: Sampler) -> Shaped[Tensor, "B M *z"]:
        return q.mode()[:, None]


@register
class SecondSample(ExtraAssignment):
    """b is the cost of a second sample, drawn for each of the S."""

    name = "sfe-second-sample"
    citation = 'Correia et al. 2020 ("SFE+")'

    @property
    def calls_per_row(self) -> int:
        return 2 * self.settings.samples

    def critics(self, q: Distribution, sampler: Sampler) -> Shaped[Tensor, "B M *z"]:
        return q.sample(sampler, self.settings.samples)


@register
class LeaveOneOut(Sampling):
    """RLOO: each of S samples has the mean cost of the other S − 1 as its baseline."""

    name = "rloo"
    citation = "Kool et al. 2019"
    bias: ClassVar[Bias] = "unbiased"

    class Settings(SamplingSettings, frozen=True):
        samples: Annotated[int, Range(2, 16, log=True, costs=True)] = Field(
            4, ge=2, description="samples of z for each row"
        )

    settings: Settings

    @property
    def calls_per_row(self) -> int:
        return self.settings.samples

    def propose(
        self, q: Distribution, features: Float[Tensor, "B F"], sampler: Sampler
    ) -> Proposal:
        samples = self.settings.samples
        weight = q.scores.new_full((len(q.scores), samples), 1 / samples)
        return Proposal.rectangular(q.sample(sampler, samples), weight)

    def combine(self, q: Distribution, proposal: Proposal, evaluated: Evaluated) -> Estimate:
        samples = self.settings.samples
        f = evaluated.costs.view(-1, samples)
        b = (f.sum(dim=1, keepdim=True) - f) / (samples - 1)
        surrogate = ((f - b) * q.log_prob(proposal.extras["z"])).mean(dim=1)
        error = (f - b).square().mean()
        return Estimate(f.mean(dim=1), surrogate, diagnostics={"baseline_error": error})
