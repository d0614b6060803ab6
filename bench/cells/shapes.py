"""What estimators and tasks give, checked where what is wrong would pass in silence.

This is on the clock of every step: nothing but comparisons of shapes, microseconds in all.
"""

from torch import Tensor

from estimators.base import Estimate, Estimator, Proposal
from tasks.base import Task


class ShapeError(ValueError):
    """Something other than the contract says; the message names who gave it."""


def check_proposal(estimator: Estimator, proposal: Proposal) -> None:
    """Refuse a proposal whose parts are not of one length N, or whose z are no assignments.

    Raises:
        ShapeError: one has another shape, or z another type.
    """
    if not isinstance(proposal, Proposal):
        raise ShapeError(f"propose of {estimator.name} gives no Proposal")
    z, count = proposal.z, len(proposal.row)
    _check(estimator, "propose", "row", proposal.row, (count,))
    latent = estimator.latent
    indices = latent.family == "categorical" and not z.is_floating_point()
    _check(estimator, "propose", "z", z, (count,) if indices else (count, latent.size))
    if not indices and not z.is_floating_point():
        raise ShapeError(f"propose of {estimator.name} gives bits of type {z.dtype}, not float")
    _check(estimator, "propose", "decoder_weight", proposal.decoder_weight, (count,))
    _check(estimator, "propose", "pathwise_weight", proposal.pathwise_weight, (count,))


def check_estimate(estimator: Estimator, estimate: Estimate, scores: Tensor, count: int) -> None:
    """Refuse an estimate that is not one number for each of B rows, from N costs, or that leaves
    the scores (B, ·) without a gradient.

    Raises:
        ShapeError: a part of it has another shape, or the surrogate no graph.
    """
    if not isinstance(estimate, Estimate):
        raise ShapeError(f"combine of {estimator.name} gives no Estimate")
    rows, surrogate = len(scores), estimate.surrogate
    _check(estimator, "combine", "objective", estimate.objective, (rows,))
    _check(estimator, "combine", "surrogate", surrogate, (rows,))
    if surrogate is not None and scores.requires_grad and not surrogate.requires_grad:
        raise ShapeError(f"combine of {estimator.name} gives a surrogate without a gradient")
    _check(estimator, "combine", "decoder_weight", estimate.decoder_weight, (count,))
    _check(estimator, "combine", "own_loss", estimate.own_loss, ())
    for name, value in estimate.diagnostics.items():
        _check(estimator, "combine", name, value, ())


def check_costs(task: Task, costs: Tensor, count: int) -> None:
    """Refuse costs that are not one number for each of N assignments.

    Raises:
        ShapeError: they have another shape.
    """
    _check(task, "cost", "costs", costs, (count,))


def _check(
    giver: Estimator | Task, method: str, what: str, found: Tensor | None, wanted: tuple[int, ...]
) -> None:
    if found is None:
        return
    if not isinstance(found, Tensor):
        raise ShapeError(f"{method} of {giver.name} gives {what} that is no tensor: {found!r}")
    if found.shape != wanted:
        raise ShapeError(
            f"{method} of {giver.name} gives {what} of shape {tuple(found.shape)}, not {wanted}"
        )
