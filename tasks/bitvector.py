"""A VAE with D bits and a categorical likelihood for each pixel's grey level.

    log p(x | z) = Σ_pixels log softmax(W r(z) + b)[x],   z ∈ {0, 1}^D, uniform prior

(Correia et al. 2020, section 5.3). Encoder P-128-D; decoder D-128-(P × 5) and one linear map
from 5 to the grey levels that all pixels share; ReLU in hidden layers.
"""

from collections.abc import Iterator
from typing import Literal, cast

import torch
from jaxtyping import Float, Int, Shaped
from pydantic import Field
from torch import Tensor, nn

from estimators.spaces import Bits
from tasks.base import Context, Encoding, Split, Task, TaskSettings, mlp
from tasks.data.base import Images
from tasks.examples import Example, Likeliest, Look, bits, images, pairs
from tasks.likelihoods.pixels import pixel_nll
from tasks.registry import register
from tasks.streams import Streams

SHOWN = 8
"""Test images that are reconstructed, samples in a row, and bit-vectors of an image."""

LOOKED_INTO = 4
"""Test images whose bit-vectors are shown."""


@register
class BitVectorVAE(Task):
    """Bits in, images out; reports ELBO, rate, distortion and NLL in bits per pixel."""

    name = "bitvector"
    space_type = Bits
    citation = "Correia et al. 2020, section 5.3"
    is_likelihood = True
    metrics = ("elbo", "nll", "loss")

    class Settings(TaskSettings, frozen=True):
        bits: int = Field(6, ge=1, le=512, description="D, the number of bits")
        hidden: int = Field(128, ge=1, description="width of the hidden layers")
        pixel_features: int = Field(5, ge=1, description="numbers that the decoder gives a pixel")
        levels_bias: Literal["random", "frequencies"] = Field(
            "random",
            description="the last layer's at the start: frequencies are the training set's",
        )

    def __init__(self, images: Images, settings: Settings, batch_size: int) -> None:
        super().__init__(images, settings, batch_size)
        self.space = Bits(settings.bits)
        self.pixels = images.size
        # The likelihood runs in tiles: what is held is the decoder's output and its slopes.
        self.activation_size = (images.size + images.levels) * (settings.pixel_features + 1)
        self.steps_per_epoch = len(self.part("train").inputs) // batch_size

        self.encoder = mlp(images.size, settings.hidden, settings.bits)
        self.decoder = mlp(settings.bits, settings.hidden, images.size * settings.pixel_features)
        self.to_levels = nn.Linear(settings.pixel_features, images.levels)
        if settings.levels_bias == "frequencies":
            self._start_from_frequencies()

    def _start_from_frequencies(self) -> None:
        """Give each grey level its log frequency, each having been seen once more, as bias.

        Learning these first pushes all scores one way, whatever the image: beyond where a sparse
        mapping has a gradient, the bits are lost.
        """
        pixels = self.part("train").inputs.flatten().long()
        counts = pixels.bincount(minlength=self.levels) + 1
        with torch.no_grad():
            self.to_levels.bias.copy_((counts / counts.sum()).log())

    def training_batch(self, step: int, streams: Streams) -> Shaped[Tensor, "B P"]:
        pixels = self.part("train").inputs
        return pixels[streams.shuffled("order", len(pixels), self.batch_size, step)]

    def evaluation_batches(
        self, split: Split, batch_size: int, streams: Streams
    ) -> Iterator[Shaped[Tensor, "B P"]]:
        yield from self.part(split).inputs.split(batch_size)

    def encode(self, batch: object) -> Encoding:
        x = cast(Tensor, batch)
        grey = self.grey(x)
        return Encoding(self.encoder(grey), grey, (x.long(),))

    def cost(
        self, context: Context, z: Float[Tensor, "N D"], row: Int[Tensor, " N"]
    ) -> Float[Tensor, " N"]:
        (x,) = context
        target = x.index_select(0, row)
        return pixel_nll(self._decode(z), self.to_levels.weight, self.to_levels.bias, target)

    def _decode(self, z: Float[Tensor, "N D"]) -> Float[Tensor, "N P F"]:
        """The numbers that the decoder gives each pixel."""
        return self.decoder(z).unflatten(1, (self.features, -1))

    def _mean_image(self, z: Float[Tensor, "N D"]) -> Float[Tensor, "N H W"]:
        """E[x | z] with grey levels in [0, 1]."""
        levels = torch.linspace(0, 1, self.levels, device=z.device, dtype=z.dtype)
        return self.pictures(self.to_levels(self._decode(z)).softmax(dim=2) @ levels)

    def examples(self, look: Look, streams: Streams) -> dict[str, Example]:
        encoding = self.encode(next(self.evaluation_batches("test", SHOWN, streams)))
        grey, found = self.pictures(encoding.features), look(encoding.scores, SHOWN)
        decoded = self._mean_image(found.z.flatten(0, 1)).unflatten(0, found.z.shape[:2])
        few = slice(LOOKED_INTO)
        uniform = grey.new_empty(2 * SHOWN, self.space.size).uniform_(
            generator=streams.generator("samples")
        )
        samples = self._mean_image((uniform < 0.5).to(grey.dtype))
        return {
            "reconstructions": pairs("test images and reconstructions", grey, decoded[:, 0]),
            "samples": images("samples of uniform bits", samples.unflatten(0, (2, SHOWN))),
            "bits": bits(
                "likeliest bit-vectors of test images, q(z | x)",
                grey[few],
                Likeliest(*(part[few] for part in found)),
                decoded[few],
            ),
        }
