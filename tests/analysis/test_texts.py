"""What is shown of text from elsewhere: no secrets, and nothing that a terminal obeys."""

import shlex
from pathlib import Path

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from analysis.stored import as_typed, into
from analysis.tables import markdown
from analysis.texts import command_line, in_markdown, printable, shared_command, without_secrets


@pytest.mark.parametrize(
    ("text", "left"),
    [
        ("postgresql://me:s3cret@host:5432/name", "postgresql://me:***@host:5432/name"),
        ("mysql+pymysql://me:a/b:c@d?e#f@host/name", "mysql+pymysql://me:***@host/name"),
        ("redis://:s3cret@host", "redis://:***@host"),
        ("https://token@host/x", "https://***@host/x"),
        ("HTTPS://token@host/x", "HTTPS://***@host/x"),
        ("--storage=postgresql://host/db?user=me&password=s3cret", "--storage=postgresql://host/db?***"),
        ("https://host/x?X-Amz-Signature=s3cret", "https://host/x?***"),
        ("https://host/x#access_token=s3cret", "https://host/x#***"),
        ("no http://me:s3cret@proxy:31: mend it", "no http://me:***@proxy:31: mend it"),
        ("//me:s3cret@proxy and ftp://you:0ther@host", "//me:***@proxy and ftp://you:***@host"),
        # What is none is left as it is.
        ("postgresql://me@host/name", "postgresql://me@host/name"),
        ("tcp://host:8786", "tcp://host:8786"),
        ("https://host:80/x", "https://host:80/x"),
        ("results/a:b@c?d", "results/a:b@c?d"),
        ("sqlite:////tmp/a.db", "sqlite:////tmp/a.db"),
    ],
)  # fmt: skip
def test_addresses_lose_their_secrets_alone(text: str, left: str) -> None:
    assert without_secrets(text) == left
    assert without_secrets(text, whole=" " not in text) == left


@given(
    st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1).map("s3cret".__add__)
)
def test_no_password_is_left_in_a_command_line_whatever_it_is(password: str) -> None:
    words = ["run_bench.py", "tune", "--storage", f"postgresql://me:{password}@host/name"]
    shown = shlex.split(command_line(words))
    assert shown == [*words[:3], "postgresql://me:***@host/name"]
    words[-1] = f"--storage=postgresql://host/name?password={password}"
    assert shlex.split(command_line(words))[-1] == "--storage=postgresql://host/name?***"


def test_commands_to_go_on_have_no_secrets() -> None:
    """Of folders from versions that stored them, too."""
    for noted in ("run_bench.py --x http://me:s3cret@host", "run_bench.py 'http://me:s3cret@host"):
        assert "s3cret" not in into(noted, Path("out"))
        assert "s3cret" not in shared_command(noted)
    assert shared_command("run_bench.py --out 'a b'") == "run_bench.py --out 'a b'"
    assert as_typed("run_bench.py", "http://me:s3cret@h") == "python run_bench.py 'http://me:***@h'"


def test_no_tag_vanishes_from_markdown_and_no_cell_ends() -> None:
    said = "TypeError: <class 'x'> | &lt; </td>\nx < 3 & y"
    shown = "TypeError: &lt;class 'x'> \\| &amp;lt; &lt;/td> x < 3 & y"
    assert in_markdown(said) == shown
    table = markdown(pd.DataFrame({"a|b": [said]}, index=["<b>"]), "game − c|d")
    assert table.splitlines()[0] == "| game − c\\|d | a\\|b |"
    assert table.splitlines()[2] == f"| &lt;b> | {shown} |"
    assert in_markdown("\x1b[2J") == "\\x1b[2J"


def test_what_a_terminal_obeys_is_shown_and_not_done() -> None:
    assert printable("a\x1b[31mb\x07\x9b2J\r\x00") == "a\\x1b[31mb\\x07\\x9b2J\\r\\x00"
    assert printable("left\u202eright\ufeff") == "left\\u202eright\\ufeff"
    assert printable("ü – 漢字\u00a0😀\n\tx") == "ü – 漢字\u00a0😀\n\tx"
