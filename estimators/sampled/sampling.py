"""What estimators that sample assignments from q have in common: how they treat the entropy."""

from typing import Literal

from pydantic import BaseModel, Field

from estimators.base import Estimator


class SamplingSettings(BaseModel, extra="forbid", frozen=True):
    """A subclass adds its own."""

    entropy: Literal["analytic", "sampled"] = Field(
        "analytic",
        description="its gradient: exact, or from log q in the costs, as in most published code",
    )


class Sampling(Estimator):
    """An estimator from costs of samples, which may have λ log q(z) in them.

    E_q[f] − λ H(q) = E_q[f + λ log q], and the mean of λ ∇ log q is zero: the expected estimate is
    the same, and its variance is that of published code, where the entropy is sampled too.
    """

    settings: SamplingSettings

    @property
    def log_q_in_costs(self) -> bool:
        return super().log_q_in_costs or self.settings.entropy == "sampled"
