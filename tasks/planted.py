"""What tasks have in common whose data is generated with a latent structure, which is then known.

Whether a model finds it is the agreement of q's modes with the truth: by default the V-measure
(Rosenberg & Hirschberg 2007), which does not ask what the values are called.
"""

from collections.abc import Iterator
from typing import ClassVar, NamedTuple

from jaxtyping import Int, Shaped
from pydantic import Field
from torch import Tensor

from tasks.base import Encoding, Metric, Split, Task, TaskSettings
from tasks.data.base import Planted
from tasks.streams import Streams


class PlantedBatch(NamedTuple):
    """Rows of a data set with their answers and structures."""

    inputs: Shaped[Tensor, "B P"]
    answer: Int[Tensor, " B"]
    truth: Int[Tensor, "B *z"]


class PlantedSettings(TaskSettings, frozen=True):
    """What is generated."""

    dataset: str = Field("generated", pattern="^generated$", description="by the task itself")
    data_seed: int = Field(42, ge=0, description="seed of the data, the same for every run")
    train: int = Field(5000, ge=1, description="rows to train on")
    validation: int = Field(1000, ge=1, description="rows for validation")
    test: int = Field(1000, ge=1, description="rows to test on")
    entropy_weight: float = Field(0.0, ge=0, description="λ, weight of the entropy bonus")


class PlantedTask(Task):
    """A task on a `Planted` data set: batches, and agreement with the truth.

    A subclass gives `data`, and has the truth as the last part of its encodings' context.
    """

    generates: ClassVar[bool] = True
    is_likelihood = False
    metrics: ClassVar[tuple[Metric, ...]] = ("accuracy", "agreement", "loss")

    def __init__(self, data: Planted, settings: PlantedSettings, batch_size: int) -> None:
        super().__init__(data, settings, batch_size)
        self.entropy_weight = settings.entropy_weight
        structures = data.split_structures(settings.validation, settings.split_seed)
        for split, part in structures.items():
            self.register_buffer(f"{split}_structures", part, persistent=False)
        self.steps_per_epoch = len(structures["train"]) // batch_size

    def training_batch(self, step: int, streams: Streams) -> PlantedBatch:
        every = self._whole("train")
        order = streams.shuffled("order", len(every.answer), self.batch_size, step)
        return PlantedBatch(*(part[order] for part in every))

    def evaluation_batches(
        self, split: Split, batch_size: int, streams: Streams
    ) -> Iterator[PlantedBatch]:
        parts = (part.split(batch_size) for part in self._whole(split))
        yield from map(PlantedBatch, *parts)

    def _whole(self, split: Split) -> PlantedBatch:
        return PlantedBatch(*self.part(split), self.get_buffer(f"{split}_structures"))

    def truth(self, encoding: Encoding) -> Int[Tensor, "B *z"]:
        return encoding.context[-1]

    def agreement(self, z: Shaped[Tensor, "T *z"], truth: Int[Tensor, "T *z"]) -> float:
        from sklearn.metrics import v_measure_score  # takes a while to import

        counts = truth >= 0
        return float(v_measure_score(truth[counts].cpu().numpy(), z[counts].cpu().numpy()))
