"""Exact sums under sparse distributions over bit-vectors: top-k sparsemax and SparseMAP.

All are `SupportSum`s: E_q[f] = Σ_{z ∈ supp q} q(z) f(z), with a q of few bit-vectors however
many bits there are (Correia et al. 2020, section 4).
"""

from typing import Annotated

from pydantic import BaseModel, Field
from torch import Tensor

from estimators.base import Family, Knob, Latent
from estimators.distributions.base import Distribution, SparseBits
from estimators.mappings import (
    BitSolver,
    Parametrisation,
    lp_sparsemap,
    sparsemap_bits,
    topk_sparsemax,
)
from estimators.registry import register
from estimators.searched import Range
from estimators.summed.support_sum import SupportSum

BITS: frozenset[Family] = frozenset({"bits"})


@register
class TopKSparsemax(SupportSum):
    """Sparsemax over the k bit-vectors of highest score."""

    name = "topk-sparsemax"
    citation = "Correia et al. 2020, section 4.1"
    families = BITS
    knobs = (Knob("k", (2, 10, 50)),)

    class Settings(BaseModel, extra="forbid", frozen=True):
        k: Annotated[int, Range(2, 32, log=True)] = Field(
            10, ge=1, description="bit-vectors kept, of highest score"
        )

    settings: Settings

    @classmethod
    def refusal(cls, latent: Latent, settings: BaseModel) -> str | None:
        assert isinstance(settings, cls.Settings)
        if latent.family == "bits" and settings.k > 2**latent.size:
            return f"{cls.name} has k = {settings.k}, above all 2^{latent.size} bit-vectors"
        return super().refusal(latent, settings)

    @property
    def calls_per_row(self) -> int:
        return self.settings.k

    def distribution(self, scores: Tensor) -> Distribution:
        vertices, probabilities, _ = topk_sparsemax(scores, self.settings.k)
        return SparseBits(scores, vertices, probabilities)


@register
class SparseMAP(SupportSum):
    """SparseMAP over all bit-vectors."""

    name = "sparsemap"
    citation = "Niculae et al. 2018; Correia et al. 2020, section 4.2"
    families = BITS
    knobs = (Knob("tolerance", (1e-6, 1e-2, 0.2)),)

    class Settings(BaseModel, extra="forbid", frozen=True):
        parametrisation: Parametrisation = Field(
            "pairs", description="a pair of variables for each bit, as published, or a single one"
        )
        solver: BitSolver = Field("active-set", description="how the distribution is found")
        tolerance: float = Field(1e-6, gt=0, description="on the marginals, of the active set")

    settings: Settings

    @classmethod
    def refusal(cls, latent: Latent, settings: BaseModel) -> str | None:
        assert isinstance(settings, SparseMAP.Settings)
        if settings.solver == "lp-sparsemap" and not lp_sparsemap.available():
            return (
                f"lp-sparsemap is not there: `make lp-sparsemap`, and set {lp_sparsemap.VARIABLE}"
            )
        if settings.solver == "lp-sparsemap" and settings.parametrisation != "pairs":
            return "lp-sparsemap solves the parametrisation by pairs only"
        return super().refusal(latent, settings)

    @property
    def calls_per_row(self) -> int:
        return self.latent.size + 1

    @property
    def budget(self) -> int | None:
        """Most bits on in an assignment, or None."""
        return None

    def distribution(self, scores: Tensor) -> Distribution:
        s = self.settings
        solution = sparsemap_bits(scores, self.budget, s.parametrisation, s.solver, s.tolerance)
        unsolved = solution.residual > 1.01 * s.tolerance  # a hundredth for rounding
        return SparseBits(scores, solution.vertices, solution.probabilities, unsolved)


@register
class SparseMAPBudget(SparseMAP):
    """SparseMAP over the bit-vectors with at most half of their bits on."""

    name = "sparsemap-budget"
    citation = "Correia et al. 2020, section 5.3"

    @classmethod
    def refusal(cls, latent: Latent, settings: BaseModel) -> str | None:
        assert isinstance(settings, SparseMAP.Settings)
        if settings.solver == "lp-sparsemap":
            return "lp-sparsemap gives no distribution over bit-vectors with a budget"
        return super().refusal(latent, settings)

    @property
    def budget(self) -> int:
        return max(1, self.latent.size // 2)
