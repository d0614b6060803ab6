"""Fetching from mirrors that the tests serve, whole and broken."""

import gzip
import os
import re
import shutil
import threading
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from tasks.data import download
from tasks.data.base import DataError
from tasks.data.download import SOURCES, Source, fetched
from tasks.data.idx import IDX_FILES, read_images, unzipped
from tests.tasks.files import write_images


class Mirror(SimpleHTTPRequestHandler):
    """Serves a folder; half of each file under /cut/, nothing for a while under /late/."""

    asked: list[str]
    never = threading.Event()

    def do_GET(self) -> None:
        self.asked.append(self.path)
        _, kind, name = self.path.rsplit("/", 2)
        content = Path(self.directory, name).read_bytes()
        if kind == "late":
            self.never.wait(5)
        elif kind in {"whole", "cut"}:
            self.send_response(200)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content if kind == "whole" else content[: len(content) // 2])
        else:
            self.send_error(404)

    def log_message(self, *arguments: object) -> None:
        """Be quiet."""


@pytest.fixture
def served(tmp_path: Path) -> Path:
    """The folder that the mirror serves."""
    write_images(tmp_path / "served")
    return tmp_path / "served"


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("BENCH_CACHE_DIR", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def mirror(served: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The address of a server, whose files are the published mnist."""
    monkeypatch.setenv("NO_PROXY", "*")
    Mirror.asked = []
    content_of = SOURCES["mnist"].digest
    digests = {file: content_of((served / f"{file}.gz").read_bytes()) for file in IDX_FILES}
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Mirror, directory=str(served)))
    address = f"http://127.0.0.1:{server.server_port}"
    monkeypatch.setitem(SOURCES, "mnist", Source((f"{address}/whole/",), content_of, digests))
    threading.Thread(target=server.serve_forever, args=(0.01,)).start()
    yield address
    Mirror.never.set()
    server.shutdown()
    server.server_close()
    Mirror.never.clear()


def use_mirrors(monkeypatch: pytest.MonkeyPatch, *addresses: str) -> None:
    monkeypatch.setitem(SOURCES, "mnist", replace(SOURCES["mnist"], mirrors=addresses))


def in_cache(cache: Path) -> set[str]:
    return {path.name for path in (cache / "mnist").iterdir()}


ALL = {f"{file}.gz" for file in IDX_FILES}
FIRST = f"{IDX_FILES[0]}.gz"


def test_files_are_fetched_once(mirror: str, cache: Path, served: Path) -> None:
    folder = fetched("mnist")
    assert folder == cache / "mnist"
    assert in_cache(cache) == ALL
    assert read_images("mnist", folder).digest == read_images("mnist", served).digest
    assert Mirror.asked == [f"/whole/{file}.gz" for file in IDX_FILES]
    (folder / FIRST).unlink()
    fetched("mnist")
    assert Mirror.asked[4:] == [f"/whole/{FIRST}"]


def test_the_content_decides_and_not_how_it_is_packed(mirror: str, served: Path) -> None:
    for file in IDX_FILES:
        path = served / f"{file}.gz"
        packed = gzip.compress(gzip.decompress(path.read_bytes()), compresslevel=1, mtime=1)
        assert packed != path.read_bytes()
        path.write_bytes(packed)
    assert read_images("mnist", fetched("mnist")).inputs.shape == (30, 784)


def test_fashion_mnist_is_known_by_its_archives(served: Path) -> None:
    """Of which alone we know a checksum."""
    source, path = SOURCES["fashion-mnist"], served / FIRST
    own = replace(source, digests={IDX_FILES[0]: source.digest(path.read_bytes())})
    assert own.accepts(path, IDX_FILES[0])
    path.write_bytes(gzip.compress(unzipped(path.read_bytes()), mtime=1))
    assert not own.accepts(path, IDX_FILES[0])


def test_mirrors_are_tried_in_their_order(mirror: str, monkeypatch: pytest.MonkeyPatch) -> None:
    use_mirrors(monkeypatch, f"{mirror}/gone/", f"{mirror}/whole/", f"{mirror}/cut/")
    fetched("mnist")
    assert Mirror.asked[:3] == [
        f"/gone/{FIRST}", f"/whole/{FIRST}", f"/gone/{IDX_FILES[1]}.gz"
    ]  # fmt: skip


def test_half_a_file_is_never_taken(
    mirror: str, cache: Path, served: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither where the connection ends early, nor where the mirror itself has half."""
    use_mirrors(monkeypatch, f"{mirror}/cut/", f"{mirror}/whole/")
    raw = (served / FIRST).read_bytes()
    (served / FIRST).write_bytes(raw[: len(raw) // 2])
    with pytest.raises(DataError) as error:
        fetched("mnist")
    assert in_cache(cache) == set()
    reasons = [line.partition(": ")[2] for line in str(error.value).splitlines()[1:3]]
    assert "bytes" in reasons[0]
    assert reasons[1] == "what it sends is not the published file"


def test_a_file_of_the_cache_that_is_damaged_is_fetched_again(mirror: str, cache: Path) -> None:
    damaged = fetched("mnist") / FIRST
    whole = damaged.read_bytes()
    damaged.write_bytes(whole[:100])
    fetched("mnist")
    assert damaged.read_bytes() == whole
    assert in_cache(cache) == ALL


def test_files_may_be_put_into_the_cache(mirror: str, cache: Path, served: Path) -> None:
    shutil.copytree(served, cache / "mnist")
    fetched("mnist")
    assert Mirror.asked == []


def test_without_a_network_the_error_says_what_to_do(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    nowhere = "http://127.0.0.1:9/mnist/", "http://127.0.0.1:9/again/"
    monkeypatch.setenv("NO_PROXY", "*")
    use_mirrors(monkeypatch, *nowhere)
    with pytest.raises(DataError) as error:
        fetched("mnist")
    assert str(error.value).splitlines() == [
        f"{cache / 'mnist' / FIRST} is not there, and could not be fetched:",
        f"  {nowhere[0]}{FIRST}: connection refused",
        f"  {nowhere[1]}{FIRST}: connection refused",
        f"put the four files of mnist into {cache / 'mnist'}, or into FOLDER/mnist and pass "
        "--data-dir FOLDER; or run --profile quick, on bundled digits",
    ]


def test_a_mirror_that_keeps_silent_is_given_up(
    mirror: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(download, "TIMEOUT", (0.2, 0.2))
    use_mirrors(monkeypatch, f"{mirror}/late/")
    with pytest.raises(DataError, match="timed out"):
        fetched("mnist")


def test_a_mirror_is_blamed_by_its_answer(mirror: str, monkeypatch: pytest.MonkeyPatch) -> None:
    use_mirrors(monkeypatch, f"{mirror}/gone/")
    with pytest.raises(DataError, match=rf"{FIRST}: 404 client error: not found\n"):
        fetched("mnist")


def test_a_cache_that_can_not_be_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("BENCH_CACHE_DIR", str(tmp_path / "file"))
    words = f"{tmp_path / 'file' / 'mnist'}: not a directory; set BENCH_CACHE_DIR to a folder"
    with pytest.raises(DataError, match=re.escape(words)):
        fetched("mnist")


def test_every_file_has_a_mirror_and_a_checksum() -> None:
    for source in SOURCES.values():
        assert len(source.mirrors) > 1
        assert all(address.endswith("/") for address in source.mirrors)
        assert set(source.digests) == set(IDX_FILES)


@pytest.mark.skipif("BENCH_DATA_DIR" not in os.environ, reason="BENCH_DATA_DIR is not set")
@pytest.mark.parametrize("file", IDX_FILES)
def test_the_checksums_are_those_of_mnist(file: str) -> None:
    """Here from archives that are not those of the mirrors."""
    path = Path(os.environ["BENCH_DATA_DIR"], "mnist", f"{file}.gz")
    assert SOURCES["mnist"].accepts(path, file)
