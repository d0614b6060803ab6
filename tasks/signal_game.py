"""An emergent-communication game: the sender names one image, the receiver picks it out of C.

    objective = E_q[−log p(target | symbol, candidates)] − λ H(q(symbol | target image))

(Lazaridou et al. 2017; Correia et al. 2020, section 5.2). The symbol is one of a vocabulary; the
receiver scores each candidate by a dot product with the symbol's embedding. Both see images as
pixels, or as the features that the published game has; candidates are then of as many concepts.
"""

from collections.abc import Iterator
from typing import NamedTuple, cast

import torch
from jaxtyping import Bool, Float, Int, Shaped
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from estimators.spaces import Categoricals
from tasks.base import SPLITS, Context, Encoding, Split, Task, TaskSettings, embed
from tasks.data.base import DataError, Dataset, Features
from tasks.examples import Example, Look, histogram, images
from tasks.likelihoods.pointwise import pointwise
from tasks.registry import register
from tasks.streams import Streams

SHOWN = 8
"""Symbols that are shown, of those used most, and images of each."""

LOOKED_AT = 500
"""Test episodes, at most, whose symbols are counted."""


class Episodes(NamedTuple):
    candidates: Float[Tensor, "B C P"]
    """As unit vectors."""
    target: Int[Tensor, " B"]
    """Its place among them."""


@register
class SignalGame(Task):
    """One symbol has to be enough; reports communication success and the objective."""

    name = "signal_game"
    space_type = Categoricals
    citation = "Correia et al. 2020, section 5.2"
    takes_features = True
    is_likelihood = False
    metrics = ("accuracy", "loss")
    searched_training = frozenset({"entropy_weight"})

    class Settings(TaskSettings, frozen=True):
        vocabulary: int = Field(256, ge=2, description="K, the number of symbols")
        candidates: int = Field(16, ge=2, description="C, the number of images the receiver sees")
        embedding: int = Field(256, ge=1, description="width of the embeddings")
        hidden: int = Field(512, ge=1, description="width of the sender's pointwise network")
        score_scale: float = Field(
            10.0, gt=0, description="what the sender's scores are divided by"
        )
        entropy_weight: float = Field(0.1, ge=0, description="λ, weight of the entropy bonus")
        steps_per_epoch: int = Field(100, ge=1, description="batches of episodes in an epoch")
        episodes: int = Field(1000, ge=1, description="episodes in an evaluation, fixed once")

    def __init__(self, data: Dataset, settings: Settings, batch_size: int) -> None:
        super().__init__(data, settings, batch_size)
        self.vocabulary = settings.vocabulary
        self.space = Categoricals(1, settings.vocabulary)
        self.candidates = settings.candidates
        self.sees_pixels = not isinstance(data, Features)
        classes = len(data.labels.unique())
        self.distinct_concepts = not self.sees_pixels or classes >= settings.candidates
        self.entropy_weight = settings.entropy_weight
        self.chance = 1 / settings.candidates
        # Where there are many assignments, all symbols are scored by one product: a score for each
        # candidate is what an assignment takes. Where they are few or relaxed, each has a copy of
        # its candidates' embeddings besides, which is not counted: no run is split for that.
        self.activation_size = settings.candidates
        self.steps_per_epoch = settings.steps_per_epoch
        self.episodes: int = settings.episodes
        self.split_seed = settings.split_seed
        for split in SPLITS:
            self._check(data.name, split)

        self.sender_embedding = nn.Linear(data.size, settings.embedding, bias=False)
        # The published 1 × 1 convolutions: one network applied to every coordinate alone.
        self.to_hidden = nn.Linear(1, settings.hidden, bias=False)
        self.from_hidden = nn.Linear(settings.hidden, 1, bias=False)
        self.to_scores = nn.Linear(settings.embedding, settings.vocabulary, bias=False)
        self.score_scale = settings.score_scale
        self.receiver_embedding = nn.Linear(data.size, settings.embedding, bias=False)
        self.symbols = nn.Embedding(settings.vocabulary, settings.embedding)

    def training_batch(self, step: int, streams: Streams) -> Episodes:
        return self._draw("train", self.batch_size, streams.generator("episodes", step, "cpu"))

    def evaluation_batches(
        self, split: Split, batch_size: int, streams: Streams
    ) -> Iterator[Episodes]:
        # The same episodes for every run: they depend on the split's seed, not on the run's.
        fixed = Streams(self.split_seed)
        for number, start in enumerate(range(0, self.episodes, batch_size)):
            count = min(batch_size, self.episodes - start)
            yield self._draw(split, count, fixed.generator(f"{split} episodes", number))

    def _draw(self, split: Split, count: int, generator: torch.Generator) -> Episodes:
        part = self.part(split)
        if self.distinct_concepts:
            chosen = _distinct_concepts(part.labels.cpu(), count, self.candidates, generator)
        else:
            chosen = _distinct_images(len(part.labels), count, self.candidates, generator)
        vectors = self._vectors(part.inputs[chosen.flatten()])
        vectors = F.normalize(vectors, dim=1).unflatten(0, (count, self.candidates))
        target = torch.randint(self.candidates, (count,), generator=generator)
        return Episodes(vectors, target.to(vectors.device))

    def _vectors(self, inputs: Shaped[Tensor, "B P"]) -> Float[Tensor, "B P"]:
        """Grey levels or features, in the model's dtype."""
        return self.grey(inputs) if self.sees_pixels else inputs.to(self.symbols.weight.dtype)

    def encode(self, batch: object) -> Encoding:
        candidates, target = cast(Episodes, batch)
        rows = torch.arange(len(target), device=target.device)
        image = candidates[rows, target]
        scores = self.to_scores(self._see(image)) / self.score_scale
        return Encoding(scores[:, None], image, (self.receiver_embedding(candidates), target))

    def _see(self, image: Float[Tensor, "B P"]) -> Float[Tensor, "B E"]:
        """The sender's features of images."""
        embedded = self.sender_embedding(image)
        first, second = self.to_hidden.weight.squeeze(1), self.from_hidden.weight.squeeze(0)
        return pointwise(embedded, first, second).sigmoid()

    def cost(
        self, context: Context, z: Shaped[Tensor, "N *z"], row: Int[Tensor, " N"]
    ) -> Float[Tensor, " N"]:
        """−log p(target | symbol z, candidates)."""
        target = context[1].index_select(0, row)
        return F.cross_entropy(self._receive(context, z, row), target, reduction="none")

    def _receive(
        self, context: Context, z: Shaped[Tensor, "N *z"], row: Int[Tensor, " N"]
    ) -> Float[Tensor, "N C"]:
        """The receiver's score of each candidate."""
        embedded = context[0]
        if not z.is_floating_point() and 8 * len(z) > len(embedded) * self.vocabulary:
            # Score all symbols for each row in one product and pick: that reads the embeddings
            # once, where the other way copies them for every assignment.
            return torch.einsum("bce,ke->bkc", embedded, self.symbols.weight)[row, z[:, 0]]
        candidates = embedded.index_select(0, row)
        return torch.einsum("nce,ne->nc", candidates, embed(z, self.symbols.weight))

    def correct(self, encoding: Encoding, z: Int[Tensor, "B 1"]) -> Bool[Tensor, " B"]:
        rows = torch.arange(len(z), device=z.device)
        return self._receive(encoding.context, z, rows).argmax(dim=1) == encoding.context[1]

    def examples(self, look: Look, streams: Streams) -> dict[str, Example]:
        batch = next(self.evaluation_batches("test", LOOKED_AT, streams))
        encoding = self.encode(batch)
        found = look(encoding.scores, self.vocabulary)
        usage = encoding.scores.new_zeros(len(encoding.scores), self.vocabulary)
        usage = usage.scatter_add_(1, found.z.squeeze(2), found.probability).mean(dim=0)
        title = (
            f"usage of {self.vocabulary} symbols\nentropy {_entropy(usage):.2f} nats, "
            f"given the image {_entropy(found.probability) / len(found.z):.2f}"
        )
        shown = {"usage": histogram(title, usage)}
        if self.sees_pixels:
            shown["symbols"] = self._images_by_symbol(encoding.features, found.z[:, 0, 0])
        return shown

    def _images_by_symbol(self, seen: Float[Tensor, "B P"], said: Int[Tensor, " B"]) -> Example:
        """Images that share a symbol, of those said most."""
        counts = said.bincount(minlength=self.vocabulary)
        most = counts.argsort(descending=True, stable=True)[:SHOWN]
        most = most[counts[most] > 0]
        shown = seen.new_zeros(len(most), SHOWN, self.features)
        for place, symbol in enumerate(most):
            own = seen[said == symbol][:SHOWN]
            shown[place, : len(own)] = own / own.amax(dim=1, keepdim=True).clamp(min=1e-6)
        return images(
            "symbols used most, with their share",
            self.pictures(shown),
            [f"{symbol}: {counts[symbol] / len(said):.0%}" for symbol in most.tolist()],
        )

    def _check(self, name: str, split: Split) -> None:
        """Refuse a split that can't fill an episode with candidates of different kinds."""
        labels = self.part(split).labels
        if self.distinct_concepts:
            kinds, there = "concepts", int(labels.unique().numel())
        else:
            kinds, there = "images", len(labels)
        if there < self.candidates:
            other = {"train": " or validation", "validation": " or raise validation", "test": ""}
            raise DataError(
                f"{split} of {name} has {there} {kinds}, an episode takes {self.candidates}: lower "
                f"the setting candidates of signal_game{other[split]}"
            )


def _entropy(probability: Float[Tensor, "*any"]) -> float:
    """−Σ p log p over all entries, in nats."""
    return float(torch.special.entr(probability).sum())


def _distinct_concepts(
    labels: Int[Tensor, " I"], count: int, candidates: int, generator: torch.Generator
) -> Int[Tensor, "{count} {candidates}"]:
    """Indices of images from as many different classes, uniform in each."""
    by_class = labels.argsort(stable=True)
    sizes = labels.bincount()
    starts = sizes.cumsum(0) - sizes
    concepts = sizes.nonzero().squeeze(1)
    shuffled = torch.rand(count, len(concepts), generator=generator).argsort(dim=1)
    chosen = concepts[shuffled[:, :candidates]]
    places = torch.rand(count, candidates, generator=generator, dtype=torch.float64)
    return by_class[starts[chosen] + (places * sizes[chosen]).long()]


def _distinct_images(
    total: int, count: int, candidates: int, generator: torch.Generator
) -> Int[Tensor, "{count} {candidates}"]:
    """Indices without a repetition in a row, every set as likely as any other.

    Floyd's algorithm: draw from the first total − C + 1 indices, then from one more each time, and
    take the new one where the draw is there already.
    """
    chosen = torch.empty(count, candidates, dtype=torch.int64)
    for place, newest in enumerate(range(total - candidates, total)):
        drawn = torch.randint(newest + 1, (count, 1), generator=generator)
        there = (chosen[:, :place] == drawn).any(dim=1)
        chosen[:, place] = torch.where(there, newest, drawn.squeeze(1))
    return chosen
