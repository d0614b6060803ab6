"""ListOps: nested operations on lists of digits, whose answer is a digit (Nangia & Bowman 2018).

    [MAX 2 9 [MIN 4 7 ] 0 ]   is 9

Generated as published, or read from the published files. An expression is a sequence of symbols:
operators with their opening bracket, digits, and closing brackets, which leave no doubt about its
tree. As a dependency tree, an operator is the head of its arguments and of its closing bracket.
"""

import random
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import NamedTuple

from tasks.data.base import DataError

OPERATORS = ("[MIN", "[MAX", "[MED", "[SM")
DIGITS = 10
SYMBOLS = (*map(str, range(DIGITS)), *OPERATORS, "]")
"""A symbol's number is its place here; a digit's is itself."""

CLOSING = len(SYMBOLS) - 1
"""The number of the closing bracket."""

PADDING = len(SYMBOLS)
"""The number that stands past the end of an expression."""

NESTING = 0.25
"""Probability that an argument is an expression; the rest are digits."""

ARGUMENTS = (2, 5)
"""The fewest and the most of an operator, all as likely."""

MISSES = 20_000
"""Draws in a row without a new expression, after which there seem to be no more."""

DEEPEST = 20
"""Depth at which all arguments are digits."""


class Expression(NamedTuple):
    """An expression of L symbols."""

    symbols: tuple[int, ...]
    heads: tuple[int, ...]
    """The place of each symbol's head; the root's is its own."""
    answer: int

    @property
    def operators(self) -> int:
        """How many operators it has."""
        return sum(DIGITS <= symbol < CLOSING for symbol in self.symbols)


def expressions(count: int, seed: int, *, longest: int, operators: int) -> list[Expression]:
    """Distinct expressions from the published grammar, of those that are short and nested enough.

    Digits alone, which are none, are not drawn.

    Args:
        count: how many.
        seed: of the generator.
        longest: the most symbols that one has.
        operators: the fewest operators that one has.
    Raises:
        DataError: there seem to be too few different ones.
    """
    generator = random.Random(seed)
    found: dict[tuple[int, ...], Expression] = {}
    in_vain = 0
    while len(found) < count:
        in_vain += 1
        if in_vain > MISSES:
            raise DataError(
                f"{count} different expressions of at most {longest} symbols, with {operators} "
                f"operators or more, are not to be had: {MISSES} draws in a row gave no new one "
                f"to {len(found)}"
            )
        symbols = tuple(islice(_operation(generator, 0), longest + 1))
        if len(symbols) <= longest and symbols not in found:
            expression = parsed(symbols)
            if expression.operators >= operators:
                found[symbols] = expression
                in_vain = 0
    return list(found.values())


def _operation(generator: random.Random, depth: int) -> Iterator[int]:
    """The symbols of a random expression whose first stands at a depth."""
    yield DIGITS + generator.randrange(len(OPERATORS))
    for _ in range(generator.randint(*ARGUMENTS)):
        if depth + 1 < DEEPEST and generator.random() < NESTING:
            yield from _operation(generator, depth + 1)
        else:
            yield generator.randrange(DIGITS)
    yield CLOSING


def parsed(symbols: Sequence[int]) -> Expression:
    """An expression from its symbols.

    Raises:
        ValueError: they are none.
    """
    heads: list[int] = []
    open_: list[tuple[int, list[int]]] = []
    values: list[int] = []
    for place, symbol in enumerate(symbols):
        if values:
            raise ValueError("symbols follow on a whole expression")
        if symbol == CLOSING:
            if not open_ or not open_[-1][1]:
                raise ValueError("a bracket closes nothing")
            head, arguments = open_.pop()
            heads.append(head)
            (open_[-1][1] if open_ else values).append(applied(symbols[head], arguments))
            continue
        heads.append(open_[-1][0] if open_ else place)
        if symbol < DIGITS:
            (open_[-1][1] if open_ else values).append(symbol)
        else:
            open_.append((place, []))
    if len(values) != 1:
        raise ValueError("a bracket is not closed")
    return Expression(tuple(symbols), tuple(heads), values[0])


def applied(operator: int, arguments: Sequence[int]) -> int:
    """Least, greatest, median (of the two in the middle the mean, rounded down), or sum mod 10."""
    match SYMBOLS[operator]:
        case "[MIN":
            return min(arguments)
        case "[MAX":
            return max(arguments)
        case "[MED":
            middle, ordered = len(arguments) // 2, sorted(arguments)
            return (ordered[(len(arguments) - 1) // 2] + ordered[middle]) // 2
        case _:
            return sum(arguments) % DIGITS


def read_listops(path: Path) -> list[Expression]:
    """The expressions of a published file, in its order: on each line the answer, a tab, and the
    symbols with the round brackets of a binary tree between them, which are dropped.

    Raises:
        DataError: a line is something else, or its answer is wrong.
    """
    try:
        lines = path.read_text().splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path} can't be read: {error}") from error
    return [_of_line(line, f"{path}, line {number}") for number, line in enumerate(lines, 1)]


def _of_line(line: str, where: str) -> Expression:
    answer, _, text = line.partition("\t")
    try:
        found = parsed([SYMBOLS.index(word) for word in text.split() if word not in "()"])
    except ValueError as error:
        raise DataError(f"{where} is no expression of ListOps: {error}") from error
    if answer != str(found.answer):
        raise DataError(f"{where} says {answer!r}, and its expression is {found.answer}")
    return found
