"""The VAE that relaxations and straight-through estimators are compared on: V variables, C each.

    cost(x, z) = −Σ_pixels x log p + (1 − x) log(1 − p),   p = σ(decoder(z)),   uniform prior on z

(Jang et al. 2017; Liu et al. 2023, section 6.2). Encoder P-512-256-VC and its mirror, ReLU. As
published, x are grey levels. Then the cost is a cross-entropy and **no likelihood of grey pixels**:
there is no ELBO, and the published "loss" is `loss` + V log C, which has the KL to the prior in it.
With pixels that are black or white it is −log p(x | z), and the published loss is −ELBO.
"""

from typing import Annotated, cast

from jaxtyping import Float, Shaped
from pydantic import Field
from torch import Tensor

from estimators.spaces import Categoricals
from tasks.base import Encoding, TaskSettings, mlp
from tasks.data.base import Images
from tasks.image_vae import ImageVAE, Seen
from tasks.registry import register

Width = Annotated[int, Field(ge=1)]


@register
class CategoricalVAE(ImageVAE):
    """Categories behind an image; reports the cross-entropy less the entropy."""

    name = "categorical_vae"
    space_type = Categoricals
    citation = "Jang et al. 2017; Liu et al. 2023, section 6.2"
    is_likelihood = False  # by default
    metrics = ("loss",)

    class Settings(TaskSettings, frozen=True):
        variables: int = Field(8, ge=1, le=512, description="V, the number of variables")
        categories: int = Field(4, ge=2, le=512, description="C, the number of categories of each")
        hidden: tuple[Width, ...] = Field(
            (512, 256), description="widths of the encoder's hidden layers; the decoder's, mirrored"
        )
        seen: Seen = Field(
            "grey", description="pixels are grey, or 1 by a draw at each access or above a half"
        )

    def __init__(self, data: Images, settings: Settings, batch_size: int) -> None:
        super().__init__(data, settings, batch_size, settings.seen)
        self.space = Categoricals(settings.variables, settings.categories)
        widths = (data.size, *settings.hidden, self.space.size)
        self.encoder, self.decoder = mlp(*widths), mlp(*reversed(widths))

    def encode(self, batch: object) -> Encoding:
        x = cast(Tensor, batch)
        return Encoding(self.encoder(x).unflatten(1, self.space.scores_shape), x, (x,))

    def decode(self, z: Shaped[Tensor, "N *z"]) -> Float[Tensor, "N P"]:
        return self.decoder(self.space.point(z, next(self.parameters()).dtype).flatten(1))
