"""What every mapping asks of its scores, and what dtype it computes in."""

from collections.abc import Callable
from functools import wraps
from typing import Any, TypeVar, cast

import torch
from jaxtyping import Float
from torch import Tensor

Function = TypeVar("Function", bound=Callable[..., Any])


def mapping(function: Function) -> Function:
    """A function of scores that keeps to their dtype, and raises TypeError for integers."""

    @wraps(function)
    def of_scores(scores: Tensor, *rest: Any, **named: Any) -> Any:
        check_floating(scores)
        with in_their_dtype(scores):
            return function(scores, *rest, **named)

    return cast(Function, of_scores)


def in_their_dtype(scores: Tensor) -> torch.autocast:
    """Where products are of the dtype of what they are of: `torch.autocast` would round
    probabilities that have to add up."""
    return torch.autocast(scores.device.type, enabled=False)


def check_floating(scores: Tensor) -> None:
    """Refuse integers, among which all probabilities would be zero or one.

    Raises:
        TypeError: the scores are no floating-point numbers.
    """
    if not scores.is_floating_point():
        raise TypeError(f"the scores are {scores.dtype}: give floating-point numbers")


def check_finite(scores: Float[Tensor, "B ..."]) -> None:
    """Refuse scores that are not finite, naming the first row.

    Raises:
        ValueError: a score is not finite.
    """
    finite = scores.isfinite()
    if not finite.all():
        row = int((~finite).flatten(1).any(dim=1).nonzero()[0])
        raise ValueError(f"the scores of row {row} are not finite: {scores[row].tolist()}")
