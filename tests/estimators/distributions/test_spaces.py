"""What spaces say of their noise and of the hull of their points, against its definitions."""

from collections.abc import Callable

import pytest
import torch
from scipy import stats
from torch import Tensor

from estimators.spaces import Bits, Space
from tests.estimators.contract import BITS, CATEGORICAL, SEVERAL, central_differences
from tests.estimators.mappings.test_oracles import nearest_in_hull

SPACES = [BITS, CATEGORICAL, SEVERAL]


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
@pytest.mark.parametrize("space", SPACES, ids=repr)
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


@pytest.mark.parametrize("space", SPACES, ids=repr)
def test_centred_scores_are_what_differences_of_points_see(space: Space) -> None:
    """Least squares on the differences, of which there are more than dimensions."""
    points, scores = all_points(space), vectors(space)
    basis = (points - points[0]).T
    wanted = scores.flatten(1) @ torch.linalg.pinv(basis).T @ basis.T
    torch.testing.assert_close(space.centred(scores).flatten(1), wanted)
    assert int(torch.linalg.matrix_rank(basis)) == space.dimension
