"""A semi-supervised VAE: a class y, summed or sampled over, and a Gaussian h.

    −ELBO(x, y) = −log p(x | y, h) + KL(q(h | x, y) ‖ N(0, I)) + log K,   h ~ q(h | x, y)
    loss = labelled (−ELBO + loss of q(y | x) on y) + ratio · unlabelled (E_q[−ELBO] − H(q))

(Kingma et al. 2014; Correia et al. 2020, section 5.1). ratio is the number of unlabelled images
for each labelled one; training leaves out the constant log K. Pixels are binarised anew, with the
grey level as probability, on each access. Classifier P-256-256-256-K, encoder
(P + K)-128-128-2·8, decoder (8 + K)-128-128-P.
"""

from collections.abc import Iterator
from typing import ClassVar, Literal, NamedTuple, cast

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

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
from tasks.data import DataError, Images
from tasks.examples import Example, Look, images, pairs
from tasks.registry import register
from tasks.streams import Streams

SHOWN = 8
"""Test images that are reconstructed, and samples of each class."""


class Batch(NamedTuple):
    """Binarised images x (B, P) with the noise of h (B, H), and as many with labels y.

    At evaluation the labelled part is empty and y belongs to x; on labels alone x is empty.
    """

    x: Tensor
    noise: Tensor
    labelled_x: Tensor
    labelled_noise: Tensor
    y: Tensor


@register
class SemiSupervisedVAE(Task):
    """Few labels, many images; reports accuracy of the class and the ELBO."""

    name = "ssvae"
    family: ClassVar[Literal["categorical", "bits"]] = "categorical"
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
        unlabelled = len(self.part("train").inputs) - settings.labelled
        if unlabelled < 1:
            raise DataError(
                f"{images.name} leaves no unlabelled image beside {settings.labelled} labelled: "
                "lower the setting labelled of ssvae"
            )
        self.size = images.classes
        self.labelled = settings.labelled
        self.latent_weight = unlabelled / settings.labelled
        self.chance = 1 / self.size
        self.activation_size = images.size
        self.steps_per_epoch = unlabelled // batch_size
        self.labelled_steps_per_epoch = settings.labelled // min(batch_size, settings.labelled)

        pixels, hidden, wide = images.size, settings.hidden, settings.classifier_hidden
        self.latent = settings.latent
        self.classifier = mlp(pixels, wide, wide, wide, self.size)
        # The first layer of encoder and decoder is kept apart: its part for y is a table look-up.
        self.encoder_input = nn.Linear(pixels + self.size, hidden)
        self.encoder = mlp(hidden, hidden, 2 * settings.latent)
        self.decoder_input = nn.Linear(settings.latent + self.size, hidden)
        self.decoder = mlp(hidden, hidden, pixels)

    def training_batch(self, step: int, streams: Streams) -> Batch:
        pixels, labels = self.part("train")
        first = self._labelled(step, streams)
        second = streams.shuffled("order", len(pixels) - self.labelled, self.batch_size, step)
        both = torch.cat([second + self.labelled, first])
        x, noise = self._draw(pixels[both], streams.generator("noise", step))
        rows = self.batch_size
        return Batch(x[:rows], noise[:rows], x[rows:], noise[rows:], labels[first])

    def labelled_batch(self, step: int, streams: Streams) -> Batch:
        pixels, labels = self.part("train")
        first = self._labelled(step, streams)
        x, noise = self._draw(pixels[first], streams.generator("noise", step))
        return Batch(x[:0], noise[:0], x, noise, labels[first])

    def _labelled(self, step: int, streams: Streams) -> Tensor:
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
            yield Batch(x, noise, x[:0], noise[:0], y)

    def _draw(self, pixels: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Pixels (N, P) that are 1 with their grey level as probability, and the noise of h."""
        grey = self.grey(pixels)
        # The library's bernoulli takes four times as long.
        uniform = torch.empty_like(grey).uniform_(generator=generator)
        x = (uniform < grey).to(grey.dtype)
        return x, grey.new_empty(len(x), self.latent).normal_(generator=generator)

    def encode(self, batch: object) -> Encoding:
        x, noise, labelled_x, labelled_noise, y = cast(Batch, batch)
        both, noises = torch.cat([x, labelled_x]), torch.cat([noise, labelled_noise])
        scores = self.classifier(both)
        hidden = F.linear(
            both, self.encoder_input.weight[:, : self.features], self.encoder_input.bias
        )
        context = (both, hidden, noises, y)
        if not len(labelled_x):
            return Encoding(scores, x, context)
        rows = torch.arange(len(x), len(both), device=x.device)
        part = Supervised(scores[len(x) :], y, rows)
        return Encoding(scores[: len(x)], x, context, part)

    def cost(self, context: Context, z: Tensor, row: Tensor) -> Tensor:
        """−log p(x | z, h) + KL(q(h | x, z) ‖ N(0, I)) with h drawn from q(h | x, z)."""
        x, hidden, noise = (part.index_select(0, row) for part in context[:3])
        mean, log_std = self._gaussian(hidden, z)
        h = mean + log_std.exp() * noise
        kl = 0.5 * (mean.square() + (2 * log_std).exp() - 1 - 2 * log_std).sum(dim=1)
        logits = self._decode(h, z)
        nll = F.binary_cross_entropy_with_logits(logits, x, reduction="none").sum(dim=1)
        return nll + kl

    def _gaussian(self, hidden: Tensor, z: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and log standard deviation of q(h | x, z), (N, H) each."""
        to_encoder = self.encoder_input.weight[:, self.features :].T
        mean, log_std = self.encoder(F.relu(hidden + embed(z, to_encoder))).chunk(2, dim=1)
        return mean, log_std

    def _decode(self, h: Tensor, z: Tensor) -> Tensor:
        """Log-odds of the pixels given h and z, (N, P)."""
        from_h, from_z = self.decoder_input.weight.split([self.latent, self.size], dim=1)
        return self.decoder(
            F.relu(F.linear(h, from_h, self.decoder_input.bias) + embed(z, from_z.T))
        )

    def correct(self, encoding: Encoding, z: Tensor) -> Tensor:
        return z == encoding.context[3]

    def examples(self, look: Look, streams: Streams) -> dict[str, Example]:
        encoding = self.encode(next(self.evaluation_batches("test", SHOWN, streams)))
        x, hidden = encoding.context[:2]
        z = look(encoding.scores, 1).z[:, 0]
        reconstruction = self._decode(self._gaussian(hidden, z)[0], z).sigmoid()
        h = x.new_empty(SHOWN, self.latent).normal_(generator=streams.generator("samples"))
        classes = torch.arange(self.size, device=x.device)
        samples = self._decode(h.repeat(self.size, 1), classes.repeat_interleave(SHOWN)).sigmoid()
        return {
            "reconstructions": pairs("test images and reconstructions", x, reconstruction),
            "samples": images(
                "samples, a row for each class",
                samples.unflatten(0, (self.size, SHOWN)),
                [str(label) for label in range(self.size)],
            ),
        }
