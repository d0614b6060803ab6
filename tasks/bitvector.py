"""A VAE with D bits and a categorical likelihood for each pixel's grey level.

    log p(x | z) = Σ_pixels log softmax(W r(z) + b)[x],   z ∈ {0, 1}^D, uniform prior

(Correia et al. 2020, section 5.3). Encoder P-128-D; decoder D-128-(P × 5), ReLU, and one linear
map from 5 to the grey levels that all pixels share.
"""

from collections.abc import Iterator
from typing import ClassVar, Literal, cast

from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from tasks.base import Context, Encoding, Split, Task, TaskSettings, mlp
from tasks.data import Images
from tasks.pixel_likelihood import pixel_nll
from tasks.registry import register
from tasks.streams import Streams


@register
class BitVectorVAE(Task):
    """Bits in, images out; reports ELBO, rate, distortion and NLL in bits per pixel."""

    name = "bitvector"
    family: ClassVar[Literal["categorical", "bits"]] = "bits"
    citation = "Correia et al. 2020, section 5.3"
    is_likelihood = True
    metrics = ("elbo", "nll", "loss")

    class Settings(TaskSettings, frozen=True):
        bits: int = Field(6, ge=1, le=512, description="D, the number of bits")
        hidden: int = Field(128, ge=1, description="width of the hidden layers")
        pixel_features: int = Field(5, ge=1, description="numbers that the decoder gives a pixel")

    def __init__(self, images: Images, settings: Settings, batch_size: int) -> None:
        super().__init__(images, settings, batch_size)
        self.size = settings.bits
        self.pixels = images.size
        # The likelihood runs in tiles: what is held is the decoder's output and its slopes.
        self.activation_size = (images.size + images.levels) * (settings.pixel_features + 1)
        self.steps_per_epoch = len(self.part("train").pixels) // batch_size

        self.encoder = mlp(images.size, settings.hidden, settings.bits)
        self.decoder = mlp(settings.bits, settings.hidden, images.size * settings.pixel_features)
        self.to_levels = nn.Linear(settings.pixel_features, images.levels)

    def training_batch(self, step: int, streams: Streams) -> Tensor:
        pixels = self.part("train").pixels
        return pixels[streams.shuffled("order", len(pixels), self.batch_size, step)]

    def evaluation_batches(
        self, split: Split, batch_size: int, streams: Streams
    ) -> Iterator[Tensor]:
        yield from self.part(split).pixels.split(batch_size)

    def encode(self, batch: object) -> Encoding:
        x = cast(Tensor, batch)
        grey = self.grey(x)
        return Encoding(self.encoder(grey), grey, (x.long(),))

    def cost(self, context: Context, z: Tensor, row: Tensor) -> Tensor:
        (x,) = context
        pixels = F.relu(self.decoder(z)).unflatten(1, (self.features, -1))
        return pixel_nll(pixels, self.to_levels.weight, self.to_levels.bias, x[row])
