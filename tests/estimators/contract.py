"""What every estimator must keep, as functions that raise AssertionError where it is broken.

The noise of an estimator is enumerated: a batch holds the same row once for every outcome that
its draws can have, `EveryOutcome` deals outcome r to row r and keeps its probability, and the
expectation is the sum over rows. What a row gets from the other rows of its batch does not show
there: for that, a batch of two rows is run once for every outcome that both can have together.
Everything is float64.
"""

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from types import SimpleNamespace

import torch
from torch import Tensor

from bench.cells.step import CountedCost, latent_loss
from estimators.base import Estimator, Evaluated, ExactFor, Proposal
from estimators.sampler import Sampler
from estimators.shapes import check_proposal as check_shapes
from estimators.spaces import Bits, Categoricals, Chains, Space, Subsets, Trees
from tasks.base import Encoding
from tests.estimators.every_outcome import EveryOutcome, SameForEveryRow

FEATURES = 3
WIDTH = 4

CostFunction = Callable[[Tensor, Tensor], Tensor]
"""f(point, θ): points (N, P) and the decoder's parameters (N, P) to costs (N,)."""


def linear(point: Tensor, theta: Tensor) -> Tensor:
    return (point * theta).sum(dim=1)


def quadratic(point: Tensor, theta: Tensor) -> Tensor:
    return (linear(point, theta) - 0.4).square()


def cubic(point: Tensor, theta: Tensor) -> Tensor:
    return linear(point, theta) ** 3


def network(point: Tensor, theta: Tensor) -> Tensor:
    size = point.shape[1]
    mixing = torch.linspace(-2, 2, size * WIDTH, dtype=point.dtype).view(size, WIDTH).sin()
    return ((point * theta) @ mixing).tanh().square().sum(dim=1)


def far_from_zero(point: Tensor, theta: Tensor) -> Tensor:
    return 100 + quadratic(point, theta)


def steep(point: Tensor, theta: Tensor) -> Tensor:
    """Its standard deviation is above 1, where NVIL's scale begins."""
    return 30 * network(point, theta)


def multilinear(space: Space) -> CostFunction:
    """A product over variables, linear in the point of each; a tree is one."""
    if isinstance(space, Trees):
        return linear

    def product(point: Tensor, theta: Tensor) -> Tensor:
        terms = point * theta
        if isinstance(space, Bits):
            return (1 + terms).prod(dim=1)
        if isinstance(space, Chains):  # one structure
            return terms.sum(dim=1)
        return terms.unflatten(1, space.point_shape).sum(dim=2).prod(dim=1)

    return product


COSTS: tuple[CostFunction, ...] = (network, far_from_zero, steep)
"""No estimator is exact for the first by its kind; of the others level and scale matter."""


@dataclass(frozen=True)
class Problem:
    """A latent variable, one row of scores and one row of decoder parameters."""

    space: Space
    scores: Tensor
    """As the space has them, or a batch of them where `run` takes it for several rows at once."""
    theta: Tensor
    """(P,), P the length of a point, or (B, P)."""

    @classmethod
    def random(cls, space: Space, seed: int = 0) -> "Problem":
        generator = torch.Generator().manual_seed(seed)
        scores = torch.randn(space.scores_shape, generator=generator, dtype=torch.float64)
        size = math.prod(space.point_shape)
        theta = torch.randn(size, generator=generator, dtype=torch.float64)
        return cls(space, scores, theta)

    def assignments(self) -> Tensor:
        """All of them, (M, *z)."""
        return self.space.every(self.scores)

    def point(self, z: Tensor) -> Tensor:
        """Points of assignments (N, *z), flat: (N, P)."""
        return self.space.point(z, torch.float64).flatten(1)


CATEGORICAL = Categoricals(1, 5)
SEVERAL = Categoricals(2, 3)
BITS = Bits(3)
SUBSET = Subsets(1, 4, 2)
SUBSETS = Subsets(2, 3, 2)
CHAIN = Chains(2, 2)
TREES = Trees(3)
FEW_CATEGORIES = Categoricals(1, 3)
FEW_SEVERAL = Categoricals(2, 2)
FEW_BITS = Bits(2)
FEW_SUBSETS = Subsets(1, 2, 1)
FEW_TREES = Trees(2)
"""The latter five for batches of two rows: the runs are as many as a row's outcomes, squared."""


def two_rows(space: Space) -> list[Problem]:
    """Two that differ."""
    return [Problem.random(space, seed) for seed in (1, 2)]


ENTROPY_WEIGHTS = (0.0, 1.0)
"""λ in the objective E_q[f] − λ H(q) that the gradient of the scores is checked for."""


@dataclass(frozen=True)
class Gradients:
    """For a row: E_q[f], the gradient of E_q[f] − λ H(q) in the scores, and of the decoder."""

    value: Tensor
    scores: Tensor
    theta: Tensor
    scale: Tensor | float = 1.0
    """What the estimate says that the gradient of the scores has been multiplied by."""


def run(
    estimator: Estimator,
    problem: Problem,
    f: CostFunction,
    sampler: Sampler,
    rows: int,
    at_once: int = 10**9,
    entropy_weight: float = 0.0,
) -> Gradients:
    """The estimate for each of `rows` copies of the problem's row, through the harness's step.

    Value (B,), scores (B, …) and theta (B, ·): each row has parameters of its own, so that the
    decoder's gradient is known row by row too.
    """
    space = problem.space
    scores = problem.scores.expand(rows, *space.scores_shape).clone().requires_grad_()
    theta = problem.theta.expand(rows, -1).clone().requires_grad_()
    features = torch.linspace(-1, 1, FEATURES, dtype=torch.float64).expand(rows, -1)

    def cost_of(context: tuple[Tensor, ...], z: Tensor, row: Tensor) -> Tensor:
        return f(problem.point(z), context[0][row])

    task = SimpleNamespace(
        name="test", cost=cost_of, latent_weight=1.0, activation_size=2**25 // at_once + 1
    )
    encoding = Encoding(scores, features, (theta,))
    counted = CountedCost(task)  # type: ignore[arg-type]
    result = latent_loss(task, estimator, counted, encoding, sampler, entropy_weight)  # type: ignore[arg-type]
    if result.loss.requires_grad:
        result.loss.backward()
    assert result.update is not None
    with torch.no_grad():
        q = estimator.distribution(scores)
        estimate = estimator.combine(q, *result.update[:2])
    zero = torch.zeros_like
    return Gradients(
        estimate.objective,
        rows * (scores.grad if scores.grad is not None else zero(scores)),
        rows * (theta.grad if theta.grad is not None else zero(theta)),
        estimate.scale,
    )


def expectation(
    estimator: Estimator, problem: Problem, f: CostFunction, entropy_weight: float = 0.0
) -> Gradients:
    """The expected estimate, with the estimator's state as it is, over every outcome."""
    draws = draws_of_a_row(estimator, problem, f)
    rows = math.prod(draws)
    dealer = EveryOutcome(draws)
    result = run(estimator, problem, f, dealer, rows, entropy_weight=entropy_weight)
    weight = dealer.weight
    torch.testing.assert_close(weight.sum(), torch.tensor(1.0, dtype=torch.float64))
    mean = torch.einsum("b,b...->...", weight, result.scores)
    return Gradients(weight @ result.value, mean, weight @ result.theta, result.scale)


def draws_of_a_row(estimator: Estimator, problem: Problem, f: CostFunction) -> list[int]:
    """How many outcomes each draw has that the estimator makes for a row; none for a sum."""
    recording = EveryOutcome.recording()
    run(estimator, problem, f, recording, rows=1)
    return recording.draws


def joint_expectation(
    estimator: Estimator, problems: Sequence[Problem], f: CostFunction
) -> Gradients:
    """The expected estimate for a batch with a row of each problem, over every joint outcome.

    Value (B,), scores and theta (B, ·). Each joint outcome is a run of its own, so that there are
    as many as a row has outcomes, to the power of B. The scale is the expected one.
    """
    batch = Problem(
        problems[0].space,
        torch.stack([problem.scores for problem in problems]),
        torch.stack([problem.theta for problem in problems]),
    )
    draws = draws_of_a_row(estimator, problems[0], f)
    terms: list[tuple[Tensor, Gradients]] = []
    for outcome in itertools.product(range(math.prod(draws)), repeat=len(problems)):
        dealer = EveryOutcome(draws, torch.tensor(outcome))
        result = run(estimator, batch, f, dealer, len(problems))
        terms.append((dealer.weight.prod(), result))
    total = sum(weight for weight, _ in terms)
    torch.testing.assert_close(total, torch.tensor(1.0, dtype=torch.float64))
    value, scores, theta, scale = (
        sum(weight * getattr(result, name) for weight, result in terms)
        for name in ("value", "scores", "theta", "scale")
    )
    return Gradients(value, scores, theta, scale)


def exact(
    estimator: Estimator, problem: Problem, f: CostFunction, entropy_weight: float = 0.0
) -> Gradients:
    """Σ_z q(z) f(z) over all z, and gradients by central differences, λ Σ_z q log q included: in
    the value too, where the estimator has it in its costs. Or the bound on several samples, over
    all tuples of z."""
    z = problem.assignments()
    point = problem.point(z)

    def elbo(scores: Tensor, theta: Tensor, weight: float) -> Tensor:
        q = estimator.distribution(scores[None])
        p = q.log_prob(z[None]).exp().squeeze(0)
        expected = (p * f(point, theta.expand(len(z), -1))).sum()
        return expected + weight * torch.special.xlogy(p, p).sum()

    def multi_sample(scores: Tensor, theta: Tensor, weight: float) -> Tensor:
        samples = estimator.calls_per_row
        tuples = torch.cartesian_prod(*[torch.arange(len(z))] * samples).view(-1, samples)
        log_q = estimator.distribution(scores[None]).log_prob(z[None])[0]
        log_w = -f(point, theta.expand(len(z), -1)) - weight * log_q
        bound = log_w[tuples].logsumexp(dim=1) - math.log(samples)
        return -(log_q[tuples].sum(dim=1).exp() * bound).sum()

    value = elbo if estimator.objective == "elbo" else multi_sample
    of_value = entropy_weight if estimator.log_q_in_costs else 0.0
    scores, theta = problem.scores, problem.theta
    with torch.no_grad():
        return Gradients(
            value(scores, theta, of_value),
            central_differences(lambda moved: value(moved, theta, entropy_weight), scores),
            central_differences(lambda moved: value(scores, moved, of_value), theta),
        )


def central_differences(f: Callable[[Tensor], Tensor], at: Tensor, step: float = 1e-5) -> Tensor:
    """The gradient of a scalar function at a point, in its shape."""
    shifts = step * torch.eye(at.numel(), dtype=at.dtype).view(-1, *at.shape)
    found = [(f(at + shift) - f(at - shift)) / (2 * step) for shift in shifts]
    return torch.stack(found).view_as(at)


def warmed_up(estimator: Estimator, problem: Problem, f: CostFunction) -> Estimator:
    """The estimator with a state that some batches have left behind."""
    estimator.double()
    sampler = Sampler(torch.Generator().manual_seed(1))
    for _ in range(3):
        q = estimator.distribution(problem.scores.expand(32, *problem.space.scores_shape))
        features = torch.zeros(32, FEATURES, dtype=torch.float64)
        with torch.no_grad():
            proposal = estimator.propose(q, features, sampler)
            evaluated = costs_and_slopes(proposal, problem, f)
            estimator.update(proposal, evaluated, estimator.combine(q, proposal, evaluated))
    return estimator


def costs_and_slopes(proposal: Proposal, problem: Problem, f: CostFunction) -> Evaluated:
    """What a step finds for a proposal."""
    with torch.enable_grad():
        point = problem.point(proposal.z).detach().requires_grad_()
        costs = f(point, problem.theta.expand(len(point), -1))
        (slopes,) = torch.autograd.grad(costs.sum(), point)
    slopes = slopes.view(-1, *problem.space.point_shape)
    if not isinstance(proposal.slopes, bool):
        slopes = slopes[proposal.slopes]
    return Evaluated(costs.detach(), None if proposal.slopes is False else slopes)


def check_expectation(estimator: Estimator, problem: Problem, f: CostFunction) -> None:
    """The expected estimate is the exact one, with and without entropy: value, scores, decoder."""
    estimator = warmed_up(estimator, problem, f)
    for weight in ENTROPY_WEIGHTS:
        found = expectation(estimator, problem, f, entropy_weight=weight)
        _check_close(estimator, found, exact(estimator, problem, f, weight))


def check_joint_expectation(
    estimator: Estimator, problems: Sequence[Problem], f: CostFunction
) -> None:
    """As `check_expectation` for rows that differ, in one batch: what an estimate takes from other
    rows leaves it unbiased. The mean cost of the row's own batch as a baseline does not."""
    estimator = warmed_up(estimator, problems[0], f)
    found = joint_expectation(estimator, problems, f)
    exacts = [exact(estimator, problem, f) for problem in problems]
    value, scores, theta = (
        torch.stack([getattr(wanted, name) for wanted in exacts])
        for name in ("value", "scores", "theta")
    )
    _check_close(estimator, found, Gradients(value, scores, theta))


def check_exact_for(estimator: Estimator, space: Space) -> None:
    """The expected estimate is exact for the class of costs that it names, if it names one."""
    for f in costs_of(estimator.exact_for, space):
        for seed in range(3):
            check_expectation(estimator, Problem.random(space, seed), f)


def costs_of(kind: ExactFor | None, space: Space) -> list[CostFunction]:
    """Some of a class."""
    others = {"linear": [], "multilinear": [multilinear(space)], "quadratic": [quadratic]}
    return [] if kind is None else [linear, *others[kind]]


def _check_close(estimator: Estimator, found: Gradients, wanted: Gradients) -> None:
    close = {"rtol": 1e-6, "atol": 1e-7}
    assert found.scale > 0
    assert estimator.bias == "scaled" or math.isclose(found.scale, 1)
    torch.testing.assert_close(found.value, wanted.value, **close)
    torch.testing.assert_close(found.theta, wanted.theta, **close)
    torch.testing.assert_close(found.scores / found.scale, wanted.scores, **close)


def check_any_batch(estimator: Estimator, problem: Problem, f: CostFunction) -> None:
    """A row is estimated alike in a batch of one and in one with copies of it, which know nothing
    more: nothing depends on how many rows there are."""
    warmed_up(estimator, problem, f)
    alone, among = (
        run(estimator, problem, f, SameForEveryRow(torch.Generator().manual_seed(6)), rows)
        for rows in (1, 5)
    )
    for name in ("value", "scores", "theta"):
        wanted: Tensor = getattr(alone, name)
        torch.testing.assert_close(getattr(among, name), wanted.expand(5, *wanted.shape[1:]))


def check_proposal(estimator: Estimator, problem: Problem, rows: int = 6) -> None:
    """Shapes, weights and counts of a proposal, and a `combine` that leaves the state alone."""
    estimator.double()
    space = problem.space
    generator = torch.Generator().manual_seed(2)
    scores = torch.randn(rows, *space.scores_shape, generator=generator, dtype=torch.float64)
    q = estimator.distribution(scores.requires_grad_())
    features = torch.randn(rows, FEATURES, generator=generator, dtype=torch.float64)
    proposal = estimator.propose(q, features, Sampler(generator))
    check_shapes(estimator, proposal)
    count = len(proposal.row)
    assert proposal.z.shape[0] == count <= rows * estimator.calls_per_row
    assert proposal.row.dtype == torch.int64
    if estimator.trains_latent:
        assert set(proposal.row.tolist()) == set(range(rows))
    if proposal.decoder_weight is not None and estimator.trains_latent:
        assert not proposal.decoder_weight.requires_grad
        total = torch.zeros(rows, dtype=torch.float64)
        total.index_add_(0, proposal.row, proposal.decoder_weight)
        torch.testing.assert_close(total, torch.ones_like(total))
    if getattr(estimator.settings, "samples", 1) > 1:
        of_a_row = proposal.z.detach().unflatten(0, (rows, -1)).unbind(1)
        same = [torch.equal(one, two) for one, two in itertools.combinations(of_a_row, 2)]
        assert not any(same), "one draw stands for two in every row"
    assert (proposal.slopes is not False) == estimator.takes_slopes
    costs = torch.randn(count, generator=generator, dtype=torch.float64)
    slopes = torch.randn(count, *space.point_shape, generator=generator, dtype=torch.float64)
    if not isinstance(proposal.slopes, bool):
        slopes = slopes[proposal.slopes]
    given = Evaluated(costs.clone(), slopes if estimator.takes_slopes else None)
    before = {name: value.clone() for name, value in estimator.state_dict().items()}
    estimate = estimator.combine(q, proposal, given)
    assert torch.equal(costs, given.costs), "combine changes the costs, which update gets too"
    assert given.slopes is None or torch.equal(slopes, given.slopes), "combine changes the slopes"
    assert all(torch.equal(value, before[name]) for name, value in estimator.state_dict().items())
    assert estimate.objective.shape == (rows,)
    assert not estimate.objective.requires_grad
    if estimate.surrogate is None:
        assert not estimator.trains_latent
    else:
        assert estimate.surrogate.shape == (rows,)
        assert estimate.surrogate.requires_grad


def spaces(
    estimator: type[Estimator],
    among: tuple[Space, ...] = (CATEGORICAL, SEVERAL, BITS, SUBSET, CHAIN, TREES),
) -> list[Space]:
    """The small problems that an estimator takes."""
    return [space for space in among if isinstance(space, estimator.spaces)]
