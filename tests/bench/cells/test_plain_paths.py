"""A whole step by the fast paths against the same step by plain ones, for every pair.

Plain: all logits of all pixels held at once, the sender's hidden units too, each symbol scored by
itself, the library's cross-entropy, the labelled and the other rows through the decoder in runs of
their own.
"""

from types import SimpleNamespace
from typing import NamedTuple, cast

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from bench.cells.step import CountedCost, training_loss
from estimators.base import Estimator
from estimators.registry import all_estimators
from estimators.sampler import Sampler
from tasks import bitvector, signal_game, ssvae
from tasks.base import Context, Task, embed
from tasks.likelihoods.binary import plain_binary_nll
from tasks.likelihoods.pixels import plain_pixel_nll
from tasks.likelihoods.pointwise import plain_pointwise
from tasks.streams import Streams
from tests.pairs import ONE_EACH, PAIRS
from tests.tasks.conftest import make_task

PATHS = ("bitvector", "signal_game", "ssvae")
"""Tasks with a path of their own; others use theirs."""

CLOSE = {torch.float64: 1e-10, torch.float32: 2e-4}


class Step(NamedTuple):
    """What a step comes to."""

    objective: Tensor
    gradients: list[Tensor]


def step(task: Task, estimator: Estimator, dtype: torch.dtype, apart: bool) -> Step:
    """One training step of a task and an estimator, labelled rows apart or with the others."""
    task, estimator = task.to(dtype), estimator.to(dtype)
    batch = task.training_batch(0, Streams(0))
    whole = task.encode(batch)
    parts = [whole]
    if apart and whole.supervised is not None:
        nothing = whole._replace(scores=whole.scores[:0])
        parts = [whole._replace(supervised=None), nothing]
    objective = torch.zeros((), dtype=dtype)
    loss = torch.zeros((), dtype=dtype)
    for part in parts:
        stand_in = SimpleNamespace(
            name=task.name, encode=lambda _, part=part: part, cost=task.cost,
            activation_size=task.activation_size, latent_weight=task.latent_weight,
            entropy_weight=task.entropy_weight,
        )  # fmt: skip
        counted = CountedCost(cast(Task, stand_in))
        sampler = Sampler(torch.Generator().manual_seed(0))
        result = training_loss(counted.task, estimator, counted, batch, sampler)
        objective, loss = objective + result.objective, loss + result.loss
    if loss.requires_grad:
        loss.backward()
    parameters = [*task.parameters(), *estimator.parameters()]
    return Step(
        objective.detach(),
        [p.grad if p.grad is not None else torch.zeros_like(p) for p in parameters],
    )


def receive_each(task: signal_game.SignalGame, context: Context, z: Tensor, row: Tensor) -> Tensor:
    """The receiver's scores, from candidates that are copied for each assignment."""
    return torch.stack(
        [context[0][r] @ s for r, s in zip(row, embed(z, task.symbols.weight), strict=True)]
    )


def plainly(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bitvector, "pixel_nll", plain_pixel_nll)
    monkeypatch.setattr(ssvae, "binary_nll", plain_binary_nll)
    monkeypatch.setattr(signal_game, "pointwise", plain_pointwise)
    monkeypatch.setattr(signal_game.SignalGame, "_receive", receive_each)


@pytest.mark.parametrize(
    ("task", "estimator", "dtype"),
    [(*pair, torch.float64) for pair in PAIRS if pair[0] in PATHS]
    + [(*pair, torch.float32) for pair in ONE_EACH],
)
def test_a_step_is_the_same_by_plain_paths(
    task: str, estimator: str, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    def made() -> tuple[Task, Estimator]:
        model = make_task(task)
        torch.manual_seed(1)
        settings = {"k": 4} if estimator == "topk-sparsemax" else {}
        kind = all_estimators()[estimator]
        return model, kind.make(model.space, features=model.features, **settings)

    fast = step(*made(), dtype, apart=False)
    plainly(monkeypatch)
    plain = step(*made(), dtype, apart=True)
    close = CLOSE[dtype]
    torch.testing.assert_close(fast.objective, plain.objective, rtol=close, atol=close)
    size = max(float(g.abs().max()) for g in plain.gradients)
    assert size > 0 or estimator == "none"
    for a, b in zip(fast.gradients, plain.gradients, strict=True):
        torch.testing.assert_close(a, b, rtol=close, atol=close * size)


def test_the_plain_likelihood_is_what_it_says() -> None:
    """The library's cross-entropy of each pixel of each image, without any of our code."""
    h, weight, bias = torch.randn(2, 3, 5), torch.randn(7, 5), torch.randn(7)
    x = torch.randint(7, (2, 3))
    wanted = F.cross_entropy((h @ weight.T + bias).movedim(2, 1), x, reduction="none").sum(dim=1)
    torch.testing.assert_close(plain_pixel_nll(h, weight, bias, x), wanted)
