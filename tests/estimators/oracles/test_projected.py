"""SPIGOT and its relatives, and the oracle as the identity, by hand: they draw nothing."""

import pytest
import torch
from torch import Tensor

from estimators.oracles.identity import Identity
from estimators.oracles.projected import Spigot
from estimators.spaces import Bits, Space
from tests.estimators.contract import (
    BITS,
    CATEGORICAL,
    Problem,
    central_differences,
    linear,
    network,
)
from tests.estimators.mappings.test_oracles import nearest_in_hull
from tests.estimators.oracles.test_through_oracle import (
    STEPS,
    STRUCTURES,
    best_of_all,
    estimated,
    slope_at,
)


@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("target", ["spigot", "ce"])
@pytest.mark.parametrize("space", STRUCTURES, ids=repr)
def test_spigot_projects_on_the_hull_of_all_points(space: Space, target: str, step: float) -> None:
    for seed in range(5):
        problem = Problem.random(space, seed)
        every = space.point(problem.assignments(), torch.float64).flatten(1)
        start = best_of_all(space, problem.scores)
        if target == "ce":
            start = space.soft(problem.scores).flatten()
        projected = nearest_in_hull(every, start - step * slope_at(problem, network, start))
        found = estimated(Spigot.make(space, target=target, step=step), problem, network)
        atol = 2e-6 / step
        torch.testing.assert_close(found, (start - projected) / step, rtol=0, atol=atol)


def test_spigot_is_the_slope_less_its_mean_on_the_support_that_is_reached() -> None:
    """A category, the first of five, of which the second and third get a share: the projection of
    (0.7, −0.1, −0.05, −0.9, −0.5) is (0.85, 0.05, 0.1, 0, 0)."""
    scores = torch.tensor([[3.0, 0.0, 0.0, 0.0, 0.0]], dtype=torch.float64)
    slope = torch.tensor([0.6, 0.2, 0.1, 1.8, 1.0], dtype=torch.float64)
    problem = Problem(CATEGORICAL, scores, slope)
    found = estimated(Spigot.make(CATEGORICAL, step=0.5), problem, linear)
    wanted = torch.tensor([0.3, -0.1, -0.2, 0.0, 0.0], dtype=torch.float64)
    torch.testing.assert_close(found, wanted)


@pytest.mark.parametrize("space", STRUCTURES, ids=repr)
def test_small_steps_of_marginals_give_slopes(space: Space) -> None:
    """What the projection leaves of g where μ is inside, and the gradient of f(μ)."""
    problem = Problem.random(space, seed=2)

    def at_mean(scores: Tensor) -> Tensor:
        return network(space.soft(scores).view(1, -1), problem.theta[None]).sum()

    mean = space.soft(problem.scores)
    g = slope_at(problem, network, mean.flatten())
    of_mean = central_differences(at_mean, problem.scores).flatten()
    centred = space.centred(g.view_as(problem.scores)).flatten()
    for target, wanted in (("eg", of_mean), ("ce", centred)):
        found = estimated(Spigot.make(space, target=target, step=1e-6), problem, network)
        torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("space", STRUCTURES, ids=repr)
def test_the_identity_of_points_and_the_exponentiated_step(space: Space, step: float) -> None:
    problem = Problem.random(space, seed=3)
    g = slope_at(problem, network, best_of_all(space, problem.scores))
    found = estimated(Spigot.make(space, target="ste-identity"), problem, network)
    torch.testing.assert_close(found, g)
    mean = space.soft(problem.scores)
    g = slope_at(problem, network, mean.flatten()).view_as(mean)
    wanted = (mean - space.soft(problem.scores - step * g)) / step
    found = estimated(Spigot.make(space, target="eg", step=step), problem, network)
    torch.testing.assert_close(found, wanted.flatten())


@pytest.mark.parametrize("space", STRUCTURES, ids=repr)
def test_identity_is_the_slope_of_normalised_scores(space: Space) -> None:
    """Without noise. It has no part along the scores, nor along what no answer depends on."""
    problem = Problem.random(space, seed=3)
    g = slope_at(problem, network, best_of_all(space, problem.scores))

    def along(scores: Tensor) -> Tensor:
        own = scores.clone()
        if not isinstance(space, Bits):
            own = own - own.mean(dim=1, keepdim=True)
        return g @ own.flatten() / own.square().sum().sqrt()

    found = estimated(Identity.make(space, noise="none"), problem, network)
    torch.testing.assert_close(found, central_differences(along, problem.scores).flatten())
    centred = space.centred(problem.scores).flatten()
    assert float(found @ centred) == pytest.approx(0, abs=1e-12)


def test_identity_takes_one_sample_without_noise() -> None:
    with pytest.raises(ValueError, match="all samples are alike"):
        Identity.make(BITS, noise="none", samples=2)
