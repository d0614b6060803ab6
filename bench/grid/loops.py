"""The loops that numba compiles, which no time limit may cut off: else a cell would never end."""

import torch

from bench.grid.limits import Limits
from estimators.mappings import sparsemap, sparsemap_bits
from estimators.sampler import Sampler
from estimators.spaces import Chains, Space, Subsets, Trees
from tasks.likelihoods.compiled import cache_of_loops
from tasks.likelihoods.pixels import pixel_nll
from tasks.likelihoods.pointwise import pointwise


def compile_before(limits: Limits) -> None:
    """Compile all loops before cells have their time, once for all processes and runs.

    Where there is no limit the cells that take them do. So they do where nothing can be kept.
    """
    if limits.left() is None or limits.over() or cache_of_loops() is None:
        return

    def some(*sizes: int) -> torch.Tensor:
        return torch.ones(sizes, requires_grad=True)

    with torch.enable_grad():
        levels = torch.zeros(1, 4, dtype=torch.int64)
        pixel_nll(some(1, 4, 2), some(3, 2), some(3), levels).sum().backward()
        pointwise(some(2), some(2), some(2)).sum().backward()
    sparsemap_bits(torch.ones(1, 2))
    for space in (Subsets(1, 2, 1), Chains(2, 2), Trees(2)):
        structure(space)


def structure(space: Space) -> None:
    """Take what a step can take of a structure."""
    scores = torch.ones(1, *space.scores_shape, requires_grad=True)
    q = space.plain(scores)
    q.sample(Sampler(), 1)
    (q.entropy() + q.marginals().flatten(1).sum(dim=1)).sum().backward()
    sparsemap(
        scores.detach().flatten(1),
        lambda some: space.best(some.unflatten(1, space.scores_shape)),
        indicators=lambda z: space.point(z, torch.float64).flatten(1),
    )
