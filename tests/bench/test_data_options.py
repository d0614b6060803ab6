"""Data sets on the command line: fetched, or not."""

from dataclasses import replace
from pathlib import Path

import pytest

from tasks.datasets import load_dataset
from tasks.download import SOURCES
from tests.bench.conftest import Here


@pytest.fixture
def no_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The cache, which is empty; no mirror answers."""
    load_dataset.cache_clear()
    monkeypatch.setenv("BENCH_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setenv("NO_PROXY", "*")
    for name, source in SOURCES.items():
        nowhere = replace(source, mirrors=("http://127.0.0.1:9/",))
        monkeypatch.setitem(SOURCES, name, nowhere)
    return tmp_path / "cache"


def test_a_data_set_that_can_not_be_fetched_is_told_in_a_few_lines(
    no_network: Path, here: Here
) -> None:
    done = here("--dataset", "fashion-mnist", "--task", "bitvector", "--estimator", "sfe")
    assert done.returncode == 2
    *fetching, first, reason, advice = done.stderr.splitlines()
    assert fetching == ["fetching http://127.0.0.1:9/train-images-idx3-ubyte.gz"]
    assert first.startswith(f"error: {no_network}/fashion-mnist/train-images-idx3-ubyte.gz is not")
    assert reason.endswith("train-images-idx3-ubyte.gz: connection refused")
    assert "--dataset digits" in advice
