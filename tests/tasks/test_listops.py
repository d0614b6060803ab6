"""ListOps: the generator, the published files, the Tree-LSTM, and what the task makes of them."""

import os
import random
import re
import statistics
from collections import Counter
from pathlib import Path
from typing import cast

import pytest
import torch
from torch import Tensor

from tasks.data import listops
from tasks.data.base import DataError
from tasks.data.listops import (
    PADDING,
    SYMBOLS,
    Expression,
    _operation,
    expressions,
    parsed,
    read_listops,
)
from tasks.listops import ListOps
from tasks.planted import PlantedBatch
from tasks.streams import Streams
from tasks.tree_lstm import TreeLSTM
from tests.tasks.conftest import make_task

STREAMS = Streams(0)
FEW = expressions(400, 1, longest=30, operators=1)

FUNCTIONS = {
    "MIN": min,
    "MAX": max,
    "MED": lambda *values: int(statistics.median(values)),
    "SM": lambda *values: sum(values) % 10,
}


def value(symbols: tuple[int, ...]) -> int:
    """As Python evaluates the expression once its brackets are round and have commas."""
    text = " ".join(SYMBOLS[s] for s in symbols)
    python = re.sub(r"\[(\w+) ", r"\1(", text).replace(" ]", ",)").replace(" ", ",")
    return int(eval(python, {"__builtins__": {}}, FUNCTIONS))


def test_the_answer_is_what_the_expression_is_worth() -> None:
    assert parsed([11, 2, 9, 10, 4, 7, 14, 0, 14]).answer == 9
    for expression in FEW:
        assert expression.answer == value(expression.symbols)
    assert {len(e.symbols) for e in FEW} > {*range(4, 20)}


def test_an_operator_is_the_head_of_its_arguments_and_its_bracket() -> None:
    """[MAX 2 9 [MIN 4 7 ] 0 ]; and each operator has as many as its list is long."""
    assert parsed([11, 2, 9, 10, 4, 7, 14, 0, 14]).heads == (0, 0, 0, 0, 3, 3, 3, 0, 0)
    for symbols, heads, _ in FEW:
        assert [place for place, head in enumerate(heads) if head == place] == [0]
        dependents = Counter(head for place, head in enumerate(heads) if place)
        assert {symbols[head] >= 10 for head in dependents} == {True}
        assert sum(dependents.values()) == len(symbols) - 1
        assert all(3 <= count <= 6 for count in dependents.values())
        assert len(dependents) == sum(symbol == PADDING - 1 for symbol in symbols)


def test_generated_expressions_have_the_published_grammar() -> None:
    """0.875 expressions to an operator on average, drawn before any is left out."""
    generator = random.Random(0)
    drawn = [parsed([*_operation(generator, 0)]) for _ in range(1500)]
    children: list[int] = []
    arguments: list[int] = []
    names: Counter[int] = Counter()
    for symbols, heads, _ in drawn:
        if len(symbols) < 2000:
            inner = Counter(heads[p] for p, s in enumerate(symbols) if p and 10 <= s < 14)
            every = Counter(heads[p] for p, s in enumerate(symbols) if p and s < 14)
            children += [inner[place] for place in every]
            arguments += [*every.values()]
            names.update(s for s in symbols if 10 <= s < 14)
    count = len(children)
    assert abs(statistics.mean(children) - 0.25 * 3.5) < 5 * statistics.stdev(children) / count**0.5
    assert Counter(arguments).keys() == {2, 3, 4, 5}
    for share in (*Counter(arguments).values(), *names.values()):
        assert abs(share / count - 0.25) < 0.03
    assert names.keys() == {10, 11, 12, 13}


def test_nesting_has_an_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """At the depth where all arguments are digits; operators stand above it."""
    assert listops.DEEPEST == 20
    monkeypatch.setattr(listops, "DEEPEST", 3)
    monkeypatch.setattr(listops, "NESTING", 1)
    symbols, heads, _ = parsed([*_operation(random.Random(0), 0)])
    depths = [0]
    for head in heads[1:]:
        depths.append(depths[head] + 1)
    kinds = {
        (symbol < 10, depth)
        for symbol, depth in zip(symbols, depths, strict=True)
        if symbol != PADDING - 1
    }
    assert kinds == {(False, 0), (False, 1), (False, 2), (True, 3)}


def test_expressions_are_distinct_short_nested_and_those_of_the_seed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    found = expressions(300, 3, longest=12, operators=2)
    assert len({e.symbols for e in found}) == 300
    assert max(len(e.symbols) for e in found) <= 12
    assert min(e.operators for e in found) == 2
    assert found == expressions(300, 3, longest=12, operators=2)
    assert found != expressions(300, 4, longest=12, operators=2)
    monkeypatch.setattr(listops, "MISSES", 300)
    with pytest.raises(DataError, match=r"401 different expressions of at most 4 .* to \d+$"):
        expressions(401, 0, longest=4, operators=1)


def test_published_lines_are_read_without_their_round_brackets(tmp_path: Path) -> None:
    path = tmp_path / "some.tsv"
    path.write_text("9\t( ( ( ( [MAX 2 ) 9 ) ( ( ( [MIN 4 ) 7 ) ] ) ) ] )\n")
    assert read_listops(path) == [parsed([11, 2, 9, 10, 4, 7, 14, 14])]
    for line, words in (
        ("8\t( ( ( [MAX 2 ) 9 ) ] )", "line 1 says '8', and its expression is 9"),
        ("9\t( ( [MAX 2 ) 9 )", "line 1 is no expression of ListOps: a bracket is not closed"),
        ("9\t[MAX 2 9 ] 3", "symbols follow on a whole expression"),
        ("9\t[MAX ]", "a bracket closes nothing"),
        ("9\t[TOP 2 ]", r"line 1 is no expression of ListOps"),
    ):
        path.write_text(line)
        with pytest.raises(DataError, match=re.escape(words)):
            read_listops(path)
    with pytest.raises(DataError, match="can't be read"):
        read_listops(tmp_path / "none.tsv")


def test_the_published_files_have_the_right_answers() -> None:
    folder = os.environ.get("BENCH_DATA_DIR")
    if folder is None or not (Path(folder) / "listops" / "valid.tsv").exists():
        pytest.skip("there is no BENCH_DATA_DIR with listops/valid.tsv")
    found = read_listops(Path(folder) / "listops" / "valid.tsv")
    assert len(found) == 1000
    assert statistics.median(len(e.symbols) for e in found) == 17
    assert all(e.answer == value(e.symbols) for e in found if len(e.symbols) < 100)


def test_the_task_reads_the_published_files(tmp_path: Path) -> None:
    folder = tmp_path / "listops"
    folder.mkdir()
    for name, count in (("train", 20), ("test", 7)):
        lines = [f"{e.answer}\t{' '.join(SYMBOLS[s] for s in e.symbols)}" for e in FEW[-count:]]
        (folder / f"{name}_d20s.tsv").write_text("\n".join(lines))
    settings = ListOps.Settings(
        dataset="listops", longest=30, operators=2, train=6, validation=2, test=3
    )
    data = ListOps.data(settings, tmp_path)
    nested = [e for e in FEW[-20:] if e.operators > 1]
    assert data.labels.tolist() == [e.answer for e in nested][:8]
    assert len(data.test_labels) <= 3
    with pytest.raises(DataError, match=r"put train_d20s.tsv and test_d20s.tsv into FOLDER"):
        ListOps.data(settings, None)


def recursive(net: TreeLSTM, words: list[int], heads: list[int]) -> Tensor:
    """h of the root, word after word, by the paper's equations."""
    size = net.size

    def state(j: int) -> tuple[Tensor, Tensor]:
        children = [state(k) for k, head in enumerate(heads) if head == j and k != j]
        x = net.inputs.weight[words[j]]
        total = sum((h for h, _ in children), torch.zeros(size).to(x.dtype))
        gates = x[: 3 * size] + net.gates.weight @ total + net.gates.bias
        i, o, u = gates[:size], gates[size : 2 * size], gates[2 * size :]
        c = i.sigmoid() * u.tanh()
        for h, below in children:
            f = x[3 * size :] + net.forget.weight @ h + net.forget.bias
            c = c + f.sigmoid() * below
        return o.sigmoid() * c.tanh(), c

    (root,) = [j for j, head in enumerate(heads) if head == j]
    return state(root)[0]


def random_heads(length: int, generator: torch.Generator) -> list[int]:
    """A tree: each word of a random order hangs on an earlier one."""
    order = torch.randperm(length, generator=generator).tolist()
    heads = [0] * length
    heads[order[0]] = order[0]
    for place in range(1, length):
        heads[order[place]] = order[int(torch.randint(place, (), generator=generator))]
    return heads


def padded_trees(
    lengths: list[int], longest: int
) -> tuple[list[list[int]], list[list[int]], Tensor, Tensor, Tensor]:
    """Words and heads of random trees, as lists and padded: past the end each on the one before."""
    generator = torch.Generator().manual_seed(0)
    words = [torch.randint(9, (n,), generator=generator).tolist() for n in lengths]
    heads = [random_heads(n, generator) for n in lengths]
    past = [list(range(n - 1, longest - 1)) for n in lengths]
    rows = [row + [0] * (longest - len(row)) for row in words]
    hung = [row + more for row, more in zip(heads, past, strict=True)]
    present = torch.arange(longest) < torch.tensor(lengths)[:, None]
    return words, heads, torch.tensor(rows), torch.tensor(hung), present


def test_all_trees_at_once_are_each_tree_alone() -> None:
    net = TreeLSTM(9, 5).double()
    lengths = [*range(1, 9)] * 3
    words, heads, rows, hung, present = padded_trees(lengths, 8)
    found = net(rows, hung, present)
    wanted = torch.stack([recursive(net, *pair) for pair in zip(words, heads, strict=True)])
    torch.testing.assert_close(found, wanted)
    found.square().sum().backward()
    gradients = [p.grad.clone() for p in net.parameters() if p.grad is not None]
    net.zero_grad()
    wanted.square().sum().backward()
    for parameter, gradient in zip(net.parameters(), gradients, strict=True):
        torch.testing.assert_close(gradient, parameter.grad)


def test_padding_changes_nothing() -> None:
    """Neither scores, nor costs, nor what is right."""
    short = cast(ListOps, make_task("listops"))
    batch = cast(PlantedBatch, short.training_batch(0, STREAMS))
    wide = PlantedBatch(
        torch.nn.functional.pad(batch.inputs, (0, 3), value=PADDING),
        batch.answer,
        torch.nn.functional.pad(batch.truth, (0, 3), value=-1),
    )
    one = short.encode(batch)
    lengths = (batch.inputs != PADDING).sum(dim=1)
    assert lengths.min() < lengths.max()
    words = wide.inputs.long()
    raw = short._arcs(words, lengths)
    for row, length in enumerate(lengths.tolist()):
        alone = short._arcs(words[row : row + 1, :length], lengths[row : row + 1])[0]
        torch.testing.assert_close(raw[row, :length, :length], alone)
        torch.testing.assert_close(one.scores[row, :length, :length], alone)
    number = torch.arange(9)
    tree = torch.where(number < lengths[:, None], 0, number - 1)
    row = torch.arange(len(tree))
    costs = short.cost((words, batch.answer), tree, row)
    torch.testing.assert_close(costs, short.cost(one.context, tree[:, :6], row))


def test_the_answer_is_right_and_the_arcs_are_counted_word_by_word() -> None:
    task = make_task("listops")
    encoding = task.encode(task.training_batch(0, STREAMS))
    truth = task.truth(encoding)
    assert truth is not None
    z = truth.where(truth >= 0, torch.arange(6) - 1)
    right = task.correct(encoding, z)
    row = torch.arange(len(z))
    answers = torch.stack(
        [
            task.cost((encoding.context[0], torch.full_like(row, digit)), z, row)
            for digit in range(10)
        ]
    ).argmin(dim=0)
    assert right is not None
    assert torch.equal(right, answers == encoding.context[1])
    assert task.agreement(z, truth) == 1
    words = (truth >= 0).sum()
    z[0, 1] = 2
    assert task.agreement(z, truth) == pytest.approx(1 - 1 / float(words))
    assert task.chance is not None
    assert 0.1 < task.chance < 0.3


def test_expressions_are_kept_with_their_trees() -> None:
    task = make_task("listops")
    known = {e.symbols: e for e in expressions(330, 42, longest=6, operators=1)}
    for batch in (task.training_batch(0, STREAMS), *task.evaluation_batches("test", 50, STREAMS)):
        inputs, answers, truths = cast(PlantedBatch, batch)
        for words, answer, truth in zip(
            inputs.tolist(), answers.tolist(), truths.tolist(), strict=True
        ):
            symbols = tuple(w for w in words if w != PADDING)
            heads = tuple(head for head in truth if head >= 0)
            assert known[symbols] == Expression(symbols, heads, answer)
