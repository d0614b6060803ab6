"""Mixed Dirichlet: a face of the simplex, and a Dirichlet variable on it (Farinhas et al. 2022).

    f ~ exp ⟨s, f⟩ / Z,   z given f ~ Dirichlet(α_k, k ∈ f),   α_k = 1 + c σ(s_k)

In the paper α is an output of the encoder beside the scores; here these say both. With α ≥ 1 the
density is bounded, and no coordinate of a sample falls to 0 by rounding, on a face of less.

The entropy is H(f) + E[h(z | f)]. What h has of the single α_k takes the probability that k is in
f; what it has of their sum A, over the n categories of f, is

    E[(A − n) ψ(A) − log Γ(A)]
        = E[A + (½ − n) log A] − ½ log 2π − ∫ E[((A − n) (c + ½) + c / t) e^(−tA)] dt,
    E[(½ − n) log A] = ∫ E[(½ − n) (e^(−t) − e^(−tA))] / t dt

over t > 0, with Binet's c(t) = 1 / (e^t − 1) − 1 / t + ½. e^(−tA) is a product over categories,
whose mean comes from faces with the scores s − tα:

    E[e^(−tA)] = Z(t) / Z(0),   Z(t) = Π (1 + exp(s_k − t α_k)) − 1
"""

import math
from functools import cache, cached_property

import numpy as np
import torch
from jaxtyping import Float, Shaped
from torch import Tensor
from torch.nn import functional as F

from estimators.distributions.faces import Faces
from estimators.distributions.mixed import MixedDistribution, log_volume_of_faces
from estimators.sampler import Sampler
from estimators.spaces.categoricals import Categoricals, IndependentCategoricals

STEP = 0.4
"""Of the trapezoid rule over log t: the integrand is analytic where the imaginary part is smaller
than π / 2, and the entropy right to 1e-8."""

LEVEL_STEP = 0.7
"""Of that over log(e^x − 1), for gamma variables x."""


class MixedDirichlet(MixedDistribution):
    """Independent categorical variables.

    Args:
        space: of the variables.
        scores: s, log-odds that a category takes part, among faces that may be empty.
        concentration: c.
    """

    def __init__(
        self, space: Categoricals, scores: Float[Tensor, "B V C"], concentration: float
    ) -> None:
        super().__init__(scores, space.variables * log_volume_of_faces(space.categories))
        self.space, self.concentration = space, concentration
        self.faces = Faces(scores)

    @property
    def alpha(self) -> Float[Tensor, "B V C"]:
        return 1 + self.concentration * self.scores.sigmoid()

    def sample(self, sampler: Sampler, samples: int) -> Float[Tensor, "B {samples} V C"]:
        """The gradient is that of the point on its face, by implicit differentiation (Figurnov et
        al. 2018; torch's is right to 1e-3); the face is as likely as `log_face` says."""
        parts = sampler.gamma(self.alpha, samples) * self.faces.sample(sampler, samples)
        return parts / parts.sum(dim=3, keepdim=True)

    def log_face(self, z: Float[Tensor, "B S V C"]) -> Float[Tensor, "B S"]:
        """Log-probability of the faces that points are on."""
        return self.faces.log_prob(z > 0).sum(dim=2)

    def log_prob(self, z: Shaped[Tensor, "B S *z"]) -> Float[Tensor, "B S"]:
        point = self.space.point(z, self.scores.dtype)
        face, alpha = point > 0, self.alpha[:, None]
        logs = point.masked_fill(~face, 1).log()
        each = torch.where(face, (alpha - 1) * logs - alpha.lgamma(), 0).sum(dim=3)
        total = torch.where(face, alpha, 0).sum(dim=3)
        return self.log_face(point) + (total.lgamma() + each).sum(dim=2)

    def entropy(self) -> Float[Tensor, " B"]:
        """In double precision within, whatever the scores are in."""
        scores = self.scores.double()
        faces, more = Faces(scores), self.concentration * scores.sigmoid()
        single = (1 + more).lgamma() - more * (1 + more).digamma()
        on_face = (faces.marginals * single).sum(dim=2) + self._mean_of_sum(scores, more)
        return (faces.entropy() + on_face).sum(dim=1).to(self.scores.dtype)

    def _mean_of_sum(
        self, scores: Float[Tensor, "B V C"], more: Float[Tensor, "B V C"]
    ) -> Float[Tensor, "B V"]:
        """E[(A − n) ψ(A) − log Γ(A)], from s and α − 1."""
        rule = _binet(self.space.categories, self.concentration)
        t, c, weight = (torch.from_numpy(part).to(scores.device) for part in rule)
        tilted = scores[..., None, :] - t[:, None] * (1 + more)[..., None, :]  # (B, V, nodes, C)
        log_partition = F.softplus(tilted).sum(dim=3)
        start = F.softplus(scores).sum(dim=2, keepdim=True)
        share = (log_partition - start).exp() / -(-start).expm1()
        on = tilted.sigmoid()
        mean_exp = share * -(-log_partition).expm1()
        mean_size = share * on.sum(dim=3)
        mean_more = share * (on @ more[..., None]).squeeze(3)
        on_at_0 = scores.sigmoid() / -(-start).expm1()
        size, extra = on_at_0.sum(dim=2), (on_at_0 * more).sum(dim=2)
        logs = (0.5 - size)[..., None] * (-t).exp() - mean_exp / 2 + mean_size
        integral = (logs - t * (c + 0.5) * mean_more - c * mean_exp) @ weight
        return size + extra + integral - math.log(2 * math.pi) / 2

    def face_sizes(self, z: Float[Tensor, "B S V C"]) -> Float[Tensor, "B S V"]:
        return (z > 0).sum(dim=3).to(z.dtype)

    def on_vertex(self) -> Float[Tensor, " B"]:
        return self.faces.log_vertex().exp().sum(dim=2).mean(dim=1)

    def rounded(self) -> IndependentCategoricals:
        """Without a gradient: of gamma variables on a face, each is the largest with the
        probability ∫ p(x) Π (1 − P(j ∈ f) + P(j ∈ f) P(x_j < x)) dx."""
        return self._rounded

    @cached_property
    def _rounded(self) -> IndependentCategoricals:
        with torch.no_grad():
            alpha, faces = self.alpha[..., None], self.faces
            most = 1 + self.concentration
            high = most + 10 * math.sqrt(most) + 20
            level = torch.arange(-14, high, LEVEL_STEP).to(alpha)
            x = F.softplus(level)
            below = torch.special.gammainc(alpha, x)
            each = torch.logaddexp(faces.log_off[..., None], faces.log_on[..., None] + below.log())
            others = each.sum(dim=2, keepdim=True) - each
            density = (alpha - 1) * x.log() - x - alpha.lgamma() + F.logsigmoid(level)
            log_p = faces.log_on + (density + others).logsumexp(dim=3)
            return self.space.plain(log_p)


@cache
def _binet(categories: int, concentration: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """t, c(t) and weights, that of the least t with all below it, where the integrand is linear."""
    most = categories * (1 + concentration)
    log_t = np.arange(math.log(1e-6 / (most * math.sqrt(categories))), math.log(40), STEP)
    t = np.exp(log_t)
    near = t / 12 - t**3 / 720 + t**5 / 30240 - t**7 / 1209600
    c = np.where(t < 0.1, near, 1 / np.expm1(t) - 1 / t + 0.5)
    weight = np.full_like(t, STEP)
    weight[0] /= -math.expm1(-STEP)
    return t, c, weight
