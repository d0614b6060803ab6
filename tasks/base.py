"""The contract of a task: it turns a batch into scores and a cost, and knows no estimator."""

import itertools
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import ClassVar, Literal, NamedTuple

from jaxtyping import Bool, Float, Int, Shaped
from pydantic import BaseModel, Field
from torch import Tensor, nn
from torch.nn import functional as F

from estimators.spaces import Space
from estimators.spaces.distribution import FiniteDistribution
from tasks.data.base import Dataset, Images, Part
from tasks.data.datasets import load_dataset
from tasks.examples import Example, Look
from tasks.streams import Streams

Split = Literal["train", "validation", "test"]
SPLITS: tuple[Split, ...] = ("train", "validation", "test")

Metric = Literal["accuracy", "agreement", "elbo", "nll", "loss"]
"""A column of the results table that a task can be judged by."""

Context = tuple[Tensor, ...]
"""What the cost reads beside z: tensors with a row for each example, computed once a batch. They
may carry a graph. Whatever else is random in a cost has been drawn into them, so that within a
step the cost is a deterministic function of z."""


class Supervised(NamedTuple):
    """Rows of a batch whose latent variable is known: the loss is the mean of cost and loss on the
    label, E[f(x, y) + loss of q on y]."""

    scores: Float[Tensor, "L *scores"]
    target: Int[Tensor, "L *z"]
    row: Int[Tensor, " L"]
    """Their rows in the encoding's context, which come after the B others."""


class Encoding(NamedTuple):
    """A batch of B rows, encoded."""

    scores: Float[Tensor, "B *scores"]
    """As the task's space has them."""
    features: Float[Tensor, "B F"]
    """The inputs, for baseline networks. Never carries a graph."""
    context: Context
    """For B rows, and for those that are supervised."""
    supervised: Supervised | None = None


class AnySettings(BaseModel, extra="forbid", frozen=True):
    """What every task can be told."""

    dataset: str


class TaskSettings(AnySettings, frozen=True):
    """What a task on data can be told. It adds its own."""

    dataset: str = Field(
        "digits", description="digits, mnist, fashion-mnist, or features (signal_game)"
    )
    validation: int = Field(297, ge=1, description="images of the training set kept for validation")
    split_seed: int = Field(0, ge=0, description="seed of the split, the same for every run")


class Task(nn.Module, ABC):
    """Data, networks, cost and metrics. Its parameters are those of encoder and decoder.

    A subclass sets the attributes below in its constructor or as class variables. Its constructor
    takes (data, settings, batch_size) and raises DataError where these do not go together. One
    whose settings are no `TaskSettings` has no splits: see `tasks.data_free`.
    """

    name: ClassVar[str]
    space_type: ClassVar[type[Space]]
    """What kind of latent variable it has."""
    citation: ClassVar[str]
    Settings: ClassVar[type[AnySettings]]
    accepts_relaxed: ClassVar[bool] = True
    """The decoder takes points between the vertices."""
    takes_features: ClassVar[bool] = False
    """It makes do without pixels."""
    generates: ClassVar[bool] = False
    """Its data is its own, if it has any: `data` makes it, and there is no set to choose."""
    traces_variance: ClassVar[bool] = False
    """Training notes the variance of the encoder's gradient over its steps, off the clock."""
    has_labels: ClassVar[bool] = False
    """Some rows have a known latent variable, which alone can be trained on at first."""
    metrics: ClassVar[tuple[Metric, ...]]
    """What it is judged by, the one that a search goes by first."""
    searched_training: ClassVar[frozenset[str]] = frozenset()
    """Settings of training that a search varies on this task, beside the learning rate."""

    space: Space
    """Of the latent variable."""
    features: int
    """Length of the input vector."""
    levels: int
    """Grey levels of a pixel, where there are pixels."""
    image_shape: tuple[int, int]
    """Height and width, where there are pixels."""
    pixels: int | None = None
    """P, where −log p(x) can be given in bits per pixel by summing over z alone."""
    is_likelihood: bool
    """The cost is −log p(x | z): evaluation reports an ELBO, with a uniform prior on z."""
    prior_in_cost: bool = False
    """The cost has −log p(z) in it, of a prior with parameters of its own: no other is added."""
    prior_is_q: bool = False
    """q, of what is given, is the prior of z as well: there is no KL."""
    entropy_weight: float = 1.0
    """λ in the objective E_q[f] − λ H(q) that is reported, and trained on unless the training
    settings say otherwise."""
    latent_weight: float = 1.0
    """Weight of that objective beside the supervised loss."""
    chance: float | None = None
    """Accuracy of guessing."""
    episodes: int | None = None
    """Rows of an evaluation, where they are drawn from the split in place of being its own."""
    activation_size: int
    """Numbers in the largest activation of one decoder call, which bounds what is run at once."""
    steps_per_epoch: int
    labelled_steps_per_epoch: int = 0
    """Batches in a pass over the rows that have labels."""

    def __init__(self, data: Dataset, settings: AnySettings, batch_size: int) -> None:
        super().__init__()
        self.batch_size = batch_size
        self.features = data.size
        if not isinstance(settings, TaskSettings):
            return
        if isinstance(data, Images):
            self.levels, self.image_shape = data.levels, data.shape
        for split, part in data.split(settings.validation, settings.split_seed).items():
            # As buffers the data moves to the device with the model; it is no part of its state.
            self.register_buffer(f"{split}_inputs", part.inputs, persistent=False)
            self.register_buffer(f"{split}_labels", part.labels, persistent=False)

    @classmethod
    def data(cls, settings: AnySettings, data_dir: Path | None) -> Dataset:
        """What the constructor takes: the data set of the settings' name.

        Args:
            settings: of this task.
            data_dir: folder with the data sets that are not bundled.
        Raises:
            DataError: it is missing or damaged, or the name is unknown.
        """
        return load_dataset(settings.dataset, data_dir)

    def part(self, split: Split) -> Part:
        """The data of a split, on the model's device."""
        return Part(self.get_buffer(f"{split}_inputs"), self.get_buffer(f"{split}_labels"))

    def grey(self, pixels: Shaped[Tensor, "B P"]) -> Float[Tensor, "B P"]:
        """Pixels as grey levels in [0, 1], in the model's dtype."""
        return pixels.to(next(self.parameters()).dtype) / (self.levels - 1)

    def pictures(self, rows: Float[Tensor, "*some P"]) -> Float[Tensor, "*some H W"]:
        """Rows of pixels as pictures."""
        return rows.unflatten(-1, self.image_shape)

    @abstractmethod
    def training_batch(self, step: int, streams: Streams) -> object:
        """The batch of a step, a function of the step and the streams alone."""

    def labelled_batch(self, step: int, streams: Streams) -> object:
        """The same of a step on labels alone: no row of its encoding is to be proposed for.

        Only where the task has labels.
        """
        raise NotImplementedError(f"{self.name} has no labels")

    @abstractmethod
    def evaluation_batches(
        self, split: Split, batch_size: int, streams: Streams
    ) -> Iterator[object]:
        """A split in order, in batches, with its noise drawn from the streams."""

    @abstractmethod
    def encode(self, batch: object) -> Encoding:
        """Run the encoder."""

    @abstractmethod
    def cost(
        self, context: Context, z: Shaped[Tensor, "N *z"], row: Int[Tensor, " N"]
    ) -> Float[Tensor, " N"]:
        """f(x, z): costs in nats of assignments for rows of the context.

        z are assignments, or points (N, *point) as floats: `space.point` gives points of either.
        """

    def exact_cost(self, context: Context, q: FiniteDistribution) -> Float[Tensor, " B"] | None:
        """E_q[f] for each row in closed form, which evaluation then takes; None where there is no
        such form."""
        return None

    def correct(self, encoding: Encoding, z: Shaped[Tensor, "B *z"]) -> Bool[Tensor, " B"] | None:
        """Whether the mode z of each row is right; None where nothing is."""
        return None

    def truth(self, encoding: Encoding) -> Int[Tensor, "B *z"] | None:
        """The true z of each row, −1 for parts that don't count; None where it is not known."""
        return None

    def agreement(self, z: Shaped[Tensor, "T *z"], truth: Int[Tensor, "T *z"]) -> float:
        """How far the modes z of all rows of a split agree with the truth, in [0, 1].

        Only where there is a truth.
        """
        raise NotImplementedError(f"{self.name} knows no true z")

    def examples(self, look: Look, streams: Streams) -> dict[str, Example]:
        """What there is to see of the trained model, by a name for each; nothing by default.

        Args:
            look: what q makes of scores.
            streams: for these alone.
        """
        return {}


def embed(
    z: Int[Tensor, "N 1"] | Float[Tensor, "N 1 K"], table: Float[Tensor, "K E"]
) -> Float[Tensor, "N E"]:
    """Rows of a table for a single categorical variable, or their mixture at points."""
    z = z.squeeze(1)
    return z @ table if z.is_floating_point() else F.embedding(z, table)


def mlp(*widths: int, activation: Callable[[], nn.Module] = nn.ReLU) -> nn.Sequential:
    """Linear layers with activations between them: (B, widths[0]) to (B, widths[-1])."""
    layers: list[nn.Module] = []
    for width, following in itertools.pairwise(widths):
        layers += [nn.Linear(width, following), activation()]
    return nn.Sequential(*layers[:-1])
