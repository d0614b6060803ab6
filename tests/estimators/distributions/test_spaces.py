"""What spaces say of their noise and of the hull of their points, against its definitions."""

from collections.abc import Callable

import pytest
import torch
from scipy import stats
from torch import Tensor

from estimators.sampler import Sampler
from estimators.spaces import Bits, Chains, Space, Subsets, Trees
from tests.estimators.contract import (
    BITS,
    CATEGORICAL,
    SEVERAL,
    SUBSET,
    SUBSETS,
    TREES,
    Problem,
    central_differences,
)
from tests.estimators.mappings.test_oracles import nearest_in_hull

CHAIN = Chains(3, 2)
SPACES = [BITS, CATEGORICAL, SEVERAL, SUBSET, SUBSETS, CHAIN, TREES]
OTHERS = [
    *(Subsets(1, 4, 1), Subsets(2, 3, 3), Subsets(1, 1, 1)),
    *(Chains(1, 3), Chains(3, 1), Chains(4, 3)),
    *(Trees(1), Trees(2), Trees(4)),
]


def vectors(space: Space, rows: int = 20) -> Tensor:
    generator = torch.Generator().manual_seed(3)
    return 2 * torch.randn(rows, *space.scores_shape, generator=generator, dtype=torch.float64)


def all_points(space: Space) -> Tensor:
    every = space.every(torch.zeros((), dtype=torch.float64))
    return space.point(every, torch.float64).flatten(1)


@pytest.mark.parametrize("space", SPACES, ids=repr)
def test_the_slope_of_noise_is_that_of_its_density(space: Space) -> None:
    law = stats.logistic if isinstance(space, Bits) else stats.gumbel_r

    def energy(noise: Tensor) -> Tensor:
        return -torch.as_tensor(law.logpdf(noise.numpy())).sum()

    noise = vectors(space)
    torch.testing.assert_close(space.noise_slope(noise), central_differences(energy, noise))


@pytest.mark.parametrize("scale", [0.2, 1.0, 20.0])
@pytest.mark.parametrize("space", SPACES + OTHERS, ids=repr)
def test_the_nearest_point_is_that_of_the_hull(space: Space, scale: float) -> None:
    target = scale * vectors(space)
    wanted = [nearest_in_hull(all_points(space), row) for row in target.flatten(1)]
    found = space.nearest(target).flatten(1)
    torch.testing.assert_close(found, torch.stack(wanted), rtol=0, atol=2e-6)


@pytest.mark.parametrize(
    "part", [lambda space, x: space.nearest(x), lambda space, x: space.soft(x)]
)
@pytest.mark.parametrize("space", SPACES, ids=repr)
def test_further_dimensions_are_rows(space: Space, part: Callable[[Space, Tensor], Tensor]) -> None:
    x = vectors(space, 6)
    together = part(space, x.unflatten(0, (2, 3)))
    torch.testing.assert_close(together.flatten(0, 1), part(space, x))


@pytest.mark.parametrize("space", SPACES + OTHERS, ids=repr)
def test_centred_scores_are_what_differences_of_points_see(space: Space) -> None:
    """Least squares on the differences, of which there are more than dimensions."""
    points, scores = all_points(space), vectors(space)
    basis = (points - points[0]).T
    wanted = scores.flatten(1) @ torch.linalg.pinv(basis).T @ basis.T
    torch.testing.assert_close(space.centred(scores).flatten(1), wanted)
    assert int(torch.linalg.matrix_rank(basis)) == space.dimension


@pytest.mark.parametrize("space", SPACES + OTHERS, ids=repr)
def test_noise_samples_q_where_a_space_says_so(space: Space) -> None:
    """And elsewhere does not: the frequencies of the best assignments show both."""
    draws, scores = 200_000, Problem.random(space, seed=1).scores[None]
    noise = space.noise(scores, Sampler(torch.Generator().manual_seed(0)), draws)
    best = space.point(space.best(scores[:, None] + noise), torch.float64).flatten(2)[0]
    same = (best[:, None] == all_points(space)).all(dim=2).double().mean(dim=0)
    p = space.plain(scores).joint()[0]
    off = (same - p).abs() / (p * (1 - p) / draws).sqrt().clamp(min=1e-9)
    assert bool((off < stats.norm.isf(0.0005 / len(p))).all()) == space.noise_samples_q


@pytest.mark.parametrize("space", SPACES + OTHERS, ids=repr)
def test_every_assignment_is_listed_once(space: Space) -> None:
    points = all_points(space)
    assert len(points) == len(points.unique(dim=0)) == space.count
    assert space.log_assignments == pytest.approx(torch.tensor(space.count).log().item(), abs=1e-6)
