"""Files that are written whole or not at all."""

import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO


@contextmanager
def written_whole(path: Path) -> Iterator[IO[bytes]]:
    """A file to write, which takes the place of `path` at the end unless something went wrong.

    Raises:
        OSError: it can't be written; `filename` says which, and never the temporary file.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    # Processes of two machines that share the folder may have the same number.
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
    try:
        with temporary.open("wb") as file:
            yield file
        temporary.replace(path)
    except OSError as error:
        # None as of a write; else what is said of the temporary file is true of the place, too.
        unnamed = error.filename is None and error.errno is not None
        if unnamed or str(error.filename) == str(temporary):
            error.filename = str(path)
        raise
    finally:
        temporary.unlink(missing_ok=True)


def write_whole(path: Path, text: str) -> None:
    """Write a text file, in UTF-8, as `written_whole` does."""
    with written_whole(path) as file:
        file.write(text.encode())
