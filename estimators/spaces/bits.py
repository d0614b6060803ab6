"""D independent bits: z is a vector of zeros and ones, and scores are log-odds."""

import math
from functools import cached_property

import torch
from jaxtyping import Float, Shaped
from torch import Tensor
from torch.nn import functional as F

from estimators.mappings import all_bit_vectors, topk_sparsemax
from estimators.sampler import Sampler
from estimators.spaces.base import Factorised
from estimators.spaces.distribution import PlainDistribution, Support


class Bits(Factorised):
    """{0, 1}^D.

    Args:
        size: D.
    """

    name = "bits"

    def __init__(self, size: int) -> None:
        super().__init__()
        if size < 1:
            raise ValueError(f"Bits({size}): give one bit at least")
        self.scores_shape = self.z_shape = self.point_shape = (size,)
        self.count, self.dimension = 2**size, size
        self.log_assignments = size * math.log(2)

    def __repr__(self) -> str:
        return f"Bits({self.size})"

    @property
    def size(self) -> int:
        return self.scores_shape[0]

    def every(self, like: Tensor) -> Float[Tensor, "M D"]:
        return all_bit_vectors(self.size, like)

    def point(
        self, z: Float[Tensor, "*batch D"], dtype: torch.dtype = torch.float32
    ) -> Float[Tensor, "*batch D"]:
        return z

    def _best(self, scores: Float[Tensor, "*batch D"]) -> Float[Tensor, "*batch D"]:
        return (scores > 0).to(scores.dtype)

    def plain(self, scores: Float[Tensor, "B D"]) -> "BernoulliBits":
        return BernoulliBits(self, scores)

    def soft(self, scores: Float[Tensor, "*batch D"]) -> Float[Tensor, "*batch D"]:
        return scores.sigmoid()

    def noise(
        self, like: Float[Tensor, "B D"], sampler: Sampler, samples: int
    ) -> Float[Tensor, "B {samples} D"]:
        """Standard logistic."""
        return sampler.logistic(like, samples)

    def noise_slope(self, noise: Float[Tensor, "*batch"]) -> Float[Tensor, "*batch"]:
        return (noise / 2).tanh()

    def nearest(self, target: Float[Tensor, "*batch"]) -> Float[Tensor, "*batch"]:
        return target.clamp(0, 1)

    def along(
        self, point: Float[Tensor, "B S D"], slope: Float[Tensor, "B #S D"]
    ) -> Float[Tensor, "B S D"]:
        return point * slope

    def centred(self, scores: Float[Tensor, "*batch"]) -> Float[Tensor, "*batch"]:
        return scores

    def topk_sparsemax(
        self, scores: Float[Tensor, "B D"], k: int
    ) -> tuple[Float[Tensor, "B {k} D"], Float[Tensor, "B {k}"]]:
        vertices, probabilities, _ = topk_sparsemax(scores, k)
        return vertices, probabilities

    def smoothed(self, marginals: Float[Tensor, "B D"], share: float) -> Float[Tensor, "B D"]:
        return marginals.clamp(share / 2, 1 - share / 2).logit()

    def pulled_back(
        self, marginals: Float[Tensor, "*batch"], slope: Float[Tensor, "*batch"]
    ) -> Float[Tensor, "*batch"]:
        return slope * marginals * (1 - marginals)

    def perturbed_given(
        self,
        scores: Float[Tensor, "B #S D"],
        point: Float[Tensor, "B S D"],
        noise: Float[Tensor, "B S D"],
    ) -> Float[Tensor, "B S D"]:
        side = 2 * point - 1
        return side * F.softplus(side * noise + F.softplus(side * scores))

    def noise_given(
        self,
        scores: Float[Tensor, "B #S D"],
        point: Float[Tensor, "B S D"],
        perturbed: Float[Tensor, "B S D"],
    ) -> Float[Tensor, "B S D"]:
        side, size = 2 * point - 1, perturbed.abs()
        return side * (size + (-(-size).expm1()).log() - F.softplus(side * scores))

    def log_odds(
        self, scores: Float[Tensor, "B #S D"], point: Float[Tensor, "B S D"]
    ) -> Float[Tensor, "B S D"]:
        return (2 * point - 1) * scores

    def gapped(
        self,
        scores: Float[Tensor, "B #S D"],
        point: Float[Tensor, "B S D"],
        gap: Float[Tensor, "B S D"] | float,
    ) -> Float[Tensor, "B S D"]:
        """Of the two scores (θ, 0) of a bit that is on, the difference becomes max(θ, gap)."""
        side = 2 * point - 1
        return side * (side * scores).clamp(min=gap)

    def log_relaxed(
        self,
        logits: Float[Tensor, "B S D"],
        scores: Float[Tensor, "B 1 D"],
        temperature: float,
    ) -> Float[Tensor, "B S"]:
        """Logistic noise n = τ · logit − score, stretched by 1 / τ."""
        noise = temperature * logits - scores
        each = math.log(temperature) - noise - 2 * F.softplus(-noise)
        return each.sum(dim=2)


class BernoulliBits(PlainDistribution):
    """D independent bits; the scores are their log-odds."""

    def __init__(self, space: Bits, scores: Float[Tensor, "B D"]) -> None:
        super().__init__(scores, space.log_assignments)
        self.space = space

    @property
    def probabilities(self) -> Float[Tensor, "B D"]:
        """Of being on."""
        return self.scores.sigmoid()

    def sample(self, sampler: Sampler, samples: int) -> Float[Tensor, "B {samples} D"]:
        return sampler.bernoulli(self.probabilities.detach(), samples)

    def log_prob(self, z: Float[Tensor, "B S D"]) -> Float[Tensor, "B S"]:
        logits = self.scores[:, None, :].expand_as(z)
        return -F.binary_cross_entropy_with_logits(logits, z, reduction="none").sum(dim=2)

    def entropy(self) -> Float[Tensor, " B"]:
        # At −|score|, which has the same: the terms cancel where the score is large.
        against = -self.scores.abs()
        return (F.softplus(against) - against * against.sigmoid()).sum(dim=1)

    def mode(self) -> Float[Tensor, "B D"]:
        return self.space.best(self.scores)

    @cached_property
    def support(self) -> Support:
        rows, every = len(self.scores), self.space.every(self.scores)
        row = torch.arange(rows, device=every.device).repeat_interleave(len(every))
        return Support(every.repeat(rows, 1), row, self.joint().flatten())

    def joint(self) -> Float[Tensor, "B M"]:
        every = self.space.every(self.scores)
        return self.log_prob(every.expand(len(self.scores), -1, -1)).exp()

    @property
    def support_sizes(self) -> Shaped[Tensor, " B"]:
        rows, size = self.scores.shape
        return self.scores.new_full((rows,), 2.0**size, dtype=torch.float64)

    def marginals(self) -> Float[Tensor, "B D"]:
        return self.probabilities
