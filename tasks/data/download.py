"""MNIST and Fashion-MNIST from public mirrors, into a cache folder.

A file gets its name there when all of it has come and its content is the known one, so that what is
in the cache is whole, also where two runs fetch at a time or one is stopped.
"""

import hashlib
import os
import sys
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from tasks.data.base import DataError
from tasks.data.idx import IDX_FILES, unzipped

CACHE_VARIABLE = "BENCH_CACHE_DIR"

TIMEOUT = (3.0, 20.0)
"""Seconds to wait for a connection, and for the next bytes."""


def _content_sha256(raw: bytes) -> str:
    return hashlib.sha256(unzipped(raw)).hexdigest()


def _archive_md5(raw: bytes) -> str:
    return hashlib.md5(raw, usedforsecurity=False).hexdigest()


@dataclass(frozen=True)
class Source:
    """Where the files of a data set are, and how to tell that they are the right ones."""

    mirrors: tuple[str, ...]
    """Addresses of folders with the gzipped files, in the order that they are tried."""
    digest: Callable[[bytes], str]
    """Of a file as it comes; raises ValueError where that is a damaged archive."""
    digests: Mapping[str, str]
    """The right ones, by file without .gz."""

    def accepts(self, path: Path, file: str) -> bool:
        """Whether there is a file at the path, and it is the right one."""
        try:
            return self.digest(path.read_bytes()) == self.digests[file]
        except (OSError, ValueError):
            return False


SOURCES = {
    # Archives of the same content are about that differ; the content decides.
    "mnist": Source(
        mirrors=(
            "https://storage.googleapis.com/cvdf-datasets/mnist/",
            "https://ossci-datasets.s3.amazonaws.com/mnist/",
        ),
        digest=_content_sha256,
        digests={
            "train-images-idx3-ubyte": (
                "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db"
            ),
            "train-labels-idx1-ubyte": (
                "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5"
            ),
            "t10k-images-idx3-ubyte": (
                "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7"
            ),
            "t10k-labels-idx1-ubyte": (
                "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2"
            ),
        },
    ),
    # Its authors give the MD5 of the archives, and we have had no file to hash the content of.
    "fashion-mnist": Source(
        mirrors=(
            "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",
            "https://raw.githubusercontent.com/zalandoresearch/fashion-mnist/master/data/fashion/",
        ),
        digest=_archive_md5,
        digests={
            "train-images-idx3-ubyte": "8d4fb7e6c68d591d4c3dfef9ec88bf0d",
            "train-labels-idx1-ubyte": "25c81989df183df01b3e8a0aad5dffbe",
            "t10k-images-idx3-ubyte": "bef4ecab320f06d8554ea6380940ec79",
            "t10k-labels-idx1-ubyte": "bb300cfdad3c16e7a12a480ee83cd310",
        },
    ),
}


def fetched(name: str) -> Path:
    """The folder of a data set in the cache, complete: what is not there is fetched.

    Args:
        name: one of `SOURCES`.
    Raises:
        DataError: a file can be had from no mirror, or the cache can't be written to.
    """
    folder = _cache() / name
    for file in IDX_FILES:
        path = folder / f"{file}.gz"
        if not SOURCES[name].accepts(path, file):
            _fetch(name, file, path)
    return folder


def _cache() -> Path:
    import pooch

    named = os.environ.get(CACHE_VARIABLE)
    return Path(named).expanduser() if named else Path(pooch.os_cache("discrete-gradients-bench"))


def _fetch(name: str, file: str, path: Path) -> None:
    """Put a file at a path, from the first mirror that has it."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DataError(
            f"{path.parent}: {(error.strerror or 'no folder').lower()}; set {CACHE_VARIABLE} to a "
            f"folder to fetch {name} into"
        ) from error
    failures = []
    for mirror in SOURCES[name].mirrors:
        url = f"{mirror}{path.name}"
        try:
            _download(url, path, lambda arrived: SOURCES[name].accepts(arrived, file))
        except (OSError, ValueError) as error:  # those of requests are OSErrors
            failures.append(f"  {url}: {_reason(error)}")
        else:
            return
    state = "is not the published file" if path.exists() else "is not there"
    raise DataError(
        "\n".join(
            [
                f"{path} {state}, and could not be fetched:",
                *failures,
                f"put the four files of {name} into {path.parent}, or into FOLDER/{name} and pass "
                "--data-dir FOLDER; or run --profile quick, on bundled digits",
            ]
        )
    )


def _download(url: str, path: Path, accepts: Callable[[Path], bool]) -> None:
    """Fetch a file, and move it to its place if it is the right one.

    Raises:
        OSError: it could not be fetched, or not be written.
        ValueError: it is another file.
    """
    import pooch

    print(f"fetching {url}", file=sys.stderr)
    get = pooch.HTTPDownloader(progressbar=sys.stderr.isatty(), chunk_size=2**16, timeout=TIMEOUT)
    with tempfile.TemporaryDirectory(dir=path.parent) as folder:
        arrived = Path(folder, path.name)
        get(url, str(arrived), None)
        if not accepts(arrived):
            raise ValueError("what it sends is not the published file")
        arrived.replace(path)


def _reason(error: BaseException) -> str:
    """What is at the bottom of an error that came through several libraries."""
    while (inner := error.__cause__ or error.__context__) is not None:
        error = inner
    text = (error.strerror if isinstance(error, OSError) else None) or str(error)
    return text.partition(" for url")[0].lower()
