"""Commands one by one: list, env, gradients, and how a run ends."""

import json
import os
import subprocess
import sys
import tomllib
from io import BytesIO, StringIO, TextIOWrapper
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel, Field
from rich.console import Console

from analysis.load import load_gradients, load_results
from analysis.schema import GRADIENTS
from bench.cells.cell import Planned, plan
from bench.cells.evaluation import EvaluationSettings
from bench.cli import app as cli
from bench.cli import listing
from bench.cli.options import GRID_ALONE
from bench.gradients.measure import GradientSettings
from bench.grid import runner
from bench.grid.grid import run_cells
from bench.profiles.profile import Profile, TrainingSettings
from estimators.registry import all_estimators, wings
from tasks.registry import all_tasks
from tests.bench.conftest import ROOT, SET, Here, bench, cell_of


def test_a_cell_that_diverges_is_a_row_and_the_others_go_on(
    here: Here, tiny: Path, tmp_path: Path
) -> None:
    wild = "[tasks.ssvae.estimators.dense.training]\nlearning_rate = 1e30\n"
    tiny.write_text(tiny.read_text().replace("epochs = 1", "epochs = 5") + wild)
    out = tmp_path / "results"
    done = here(
        "--profile", tiny, "--out", out, "--tasks", "ssvae", "--estimators", "dense,none",
        "--seeds", 1,
    )  # fmt: skip
    assert done.returncode == 1
    assert "2 cells:\n  1 ok\n  1 diverged\n  ssvae/dense/0: diverged: the " in done.stdout
    table = load_results(out).set_index("estimator")
    assert table.loc["dense", "status"] == "diverged"
    assert "at step" in table.loc["dense", "reason"]
    assert "diverged" in (out / "report.md").read_text()


def test_a_stored_cell_is_not_given_up_for_a_skip(
    profile: Profile, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    execution = runner.Execution(tmp_path, "tiny", None, "cpu", jobs=1, command="test")
    cell = cell_of(profile, "ssvae", "none")
    assert run_cells([Planned(cell, None)], execution)[0].status == "ok"
    assert run_cells([Planned(cell, "not here")], execution)[0].status == "stored"
    assert len(load_results(tmp_path)) == 4


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[tasks.ssvae.settings]\nlabelled = 5000", "lower the setting labelled of ssvae"),
        ("[tasks.bitvector.training]\nbatch_size = 5000", "lower the setting batch_size"),
        ("[tasks.signal_game.settings]\ncandidates = 5000", "an episode takes 5000"),
    ],
)
def test_settings_too_large_for_the_data_are_found_before_anything_runs(
    here: Here, tmp_path: Path, text: str, words: str
) -> None:
    (tmp_path / "wrong.toml").write_text(f'description = "wrong"\n{text}\n')
    done = here("--profile", tmp_path / "wrong.toml", "--out", tmp_path / "out")
    assert done.returncode == 2
    assert words in done.stderr
    assert done.stderr.count("\n") == 1
    assert not done.stdout


@pytest.mark.parametrize("task", ["ssvae", "signal_game", "bitvector"])
def test_a_number_beyond_64_bits_is_told_in_a_line(here: Here, tmp_path: Path, task: str) -> None:
    profile = tmp_path / "wrong.toml"
    for number in (2**63 - 1, 2**63, 2**80):
        profile.write_text(f"[tasks.{task}.settings]\nhidden = {number}\n")
        done = here("--profile", profile, "--tasks", task, "--out", tmp_path / "out")
        assert done.returncode == 2
        assert done.stderr.startswith("error: ")
        assert done.stderr.count("\n") == 1


def test_list_names_everything(here: Here) -> None:
    done = here("list")
    assert done.returncode == 0
    flat = done.stdout.replace("\n", " ")
    for name in [*all_tasks(), *all_estimators(), "quick", "digits"]:
        assert name in flat


@pytest.mark.parametrize("encoding", ["ascii", "latin-1"])
def test_what_an_encoding_lacks_is_a_question_mark(
    encoding: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    printed = BytesIO()
    for name in SET:
        monkeypatch.setenv(name, "")
    monkeypatch.setattr(sys, "argv", ["run_bench.py", "list"])
    monkeypatch.setattr(sys, "stdout", TextIOWrapper(printed, encoding, "strict"))
    with pytest.raises(SystemExit) as ended:
        cli.main()
    sys.stdout.flush()
    assert not ended.value.code
    text = printed.getvalue().decode(encoding)
    assert "samples=1 (1?16)" in text
    assert "| sfe-learned " in text


def listed(width: int) -> list[str]:
    """The lines of the listing, from the estimators on."""
    console = Console(file=StringIO(), force_terminal=True, width=width, color_system=None)
    listing.print_listing(console)
    file = console.file
    assert isinstance(file, StringIO)
    lines = [line.rstrip() for line in file.getvalue().splitlines()]
    return lines[lines.index("estimators") :]


@pytest.mark.parametrize("width", [80, 160])
def test_estimators_are_listed_by_wing_in_words_that_are_whole(width: int) -> None:
    lines = listed(width)
    table = lines[: lines.index(next(line for line in lines if line[:1] == "└"))]
    rows = [[cell.strip() for cell in line.split("│")[1:-1]] for line in table if line[0] == "│"]
    expected = [[f"{wing}:", *names] for wing, names in wings().items()]
    assert [row[0] for row in rows if row[0]] == [name for names in expected for name in names]
    for name, estimator in all_estimators().items():
        (row,) = [row for row in rows if row[0] == name]
        assert row[1] == estimator.bias
        assert row[2] == ("slopes" if estimator.takes_slopes else "costs")
    assert max(map(len, table)) <= width
    assert sum(line[0] == "├" for line in table) == len(wings()) - 1


def test_a_setting_is_listed_with_its_default_and_what_turns_it() -> None:
    (row,) = [line for line in listed(300) if line.startswith("│ rebar ")]
    assert (
        " temperature=0.5 (0.1…1) temperature_is=fixed (fixed|trained) noise=tied (tied|indep"
        in row
    )
    assert " baseline_learning_rate=0.001 (0.0001…0.03) " in row
    (row,) = [line for line in listed(300) if line.startswith("│ sfe-ma ")]
    assert " samples=1 (1…16) decay=0.9 (0.5…0.99)* " in row


def test_tasks_that_an_estimator_skips_are_listed_with_the_reasons(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    reasons = {
        ("rloo", "ssvae"): "it does not want to",
        ("dense", "bitvector"): "it is late",
        ("dense", "signal_game"): "it is tired",
        ("dense", "ssvae"): "it is late",
    }
    monkeypatch.setattr(listing, "_refusal", lambda e, t: reasons.get((e.name, t.name)))
    lines = listed(80)
    end = next(place for place, line in enumerate(lines) if line[:1] == "└")
    assert lines[end + 2 : end + 5] == [
        "rloo skips ssvae: it does not want to",
        "dense skips bitvector, ssvae: it is late; signal_game: it is tired",
        "profiles",
    ]


def test_what_is_listed_as_skipped_is_skipped(profile: Profile) -> None:
    planned = plan([*all_tasks()], [*all_estimators()], 1, profile)
    for cell, skip in ((item.cell, item.skip) for item in planned):
        reason = listing._refusal(all_estimators()[cell.estimator], all_tasks()[cell.task])
        assert (reason is None) == (skip is None), cell.name
    assert any(item.skip for item in planned)


def test_settings_are_listed_as_toml_with_their_defaults_and_meanings(here: Here) -> None:
    shown = here("list", "--settings").stdout
    assert not [line for line in shown.splitlines() if line.endswith("# ")]
    listed = tomllib.loads(shown)
    tasks, estimators = listed["tasks"], listed["tasks"].pop("TASK")["estimators"]
    sections: list[tuple[dict[str, Any], type[BaseModel]]] = [
        (listed["training"], TrainingSettings),
        (listed["evaluation"], EvaluationSettings),
        (listed["gradients"], GradientSettings),
        *((tasks[name]["settings"], task.Settings) for name, task in all_tasks().items()),
        *(
            (estimators.get(name, {"settings": {}})["settings"], estimator.Settings)
            for name, estimator in all_estimators().items()
        ),
    ]
    for values, model in sections:
        assert model(**values) == model()
        unset = {name for name, field in model.model_fields.items() if field.default is None}
        assert {*values} == {*model.model_fields} - unset
        assert all(f"# {name} = " in shown for name in unset)
    assert Profile(description=listed["description"], seeds=listed["seeds"]) == Profile()


def test_a_default_that_is_made_is_listed(here: Here, monkeypatch: pytest.MonkeyPatch) -> None:
    class Settings(BaseModel, extra="forbid"):
        widths: list[int] = Field(default_factory=lambda: [3, 2])

    monkeypatch.setattr(all_estimators()["dense"], "Settings", Settings)
    assert "\nwidths = [3, 2]" in here("list", "--settings").stdout
    assert "widths=[3, 2]" in here("list").stdout


def test_the_help_names_the_options(here: Here) -> None:
    shown = here("--help").stdout
    assert all(name in shown for name in ("--estimators", "--quiet", "--json", "status", "merge"))
    assert "already are not run again" in shown
    assert "Exits with 0 if all is well" in shown


def test_the_help_of_a_search_is_of_what_it_takes(here: Here) -> None:
    shown = here("tune", "--help").stdout
    assert not [name for name in GRID_ALONE if f"--{name.replace('_', '-')}" in shown]
    assert "--scheduler" not in shown
    assert "results/tune-PROFILE" in shown
    assert "from 10,000" in shown


@pytest.mark.parametrize("command", [[], ["gradients"], ["tune"]])
def test_quiet_and_json_are_not_both(here: Here, command: list[str], tmp_path: Path) -> None:
    done = here(*command, "--quiet", "--json", "--out", tmp_path / "results")
    assert done.returncode == 2
    assert done.stderr == "error: --quiet and --json: give one of them\n"
    assert not (tmp_path / "results").exists()


def test_the_end_lists_the_first_that_failed_and_where_the_rest_are(
    here: Here, tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*arguments: object, **named: object) -> list[dict[str, object]]:
        raise ZeroDivisionError("by nought [1]")

    monkeypatch.setattr(runner, "train_cell", broken)
    out = tmp_path / "results"
    arguments = ("--profile", tiny, "--out", out, "--tasks", "bitvector", "--jobs", 1)
    done = here(*arguments, "--estimators", "sfe", "--seeds", 23)
    assert done.returncode == 1
    end = done.stdout.split("23 cells:\n")[1].splitlines()
    assert end[0] == "  23 failed"
    listed = end[1:21]
    assert len({line.split(":")[0] for line in listed}) == 20
    assert all(
        ": failed: ZeroDivisionError: by nought [1] (test_commands" in line for line in listed
    )
    assert end[21:] == [
        f"  and 3 more: python run_bench.py status {out}",
        f"tables and figures: {out / 'report.md'}",
    ]
    shown = here("status", out)
    assert shown.returncode == 1
    assert shown.stdout.count(": failed: ZeroDivisionError: by nought [1]") == 23
    assert shown.stdout.splitlines()[-1].startswith(
        f"to go on: python run_bench.py --profile {tiny} "
    )


def test_the_environment_is_shown_for_people_and_machines(here: Here) -> None:
    shown, read = here("env"), json.loads(here("env", "--json").stdout)
    lines = dict(line.split(maxsplit=1) for line in shown.stdout.splitlines())
    assert lines.keys() == read.keys()
    assert lines["python"] == read["python"] == ".".join(map(str, sys.version_info[:3]))
    assert lines["cores"] == str(read["cores"]) == str(os.cpu_count())
    assert read["gpus"] == [] or lines["gpus"] == ", ".join(read["gpus"])
    assert (
        lines["dirty"]
        == {True: "yes", False: "no", None: "unknown, or not installed"}[read["dirty"]]
    )


def test_an_estimator_of_another_package_is_found(tmp_path: Path) -> None:
    """An entry point names a module that registers an estimator."""
    (tmp_path / "other_package.py").write_text(
        "from estimators.registry import register\n"
        "from estimators.sampled.score_function import ScoreFunction\n"
        "@register\n"
        "class Mine(ScoreFunction):\n"
        "    name = 'mine'\n"
    )
    info = tmp_path / "other_package-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: other-package\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(
        "[discrete_gradients.estimators]\nmine = other_package\n"
    )
    code = "from estimators.registry import all_estimators; print(*all_estimators())"
    environment = os.environ | {"PYTHONPATH": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, env=environment, capture_output=True, text=True
    )
    assert "mine" in done.stdout.split()


def test_gradients_are_measured_and_reported(
    here: Here, tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    how = "[gradients]\ncheckpoints = [0, 1]\nwarm_up = 3\ndraws = 32\nbatches = 2\ncalls = [4]\n"
    tiny.write_text(tiny.read_text() + how)
    out = tmp_path / "results"
    arguments = ("--profile", tiny, "--out", out, "--tasks", "bitvector", "--seeds", 1)
    names = "sfe,dense,gumbel,none"
    done = bench("gradients", *arguments, "--estimators", names)
    assert done.returncode == 0, done.stdout + done.stderr
    table = load_gradients(out)
    assert set(table.columns) == {*GRADIENTS.columns.names, "task", "estimator"}
    assert set(table["estimator"]) == {"sfe", "dense", "gumbel"}
    exact = table[(table["estimator"] == "dense")]
    assert (exact["bias"] <= 1e-12 * exact["exact_norm"]).all()
    report = (out / "report.md").read_text()
    assert "| sfe, samples = 4 |" in report
    assert "| gumbel, initial = 2 |" in report
    assert {path.stem for path in (out / "figures").glob("*.png")} == {
        "variance_against_calls", "variance_against_time", "bias_against_variance",
        "variance_along_training", "bias_along_training", "bias_along_settings",
        "effect_of_samples", "effect_of_initial",
    }  # fmt: skip
    monkeypatch.setattr("analysis.gradients.save_gradient_figures", lambda rows, folder: [])
    again = here("gradients", *arguments, "--estimators", names)
    assert "stored" in again.stdout
    assert " ok" not in again.stdout.split("cells:")[1]
    assert here("report", out).returncode == 0
    refused = here("report", out, "--baseline", "sfe")
    assert refused.stderr.startswith("error: --baseline and --against are for trainings, ")
    wrong = here(*arguments, "--estimators", "none")
    assert wrong.returncode == 2
    assert "holds gradients" in wrong.stderr
