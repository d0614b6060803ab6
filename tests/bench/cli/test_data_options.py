"""Data sets on the command line: fetched, features, and what is not there."""

from dataclasses import replace
from pathlib import Path

import pytest

from analysis.load import load_results
from tasks.data.datasets import load_dataset
from tasks.data.download import SOURCES
from tests.bench.conftest import Here
from tests.tasks.files import write_features


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
    assert "--profile quick" in advice


def test_features_are_for_the_game_alone(here: Here, tmp_path: Path) -> None:
    for tasks, name in (("ssvae", "ssvae"), ("bitvector", "bitvector"), ("all", "bitvector")):
        done = here("--tasks", tasks, "--dataset", "features", "--data-dir", tmp_path)
        assert done.returncode == 2
        assert (
            done.stderr == f"error: {name} takes images, not features: give --tasks signal_game\n"
        )


def test_the_game_runs_on_features(here: Here, tiny: Path, tmp_path: Path) -> None:
    write_features(tmp_path / "features")
    text = tiny.read_text().replace("candidates = 4", "candidates = 16\nvalidation = 100")
    tiny.write_text(text)
    done = here(
        *("--profile", tiny, "--task", "signal_game", "--estimators", "dense,sfe"),
        *("--dataset", "features", "--data-dir", tmp_path, "--seeds", 1),
        *("--jobs", 1, "--out", tmp_path / "out"),
    )
    assert done.returncode == 0, done.stderr
    rows = load_results(tmp_path / "out")
    assert set(rows["status"]) == {"ok"}
    assert set(rows["dataset"]) == {"features"}
    assert set(rows["chance"]) == {1 / 16}
    assert rows["accuracy"].between(0, 1).all()
