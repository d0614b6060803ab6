"""ListOps with latent dependency trees: a digit is read off a Tree-LSTM on the tree that is found.

    cost = −log p(answer | expression, tree),   objective = E_q[cost] − λ H(q(tree | expression))

(Nangia & Bowman 2018; trees as in Niculae, Martins & Cardie 2018). A tagger, a bidirectional LSTM
over the symbols, scores arcs by a biaffine form (Dozat & Manning 2017), and every symbol as the
root. In the true tree, an operator is the head of its arguments and of its closing bracket. The
decoder sees the symbols and the tree, and not their order: it knows what the tree tells it.
"""

from functools import cache
from pathlib import Path
from typing import Literal, cast

import torch
from jaxtyping import Bool, Float, Int, Shaped
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from estimators.spaces import Trees
from tasks.base import AnySettings, Context, Encoding
from tasks.data.base import DataError, Planted
from tasks.data.listops import DIGITS, PADDING, SYMBOLS, Expression, expressions, read_listops
from tasks.examples import Example, Look, trees
from tasks.planted import PlantedBatch, PlantedSettings, PlantedTask
from tasks.registry import register
from tasks.streams import Streams
from tasks.tree_lstm import TreeLSTM

SHOWN = 3
"""Test expressions whose trees are shown, and trees of each."""

PUBLISHED = ("train_d20s.tsv", "test_d20s.tsv")
"""Files of the published data."""


@register
class ListOps(PlantedTask):
    """Trees over nested operations on digits; reports accuracy of the answer and of the arcs."""

    name = "listops"
    space_type = Trees
    citation = "Nangia & Bowman 2018"
    accepts_relaxed = False
    space: Trees

    class Settings(PlantedSettings, frozen=True):
        dataset: Literal["generated", "listops"] = Field(
            "generated", description="by the task itself, or the published files"
        )
        longest: int = Field(16, ge=4, description="symbols of the longest expression")
        operators: int = Field(1, ge=1, description="fewest operators of an expression")
        embedding: int = Field(32, ge=1, description="size of a symbol's embedding")
        hidden: int = Field(32, ge=1, description="size of the tagger's states, each way")
        arcs: int = Field(32, ge=1, description="size of heads and dependents in the arcs' scores")
        states: int = Field(48, ge=1, description="size of the Tree-LSTM's states")

    @classmethod
    def data(cls, settings: AnySettings, data_dir: Path | None) -> Planted:
        return _data(cast(ListOps.Settings, settings), data_dir)

    def __init__(self, data: Planted, settings: Settings, batch_size: int) -> None:
        super().__init__(data, settings, batch_size)
        self.space = Trees(data.size)
        self.features = data.size * (PADDING + 1)
        self.activation_size = data.size * 4 * settings.states
        answers = self.part("train").labels.bincount()
        self.chance = float(answers.max() / answers.sum())
        hidden = 2 * settings.hidden
        self.embedding = nn.Embedding(PADDING, settings.embedding)
        self.tagger = nn.LSTM(
            settings.embedding, settings.hidden, batch_first=True, bidirectional=True
        )
        self.as_head, self.as_dependent = (nn.Linear(hidden, settings.arcs) for _ in range(2))
        self.as_root = nn.Linear(hidden, 1, bias=False)
        self.composer = TreeLSTM(PADDING, settings.states)
        self.answer = nn.Linear(settings.states, DIGITS)

    def encode(self, batch: object) -> Encoding:
        inputs, answer, truth = cast(PlantedBatch, batch)
        words = inputs.long()
        lengths = (words != PADDING).sum(dim=1)
        scores = self.space.masked(self._arcs(words, lengths), lengths)
        features = F.one_hot(words, PADDING + 1).flatten(1).to(scores.dtype)
        return Encoding(scores, features, (words, answer, truth))

    def _arcs(
        self, words: Int[Tensor, "B T"], lengths: Int[Tensor, " B"]
    ) -> Float[Tensor, "B T T"]:
        """Scores of words (rows) for heads, and on the diagonal for the root."""
        embedded = self.embedding(words.clamp(max=PADDING - 1))
        packed = pack_padded_sequence(
            embedded, lengths.cpu(), batch_first=True, enforce_sorted=False
        )
        seen, _ = pad_packed_sequence(
            self.tagger(packed)[0], batch_first=True, total_length=words.shape[1]
        )
        dependent, head = self.as_dependent(seen), self.as_head(seen)
        scores = dependent @ head.transpose(1, 2) / head.shape[2] ** 0.5
        return scores.diagonal_scatter(self.as_root(seen).squeeze(2), dim1=1, dim2=2)

    def cost(
        self, context: Context, z: Int[Tensor, "N T"], row: Int[Tensor, " N"]
    ) -> Float[Tensor, " N"]:
        """−log p(answer | expression, tree z)."""
        answer = context[1].index_select(0, row)
        return F.cross_entropy(self._answers(context, z, row), answer, reduction="none")

    def _answers(
        self, context: Context, z: Int[Tensor, "N T"], row: Int[Tensor, " N"]
    ) -> Float[Tensor, "N 10"]:
        """Logits of the digits."""
        words = context[0].index_select(0, row)
        present = words != PADDING
        return self.answer(self.composer(words.clamp(max=PADDING - 1), z, present))

    def correct(self, encoding: Encoding, z: Int[Tensor, "B T"]) -> Bool[Tensor, " B"]:
        row = torch.arange(len(z), device=z.device)
        return self._answers(encoding.context, z, row).argmax(dim=1) == encoding.context[1]

    def agreement(self, z: Shaped[Tensor, "N T"], truth: Int[Tensor, "N T"]) -> float:
        """Unlabelled attachment: the share of symbols, brackets too, with their true head."""
        return float((z == truth)[truth >= 0].double().mean())

    def examples(self, look: Look, streams: Streams) -> dict[str, Example]:
        encoding = self.encode(next(self.evaluation_batches("test", SHOWN, streams)))
        words = [[SYMBOLS[w] for w in row if w < PADDING] for row in encoding.context[0].tolist()]
        found = look(encoding.scores, SHOWN)
        title = "likeliest trees of test expressions, q(z | x)"
        return {"trees": trees(title, words, found, self.truth(encoding))}


@cache
def _data(settings: ListOps.Settings, data_dir: Path | None) -> Planted:
    limits = {"longest": settings.longest, "operators": settings.operators}
    known = settings.train + settings.validation
    if settings.dataset == "generated":
        made = expressions(known + settings.test, settings.data_seed, **limits)
        parts = made[:known], made[known:]
    else:
        parts = _published(settings, data_dir)
    (words, answers, heads), of_test = (_tensors(part, settings.longest) for part in parts)
    return Planted("listops", words, answers, *of_test[:2], heads, of_test[2])


def _published(
    settings: ListOps.Settings, data_dir: Path | None
) -> tuple[list[Expression], list[Expression]]:
    """The first expressions, as many as the settings want, of the published files that are short
    and nested enough."""
    if data_dir is None:
        raise DataError(
            f"the published ListOps are not bundled: put {' and '.join(PUBLISHED)} into "
            'FOLDER/listops and pass --data-dir FOLDER, or leave dataset = "generated"'
        )
    wanted = settings.train + settings.validation, settings.test
    files = [
        [
            expression
            for expression in read_listops(data_dir / "listops" / name)
            if len(expression.symbols) <= settings.longest
            and expression.operators >= settings.operators
        ][:most]
        for name, most in zip(PUBLISHED, wanted, strict=True)
    ]
    return files[0], files[1]


def _tensors(found: list[Expression], longest: int) -> tuple[Tensor, Tensor, Tensor]:
    """Symbols (N, T) as bytes, answers (N,) and heads (N, T), −1 past the end."""
    words = [e.symbols + (PADDING,) * (longest - len(e.symbols)) for e in found]
    heads = [e.heads + (-1,) * (longest - len(e.heads)) for e in found]
    answers = torch.tensor([e.answer for e in found], dtype=torch.int64)
    return (
        torch.tensor(words, dtype=torch.uint8).view(-1, longest),
        answers,
        torch.tensor(heads, dtype=torch.int64).view(-1, longest),
    )
