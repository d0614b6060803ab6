"""A VAE whose latent variable is V subsets, each of k items out of n, and binary pixels.

    log p(x | z) = Σ_pixels log σ(±l(z)),   z ∈ {z ∈ {0, 1}^n: Σ z = k}^V, uniform prior

(the discrete VAE of Niepert et al. 2021 and Ahmed et al. 2023). KL is
V log C(n, k) − H(q), exactly: theirs is that of other variables, with n values each. Pixels are
binarised anew in training, with the grey level as probability, and once for an evaluation: theirs
are grey, of which the cross-entropy is no likelihood. Encoder P-512-256-(V·n) with the published
widths, and the decoder its mirror image; ReLU in hidden layers.
"""

from collections.abc import Iterator
from typing import Self, cast

from jaxtyping import Float, Int
from pydantic import Field, model_validator
from torch import Tensor

from estimators.spaces import Subsets
from tasks.base import Context, Encoding, Split, Task, TaskSettings, mlp
from tasks.data.base import Images
from tasks.examples import Example, Likeliest, Look, bits, images, pairs
from tasks.likelihoods.binary import binarised, binary_nll
from tasks.registry import register
from tasks.streams import Streams

SHOWN = 8
"""Test images that are reconstructed, samples in a row, and assignments of an image."""

LOOKED_INTO = 4
"""Test images whose assignments are shown."""


@register
class SubsetVAE(Task):
    """Subsets in, binary images out; reports ELBO, rate, distortion and NLL in bits per pixel."""

    name = "subset_vae"
    space_type = Subsets
    citation = "Niepert et al. 2021; Ahmed et al. 2023"
    is_likelihood = True
    metrics = ("elbo", "nll", "loss")

    class Settings(TaskSettings, frozen=True):
        variables: int = Field(4, ge=1, description="V, the number of subsets")
        items: int = Field(6, ge=1, description="n, the items that each is chosen from")
        chosen: int = Field(3, ge=1, description="k, the items of a subset")
        wide: int = Field(128, ge=1, description="width of the hidden layers next to the pixels")
        narrow: int = Field(64, ge=1, description="width of those next to the subsets")

        @model_validator(mode="after")
        def _enough_items(self) -> Self:
            if self.chosen > self.items:
                raise ValueError(f"chosen is {self.chosen}, of {self.items} items: take fewer")
            return self

    def __init__(self, images: Images, settings: Settings, batch_size: int) -> None:
        super().__init__(images, settings, batch_size)
        self.space = Subsets(settings.variables, settings.items, settings.chosen)
        self.pixels = images.size
        self.activation_size = max(images.size, settings.wide)
        self.steps_per_epoch = len(self.part("train").inputs) // batch_size
        widths = images.size, settings.wide, settings.narrow, self.space.size
        self.encoder, self.decoder = mlp(*widths), mlp(*reversed(widths))

    def training_batch(self, step: int, streams: Streams) -> Float[Tensor, "B P"]:
        pixels = self.part("train").inputs
        chosen = streams.shuffled("order", len(pixels), self.batch_size, step)
        return binarised(self.grey(pixels[chosen]), streams.generator("pixels", step))

    def evaluation_batches(
        self, split: Split, batch_size: int, streams: Streams
    ) -> Iterator[Float[Tensor, "B P"]]:
        """The same pixels whatever the size of the batches."""
        grey = self.grey(self.part(split).inputs)
        yield from binarised(grey, streams.generator(f"{split} pixels")).split(batch_size)

    def encode(self, batch: object) -> Encoding:
        x = cast(Tensor, batch)
        return Encoding(self.encoder(x).unflatten(1, self.space.scores_shape), x, (x,))

    def cost(
        self, context: Context, z: Float[Tensor, "N V n"], row: Int[Tensor, " N"]
    ) -> Float[Tensor, " N"]:
        (x,) = context
        return binary_nll(self.decoder(z.flatten(1)), x.index_select(0, row))

    def _mean_image(self, z: Float[Tensor, "*some V n"]) -> Float[Tensor, "*some H W"]:
        """The probability of each pixel."""
        return self.pictures(self.decoder(z.flatten(-2)).sigmoid())

    def examples(self, look: Look, streams: Streams) -> dict[str, Example]:
        encoding = self.encode(next(self.evaluation_batches("test", SHOWN, streams)))
        original, found = self.pictures(encoding.features), look(encoding.scores, SHOWN)
        decoded = self._mean_image(found.z)
        few = slice(LOOKED_INTO)
        noise = original.new_empty(2, SHOWN, *self.space.scores_shape)
        uniform = self.space.best(noise.uniform_(generator=streams.generator("samples")))
        likeliest = Likeliest(found.z.flatten(2), found.probability, found.support)
        return {
            "reconstructions": pairs("test images and reconstructions", original, decoded[:, 0]),
            "samples": images("samples of uniform subsets", self._mean_image(uniform)),
            "bits": bits(
                "likeliest subsets of test images, one after the other, q(z | x)",
                original[few],
                Likeliest(*(part[few] for part in likeliest)),
                decoded[few],
            ),
        }
