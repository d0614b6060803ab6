"""Shapes of what estimators and tasks give, checked where wrong ones would broadcast in silence.

This is on the clock of every step: nothing but comparisons of shapes, microseconds in all.
"""

from torch import Tensor

from estimators.base import Estimate, Estimator, Proposal
from tasks.base import Task


class ShapeError(ValueError):
    """A tensor of another shape than the contract says; the message names who gave it."""


def check_proposal(estimator: Estimator, proposal: Proposal) -> None:
    """Refuse a proposal whose parts are not of one length N.

    Raises:
        ShapeError: one has another shape.
    """
    z, count = proposal.z, len(proposal.row)
    _check(estimator, "propose", "row", proposal.row, (count,))
    _check(estimator, "propose", "z", z, (count, *z.shape[1:]))
    _check(estimator, "propose", "decoder_weight", proposal.decoder_weight, (count,))
    _check(estimator, "propose", "pathwise_weight", proposal.pathwise_weight, (count,))


def check_estimate(estimator: Estimator, estimate: Estimate, rows: int, count: int) -> None:
    """Refuse an estimate that is not one number for each of B rows, from N costs.

    Raises:
        ShapeError: a part of it has another shape.
    """
    _check(estimator, "combine", "objective", estimate.objective, (rows,))
    _check(estimator, "combine", "surrogate", estimate.surrogate, (rows,))
    _check(estimator, "combine", "decoder_weight", estimate.decoder_weight, (count,))
    _check(estimator, "combine", "own_loss", estimate.own_loss, ())


def check_costs(task: Task, costs: Tensor, count: int) -> None:
    """Refuse costs that are not one number for each of N assignments.

    Raises:
        ShapeError: they have another shape.
    """
    _check(task, "cost", "costs", costs, (count,))


def _check(
    giver: Estimator | Task, method: str, what: str, found: Tensor | None, wanted: tuple[int, ...]
) -> None:
    if found is not None and found.shape != wanted:
        raise ShapeError(
            f"{method} of {giver.name} gives {what} of shape {tuple(found.shape)}, not {wanted}"
        )
