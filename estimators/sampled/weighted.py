"""Weighted maximum likelihood: q is fitted to its own samples, the better ones with more weight.

    w_k = softmax_k(−c_k / T),   c_k = f(z_k) + λ log q(z_k),   z_k ~ q

Among distributions p within some KL of q, the one of lowest E_p[f] − λ H(p) has the weights
p / q ∝ exp(−c / T), with T = η + λ where η is the price of that KL (Drolet et al. 2026); fitting q
to it is descent on −Σ_k w_k log q(z_k). T holds the effective number of samples, 1 / Σ_k w_k², at a
target, whatever the costs are measured in. It is learned whole, where the paper learns η, and may
fall below λ, to which no price belongs.
"""

from typing import Annotated, ClassVar, Self

import torch
from jaxtyping import Bool, Float
from pydantic import BaseModel, Field, model_validator
from torch import Tensor

from estimators.base import Bias, Estimate, Estimator, Evaluated, Knob, Proposal
from estimators.registry import register
from estimators.sampler import Sampler
from estimators.searched import Range
from estimators.spaces.base import Space
from estimators.spaces.distribution import Distribution

LOWEST = -20.0
"""Of log T, where costs are so near each other that rounding tells them apart."""


@register
class DAPS(Estimator):
    """−T Σ_k (w_k − 1/K) log q(z_k).

    1/K takes nothing from the expectation, as the mean score is zero, but the noise of a fit to
    samples of equal weight. Times T the estimate is on the scale of the costs, like any other: as
    T grows it becomes (1 − 1/K) times `rloo`, draw by draw. The decoder's gradient is unbiased.
    """

    name = "daps"
    citation = "Drolet et al. 2026"
    bias: ClassVar[Bias] = "biased"
    knobs = (Knob("effective", (0.5, 0.7, 0.9)),)

    class Settings(BaseModel, extra="forbid", frozen=True):
        samples: Annotated[int, Range(2, 16, log=True, costs=True)] = Field(
            4, ge=2, description="K, samples of z for each row"
        )
        effective: Annotated[float, Range(0.55, 0.95)] = Field(
            0.7, gt=0, lt=1, description="target for the share of samples that are effective"
        )
        rate: Annotated[float, Range(0.03, 1, log=True)] = Field(
            0.3, gt=0, description="of log T a step, times what is missing from the target"
        )

        @model_validator(mode="after")
        def _reachable(self) -> Self:
            if self.effective * self.samples <= 1:
                raise ValueError(
                    f"effective = {self.effective:g} of {self.samples} samples is not above one, "
                    "and one is always effective"
                )
            return self

    settings: Settings
    log_temperature: Tensor

    def __init__(self, space: Space, settings: Settings, features: int = 0) -> None:
        super().__init__(space, settings, features)
        self.register_buffer("log_temperature", torch.zeros(()))

    @property
    def calls_per_row(self) -> int:
        return self.settings.samples

    @property
    def log_q_in_costs(self) -> bool:
        return True

    def propose(
        self, q: Distribution, features: Float[Tensor, "B F"], sampler: Sampler
    ) -> Proposal:
        samples = self.settings.samples
        weight = q.scores.new_full((len(q.scores), samples), 1 / samples)
        return Proposal.rectangular(q.sample(sampler, samples), weight)

    def combine(self, q: Distribution, proposal: Proposal, evaluated: Evaluated) -> Estimate:
        costs = evaluated.costs.view(-1, self.settings.samples)
        temperature = self.log_temperature.exp()
        weights = ((costs.amin(dim=1, keepdim=True) - costs) / temperature).softmax(dim=1)
        signal = temperature * (1 / self.settings.samples - weights)
        share = effective_share(weights, unlike(costs), self.settings.effective)
        return Estimate(
            objective=costs.mean(dim=1),
            surrogate=(signal * q.log_prob(proposal.extras["z"])).sum(dim=1),
            diagnostics={"temperature": temperature, "effective": share},
        )

    def update(self, proposal: Proposal, evaluated: Evaluated, estimate: Estimate) -> None:
        missing = self.settings.effective - estimate.diagnostics["effective"]
        self.log_temperature.add_(self.settings.rate * missing).clamp_(min=LOWEST)


def unlike(costs: Float[Tensor, "B K"]) -> Bool[Tensor, " B"]:
    """Rows whose samples differ in cost. Of another all are effective at any temperature: where q
    is sure of most rows, these would have it fall for ever, and the estimate with it."""
    apart = costs.amax(dim=1) - costs.amin(dim=1)
    return apart > 1e-5 * costs.abs().amax(dim=1)


def effective_share(
    weights: Float[Tensor, "B K"], rows: Bool[Tensor, " B"], otherwise: float
) -> Float[Tensor, ""]:
    """1 / (K Σ_k w_k²), the mean over these rows; or what to have where there is none."""
    share = (1 / weights.square().mean(dim=1)) / weights.shape[1] ** 2
    mean = torch.where(rows, share, 0).sum() / rows.sum().clamp(min=1)
    return torch.where(rows.any(), mean, otherwise)
