"""A child-sum Tree-LSTM over dependency trees (Tai, Socher & Manning 2015, equations 2 to 8).

    h̃_j = Σ_k h_k                                    over the children k of j
    i_j, o_j = σ(W x_j + U h̃_j + b),   u_j = tanh(W x_j + U h̃_j + b)
    f_jk = σ(W x_j + U h_k + b)
    c_j = i_j ⊙ u_j + Σ_k f_jk ⊙ c_k,   h_j = o_j ⊙ tanh(c_j)

Many trees at once, each of its own shape: a level of all of them after the other, from the deepest
words to the roots.
"""

from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn


class Level(NamedTuple):
    """The words of one depth, of all trees."""

    word: Int[Tensor, " L"]
    """Their places among all words, N × T."""
    head: Int[Tensor, " L"]
    """The places of their heads in the level above; of no meaning for roots."""


def levels(heads: Int[Tensor, "N T"], present: Bool[Tensor, "N T"]) -> list[Level]:
    """The words that hang on the root through present ones, from the roots down: one level or more.

    Args:
        heads: of each word; a root's is its own.
        present: words that there are; the others, and what hangs on these, are left out.
    """
    rows, words = heads.shape
    here = torch.arange(words, device=heads.device)
    flat = (heads + words * torch.arange(rows, device=heads.device)[:, None]).flatten()
    level = ((heads == here) & present).flatten()
    left = present.flatten() & ~level
    found: list[Level] = []
    above = torch.zeros_like(flat)
    while not found or level.any():
        word = level.nonzero().squeeze(1)
        found.append(Level(word, above[flat[word]]))
        above = torch.zeros_like(flat)
        above[word] = torch.arange(len(word), device=flat.device)
        level = level[flat] & left
        left = left & ~level
    return found


class TreeLSTM(nn.Module):
    """From words and heads to the states of the roots.

    Args:
        words: how many different words there are.
        size: H, of the states.
    """

    def __init__(self, words: int, size: int) -> None:
        super().__init__()
        self.size = size
        self.inputs = nn.Embedding(words, 4 * size)
        self.gates = nn.Linear(size, 3 * size)
        self.forget = nn.Linear(size, size)

    def forward(
        self,
        words: Int[Tensor, "N T"],
        heads: Int[Tensor, "N T"],
        present: Bool[Tensor, "N T"],
    ) -> Float[Tensor, "N {self.size}"]:
        """The sum of the states h of a tree's present roots: of its one root, as a rule."""
        every = words.flatten()
        h, c = self.gates.weight.new_zeros(2, 0, self.size)
        below = every.new_zeros(0)
        hierarchy = levels(heads, present)
        for level in reversed(hierarchy):
            h, c = self._step(self.inputs(every[level.word]), h, c, below)
            below = level.head
        row = hierarchy[0].word // words.shape[1]
        return h.new_zeros(len(words), self.size).index_add(0, row, h)

    def _step(
        self,
        x: Float[Tensor, "L {4*self.size}"],
        h: Float[Tensor, "M {self.size}"],
        c: Float[Tensor, "M {self.size}"],
        head: Int[Tensor, " M"],
    ) -> tuple[Float[Tensor, "L {self.size}"], Float[Tensor, "L {self.size}"]]:
        """States of a level, from its words and from the states of the words that hang on them."""
        own, for_forgetting = x.split((3 * self.size, self.size), dim=1)
        nothing = h.new_zeros(len(x), self.size)
        gates = own + self.gates(nothing.index_add(0, head, h))
        i, o, u = gates.chunk(3, dim=1)
        f = (for_forgetting.index_select(0, head) + self.forget(h)).sigmoid()
        c = (i.sigmoid() * u.tanh()).index_add(0, head, f * c)
        return o.sigmoid() * c.tanh(), c
