"""Where numbers come from: the commit is ours, and only code makes it dirty."""

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from bench.cells import provenance as module
from bench.cells.provenance import environment, provenance


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A checkout of a project with files like ours, which provenance is asked of."""
    for name in ("run_bench.py", "bench/cells/step.py", "README.md"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("one\n")
    git(tmp_path, "init", "-q")
    commit(tmp_path)
    monkeypatch.setattr(module, "_ROOT", tmp_path)
    provenance.cache_clear()
    yield tmp_path
    provenance.cache_clear()


def git(folder: Path, *arguments: str) -> str:
    who = ["-c", "user.name=one", "-c", "user.email=one@example.org"]
    done = subprocess.run(
        ["git", *who, *arguments], cwd=folder, check=True, capture_output=True, text=True
    )
    return done.stdout.strip()


def commit(folder: Path) -> None:
    git(folder, "add", ".")
    git(folder, "commit", "-q", "-m", "one")


@pytest.mark.parametrize(
    ("path", "dirty"),
    [
        ("bench/cells/step.py", True),
        ("run_bench.py", True),
        ("estimators/mine.py", True),
        ("README.md", False),
        ("out/cells/task=a/estimator=b/0.parquet", False),
        ("results/quick/table.parquet", False),
    ],
)
def test_code_alone_makes_a_checkout_dirty(checkout: Path, path: str, dirty: bool) -> None:
    assert provenance()["dirty"] is False
    assert provenance()["commit"] == git(checkout, "rev-parse", "HEAD")
    provenance.cache_clear()
    (checkout / path).parent.mkdir(parents=True, exist_ok=True)
    (checkout / path).write_text("two\n")
    assert provenance()["dirty"] is dirty


def test_the_commit_of_another_project_is_not_ours(checkout: Path) -> None:
    """As where this one is installed into an environment that lies in a checkout."""
    git(checkout, "rm", "-q", "--cached", "run_bench.py")
    assert provenance()["commit"] is None
    assert provenance()["dirty"] is None


def test_a_checkout_of_another_user_has_its_commit(
    checkout: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = git(checkout, "rev-parse", "HEAD")
    monkeypatch.setenv("GIT_TEST_ASSUME_DIFFERENT_OWNER", "1")
    assert (provenance()["commit"], provenance()["dirty"]) == (expected, False)


def test_without_git_nothing_is_said_of_the_commit(
    checkout: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    assert (provenance()["commit"], provenance()["dirty"]) == (None, None)
    assert provenance()["python"]


def test_the_environment_is_that_of_the_rows() -> None:
    columns, shown = provenance(), environment()
    for name in ("commit", "dirty", "python", "torch", "numba"):
        assert shown[name] == columns[name]
    assert json.loads(str(columns["packages"])).items() <= shown.items()
    assert shown["cpu"] in str(columns["machine"])
    assert shown["cores"] >= 1
    assert shown["memory_gib"] > 0
