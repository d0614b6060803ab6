"""Files that are written whole or not at all."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO


@contextmanager
def written_whole(path: Path) -> Iterator[IO[bytes]]:
    """A file to write, which takes the place of `path` at the end unless something went wrong.

    Raises:
        OSError: it can't be written; `filename` says which.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with temporary.open("wb") as file:
            yield file
        temporary.replace(path)
    except OSError as error:
        if error.filename is None and error.errno is not None:  # as of a write
            error.filename = str(path)
        raise
    finally:
        temporary.unlink(missing_ok=True)
