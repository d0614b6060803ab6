"""Files that add an estimator or a task, and are faulty: each is told by its line."""

import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import estimators.registry
import tasks.registry
from bench.cli.registered import check_registered
from bench.errors import UserError
from estimators.registry import all_estimators
from tasks.registry import all_tasks
from tests.bench.conftest import ROOT, Here

Add = Callable[[str, str], Path]

REGISTRIES = {"estimators": estimators.registry, "tasks": tasks.registry}


def forget() -> None:
    """Have the next look at the registries import all files."""
    all_estimators.cache_clear()
    all_tasks.cache_clear()


@pytest.fixture
def add(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Add]:
    """Add a file of some text to one of the folders, for this test; its path."""

    def added(package: str, text: str) -> Path:
        all_estimators(), all_tasks()  # what is there without it
        path = tmp_path / "zz_mine.py"
        path.write_text(text)
        folders = sys.modules[package].__path__
        monkeypatch.setattr(sys.modules[package], "__path__", [*folders, str(tmp_path)])
        registry = REGISTRIES[package]
        monkeypatch.setattr(registry, "_registered", dict(registry._registered))
        forget()
        return path

    yield added
    for package in REGISTRIES:
        sys.modules.pop(f"{package}.zz_mine", None)
    forget()


def example(package: str) -> str:
    """What docs/CONTRACT.md shows first of a kind."""
    page = (ROOT / "docs" / "CONTRACT.md").read_text()
    heading = {"estimators": "## An estimator\n", "tasks": "## A task\n"}[package]
    _, _, section = page.partition(heading)
    return re.findall(r"```python\n(.*?)```", section, re.DOTALL)[0]


@pytest.mark.parametrize(
    ("package", "right", "wrong", "where", "said"),
    [
        ("estimators", "f.flip(1)", "f.flip(1", "f.flip(1", "'(' was never closed"),
        ("estimators", "@register", "@registers", "@reg", "NameError: name 'registers' is not"),
        ("estimators", "ge=2,", "ge=None<2,", "ge=None", "TypeError: '<' not supported between"),
        (
            "estimators", 'name = "half-and-half"', "", "@register",
            "AttributeError: type object 'HalfAndHalf' has no attribute 'name'",
        ),
        ("estimators", "def combine", "def combined", "@register", "HalfAndHalf has no combine"),
        ("estimators", 'bias = "unbiased"', "", "@register", "HalfAndHalf has no bias"),
        (
            "estimators", 'bias = "unbiased"', "bias = 'unbiassed'", "@register",
            "HalfAndHalf has bias = 'unbiassed': input should be 'exact', 'unbiased', 'scaled', ",
        ),
        (
            "estimators", "half-and-half", "sfe", "@register",
            "ValueError: two estimators are named 'sfe': <class 'estimators.sampled.score_function",
        ),
        (
            "estimators", '"half-and-half"', '"half/half"', "@register",
            "HalfAndHalf has name = 'half/half': give letters, digits and dashes",
        ),
        (
            "estimators", 'extra="forbid", ', "", "@register",
            "Settings of HalfAndHalf take names that they do not have: give extra=",
        ),
        (
            "estimators", "Field(2, ", "Field(", "@register",
            "Settings of HalfAndHalf by default: samples is missing",
        ),
        (
            "estimators", "int = Field(2, ge=2, multiple_of=2", "set[int] = Field({2}", "@register",
            "Settings of HalfAndHalf: object of type set is not json serializable",
        ),
        (
            "estimators", "    bias", '    searched_training = frozenset({"rate"})\n    bias',
            "@register", "HalfAndHalf has searched_training = {'rate'}: there are learning_rate, ",
        ),
        ("tasks", 'metrics = ("elbo", "loss")', "", "@register", "Mixture has no metrics"),
        ("tasks", '("elbo", "loss")', "()", "@register", "Mixture has metrics = (): name one"),
        ("tasks", '"elbo", "loss"', '"nll",', "@register", "Mixture has metrics = ('nll',): nll"),
        (
            "tasks", "is_likelihood = True", "is_likelihood = False", "@register",
            "Mixture has metrics = ('elbo', 'loss'): there is no elbo where is_likelihood is False",
        ),
        (
            "tasks", '"elbo", "loss"', '"accuracy",', "@register",
            "Mixture has metrics = ('accuracy',): there is no accuracy without the method correct",
        ),
        (
            "tasks", '("elbo", "loss")', '("elbow",)', "@register",
            "Mixture has metrics = ('elbow',): input should be 'accuracy', 'agreement', 'elbo', "
            "'nll' or 'loss'",
        ),
    ],
)  # fmt: skip
def test_a_faulty_file_is_told_by_its_line_whatever_was_asked_for(
    here: Here, add: Add, package: str, right: str, wrong: str, where: str, said: str
) -> None:
    text = example(package)
    assert right in text
    text = text.replace(right, wrong)
    path = add(package, text)
    line = text[: text.index(where)].count("\n") + 1
    done = here("--tasks", "bitvector", "--estimators", "sfe", "--profile", "none/such.toml")
    assert done.returncode == 2
    assert done.stderr.startswith(f"error: {path}, line {line}: {said}")
    assert done.stderr.count("\n") == 1


def test_a_faulty_module_of_another_package_is_told_by_its_line(
    here: Here, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "of_another_package.py").write_text("import re\nre.compile('(')\n")
    info = tmp_path / "of_another_package-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: of-another-package\nVersion: 1\n")
    group = "[discrete_gradients.estimators]"
    (info / "entry_points.txt").write_text(f"{group}\nmine = of_another_package\n")
    monkeypatch.syspath_prepend(tmp_path)
    forget()
    done = here("list")
    path = tmp_path / "of_another_package.py"
    assert done.returncode == 2
    assert done.stderr.startswith(f"error: {path}, line 2: error: missing ), unterminated")
    (info / "entry_points.txt").write_text(f"{group}\nmine = not_installed\n")
    done = here("list")
    assert done.stderr == (
        "error: estimators: ModuleNotFoundError: No module named 'not_installed'\n"
    )


@pytest.mark.parametrize("attribute", ["space", "activation_size", "steps_per_epoch"])
def test_what_a_constructor_has_to_set_is_checked_before_anything_runs(
    here: Here, add: Add, tmp_path: Path, attribute: str
) -> None:
    add("tasks", example("tasks").replace(f"self.{attribute} =", "unset ="))
    done = here("--tasks", "mixture", "--estimators", "sfe", "--out", tmp_path / "results")
    assert done.returncode == 2
    assert done.stderr == f"error: the constructor of task mixture sets no {attribute}\n"


def test_a_file_is_named_as_from_here(
    add: Add, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    add("estimators", "wrong = \n")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=r"^zz_mine\.py, line 1: invalid syntax"):
        check_registered()
