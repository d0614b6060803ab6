"""RODEO: leave-one-out with control variates that a Stein operator makes of any function.

One step of Gibbs sampling leaves q as it is, so that of any h

    A h(z) = (1/D) Σ_i q(1 − z_i | the others) [h(z with z_i flipped) − h(z)]

has the mean zero under q (Shi et al. 2022). h = (h₀, h₁) is a network of what the other samples say
of a point y: their costs expanded to first order, ⟨f'(z_j), y − z_j⟩, and f(z_j). With
s(z) = z − θ,

    g = mean_k {[f_k − mean_{j≠k} (f_j + α A h₀(z_j))] s(z_k) + β A(h₁ s)(z_k)}

is unbiased, as neither h depends on the sample it is evaluated at. α, β and the network are trained
to make ‖g‖² small; α = β = 0, where they start, is `rloo`. As h is a function of a number that is
linear in y, all of its flips take D products and no decoder call.
"""

import torch
from jaxtyping import Float
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from estimators.base import Estimate, Evaluated, Proposal, surrogate_of
from estimators.registry import register
from estimators.sampled.control_variates import FromOthers
from estimators.spaces.base import Space
from estimators.spaces.bits import Bits
from estimators.spaces.distribution import Distribution


@register
class RODEO(FromOthers):
    """Averages the outputs of the network over the other samples."""

    name = "rodeo"
    citation = "Shi et al. 2022"
    spaces = (Bits,)

    class Settings(FromOthers.Settings, frozen=True):
        hidden: int = Field(100, ge=1, description="width of the network's hidden layer")

    settings: Settings

    def __init__(self, space: Space, settings: Settings, features: int = 0) -> None:
        super().__init__(space, settings, features)
        self.strengths = nn.Parameter(torch.zeros(2))
        self.from_inputs = nn.Linear(features, settings.hidden) if features else None
        self.from_costs = nn.Linear(2, settings.hidden)
        self.out = nn.Linear(settings.hidden, 2)

    def h(
        self, costs: Float[Tensor, "*of 2"], features: Float[Tensor, "B F"]
    ) -> Float[Tensor, "*of 2"]:
        hidden = self.from_costs(costs)
        if self.from_inputs is not None:
            inputs: Tensor = self.from_inputs(features)
            hidden = hidden + inputs.view(len(features), *[1] * (costs.dim() - 2), -1)
        found: Tensor = self.out(F.leaky_relu(hidden, 0.3))
        return found

    def combine(self, q: Distribution, proposal: Proposal, evaluated: Evaluated) -> Estimate:
        assert evaluated.slopes is not None
        z, scores = proposal.extras["z"], q.scores.detach()[:, None]
        f, slopes = evaluated.costs.view(z.shape[:2]), evaluated.slopes.view_as(z)
        score, turn, samples = z - scores.sigmoid(), 1 - 2 * z, z.shape[1]
        flips = (turn * scores).sigmoid()  # q(1 − z_i | the others)

        # At z_k and at each of its flips, what each z_j says: (B, k, j, 1 + D).
        here = torch.einsum("bjd,bkd->bkj", slopes, z) - (slopes * z).sum(dim=2)[:, None]
        there = here[..., None] + torch.einsum("bjd,bkd->bkjd", slopes, turn)
        linear = torch.cat([here[..., None], there], dim=3)
        h = self.h(
            torch.stack([linear, f[:, None, :, None].expand_as(linear)], dim=4),
            proposal.extras["features"],
        )
        others = (1 - torch.eye(samples, dtype=z.dtype, device=z.device)) / (samples - 1)
        h = torch.einsum("kj,bkjih->hbki", others, h)
        at, flipped = h[..., :1], h[..., 1:]
        scalar, vector = (flips * (flipped - at)).mean(dim=3)  # A h of both

        baseline = torch.einsum("kj,bj->bk", others, f + self.strengths[0] * scalar)
        field = score * vector[..., None] + flips * flipped[1] * turn / z.shape[2]  # A(h₁ s)
        g = ((f - baseline)[..., None] * score + self.strengths[1] * field).mean(dim=1)
        return Estimate(
            objective=f.mean(dim=1),
            surrogate=surrogate_of(g, q.scores),
            own_loss=g.square().sum(dim=1).mean(),
        )
