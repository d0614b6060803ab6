"""What there is to see of a trained model, stored beside its numbers as small arrays.

    <results>/examples/task=<task>/estimator=<estimator>/<key>.npz

results/README.md says what is in a file.
"""

import math
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from analysis.files import written_whole
from bench.cells.cell import Cell
from bench.cells.training import Trainer
from estimators.distributions.mixed import MixedDistribution
from estimators.distributions.sparse import SparseDistribution
from estimators.spaces import Ranked, Space
from estimators.spaces.distribution import Distribution, FiniteDistribution
from tasks.examples import Example, Likeliest
from tasks.streams import Streams, derive_seed


def likeliest(q: Distribution, space: Space, most: int) -> Likeliest:
    """The likeliest assignments of every row, `most` of them or all that there can be.

    Of a mixed q, the assignments that its samples are nearest to. The mode alone where the support
    can't be listed, nor the best of it.
    """
    if isinstance(q, MixedDistribution):
        q = q.rounded()
    listed = isinstance(q, SparseDistribution) or space.single
    if not isinstance(q, FiniteDistribution):
        return _mode_alone(q, q.scores.new_full((len(q.scores),), math.inf))
    sizes = q.support_sizes
    if not (listed or isinstance(space, Ranked)):
        return _mode_alone(q, sizes)
    if isinstance(space, Ranked) and not listed:  # the support may be more than can be listed
        z, _ = space.topk_sparsemax(q.scores, min(most, space.count))
        return Likeliest(z, q.log_prob(z).exp(), sizes)
    z, row, probability = q.support
    order = probability.argsort(descending=True, stable=True)
    order = order[row[order].argsort(stable=True)]
    z, row, probability = z[order], row[order], probability[order]
    counts = sizes.long()
    first = counts.cumsum(0) - counts
    place = torch.arange(len(row), device=row.device) - first[row]
    kept = place < most
    best = z[first].unsqueeze(1).repeat(1, most, *[1] * (z.dim() - 1))
    best[row[kept], place[kept]] = z[kept]
    share = probability.new_zeros(len(first), most)
    share[row[kept], place[kept]] = probability[kept]
    return Likeliest(best, share, sizes)


def _mode_alone(q: Distribution, sizes: Float[Tensor, " B"]) -> Likeliest:
    z = q.mode().unsqueeze(1)
    return Likeliest(z, q.log_prob(z).exp(), sizes)


@torch.no_grad()
def examples_of(trainer: Trainer) -> dict[str, Example]:
    """What the task shows of the model as it is, under the estimator's own q, by name.

    Test images and noise depend on the run's seed and on nothing that training draws.
    """
    streams = Streams(derive_seed(trainer.streams.seed, "examples"), trainer.streams.device)
    q_of, space = trainer.estimator.distribution, trainer.task.space
    return trainer.task.examples(lambda scores, most: likeliest(q_of(scores), space, most), streams)


def examples_path(results: Path, cell: Cell) -> Path:
    """Where a cell's examples are stored."""
    folder = results / "examples" / f"task={cell.task}" / f"estimator={cell.estimator}"
    return folder / f"{cell.key}.npz"


def write_examples(results: Path, cell: Cell, examples: dict[str, Example]) -> None:
    """Store a cell's examples, in place of any that are there; no file where it has none."""
    path = examples_path(results, cell)
    if not examples:
        path.unlink(missing_ok=True)
        return
    arrays = {
        f"{name}/{part}": array
        for name, example in examples.items()
        for part, array in {
            "kind": np.array(example.kind),
            "title": np.array(example.title),
            **example.arrays,
        }.items()
    }
    with written_whole(path) as file:
        np.savez_compressed(file, allow_pickle=False, **arrays)
