"""What tasks without data have in common: scores that are the model, and nothing to encode."""

from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import torch
from jaxtyping import Float
from pydantic import Field
from torch import Tensor, nn

from tasks.base import AnySettings, Encoding, Split, Task
from tasks.data.base import Dataset
from tasks.streams import Streams


class DataFreeSettings(AnySettings, frozen=True):
    """What a task without data can be told. It adds its own."""

    dataset: Literal["none"] = Field("none", description="there is none to choose")
    steps_per_epoch: int = Field(100, ge=1, description="batches in an epoch")


class DataFree(Task):
    """A problem whose every row is the same: a batch draws it several times, and one is tested.

    It is judged by its expected cost alone, without an entropy.

    Args:
        data: a single input, which is 1.
        scores: where the shared ones start.
    """

    generates = True
    traces_variance = True
    is_likelihood = False
    metrics = ("loss",)
    entropy_weight = 0.0
    episodes = 1

    def __init__(
        self,
        data: Dataset,
        settings: DataFreeSettings,
        batch_size: int,
        scores: Float[Tensor, "*scores"],
    ) -> None:
        super().__init__(data, settings, batch_size)
        self.steps_per_epoch = settings.steps_per_epoch
        self.scores = nn.Parameter(scores)

    @classmethod
    def data(cls, settings: AnySettings, data_dir: Path | None) -> Dataset:
        one, label = torch.ones(1, 1), torch.zeros(1, dtype=torch.int64)
        return Dataset("none", one, label, one, label)

    def training_batch(self, step: int, streams: Streams) -> Float[Tensor, "B 1"]:
        return self.scores.new_ones(self.batch_size, 1)

    def evaluation_batches(
        self, split: Split, batch_size: int, streams: Streams
    ) -> Iterator[Float[Tensor, "1 1"]]:
        yield self.scores.new_ones(1, 1)

    def encode(self, batch: object) -> Encoding:
        assert isinstance(batch, Tensor)
        return Encoding(self.scores.expand(len(batch), *self.scores.shape), batch, ())
