"""The binary VAE that most estimators for bits were published on: 200 bits behind an image.

    log p(x | z) = Σ_pixels log Bernoulli(x; σ(decoder(2z − 1) + b)),   z ∈ {0, 1}^D
    q(z | x) = Bernoulli(z; σ(encoder(x − mean)))

(Mnih & Gregor 2014; Tucker et al. 2017; Dong et al. 2020). Linear, P-D and D-P, or with hidden
layers each way, P-200-200-D and its mirror. Pixels are black or white. The bias b starts from the
log-odds of the training pixels' means. The prior is uniform, or one log-odds for each bit that is
learned. Two stochastic layers are another latent space: see docs/CONTRACT.md.

Or the lower half of an image is predicted from the upper one (Raiko et al. 2015; Gu et al. 2016):

    log p(lower | upper) = log E_q(z | upper)[p(lower | z)]

q is then the prior of z, and its own bound, E_q[log p(lower | z)], has no KL in it.
"""

from collections.abc import Callable
from functools import partial
from typing import Literal, cast

import torch
from jaxtyping import Float, Int
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from estimators.spaces import Bits
from tasks.base import Context, Encoding, TaskSettings, mlp
from tasks.data.base import Images
from tasks.examples import Example, Look, pairs
from tasks.image_vae import SHOWN, ImageVAE
from tasks.registry import register
from tasks.streams import Streams

LEAST, MOST = 1e-3, 0.999
"""Between which the mean of a pixel is taken to be, for the bias to start from."""

ACTIVATIONS: dict[str, Callable[[], nn.Module]] = {
    "leaky-relu": partial(nn.LeakyReLU, 0.3),
    "tanh": nn.Tanh,
}


@register
class BinaryVAE(ImageVAE):
    """Bits behind black and white pixels; reports ELBO and NLL."""

    name = "sbn"
    space_type = Bits
    citation = "Mnih & Gregor 2014; Dong et al. 2020"
    is_likelihood = True
    traces_variance = True
    metrics = ("elbo", "nll", "loss")

    class Settings(TaskSettings, frozen=True):
        bits: int = Field(200, ge=1, le=512, description="D, the number of bits")
        layers: int = Field(0, ge=0, le=8, description="hidden layers each way; 0 is linear")
        hidden: int = Field(200, ge=1, description="width of the hidden layers")
        activation: Literal["leaky-relu", "tanh"] = Field(
            "leaky-relu", description="of the hidden layers; the former with slope 0.3 below zero"
        )
        predicted: Literal["image", "lower-half"] = Field(
            "image", description="all that q sees, or the half that it does not see, without a KL"
        )
        seen: Literal["drawn", "threshold"] = Field(
            "drawn", description="pixels are 1 by a draw at each access, or where above a half"
        )
        centred: bool = Field(True, description="x − mean goes in, 2z − 1 out")
        bias: Literal["mean", "random"] = Field(
            "mean", description="the output's at the start: log-odds of the mean of each pixel"
        )
        prior: Literal["learned", "uniform"] = Field(
            "learned", description="of the bits, where whole images are predicted"
        )

    def __init__(self, data: Images, settings: Settings, batch_size: int) -> None:
        super().__init__(data, settings, batch_size, settings.seen)
        bits = settings.bits
        self.space = Bits(bits)
        self.centred = settings.centred
        self.prior_is_q = settings.predicted == "lower-half"
        self.prior_in_cost = settings.prior == "learned" and not self.prior_is_q
        self.given = self.predicted = slice(data.size)
        out = data.size
        if self.prior_is_q:
            self.entropy_weight = 0.0
            self.features = data.shape[0] // 2 * data.shape[1]
            self.given, self.predicted = slice(self.features), slice(self.features, data.size)
            out = self.pixels = data.size - self.features
        hidden, activation = [settings.hidden] * settings.layers, ACTIVATIONS[settings.activation]
        self.encoder = mlp(self.features, *hidden, bits, activation=activation)
        self.decoder = mlp(bits, *hidden, out, activation=activation)
        if self.prior_in_cost:
            self.prior = nn.Parameter(torch.zeros(bits))
        mean = self._mean()
        self.register_buffer("mean", mean, persistent=False)
        if settings.bias == "mean":
            start = mean[self.predicted].clamp(LEAST, MOST).logit()
            with torch.no_grad():
                cast(nn.Linear, self.decoder[-1]).bias.copy_(start)

    def _mean(self) -> Float[Tensor, " P"]:
        """Of the training pixels as they are seen: what is drawn has its grey levels as mean."""
        pixels = self.part("train").inputs
        if self.seen == "drawn":
            return self.grey(pixels.sum(dim=0, keepdim=True))[0] / len(pixels)
        return self.look_at(pixels, torch.Generator()).mean(dim=0)

    @property
    def prior_scores(self) -> Float[Tensor, " D"]:
        return self.prior if self.prior_in_cost else super().prior_scores

    def encode(self, batch: object) -> Encoding:
        x = cast(Tensor, batch)
        inputs = (x - self.get_buffer("mean") if self.centred else x)[:, self.given]
        return Encoding(self.encoder(inputs), inputs, (x[:, self.predicted],))

    def cost(
        self, context: Context, z: Float[Tensor, "N D"], row: Int[Tensor, " N"]
    ) -> Float[Tensor, " N"]:
        """−log p(x | z), and −log p(z) where the prior is learned: linear in a relaxed z."""
        nll = super().cost(context, z, row)
        if not self.prior_in_cost:
            return nll
        return nll + F.softplus(self.prior).sum() - z @ self.prior

    def decode(self, z: Float[Tensor, "N D"]) -> Float[Tensor, "N P"]:
        return self.decoder(2 * z - 1 if self.centred else z)

    def examples(self, look: Look, streams: Streams) -> dict[str, Example]:
        if not self.prior_is_q:
            return super().examples(look, streams)
        x = next(self.evaluation_batches("test", SHOWN, streams))
        lower = self.decode(look(self.encode(x).scores, 1).z[:, 0]).sigmoid()
        whole = self.pictures(torch.cat([x[:, self.given], lower], dim=1))
        title = "test images, and their lower half as it is predicted"
        return {"predictions": pairs(title, self.pictures(x), whole)}
