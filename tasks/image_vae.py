"""What VAEs with independent pixels have in common: how images are seen, and what there is to see.

    cost(x, z) = −Σ_pixels x log p + (1 − x) log(1 − p),   p = σ(decode(z))

Pixels are black or white, drawn anew at each access with the grey level as probability or by a
threshold, and the cost is −log p(x | z). Or they are grey levels, as some public code has them:
then it is a cross-entropy, and no likelihood of grey pixels.
"""

from abc import abstractmethod
from collections.abc import Iterator
from typing import Literal

from jaxtyping import Float, Int, Shaped
from torch import Generator, Tensor

from estimators.sampler import Sampler
from tasks.base import Context, Split, Task, TaskSettings
from tasks.data.base import Images
from tasks.examples import Example, Look, images, pairs
from tasks.likelihoods.binary import binarised, binary_nll, plain_binary_nll
from tasks.streams import Streams

Seen = Literal["drawn", "threshold", "grey"]

SHOWN = 8
"""Test images that are reconstructed, and samples in a row."""


class ImageVAE(Task):
    """A VAE whose pixels are independent given z. A subclass has `encode` and `decode`.

    Args:
        seen: how pixels are.
    """

    def __init__(self, data: Images, settings: TaskSettings, batch_size: int, seen: Seen) -> None:
        super().__init__(data, settings, batch_size)
        self.seen = seen
        self.is_likelihood = seen != "grey"
        self.pixels = data.size if self.is_likelihood else None
        self.activation_size = data.size
        self.steps_per_epoch = len(self.part("train").inputs) // batch_size

    @abstractmethod
    def decode(self, z: Shaped[Tensor, "N *z"]) -> Float[Tensor, "N P"]:
        """Log-odds of the pixels."""

    @property
    def prior_scores(self) -> Float[Tensor, "*scores"]:
        """Scores of p(z)."""
        return next(self.parameters()).new_zeros(self.space.scores_shape)

    def look_at(self, pixels: Shaped[Tensor, "B P"], generator: Generator) -> Float[Tensor, "B P"]:
        """Pixels as they are seen."""
        grey = self.grey(pixels)
        if self.seen == "drawn":
            return binarised(grey, generator)
        return grey if self.seen == "grey" else (grey > 0.5).to(grey.dtype)

    def training_batch(self, step: int, streams: Streams) -> Float[Tensor, "B P"]:
        pixels = self.part("train").inputs
        chosen = pixels[streams.shuffled("order", len(pixels), self.batch_size, step)]
        return self.look_at(chosen, streams.generator("pixels", step))

    def evaluation_batches(
        self, split: Split, batch_size: int, streams: Streams
    ) -> Iterator[Float[Tensor, "B P"]]:
        # Drawn at once, so that they are the same however many go into a batch.
        x = self.look_at(self.part(split).inputs, streams.generator(f"{split} pixels"))
        yield from x.split(batch_size)

    def cost(
        self, context: Context, z: Shaped[Tensor, "N *z"], row: Int[Tensor, " N"]
    ) -> Float[Tensor, " N"]:
        x = context[0].index_select(0, row)
        return (plain_binary_nll if self.seen == "grey" else binary_nll)(self.decode(z), x)

    def examples(self, look: Look, streams: Streams) -> dict[str, Example]:
        x = next(self.evaluation_batches("test", SHOWN, streams))
        decoded = self.decode(look(self.encode(x).scores, 1).z[:, 0]).sigmoid()
        sampler = Sampler(streams.generator("samples"))
        z = self.space.plain(self.prior_scores[None]).sample(sampler, 2 * SHOWN)[0]
        samples = self.pictures(self.decode(z).sigmoid()).unflatten(0, (2, SHOWN))
        return {
            "reconstructions": pairs(
                "test images and reconstructions", self.pictures(x), self.pictures(decoded)
            ),
            "samples": images("samples of the prior", samples),
        }
