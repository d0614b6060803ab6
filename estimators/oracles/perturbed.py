"""Perturbed optimisers: the oracle's mean answer under noise, and its Jacobian."""

from typing import Annotated

from jaxtyping import Float
from pydantic import BaseModel, Field
from torch import Tensor

from estimators.base import Estimate, Evaluated, ExactFor, Knob, Proposal
from estimators.oracles.through import ThroughOracle, slopes_at
from estimators.registry import register
from estimators.sampler import Sampler
from estimators.searched import Range
from estimators.spaces.distribution import Distribution


@register
class Perturbed(ThroughOracle):
    """The decoder sees ȳ, the mean of N answers y_n = MAP(θ + Z_n), and gives the slope g there.

    Z has the density exp(−ν), and E[y] the Jacobian E[y ν'(Z)ᵀ]. Estimated from the same answers,

        Σ_n ν'(Z_n) ⟨y_n − ȳ, g⟩ / (N − 1)

    where ȳ is a control variate: noise of which nothing came adds none. As y_n is 1/N of ȳ, this
    leaves (N − 1) / N of each term's mean. Independent variables have a term each: in one for all,
    the answers of the others, which have noise of their own, would be noise alone. Where noise
    samples q, E[y] is its marginals, and the estimate exact for linear costs; for multilinear ones
    too, as what a variable's slope depends on has noise of its own. Elsewhere E[y], and the
    gradient, are those of perturb-and-MAP.
    """

    name = "perturbed"
    citation = "Berthet et al. 2020"
    knobs = (Knob("perturbations", (2, 8, 32)),)

    class Settings(BaseModel, extra="forbid", frozen=True):
        perturbations: Annotated[int, Range(2, 128, log=True)] = Field(
            8, ge=2, description="N, oracle calls for each row; one decoder call for all of them"
        )

    settings: Settings

    @property
    def exact_for(self) -> ExactFor | None:
        return "multilinear" if self.space.noise_samples_q else None

    def propose(
        self, q: Distribution, features: Float[Tensor, "B F"], sampler: Sampler
    ) -> Proposal:
        scores = q.scores.detach()
        noise = self.space.noise(scores, sampler, self.settings.perturbations)
        answers = self.vertex(scores[:, None] + noise)
        return self.proposal(answers.mean(dim=1, keepdim=True), answers=answers, noise=noise)

    def combine(self, q: Distribution, proposal: Proposal, evaluated: Evaluated) -> Estimate:
        mean, answers = proposal.extras["z"], proposal.extras["answers"]
        along = self.space.along(answers - mean, slopes_at(mean, evaluated))
        terms = self.space.noise_slope(proposal.extras["noise"]) * along
        gradient = terms.sum(dim=1) / (self.settings.perturbations - 1)
        return self.estimate(q, evaluated, gradient)
