"""Sparsemax of Gaussian scores: points of the simplex that lie on its faces (Farinhas et al. 2022).

    z = sparsemax(s + σ N)

Given that z lies on the face of m categories S, and is z there, the perturbed scores of S are
z_i + t with one t, above which no other lies. With c the mean and Q the summed squares of s_i − z_i
around it, over S, the density in the face's own m − 1 coordinates is

    √m (2πσ²)^(−(m − 1) / 2) exp(−Q / 2σ²) E[Π_{j ∉ S} Φ((c − s_j) / σ + n / √m)],   n ~ N(0, 1)
"""

import math

import torch
from jaxtyping import Bool, Float, Shaped
from torch import Tensor

from estimators.distributions.mixed import MixedDistribution, log_volume_of_faces
from estimators.mappings import sparsemax
from estimators.sampler import Sampler
from estimators.spaces.categoricals import Categoricals, IndependentCategoricals

STEP, REACH = 0.25, 34
"""Of the trapezoid rule over n: its step, and how many of them it takes to either side. log q of a
sample is right to 1e-8 with 32 categories, and to 1e-7 with 256; a z that is never drawn, far out
in the tails, may have less."""

SEED = 0
"""Of the samples for the entropy of q by itself."""


class GaussianSparsemax(MixedDistribution):
    """Independent categorical variables with noise of one standard deviation on each score.

    The entropy is a Monte Carlo estimate: no closed form is known beyond two categories.

    Args:
        space: of the variables.
        scores: s.
        scale: σ.
        samples: that the entropy of q by itself is estimated from.
    """

    def __init__(
        self, space: Categoricals, scores: Float[Tensor, "B V C"], scale: float, samples: int
    ) -> None:
        super().__init__(scores, space.variables * log_volume_of_faces(space.categories))
        self.space, self.scale, self.samples = space, scale, samples

    def sample(self, sampler: Sampler, samples: int) -> Float[Tensor, "B {samples} V C"]:
        noise = sampler.normal(self.scores, samples)
        return sparsemax(self.scores[:, None] + self.scale * noise)

    def log_prob(self, z: Shaped[Tensor, "B S *z"]) -> Float[Tensor, "B S"]:
        point = self.space.point(z, self.scores.dtype)
        face, scores = point > 0, self.scores[:, None]
        size = face.sum(dim=3, keepdim=True).to(scores.dtype)
        apart = torch.where(face, scores - point, 0)
        centre = apart.sum(dim=3, keepdim=True) / size
        spread = torch.where(face, apart - centre, 0).square().sum(dim=3)
        m = size.squeeze(3)
        inside = m.log() / 2 - (m - 1) / 2 * math.log(2 * math.pi * self.scale**2)
        others = self._log_below((centre - scores) / self.scale, size.sqrt(), face)
        return (inside - spread / (2 * self.scale**2) + others).sum(dim=2)

    def _log_below(
        self,
        gap: Float[Tensor, "B S V C"],
        root: Float[Tensor, "B S V 1"],
        left_out: Bool[Tensor, "B S V C"],
    ) -> Float[Tensor, "B S V"]:
        """log E[Π Φ(gap_j + n / root)], over the categories that are not left out."""
        node = STEP * torch.arange(-REACH, REACH + 1).to(gap)
        log_weight = -node.square() / 2 + math.log(STEP / math.sqrt(2 * math.pi))
        each = torch.special.log_ndtr(gap[..., None] + node / root[..., None])
        product = each.masked_fill(left_out[..., None], 0).sum(dim=3)
        return (product + log_weight).logsumexp(dim=3)

    def entropy(self) -> Float[Tensor, " B"]:
        """Of samples that are the same at every call."""
        generator = torch.Generator(self.scores.device).manual_seed(SEED)
        with torch.no_grad():
            z = self.sample(Sampler(generator), self.samples)
        return self.entropy_from(z)

    def entropy_from(self, z: Float[Tensor, "B S V C"]) -> Float[Tensor, " B"]:
        """−mean log q of two samples or more, with an unbiased gradient.

        That is the score function's, against the mean of the others. The slope through the samples
        would not do: where a category leaves the support, log q jumps.
        """
        log_q = self.log_prob(z.detach())
        value = log_q.detach()
        others = (value.sum(dim=1, keepdim=True) - value) / (z.shape[1] - 1)
        surrogate = ((value - others) * log_q).mean(dim=1)
        return surrogate.detach() - surrogate - value.mean(dim=1)

    def face_sizes(self, z: Float[Tensor, "B S V C"]) -> Float[Tensor, "B S V"]:
        return (z > 0).sum(dim=3).to(z.dtype)

    def on_vertex(self) -> Float[Tensor, " B"]:
        return log_ahead(self.scores, self.scale, 1.0).exp().sum(dim=2).mean(dim=1)

    def rounded(self) -> IndependentCategoricals:
        return self.space.plain(log_ahead(self.scores, self.scale))


def log_ahead(
    scores: Float[Tensor, "B V C"], scale: float, margin: float = 0
) -> Float[Tensor, "B V C"]:
    """Log-probability that a category's perturbed score t is above all others by so much, as far as
    it is no hopeless one: ∫ p(t) Π P(other < t − margin) dt, at t near the best score."""
    each = scores[..., None]
    node = STEP * torch.arange(-REACH, REACH + 1).to(each)
    level = each.amax(dim=2, keepdim=True) + scale * node
    below = torch.special.log_ndtr((level - margin - each) / scale)
    at = -((level - each) / scale).square() / 2
    others = below.sum(dim=2, keepdim=True) - below
    return (at + others).logsumexp(dim=3) + math.log(STEP / math.sqrt(2 * math.pi))
