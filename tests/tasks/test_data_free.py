"""Tasks without data: their costs, their optima, and expected costs in closed form."""

from itertools import product

import pytest
import torch

from bench.cells.evaluation import EvaluationSettings, expected_cost
from bench.cells.step import CountedCost
from estimators.registry import all_estimators
from estimators.sampler import Sampler
from estimators.spaces import Bits, Categoricals, Space
from estimators.spaces.distribution import Distribution, FiniteDistribution
from tasks.streams import Streams
from tests.tasks.conftest import make_task

NO_DRAWS = Sampler(torch.Generator())
OPTIMA = [
    ("toy", {"bits": 1, "target": 0.45}, 0.2025, 0.3025),
    ("toy", {"bits": 4, "target": 0.49}, 0.2401, 0.2601),
    ("toy", {"bits": 200, "target": 0.499}, 0.249001, 0.251001),
    ("polynomial", {"variables": 128, "power": 1.5}, 0.3019, 0.4079),
    ("polynomial", {"variables": 4, "power": 2.0}, 0.2025, 0.3025),
    ("polynomial", {"variables": 3, "power": 3.0}, 0.0911, 0.1664),
]


@pytest.mark.parametrize(("name", "settings", "best", "worst"), OPTIMA)
def test_the_optimum_and_its_opposite_cost_what_is_published(
    name: str, settings: dict[str, float], best: float, worst: float
) -> None:
    """z_l = 0: bits that are off, and the second category, whose first coordinate is 0."""
    task = make_task(name, **settings)
    on = torch.ones(2, *task.space.z_shape, dtype=torch.float64)
    on[0] = 0
    z = on if name == "toy" else (1 - on).long()
    found = task.cost((), z, torch.zeros(2, dtype=torch.int64))
    assert found.tolist() == pytest.approx([best, worst], abs=5e-5)


@pytest.mark.parametrize("name", ["toy", "polynomial"])
def test_a_relaxed_z_costs_what_the_formula_says(name: str) -> None:
    p = {"toy": 2.0, "polynomial": 3.0}[name]
    task = make_task(name, **({} if name == "toy" else {"power": p}))
    first = torch.rand(5, *task.space.z_shape, dtype=torch.float64)
    z = first if name == "toy" else torch.stack([first, 1 - first], dim=2)
    found = task.cost((), z, torch.zeros(5, dtype=torch.int64))
    for row, cost in zip(first.tolist(), found.tolist(), strict=True):
        assert cost == pytest.approx(sum(abs(x - 0.45) ** p for x in row) / len(row))


def distribution(name: str, space: Space, scores: torch.Tensor) -> Distribution:
    return all_estimators()[name].make(space).distribution(scores)


@pytest.mark.parametrize("name", ["toy", "polynomial"])
@pytest.mark.parametrize("estimator", ["sfe", "sparsemap", "sparsemax"])
def test_the_closed_form_is_the_sum_over_every_assignment(name: str, estimator: str) -> None:
    """For q that are no product too, as the cost has no products of bits in it."""
    settings = {"bits": 4} if name == "toy" else {"variables": 4, "power": 1.5}
    task = make_task(name, **settings)
    scores = torch.randn(3, *task.space.scores_shape, dtype=torch.float64)
    q = distribution(estimator, task.space, scores)
    assert isinstance(q, FiniteDistribution)
    found = expected_cost(CountedCost(task), (), q, NO_DRAWS, EvaluationSettings())
    every = [*product((0, 1), repeat=4)]
    z = torch.tensor(every).expand(3, -1, -1)
    probability = q.log_prob(z.double() if name == "toy" else z).exp()
    costs = [
        sum(abs(b - 0.45) ** 2 for b in bits) / 4
        if name == "toy"
        else sum(abs(1 - c - 0.45) ** 1.5 for c in bits) / 4
        for bits in every
    ]
    torch.testing.assert_close(found, probability @ torch.tensor(costs, dtype=torch.float64))


def test_all_rows_share_scores_that_start_as_published() -> None:
    toy, polynomial = make_task("toy", initial=0.0), make_task("polynomial", variables=128)
    assert toy.space == Bits(3)
    assert polynomial.space == Categoricals(128, 2)
    for task in (toy, polynomial):
        scores = task.encode(task.training_batch(0, Streams(0))).scores
        assert len(scores) == 8
        assert (scores == scores[0]).all()
    assert (toy.scores == 0).all()
    assert 0.009 < polynomial.scores.abs().max() <= 0.01
