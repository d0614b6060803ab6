"""Leave-one-out baselines that are shrunk towards the other rows of the batch.

    b_k = (1 − λ) · mean_{j≠k} f_j + λ · (mean cost of the other rows),   λ = v² / (v² + s²)

With few samples a row's own mean is a noisy guess at its expected cost, and the mean of all rows a
biased one: James and Stein's estimator weighs the two (Zeng et al. 2025). v² is the mean of the
variance of a row's mean, s² the variance of the means, both of the other rows alone, so that no
baseline depends on its own row but by its other samples, and the estimate stays unbiased.
"""

import torch
from jaxtyping import Float
from torch import Tensor

from estimators.base import Estimate, Evaluated, Proposal
from estimators.registry import register
from estimators.sampled.other_assignments import LeaveOneOut
from estimators.spaces.distribution import Distribution

LEAST_ROWS = 3
"""Rows of a batch with fewer have no others whose means vary: they are not shrunk."""


@register
class Shrunk(LeaveOneOut):
    """`rloo` with shrunk baselines."""

    name = "sfe-shrunk"
    citation = "Zeng et al. 2025"

    def combine(self, q: Distribution, proposal: Proposal, evaluated: Evaluated) -> Estimate:
        samples = self.settings.samples
        f = evaluated.costs.view(-1, samples)
        own = (f.sum(dim=1, keepdim=True) - f) / (samples - 1)
        share, others = _towards_others(f)
        b = own + share[:, None] * (others[:, None] - own)
        surrogate = ((f - b) * q.log_prob(proposal.extras["z"])).mean(dim=1)
        diagnostics = {"baseline_error": (f - b).square().mean(), "shrinkage": share.mean()}
        return Estimate(f.mean(dim=1), surrogate, diagnostics=diagnostics)


def _towards_others(
    costs: Float[Tensor, "B S"],
) -> tuple[Float[Tensor, " B"], Float[Tensor, " B"]]:
    """λ, and the mean cost of the other rows, for each row."""
    rows, samples = costs.shape
    level = costs.mean()
    means = costs.mean(dim=1) - level  # from a level that drops out, so that squares keep digits
    if rows < LEAST_ROWS:
        return torch.zeros_like(means), means + level
    others = (means.sum() - means) / (rows - 1)
    squares = means.square()
    left = squares.sum() - squares - (rows - 1) * others.square()
    between = left.clamp(min=0) / (rows - 2)
    noise = costs.var(dim=1) / samples
    within = (noise.sum() - noise) / (rows - 1)
    tiny = torch.finfo(costs.dtype).tiny
    return within / (within + between).clamp(min=tiny), others + level
