"""What estimators and costs give, checked where what is wrong would pass in silence.

This is on the clock of every step: nothing but comparisons of shapes, microseconds in all.
"""

from torch import Tensor

from estimators.base import Estimate, Estimator, Proposal


class ShapeError(ValueError):
    """Something other than the contract says; the message names who gave it."""


def check_scores(estimator: Estimator, scores: Tensor) -> None:
    """Refuse scores that are not those of the estimator's space.

    Raises:
        ShapeError: they have another shape.
    """
    _check("the encoder", "scores", scores, (len(scores), *estimator.space.scores_shape))


def check_proposal(estimator: Estimator, proposal: Proposal) -> None:
    """Refuse a proposal whose parts are not of one length N, or whose z are no assignments.

    Raises:
        ShapeError: one has another shape, or z another type.
    """
    name, space = f"propose of {estimator.name}", estimator.space
    if not isinstance(proposal, Proposal):
        raise ShapeError(f"{name} gives no Proposal")
    z, count = proposal.z, len(proposal.row)
    _check(name, "row", proposal.row, (count,))
    shape = space.point_shape if z.is_floating_point() else space.z_shape
    _check(name, "z", z, (count, *shape))
    wanted = proposal.slopes is not False
    if not z.is_floating_point() and (wanted or space.z_shape == space.point_shape):
        said = "points, to have slopes at, " if wanted else f"{space.name} "
        raise ShapeError(f"{name} gives {said}of type {z.dtype}, not float")
    if wanted and not estimator.takes_slopes:
        raise ShapeError(f"{name} asks for slopes: say takes_slopes = True")
    _check(name, "decoder_weight", proposal.decoder_weight, (count,))
    if not isinstance(proposal.slopes, bool):
        _check(name, "slopes", proposal.slopes, (count,))


def check_estimate(estimator: Estimator, estimate: Estimate, scores: Tensor, count: int) -> None:
    """Refuse an estimate that is not one number for each of B rows, from N costs, or that leaves
    the scores (B, ·) without a gradient.

    Raises:
        ShapeError: a part of it has another shape, or the surrogate no graph.
    """
    name = f"combine of {estimator.name}"
    if not isinstance(estimate, Estimate):
        raise ShapeError(f"{name} gives no Estimate")
    rows, surrogate = len(scores), estimate.surrogate
    _check(name, "objective", estimate.objective, (rows,))
    _check(name, "surrogate", surrogate, (rows,))
    if surrogate is not None and scores.requires_grad and not surrogate.requires_grad:
        raise ShapeError(f"{name} gives a surrogate without a gradient")
    entropy = estimate.entropy
    _check(name, "entropy", entropy, (rows,))
    if entropy is not None:
        if scores.requires_grad and not entropy.requires_grad:
            raise ShapeError(f"{name} gives an entropy without a gradient")
        if estimator.log_q_in_costs:
            raise ShapeError(f"{name} gives an entropy, and asks for log q in the costs")
    _check(name, "decoder_weight", estimate.decoder_weight, (count,))
    _check(name, "own_loss", estimate.own_loss, ())
    for what, value in estimate.diagnostics.items():
        _check(name, what, value, ())


def check_costs(giver: str, costs: Tensor, count: int) -> None:
    """Refuse costs that are not one number for each of N assignments.

    Raises:
        ShapeError: they have another shape.
    """
    _check(giver, "costs", costs, (count,))


def _check(giver: str, what: str, found: Tensor | None, wanted: tuple[int, ...]) -> None:
    if found is None:
        return
    if not isinstance(found, Tensor):
        raise ShapeError(f"{giver} gives {what} that is no tensor: {found!r}")
    if found.shape != wanted:
        raise ShapeError(f"{giver} gives {what} of shape {tuple(found.shape)}, not {wanted}")
