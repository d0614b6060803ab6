"""Text from elsewhere made fit to be shown and shared: command lines, exceptions, addresses."""

import re
import shlex
import unicodedata
from collections.abc import Iterable

HIDDEN = "***"
"""What stands in place of a secret."""

UNSEEN = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp"})
"""Unicode's categories of what moves the cursor, turns text round or ends a line."""


def _secrets(some: str) -> list[tuple[re.Pattern[str], str]]:
    """What is secret in addresses, and what is left of it.

    Rather too much than too little: a password may hold any character that it should not.

    Args:
        some: a pattern of the characters that an address may go on with.
    """
    return [
        (re.compile(rf"(//[^\s:/@]*):{some}*@"), rf"\1:{HIDDEN}@"),
        (re.compile(r"(https?://)[^\s:/@]+@", re.IGNORECASE), rf"\1{HIDDEN}@"),  # a token alone
        (re.compile(rf"(//[^\s?#]*[?#]){some}+"), rf"\1{HIDDEN}"),
    ]


_IN_TEXT, _IN_WORD = _secrets(r"\S"), _secrets(r"[\s\S]")


def without_secrets(text: str, whole: bool = False) -> str:
    """A text whose addresses have no password, token or query.

    Args:
        text: which may have some.
        whole: it is a single word, and spaces are a part of an address.
    """
    for pattern, rest in _IN_WORD if whole else _IN_TEXT:
        text = pattern.sub(rest, text)
    return text


def command_line(words: Iterable[str]) -> str:
    """Words of a command line in one, quoted, and without secrets."""
    return shlex.join(without_secrets(word, whole=True) for word in words)


def shared_command(command: str) -> str:
    """A command line, as an earlier version may have noted it, without secrets."""
    try:
        return command_line(shlex.split(command))
    except ValueError:  # of a version that did not quote
        return without_secrets(command)


def in_markdown(text: str) -> str:
    """A text as a part of a line of Markdown: no tag of it vanishes, and no line or cell ends."""
    text = re.sub(r"&(?=#?\w+;)", "&amp;", printable(text))
    text = re.sub(r"<(?=[A-Za-z/!?])", "&lt;", text)
    return " ".join(text.replace("|", "\\|").split("\n"))


def printable(text: str) -> str:
    """A text without secrets and without what a terminal would take for an order."""
    return "".join(
        char.encode("unicode_escape").decode()
        if unicodedata.category(char) in UNSEEN and char not in "\n\t"
        else char
        for char in without_secrets(text)
    )
