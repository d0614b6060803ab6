"""What every mapping asks of its scores."""

from jaxtyping import Float
from torch import Tensor


def check_finite(scores: Float[Tensor, "B ..."]) -> None:
    """Refuse scores that are not finite, naming the first row.

    Raises:
        ValueError: a score is not finite.
    """
    finite = scores.isfinite()
    if not finite.all():
        row = int((~finite).flatten(1).any(dim=1).nonzero()[0])
        raise ValueError(f"the scores of row {row} are not finite: {scores[row].tolist()}")
