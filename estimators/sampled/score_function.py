"""Score-function estimators with a baseline b that does not depend on the sample.

    ∇ E_q[f(z)] = E_q[(f(z) − b) ∇ log q(z)],   estimated with S samples z ~ q

(Williams 1992). Any b leaves the expectation as it is; a good one lowers the variance. Here it
is zero (`sfe`), a moving average (`sfe-ma`) or trained (`sfe-constant`, `sfe-learned`, `nvil`).
"""

from typing import Annotated, ClassVar

import torch
from jaxtyping import Float
from pydantic import BaseModel, Field
from torch import Tensor, nn

from estimators.base import Bias, Estimate, Evaluated, Knob, Proposal
from estimators.registry import register
from estimators.sampled.baselines import MovingAverage, baseline_network
from estimators.sampled.sampling import Sampling, SamplingSettings
from estimators.sampler import Sampler
from estimators.searched import DECAY, SAMPLES
from estimators.spaces.base import Space
from estimators.spaces.distribution import Distribution


@register
class ScoreFunction(Sampling):
    """The score-function estimator without a baseline (REINFORCE)."""

    name = "sfe"
    citation = "Williams 1992"
    bias: ClassVar[Bias] = "unbiased"

    class Settings(SamplingSettings, frozen=True):
        samples: Annotated[int, SAMPLES] = Field(1, ge=1, description="samples of z for each row")

    settings: Settings

    @property
    def calls_per_row(self) -> int:
        return self.settings.samples

    def baseline(self, features: Float[Tensor, "B F"]) -> Float[Tensor, " B"]:
        """b for each row, with the graph of its own parameters."""
        return features.new_zeros(len(features))

    def scale(self) -> Float[Tensor, ""] | float:
        """What the learning signal is multiplied by."""
        return 1.0

    def own_loss(
        self, costs: Float[Tensor, "B S"], baseline: Float[Tensor, "B 1"]
    ) -> Float[Tensor, ""] | None:
        """What trains the baseline."""
        return None

    def propose(
        self, q: Distribution, features: Float[Tensor, "B F"], sampler: Sampler
    ) -> Proposal:
        samples = self.settings.samples
        weight = q.scores.new_full((len(q.scores), samples), 1 / samples)
        baseline = self.baseline(features)[:, None]
        return Proposal.rectangular(q.sample(sampler, samples), weight, baseline=baseline)

    def combine(self, q: Distribution, proposal: Proposal, evaluated: Evaluated) -> Estimate:
        f = evaluated.costs.view(-1, self.settings.samples)
        b = proposal.extras["baseline"]
        signal = (f - b.detach()) * self.scale()
        return Estimate(
            objective=f.mean(dim=1),
            surrogate=(signal * q.log_prob(proposal.extras["z"])).mean(dim=1),
            scale=self.scale(),
            own_loss=self.own_loss(f, b),
            diagnostics={"baseline_error": (f - b.detach()).square().mean()},
        )


@register
class MovingAverageBaseline(ScoreFunction):
    """b is the exponential moving average of the costs of earlier batches."""

    name = "sfe-ma"
    knobs = (Knob("decay", (0.5, 0.9, 0.99)),)

    class Settings(ScoreFunction.Settings, frozen=True):
        decay: Annotated[float, DECAY] = Field(
            0.9, ge=0, le=1, description="share of the old average kept a step; 1: mean of all"
        )

    def __init__(self, space: Space, settings: Settings, features: int = 0) -> None:
        super().__init__(space, settings, features)
        self.average = MovingAverage(settings.decay)

    def baseline(self, features: Float[Tensor, "B F"]) -> Float[Tensor, " B"]:
        return self.average.value.expand(len(features))

    def update(self, proposal: Proposal, evaluated: Evaluated, estimate: Estimate) -> None:
        self.average.update(evaluated.costs.mean())


class TrainedBaseline(ScoreFunction):
    """b is trained by least squares."""

    searched_training = frozenset({"baseline_learning_rate"})

    def own_loss(
        self, costs: Float[Tensor, "B S"], baseline: Float[Tensor, "B 1"]
    ) -> Float[Tensor, ""]:
        return (costs - baseline).square().mean()


@register
class ConstantBaseline(TrainedBaseline):
    """b is a trained number, the same for all rows."""

    name = "sfe-constant"
    citation = "Ranganath et al. 2014"

    def __init__(self, space: Space, settings: BaseModel, features: int = 0) -> None:
        super().__init__(space, settings, features)
        self.constant = nn.Parameter(torch.zeros(()))

    def baseline(self, features: Float[Tensor, "B F"]) -> Float[Tensor, " B"]:
        return self.constant.expand(len(features))


@register
class LearnedBaseline(TrainedBaseline):
    """b is a trained network of x."""

    name = "sfe-learned"
    citation = "Mnih & Gregor 2014"

    class Settings(ScoreFunction.Settings, frozen=True):
        hidden: int = Field(128, ge=1, description="width of the network's hidden layers")
        layers: int = Field(1, ge=1, description="number of hidden layers")

    def __init__(self, space: Space, settings: Settings, features: int = 0) -> None:
        super().__init__(space, settings, features)
        self.network = baseline_network(features, settings.hidden, settings.layers)

    def baseline(self, features: Float[Tensor, "B F"]) -> Float[Tensor, " B"]:
        b: Tensor = self.network(features).squeeze(1)
        return b


@register
class NVIL(TrainedBaseline):
    """b = b_ψ(x) + c, and the signal is divided by max(1, σ) (Mnih & Gregor 2014, algorithm 1).

    b_ψ is trained by least squares, on f − c. c and σ² are moving averages of the mean and the
    variance of f − b_ψ(x) over earlier batches, so that the expected estimate is the exact gradient
    divided by max(1, σ). The entropy's gradient, which the published signal holds as log q, is
    divided alike.
    """

    name = "nvil"
    citation = "Mnih & Gregor 2014"
    bias: ClassVar[Bias] = "scaled"
    knobs = (Knob("decay", (0.5, 0.8, 0.99)),)

    class Settings(ScoreFunction.Settings, frozen=True):
        decay: Annotated[float, DECAY] = Field(
            0.8, ge=0, lt=1, description="share of the old c and σ² kept a step"
        )
        hidden: int = Field(128, ge=1, description="width of the baseline's hidden layers")
        layers: int = Field(1, ge=1, description="number of hidden layers")

    def __init__(self, space: Space, settings: Settings, features: int = 0) -> None:
        super().__init__(space, settings, features)
        self.network = baseline_network(features, settings.hidden, settings.layers)
        self.centre = MovingAverage(settings.decay)
        self.variance = MovingAverage(settings.decay)

    def baseline(self, features: Float[Tensor, "B F"]) -> Float[Tensor, " B"]:
        b: Tensor = self.network(features).squeeze(1)
        return b + self.centre.value

    def scale(self) -> Float[Tensor, ""]:
        return 1 / self.variance.value.sqrt().clamp(min=1)

    def update(self, proposal: Proposal, evaluated: Evaluated, estimate: Estimate) -> None:
        b = proposal.extras["baseline"].detach() - self.centre.value
        residual = evaluated.costs.view(-1, self.settings.samples) - b
        self.centre.update(residual.mean())
        self.variance.update(residual.var(correction=0))
