"""V independent categorical variables of C categories each: z is their indices.

Scores are logits, up to a constant of each variable. A single variable is V = 1.
"""

import math
from functools import cached_property

import torch
from jaxtyping import Float, Int, Shaped
from torch import Tensor
from torch.nn import functional as F

from estimators.mappings import sparsemax, topk_sparsemax_categoricals
from estimators.sampler import Sampler
from estimators.spaces.base import Factorised
from estimators.spaces.distribution import PlainDistribution, Support

MOST_LISTED = 2**16
"""Most assignments of several variables that are listed."""


class Categoricals(Factorised):
    """{1, …, C}^V.

    Args:
        variables: V.
        categories: C.
    """

    name = "categoricals"

    def __init__(self, variables: int, categories: int) -> None:
        super().__init__()
        if variables < 1 or categories < 1:
            raise ValueError(
                f"Categoricals({variables}, {categories}): give one variable and category at least"
            )
        self.scores_shape = self.point_shape = (variables, categories)
        self.z_shape = (variables,)
        self.count, self.dimension = categories**variables, variables * (categories - 1)
        self.log_assignments = variables * math.log(categories)

    def __repr__(self) -> str:
        return f"Categoricals({self.variables}, {self.categories})"

    @property
    def variables(self) -> int:
        """V."""
        return self.scores_shape[0]

    @property
    def categories(self) -> int:
        """C."""
        return self.scores_shape[1]

    @property
    def size(self) -> int:
        return self.variables * self.categories

    def every(self, like: Tensor) -> Int[Tensor, "M V"]:
        if self.variables > 1 and self.count > MOST_LISTED:
            raise ValueError(
                f"{self.categories}^{self.variables} assignments are too many: "
                f"at most {MOST_LISTED} are listed"
            )
        one = torch.arange(self.categories, device=like.device)
        return torch.cartesian_prod(*[one] * self.variables).view(-1, self.variables)

    def point(
        self, z: Shaped[Tensor, "*batch"], dtype: torch.dtype = torch.float32
    ) -> Float[Tensor, "*batch_and_variables C"]:
        return z if z.is_floating_point() else F.one_hot(z, self.categories).to(dtype)

    def _best(self, scores: Float[Tensor, "*batch V C"]) -> Int[Tensor, "*batch V"]:
        return scores.argmax(dim=-1)

    def plain(self, scores: Float[Tensor, "B V C"]) -> "IndependentCategoricals":
        return IndependentCategoricals(self, scores)

    def soft(self, scores: Float[Tensor, "*batch V C"]) -> Float[Tensor, "*batch V C"]:
        return scores.softmax(dim=-1)

    def noise(
        self, like: Float[Tensor, "B V C"], sampler: Sampler, samples: int
    ) -> Float[Tensor, "B {samples} V C"]:
        """Standard Gumbel."""
        return sampler.gumbel(like, samples)

    def noise_slope(self, noise: Float[Tensor, "*batch"]) -> Float[Tensor, "*batch"]:
        return -(-noise).expm1()

    def nearest(self, target: Float[Tensor, "*batch"]) -> Float[Tensor, "*batch"]:
        return sparsemax(target)

    def along(
        self, point: Float[Tensor, "B S V C"], slope: Float[Tensor, "B #S V C"]
    ) -> Float[Tensor, "B S V 1"]:
        return (point * slope).sum(dim=-1, keepdim=True)

    def centred(self, scores: Float[Tensor, "*batch"]) -> Float[Tensor, "*batch"]:
        return scores - scores.mean(dim=-1, keepdim=True)

    def topk_sparsemax(
        self, scores: Float[Tensor, "B V C"], k: int
    ) -> tuple[Int[Tensor, "B {k} V"], Float[Tensor, "B {k}"]]:
        if self.variables == 1 and k == self.categories:  # nothing to choose
            every = self.every(scores).expand(len(scores), -1, -1)
            return every, sparsemax(scores.squeeze(1))
        return topk_sparsemax_categoricals(scores, k)

    def smoothed(self, marginals: Float[Tensor, "B V C"], share: float) -> Float[Tensor, "B V C"]:
        return ((1 - share) * marginals + share / self.categories).log()

    def pulled_back(
        self, marginals: Float[Tensor, "*batch"], slope: Float[Tensor, "*batch"]
    ) -> Float[Tensor, "*batch"]:
        return marginals * (slope - (marginals * slope).sum(dim=-1, keepdim=True))

    def perturbed_given(
        self,
        scores: Float[Tensor, "B #S V C"],
        point: Float[Tensor, "B S V C"],
        noise: Float[Tensor, "B S V C"],
    ) -> Float[Tensor, "B S V C"]:
        top = (noise * point).sum(dim=3, keepdim=True)
        below = -torch.logaddexp(-noise - scores.log_softmax(dim=3), -top)
        return torch.where(point > 0, top, below)

    def noise_given(
        self,
        scores: Float[Tensor, "B #S V C"],
        point: Float[Tensor, "B S V C"],
        perturbed: Float[Tensor, "B S V C"],
    ) -> Float[Tensor, "B S V C"]:
        perturbed = perturbed - scores.logsumexp(dim=3, keepdim=True)
        gap = (perturbed * point).sum(dim=3, keepdim=True) - perturbed
        below = perturbed - scores.log_softmax(dim=3) - (-(-gap).expm1()).log()
        return torch.where(point > 0, perturbed, below)

    def log_odds(
        self, scores: Float[Tensor, "B #S V C"], point: Float[Tensor, "B S V C"]
    ) -> Float[Tensor, "B S V 1"]:
        own = (scores * point).sum(dim=3, keepdim=True)
        others = torch.where(point > 0, -torch.inf, scores)
        return own - others.logsumexp(dim=3, keepdim=True)

    def gapped(
        self,
        scores: Float[Tensor, "B #S V C"],
        point: Float[Tensor, "B S V C"],
        gap: Float[Tensor, "B S V 1"] | float,
    ) -> Float[Tensor, "B S V C"]:
        top = scores.amax(dim=3, keepdim=True)
        return torch.where(point > 0, top, scores.minimum(top - gap))

    def log_relaxed(
        self,
        logits: Float[Tensor, "B S V C"],
        scores: Float[Tensor, "B 1 V C"],
        temperature: float,
    ) -> Float[Tensor, "B S"]:
        """Of C Gumbel variables n_c = τ · logit_c − score_c that are known up to a constant:
        (C − 1)! τ^(C − 1) Π_c exp(−n_c) / (Σ_c exp(−n_c))^C."""
        against = scores - temperature * logits
        size = self.categories
        each = against.sum(dim=3) - size * against.logsumexp(dim=3)
        return (each + math.lgamma(size) + (size - 1) * math.log(temperature)).sum(dim=2)


class IndependentCategoricals(PlainDistribution):
    """A softmax for each variable."""

    def __init__(self, space: Categoricals, scores: Float[Tensor, "B V C"]) -> None:
        super().__init__(scores, space.log_assignments)
        self.space = space

    @cached_property
    def log_probabilities(self) -> Float[Tensor, "B V C"]:
        return self.scores.log_softmax(dim=2)

    @cached_property
    def probabilities(self) -> Float[Tensor, "B V C"]:
        return self.log_probabilities.exp()

    def sample(self, sampler: Sampler, samples: int) -> Int[Tensor, "B {samples} V"]:
        return sampler.categorical(self.probabilities.detach(), samples)

    def log_prob(self, z: Shaped[Tensor, "B S *z"]) -> Float[Tensor, "B S"]:
        if z.is_floating_point():
            return torch.einsum("bvc,bsvc->bs", self.log_probabilities, z)
        # (B, V, C) at (B, V, S): one gather for all variables.
        return self.log_probabilities.gather(2, z.transpose(1, 2)).sum(dim=1)

    def entropy(self) -> Float[Tensor, " B"]:
        return -(self.probabilities * self.log_probabilities).sum(dim=(1, 2))

    def mode(self) -> Int[Tensor, "B V"]:
        return self.space.best(self.scores)

    @cached_property
    def support(self) -> Support:
        joint = self.joint()
        row, number = (joint.detach() > 0).nonzero(as_tuple=True)
        return Support(self.space.every(self.scores)[number], row, joint[row, number])

    def joint(self) -> Float[Tensor, "B M"]:
        every = self.space.every(self.scores)
        product = self.probabilities[:, 0, every[:, 0]]
        for variable in range(1, self.space.variables):
            product = product * self.probabilities[:, variable, every[:, variable]]
        return product

    @property
    def support_sizes(self) -> Shaped[Tensor, " B"]:
        positive = (self.probabilities.detach() > 0).sum(dim=2)
        return positive.double().prod(dim=1)

    def marginals(self) -> Float[Tensor, "B V C"]:
        return self.probabilities
