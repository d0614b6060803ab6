"""Latent spaces: one file each, with its plain q."""

from estimators.spaces.base import Factorised, Ranked, Space
from estimators.spaces.bits import Bits
from estimators.spaces.categoricals import Categoricals
from estimators.spaces.chains import Chains
from estimators.spaces.subsets import Subsets
from estimators.spaces.trees import Trees

__all__ = ["Bits", "Categoricals", "Chains", "Factorised", "Ranked", "Space", "Subsets", "Trees"]
