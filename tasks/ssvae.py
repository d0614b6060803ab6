"""A semi-supervised VAE: a class y, summed or sampled over, and a Gaussian h.

    −ELBO(x, y) = −log p(x | y, h) + KL(q(h | x, y) ‖ N(0, I)) + log K,   h ~ q(h | x, y)
    loss = labelled (−ELBO + loss of q(y | x) on y) + ratio · unlabelled (E_q[−ELBO] − H(q))

(Kingma et al. 2014; Correia et al. 2020, section 5.1). ratio is the number of unlabelled images
for each labelled one; training leaves out the constant log K. Pixels are binarised anew, with the
grey level as probability, on each access. Classifier P-256-256-256-K, encoder
(P + K)-128-128-2·8, decoder (8 + K)-128-128-P.
"""

from collections.abc import Iterator
from typing import NamedTuple, cast

import torch
from jaxtyping import Bool, Float, Int, Shaped
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from estimators.spaces import Categoricals
from tasks.base import (
    Context,
    Encoding,
    Split,
    Supervised,
    Task,
    TaskSettings,
    embed,
    mlp,
)
from tasks.data.base import DataError, Images
from tasks.examples import Example, Look, images, pairs
from tasks.likelihoods.binary import binarised, binary_nll
from tasks.registry import register
from tasks.streams import Streams

SHOWN = 8
"""Test images that are reconstructed, and samples of each class."""


class Batch(NamedTuple):
    """Binarised images x, with the noise of h and some labels y.

    In training y belongs to the last rows of x, which `labelled` numbers; at evaluation it is what
    is to be found, and no row is labelled.
    """

    x: Float[Tensor, "N P"]
    noise: Float[Tensor, "N H"]
    y: Int[Tensor, " L"]
    labelled: Int[Tensor, " M"]


@register
class SemiSupervisedVAE(Task):
    """Few labels, many images; reports accuracy of the class and the ELBO."""

    name = "ssvae"
    space_type = Categoricals
    citation = "Correia et al. 2020, section 5.1"
    has_labels = True
    is_likelihood = True
    metrics = ("accuracy", "elbo", "loss")

    class Settings(TaskSettings, frozen=True):
        labelled: int = Field(100, ge=1, description="images whose label is used")
        latent: int = Field(8, ge=1, description="size of the Gaussian h")
        hidden: int = Field(128, ge=1, description="width of encoder and decoder")
        classifier_hidden: int = Field(256, ge=1, description="width of the classifier")

    def __init__(self, images: Images, settings: Settings, batch_size: int) -> None:
        super().__init__(images, settings, batch_size)
        _check_classes(images)
        unlabelled = len(self.part("train").inputs) - settings.labelled
        if unlabelled < 1:
            raise DataError(
                f"{images.name} leaves no unlabelled image beside {settings.labelled} labelled: "
                "lower the setting labelled of ssvae"
            )
        self.classes = images.classes
        self.space = Categoricals(1, self.classes)
        self.labelled = settings.labelled
        self.latent_weight = unlabelled / settings.labelled
        self.chance = 1 / self.classes
        self.activation_size = images.size
        self.steps_per_epoch = unlabelled // batch_size
        self.labelled_steps_per_epoch = settings.labelled // min(batch_size, settings.labelled)

        pixels, hidden, wide = images.size, settings.hidden, settings.classifier_hidden
        self.latent = settings.latent
        self.classifier = mlp(pixels, wide, wide, wide, self.classes)
        # The first layer of encoder and decoder is kept apart: its part for y is a table look-up.
        encoder_input = nn.Linear(pixels + self.classes, hidden)
        self.encoder_input, self.encoder_table = by_part(encoder_input, pixels)
        self.encoder = mlp(hidden, hidden, 2 * settings.latent)
        decoder_input = nn.Linear(settings.latent + self.classes, hidden)
        self.decoder_input, self.decoder_table = by_part(decoder_input, settings.latent)
        self.decoder = mlp(hidden, hidden, pixels)

    def training_batch(self, step: int, streams: Streams) -> Batch:
        pixels, labels = self.part("train")
        first = self._labelled(step, streams)
        second = streams.shuffled("order", len(pixels) - self.labelled, self.batch_size, step)
        both = torch.cat([second + self.labelled, first]).to(pixels.device)
        x, noise = self._draw(pixels.index_select(0, both), streams.generator("noise", step))
        rows = torch.arange(len(second), len(both), device=x.device)
        return Batch(x, noise, labels[first], rows)

    def labelled_batch(self, step: int, streams: Streams) -> Batch:
        pixels, labels = self.part("train")
        first = self._labelled(step, streams)
        x, noise = self._draw(pixels[first], streams.generator("noise", step))
        return Batch(x, noise, labels[first], torch.arange(len(x), device=x.device))

    def _labelled(self, step: int, streams: Streams) -> Int[Tensor, " L"]:
        """The labelled images of a step, which come first among those to train on."""
        size = min(self.batch_size, self.labelled)
        return streams.shuffled("labelled order", self.labelled, size, step)

    def evaluation_batches(
        self, split: Split, batch_size: int, streams: Streams
    ) -> Iterator[Batch]:
        part = self.part(split)
        for number, (pixels, y) in enumerate(
            zip(part.inputs.split(batch_size), part.labels.split(batch_size), strict=True)
        ):
            x, noise = self._draw(pixels, streams.generator(f"{split} noise", number))
            yield Batch(x, noise, y, torch.arange(0, device=x.device))

    def _draw(
        self, pixels: Shaped[Tensor, "N P"], generator: torch.Generator
    ) -> tuple[Float[Tensor, "N P"], Float[Tensor, "N H"]]:
        """Pixels that are 1 with their grey level as probability, and the noise of h."""
        x = binarised(self.grey(pixels), generator)
        return x, x.new_empty(len(x), self.latent).normal_(generator=generator)

    def encode(self, batch: object) -> Encoding:
        x, noise, y, labelled = cast(Batch, batch)
        scores = self.classifier(x)[:, None]
        context = (x, self.encoder_input(x), noise, y)
        if not len(labelled):
            return Encoding(scores, x, context)
        others = len(x) - len(labelled)
        part = Supervised(scores[others:], y[:, None], labelled)
        return Encoding(scores[:others], x[:others], context, part)

    def cost(
        self, context: Context, z: Shaped[Tensor, "N *z"], row: Int[Tensor, " N"]
    ) -> Float[Tensor, " N"]:
        """−log p(x | z, h) + KL(q(h | x, z) ‖ N(0, I)) with h drawn from q(h | x, z)."""
        x, hidden, noise = (part.index_select(0, row) for part in context[:3])
        mean, log_std = self._gaussian(hidden, z)
        std = log_std.exp()
        h = mean + std * noise
        kl = 0.5 * (mean.square() + std.square() - 1 - 2 * log_std).sum(dim=1)
        return binary_nll(self._decode(h, z), x) + kl

    def _gaussian(
        self, hidden: Float[Tensor, "N E"], z: Shaped[Tensor, "N *z"]
    ) -> tuple[Float[Tensor, "N H"], Float[Tensor, "N H"]]:
        """Mean and log standard deviation of q(h | x, z)."""
        both = F.relu(hidden + embed(z, self.encoder_table))
        mean, log_std = self.encoder(both).chunk(2, dim=1)
        return mean, log_std

    def _decode(self, h: Float[Tensor, "N H"], z: Shaped[Tensor, "N *z"]) -> Float[Tensor, "N P"]:
        """Log-odds of the pixels given h and z."""
        return self.decoder(F.relu(self.decoder_input(h) + embed(z, self.decoder_table)))

    def correct(self, encoding: Encoding, z: Int[Tensor, "B 1"]) -> Bool[Tensor, " B"]:
        return z[:, 0] == encoding.context[3]

    def examples(self, look: Look, streams: Streams) -> dict[str, Example]:
        encoding = self.encode(next(self.evaluation_batches("test", SHOWN, streams)))
        x, hidden = encoding.context[:2]
        z = look(encoding.scores, 1).z[:, 0]
        reconstruction = self.pictures(self._decode(self._gaussian(hidden, z)[0], z).sigmoid())
        h = x.new_empty(SHOWN, self.latent).normal_(generator=streams.generator("samples"))
        classes = torch.arange(self.classes, device=x.device)
        every = classes.repeat_interleave(SHOWN)[:, None]
        samples = self.pictures(self._decode(h.repeat(self.classes, 1), every).sigmoid())
        original = self.pictures(x)
        return {
            "reconstructions": pairs("test images and reconstructions", original, reconstruction),
            "samples": images(
                "samples, a row for each class",
                samples.unflatten(0, (self.classes, SHOWN)),
                [str(label) for label in range(self.classes)],
            ),
        }


def _check_classes(images: Images) -> None:
    """Refuse labels that are not K ≥ 2 classes, numbered from 0 on and each in training."""
    counts = images.labels.bincount()
    missing = (counts == 0).nonzero().flatten().tolist()
    if missing:
        raise DataError(
            f"{images.name} has training images of class {len(counts) - 1} and none of class "
            f"{missing[0]}: number the classes of ssvae from 0 on, without gaps"
        )
    if len(counts) < 2:
        raise DataError(f"{images.name} has training images of one class: ssvae takes two or more")
    largest = int(images.test_labels.max())
    if largest >= len(counts):
        raise DataError(
            f"{images.name} has test images of class {largest} and none to train on: leave out "
            "what ssvae can't learn"
        )


def by_part(layer: nn.Linear, first: int) -> tuple[nn.Linear, nn.Parameter]:
    """A linear layer in two, whose sum it is.

    Args:
        layer: from I inputs to O outputs; it is changed.
        first: how many inputs it keeps, F.
    Returns:
        the layer on its first F inputs, and a table (I − F, O) with a row for each of the others.
    """
    weight = layer.weight.detach()
    layer.in_features = first
    layer.weight = nn.Parameter(weight[:, :first].clone())
    return layer, nn.Parameter(weight[:, first:].T.clone())
