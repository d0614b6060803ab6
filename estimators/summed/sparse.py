"""Exact sums under distributions over few assignments: top-k sparsemax and SparseMAP.

All are `SupportSum`s: E_q[f] = Σ_{z ∈ supp q} q(z) f(z), with a q of few assignments however
many there are (Correia et al. 2020, section 4).
"""

from typing import Annotated, ClassVar

import torch
from jaxtyping import Float
from pydantic import BaseModel, Field
from torch import Tensor

from estimators.base import Knob
from estimators.distributions.sparse import SparseDistribution
from estimators.mappings import (
    BitSolver,
    Parametrisation,
    lp_sparsemap,
    sparsemap,
    sparsemap_bits,
    sparsemap_categoricals,
)
from estimators.registry import register
from estimators.searched import Range
from estimators.spaces.base import Ranked, Space
from estimators.spaces.bits import Bits
from estimators.spaces.categoricals import Categoricals
from estimators.spaces.distribution import Distribution
from estimators.summed.support_sum import SupportSum


@register
class TopKSparsemax(SupportSum):
    """Sparsemax over the k assignments of highest score."""

    name = "topk-sparsemax"
    citation = "Correia et al. 2020, section 4.1"
    spaces = (Ranked,)
    knobs = (Knob("k", (2, 10, 50)),)

    class Settings(BaseModel, extra="forbid", frozen=True):
        k: Annotated[int, Range(2, 32, log=True)] = Field(
            10, ge=1, description="assignments kept, of highest score"
        )

    settings: Settings

    @classmethod
    def refusal(cls, space: Space, settings: BaseModel) -> str | None:
        assert isinstance(settings, cls.Settings)
        if settings.k > space.count:
            return f"{cls.name} has k = {settings.k}, above all {space.count} assignments"
        return super().refusal(space, settings)

    @property
    def calls_per_row(self) -> int:
        return self.settings.k

    def distribution(self, scores: Float[Tensor, "B *scores"]) -> Distribution:
        assert isinstance(self.space, Ranked)
        listed, probabilities = self.space.topk_sparsemax(scores, self.settings.k)
        return SparseDistribution(self.space, scores, listed, probabilities)


@register
class SparseMAP(SupportSum):
    """SparseMAP over all assignments: of categorical variables in closed form, of structures by
    their MAP oracle, called as often as it takes for each row."""

    name = "sparsemap"
    citation = "Niculae et al. 2018; Correia et al. 2020, section 4.2"
    spaces: ClassVar[tuple[type[Space], ...]] = (Space,)
    knobs = (Knob("tolerance", (1e-6, 1e-2, 0.2)),)

    class Settings(BaseModel, extra="forbid", frozen=True):
        parametrisation: Parametrisation = Field(
            "pairs",
            description="a pair of variables for each bit, as published, or a single one",
        )
        solver: BitSolver = Field("active-set", description="how the distribution of bits is found")
        tolerance: float = Field(1e-6, gt=0, description="on the marginals, of the active set")

    settings: Settings

    @classmethod
    def refusal(cls, space: Space, settings: BaseModel) -> str | None:
        assert isinstance(settings, SparseMAP.Settings)
        if settings.solver == "lp-sparsemap":
            if not isinstance(space, Bits):
                return "lp-sparsemap solves for bits only"
            if not lp_sparsemap.available():
                how = f"`make lp-sparsemap`, and set {lp_sparsemap.VARIABLE}"
                return f"lp-sparsemap is not there: {how}"
            if settings.parametrisation != "pairs":
                return "lp-sparsemap solves the parametrisation by pairs only"
        return super().refusal(space, settings)

    @property
    def calls_per_row(self) -> int:
        return self.space.dimension + 1

    @property
    def budget(self) -> int | None:
        """Most bits on in an assignment, or None."""
        return None

    def distribution(self, scores: Float[Tensor, "B *scores"]) -> Distribution:
        s, space = self.settings, self.space
        if isinstance(space, Categoricals):
            found = sparsemap_categoricals(scores)
            return SparseDistribution(space, scores, found.assignments, found.probabilities)
        if not isinstance(space, Bits):
            return self._of_structures(scores)
        solution = sparsemap_bits(scores, self.budget, s.parametrisation, s.solver, s.tolerance)
        unsolved = solution.residual > 1.01 * s.tolerance  # a hundredth for rounding
        return SparseDistribution(
            space, scores, solution.vertices, solution.probabilities, unsolved
        )

    def _of_structures(self, scores: Float[Tensor, "B *scores"]) -> Distribution:
        space = self.space
        found = sparsemap(
            scores.flatten(1),
            lambda of: space.best(of.view(-1, *space.scores_shape)),
            self.settings.tolerance,
            indicators=lambda z: space.point(z, torch.float64).flatten(1),
        )
        return SparseDistribution(
            space, scores, found.vertices, found.probabilities, ~found.converged
        )


@register
class SparseMAPBudget(SparseMAP):
    """SparseMAP over the bit-vectors with at most half of their bits on.

    Where that binds, as at scores of zero, the whole support has as many bits on: a cost that only
    depends on how many are (`toy`) has no gradient there.
    """

    name = "sparsemap-budget"
    citation = "Correia et al. 2020, section 5.3"
    spaces = (Bits,)

    @classmethod
    def refusal(cls, space: Space, settings: BaseModel) -> str | None:
        assert isinstance(settings, SparseMAP.Settings)
        if settings.solver == "lp-sparsemap":
            return "lp-sparsemap gives no distribution over bit-vectors with a budget"
        return super().refusal(space, settings)

    @property
    def budget(self) -> int:
        assert isinstance(self.space, Bits)
        return max(1, self.space.size // 2)
