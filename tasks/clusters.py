"""Binary classification where each row has one of K linear classifiers, that of its cluster.

    z uniform,   x = c_z + 0.1 ε,   y = [w_zᵀ(x − c_z) > 0],   c_z, w_z, ε ~ N(0, I)

(Mihaylova, Niculae & Martins 2020, section 4; Mihaylova et al. 2021). The encoder scores the K
clusters by a linear map of x, and the decoder is bilinear: log-odds of y of each cluster's own.
Within a cluster, x says little about y but for its classifier, so that the decoder is right where
the encoder finds the clusters.
"""

from functools import cache
from pathlib import Path
from typing import cast

import torch
from jaxtyping import Bool, Float, Int, Shaped
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from estimators.spaces import Categoricals
from tasks.base import AnySettings, Context, Encoding
from tasks.data.base import Planted
from tasks.examples import Example, Look, images
from tasks.planted import PlantedBatch, PlantedSettings, PlantedTask
from tasks.registry import register
from tasks.streams import Streams

LOOKED_AT = 500
"""Test rows, at most, whose clusters are shown."""

NOISE = 0.1
"""Standard deviation of a row about the centre of its cluster, in each coordinate."""


@register
class Clusters(PlantedTask):
    """Which of K classifiers belongs to a row; reports accuracy of y and V-measure of z."""

    name = "clusters"
    space_type = Categoricals
    citation = "Mihaylova et al. 2020, section 4"
    chance = 0.5

    class Settings(PlantedSettings, frozen=True):
        clusters: int = Field(10, ge=2, description="K, the number of clusters: 3, 5, 10 or 20")
        size: int = Field(100, ge=1, description="length of x")

    @classmethod
    def data(cls, settings: AnySettings, data_dir: Path | None) -> Planted:
        return generated(cast(Clusters.Settings, settings))

    def __init__(self, data: Planted, settings: Settings, batch_size: int) -> None:
        super().__init__(data, settings, batch_size)
        self.clusters = settings.clusters
        self.space = Categoricals(1, settings.clusters)
        self.activation_size = settings.clusters
        self.encoder = nn.Linear(settings.size, settings.clusters)
        self.classifiers = nn.Linear(settings.size, settings.clusters)

    def encode(self, batch: object) -> Encoding:
        inputs, answer, truth = cast(PlantedBatch, batch)
        x = inputs.to(self.encoder.weight.dtype)
        return Encoding(self.encoder(x)[:, None], x, (self.classifiers(x), answer, truth))

    def cost(
        self, context: Context, z: Shaped[Tensor, "N *z"], row: Int[Tensor, " N"]
    ) -> Float[Tensor, " N"]:
        """−log p(y | x, z)."""
        answer = context[1].index_select(0, row)
        log_odds = self._log_odds(context, z, row)
        return F.binary_cross_entropy_with_logits(
            log_odds, answer.to(log_odds.dtype), reduction="none"
        )

    def _log_odds(
        self, context: Context, z: Shaped[Tensor, "N *z"], row: Int[Tensor, " N"]
    ) -> Float[Tensor, " N"]:
        """Of y, by the classifier that z picks; relaxed ones mix them."""
        if z.is_floating_point():
            return (context[0].index_select(0, row) * z.squeeze(1)).sum(dim=1)
        return context[0][row, z[:, 0]]

    def correct(self, encoding: Encoding, z: Int[Tensor, "B 1"]) -> Bool[Tensor, " B"]:
        log_odds = self._log_odds(encoding.context, z, torch.arange(len(z), device=z.device))
        return (log_odds > 0) == (encoding.context[1] > 0)

    def examples(self, look: Look, streams: Streams) -> dict[str, Example]:
        """How often rows of each cluster get each value of z at the mode of q."""
        encoding = self.encode(next(self.evaluation_batches("test", LOOKED_AT, streams)))
        z, truth = look(encoding.scores, 1).z[:, 0, 0], self.truth(encoding)[:, 0]
        counts = (truth * self.clusters + z).bincount(minlength=self.clusters**2)
        shares = counts.view(self.clusters, self.clusters).to(encoding.scores.dtype)
        shares = shares / shares.sum(dim=1, keepdim=True).clamp(min=1)
        title = "values of z (columns) of test rows of each cluster (rows)"
        return {"clusters": images(title, shares[None, None])}


@cache
def generated(settings: Clusters.Settings) -> Planted:
    """Rows x, answers y and clusters z: all from the seed of the data."""
    generator = torch.Generator().manual_seed(settings.data_seed)
    known = settings.train + settings.validation
    total = known + settings.test
    centres, weights = torch.randn(2, settings.clusters, settings.size, generator=generator)
    z = torch.randint(settings.clusters, (total,), generator=generator)
    away = NOISE * torch.randn(total, settings.size, generator=generator)
    x, y = centres[z] + away, ((weights[z] * away).sum(dim=1) > 0).long()
    z = z[:, None]
    return Planted("clusters", x[:known], y[:known], x[known:], y[known:], z[:known], z[known:])
