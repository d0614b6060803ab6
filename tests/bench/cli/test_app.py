"""The command line, from outside."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

from analysis.load import flatten_hyperparameters, load_results
from analysis.schema import CIRCUMSTANCES, TRAINING
from estimators.registry import all_estimators
from tasks.registry import all_tasks
from tests.bench.conftest import ROOT, TINY, Here, bench

TASKS = {name: all_tasks()[name] for name in ("bitvector", "signal_game", "ssvae")}
"""With bits, with a categorical variable, with labels: what a whole grid is run of."""

ESTIMATORS = (
    "none", "sfe", "nvil", "rloo", "sfe-selfcritic", "disarm", "arsm", "rebar", "vimco", "gumbel",
    "gapped-st", "imle", "hard-concrete", "gaussian-sparsemax", "dense", "sparsemax",
    "topk-sparsemax", "sparsemap", "sparsemap-budget",
)  # fmt: skip
"""Some of every wing, with every reason to be skipped: tests of cells train each of the others."""

ON_TASKS = ("--tasks", ",".join(TASKS))
GRID = (*ON_TASKS, "--estimators", ",".join(ESTIMATORS))


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny run of every wing, with two jobs, where a file has the name of a library's module."""
    folder = tmp_path_factory.mktemp("finished")
    (folder / "random.py").write_text("raise SystemExit('this is another random')\n")
    (folder / "tiny.toml").write_text(TINY)
    grid = ("--profile", folder / "tiny.toml", "--out", folder / "results", *GRID)
    done = bench(*grid, "--jobs", 2, cwd=folder)
    assert done.returncode == 0, done.stderr + done.stdout
    return folder


def test_every_pair_and_seed_has_one_cell(finished: Path) -> None:
    table = pd.read_parquet(finished / "results" / "table.parquet")
    cells = table.drop_duplicates("key").groupby(["task", "estimator", "seed"]).size()
    wanted = {
        (task, estimator, seed) for task in TASKS for estimator in ESTIMATORS for seed in range(2)
    }
    assert set(cells.index) == wanted
    assert (cells == 1).all()
    skipped = set(map(tuple, table.loc[table["status"] == "skipped", ["task", "estimator"]].values))
    assert skipped == {
        (task.name, name)
        for task in TASKS.values()
        for name, estimator in all_estimators().items()
        if name in ESTIMATORS
        and (
            not issubclass(task.space_type, estimator.spaces)
            or (estimator.own_model and task.has_labels)
        )
    }
    assert table.loc[table["status"] == "skipped", "reason"].notna().all()


def test_a_reader_gets_the_documented_schema(finished: Path) -> None:
    table = load_results(finished / "results")
    assert set(table.columns) == {*TRAINING.columns.names, "task", "estimator"}
    final = table[(table["split"] == "test") & (table["status"] == "ok")]
    assert final["train_seconds"].gt(0).all()
    assert final["commit"].notna().all() or not (ROOT / ".git").exists()
    for task in TASKS.values():
        assert final.loc[final["task"] == task.name, [*task.metrics]].notna().all(axis=None)
    settings = flatten_hyperparameters(final)
    sfe = settings[(settings["task"] == "signal_game") & (settings["estimator"] == "sfe")]
    assert (sfe["training.entropy_weight"] == 0.05).all()
    assert (sfe["task.entropy_weight"] == 0.1).all()
    assert (sfe["training.epochs"] == 1).all()


def test_decoder_calls_are_those_of_the_estimator(finished: Path) -> None:
    table = load_results(finished / "results")
    final = table[(table["split"] == "test") & (table["status"] == "ok")]
    calls = final.groupby(["task", "estimator"])["decoder_calls"].mean()
    assert calls["signal_game", "sfe"] == 1
    assert calls["signal_game", "rloo"] == 4
    assert calls["signal_game", "sfe-selfcritic"] == 2
    assert calls["signal_game", "dense"] == 6
    assert calls["ssvae", "dense"] == 10
    assert 1 <= calls["ssvae", "sparsemax"] < 10
    assert calls["bitvector", "dense"] == 16
    assert 1 < calls["bitvector", "sparsemap"] <= 5


def test_report_and_figures_are_there(finished: Path) -> None:
    results = finished / "results"
    report = (results / "report.md").read_text()
    assert all(f"## {task}" in report for task in TASKS)
    assert "| none | 2 |" in report
    assert "| chance |" in report
    for name in ("final_scores", "learning_curves", "score_against_calls"):
        assert (results / "figures" / f"{name}.png").stat().st_size > 5000
        assert (results / "figures" / f"{name}.pdf").is_file()


def test_a_baseline_that_did_not_run_is_told_with_the_nearest(here: Here, finished: Path) -> None:
    done = here("report", finished / "results", "--baseline", "dens")
    assert done.returncode == 2
    assert done.stderr.startswith("error: no estimator 'dens': did you mean 'dense'? these results")
    assert done.stderr.count("\n") == 1
    done = here("report", finished / "results", "--baseline", "relaxed")
    assert done.returncode == 2
    assert done.stderr.startswith("error: 'relaxed' is a wing: name one estimator; these results ")
    assert done.stderr.count("\n") == 1


METRICS = [name for name in TRAINING.columns.names if name not in CIRCUMSTANCES]


def test_jobs_do_not_change_the_numbers(here: Here, finished: Path, tmp_path: Path) -> None:
    alone = tmp_path / "alone"
    names = "nvil,gumbel,sparsemap,sparsemap-budget"
    profile = finished / "tiny.toml"
    arguments = ("--profile", profile, "--out", alone, "--jobs", 1, "--seeds", 1)
    assert here(*ON_TASKS, "--estimators", names, *arguments).returncode == 0
    index = ["task", "estimator", "seed", "step", "split", "selection"]
    one = load_results(alone).fillna({"selection": ""}).set_index(index)
    two = load_results(finished / "results").fillna({"selection": ""}).set_index(index)
    two = two.loc[one.index]
    columns = [name for name in METRICS if name not in index]
    pd.testing.assert_frame_equal(one[columns], two[columns])


def test_stored_cells_are_not_run_again_and_a_lost_one_is(here: Here, finished: Path) -> None:
    results = finished / "results"
    lost = next((results / "cells" / "task=ssvae" / "estimator=sfe").glob("*.parquet"))
    before = {p: p.stat().st_mtime_ns for p in results.glob("cells/*/*/*.parquet") if p != lost}
    lost.unlink()
    done = here("--profile", finished / "tiny.toml", "--out", results, *GRID)
    assert done.returncode == 0
    assert "1 ok" in done.stdout
    assert lost.is_file()
    assert all(path.stat().st_mtime_ns == stamp for path, stamp in before.items())


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--tasks", "ssvea"], "no task 'ssvea': did you mean 'ssvae'? see run_bench.py list"),
        (["--estimators", "sparsemx"], "no estimator 'sparsemx': did you mean 'sparsemax'?"),
        (["--estimators", "relaxd,sfe"], "no estimator 'relaxd': did you mean 'relaxed'? see run_"),
        (["--estimators", "relaxed,sef"], "no estimator 'sef': did you mean 'sfe'?"),
        (["tune", "--estimators", "sumed"], "no estimator 'sumed': did you mean 'summed'?"),
        (["--timing", "--estimators", "sampledd"], "did you mean 'sampled'?"),
        (["--estimators", "qqqqqq"], "no estimator 'qqqqqq': see run_bench.py list"),
        (["--profile", "quik"], "no profile 'quik': did you mean 'quick'?"),
        (["--profile", "there/is/none.toml"], "profile there/is/none.toml: no such file"),
        (["--dataset", "mnst"], "no dataset 'mnst': did you mean 'mnist'?"),
        (["--dataset", "mnist", "--data-dir", "/nowhere"], "train-images-idx3-ubyte.gz is missing"),
        (["--tasks", "ssvae", "bitvector"], "'bitvector' is a word too many: names have commas"),
        (["--quiet", "list"], "'list': give a command before all options; see run_bench.py --help"),
        (["--tasks", ","], "--tasks: give one name at least, or all"),
        (["--estimators", "ALL"], "did you mean 'all'?"),
        (["--out", ""], "--out: give a folder of its own"),
        (["--seeds", "0"], "--seeds 0: give 1 to 1000"),
        (["--seeds", "20000000"], "--seeds 20000000: give 1 to 1000"),
        (["--threads", "99999999999"], "--threads 99999999999: give 1 to 1000"),
        (
            ["gradients", "--trained-by", "relaxed"],
            "'relaxed' is a wing: name one estimator; see run_bench.py list\n",
        ),
        (["gradients", "--trained-by", "sparsmax"], "did you mean 'sparsemax'?"),
        (
            ["gradients", "--estimators", "none", "--trained-by", "dense,rloo"],
            "no estimator 'dense,rloo': did you mean 'dense'? see run_bench.py list",
        ),
        (["gradients", "--estimators", "none", "--trained-by", "all"], "no estimator 'all': "),
        (
            ["gradients", "--tasks", "ssvae", "--trained-by", "sparsemap-budget"],
            "models can't be trained so: sparsemap-budget takes bits only",
        ),
        (["--seeds", "many"], 'for --seeds: "many" is no whole number; see run_bench.py --help\n'),
        (["--threads", "0.4"], '--threads: "0.4" is no whole number'),
        (["--estimater", "sfe"], "Did you mean --estimator? see run_bench.py --help\n"),
        (["status", "x", "--foo"], "Unknown option: --foo; see run_bench.py status --help\n"),
        (["tune", "--objective", "acuracy", "--task", "ssvae"], "did you mean 'accuracy'?"),
        (["tune", "--storage", "nonsense"], "--storage nonsense: "),
        (["tune", "--parameters", "temprature"], "no parameter to search 'temprature'"),
        (["tune", "--trials", "0"], "--trials 0: give 1 or more"),
        (["tune", "--trials", "0.4"], '--trials: "0.4" is no whole number'),
        (["--device", "cuda:77"], "--device cuda:77"),
        (["--device", "gpu"], "--device gpu: give cpu, cuda, or cuda:N"),
        (["--device", "cpu:7"], "--device cpu:7: give cpu, cuda, or cuda:N"),
        (["--data-dir", ""], "--data-dir: give a folder"),
        (["--device", "meta"], "--device meta: give cpu, cuda, or cuda:N"),
        (["--out", "/proc/results"], "--out /proc/results: no such file or directory"),
        (["--out", "README.md"], "--out README.md is a file: give a folder\n"),
        (["report", "/nowhere"], "there is no folder /nowhere\n"),
        (["report", "README.md"], "README.md is a file: name the results folder"),
        (["status", "README.md"], "README.md is a file: name the results folder"),
        (["merge", "README.md", "docs", "--out", "out"], "README.md is a file: name the results"),
        (["statuss"], "no command 'statuss': did you mean 'status'? see run_bench.py --help\n"),
        (["qqqqqq", "--seeds", "1"], "no command 'qqqqqq': see run_bench.py --help\n"),
    ],
)
def test_mistakes_are_told_in_a_line(
    here: Here, arguments: list[str], words: str, tmp_path: Path
) -> None:
    out = [] if arguments[0] in {"report", "status", "merge", "--out"} else ["--out", tmp_path]
    done = here(*arguments, *out)
    assert done.returncode == 2
    assert words in done.stderr
    assert done.stderr.startswith("error: ")
    assert done.stderr.count("\n") == 1
    assert not done.stdout


def test_a_file_to_compare_with_is_told(here: Here, finished: Path) -> None:
    done = here("report", finished / "results", "--against", "README.md")
    assert done.returncode == 2
    assert done.stderr.startswith("error: README.md is a file: name the results folder")


def test_a_full_disk_is_told_with_the_file_that_it_was_met_at(
    here: Here, finished: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for file, where in ((None, ""), ("report.md", "report.md: ")):

        def full(*arguments: object, file: str | None = file) -> list[Path]:
            raise OSError(28, "No space left on device", file)

        monkeypatch.setattr("analysis.report.write_report", full)
        done = here("report", finished / "results")
        assert done.returncode == 2
        assert done.stderr == f"error: {where}no space left on device\n"


def test_a_damaged_file_of_another_grid_is_named(
    here: Here, finished: Path, tmp_path: Path
) -> None:
    out = tmp_path / "results"
    stray = out / "cells" / "task=ssvae" / "estimator=sfe" / "0123456789abcdef.parquet"
    stray.parent.mkdir(parents=True)
    stray.write_bytes(b"PAR1 and no more")
    done = here(
        "--profile", finished / "tiny.toml", "--out", out, "--tasks", "ssvae",
        "--estimators", "none", "--seeds", 1,
    )  # fmt: skip
    assert done.returncode == 2
    assert done.stderr == (
        f"error: {stray} is damaged: delete it, and run the same command to make it again\n"
    )
    assert not done.stdout  # it is said before anything runs


def test_a_report_shows_the_grid_that_was_asked_for(
    here: Here, finished: Path, tmp_path: Path
) -> None:
    """Also where its cells are older than those of another grid in the folder."""
    short, longer = finished / "tiny.toml", tmp_path / "longer.toml"
    longer.write_text(short.read_text().replace("epochs = 1", "epochs = 2"))
    found = []
    for profile in (short, longer, short):
        done = here(
            "--profile", profile, "--out", tmp_path / "results", "--tasks", "bitvector",
            "--estimators", "sfe", "--seeds", 1,
        )  # fmt: skip
        assert done.returncode == 0
        found.append(load_results(tmp_path / "results")["step"].max())
    assert found == [15, 30, 15]


def test_an_estimator_that_is_added_joins_the_table(
    here: Here, finished: Path, tmp_path: Path
) -> None:
    out = tmp_path / "results"
    for name in ("sfe", "dense"):
        done = here(
            "--profile", finished / "tiny.toml", "--out", out, "--tasks", "bitvector",
            "--estimators", name, "--seeds", 1,
        )  # fmt: skip
        assert done.returncode == 0
    report = (out / "report.md").read_text()
    assert "| sfe | 1 |" in report
    assert "| dense | 1 |" in report
    assert set(pd.read_parquet(out / "table.parquet")["estimator"]) == {"sfe", "dense"}


def test_a_folder_with_a_colon_is_no_address(
    here: Here, finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    arguments = ("--tasks", "ssvae", "--estimators", "none", "--seeds", 1, "--out", "a:b")
    arguments += ("--jobs", 1)  # a worker of an earlier test is in another folder
    done = here("--profile", finished / "tiny.toml", *arguments)
    assert done.returncode == 0, done.stderr
    assert len(load_results(tmp_path / "a:b")) == 4


LIGHT = """
import sys
from contextlib import redirect_stdout
from io import StringIO
from bench.cli.app import main
for arguments in sys.argv[1:]:
    sys.argv = ["run_bench.py", *arguments.split("|")]
    with redirect_stdout(StringIO()) as text:
        try:
            main()
        except SystemExit as ended:
            assert not ended.code, (arguments, ended.code)
    assert text.getvalue(), arguments
    for name in ("torch", "pandas", "matplotlib", "optuna"):
        assert name not in sys.modules, (arguments, name)
"""
"""Runs commands one after another and fails where one imports what takes long."""


def test_help_and_status_import_nothing_that_takes_long(finished: Path) -> None:
    commands = ["gradients", "tune", "list", "report", "status", "merge", "env"]
    arguments = ["--help", *(f"{command}|--help" for command in commands)]
    arguments.append(f"status|{finished / 'results'}")
    done = subprocess.run(
        [sys.executable, "-c", LIGHT, *arguments], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr


def test_a_merge_does_without_torch(finished: Path, tmp_path: Path) -> None:
    folders = [tmp_path / name for name in ("one", "other")]
    for folder in folders:
        shutil.copytree(finished / "results" / "cells", folder / "cells")
        shutil.copy(finished / "results" / "grid.json", folder)
    code = (
        "import sys; from pathlib import Path; from bench.results.merge import merge_folders;"
        "from bench.cli.ending import report_on; *sources, out = map(Path, sys.argv[1:]);"
        "merge_folders(sources, out); from bench.results.store import compact; compact(out);"
        "sys.exit('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code, *folders, tmp_path / "out"], cwd=ROOT)
    assert done.returncode == 0
    assert len(load_results(tmp_path / "out")) == len(load_results(finished / "results"))


SMALL = ("--tasks", "bitvector", "--estimators", "sfe,dense,gumbel", "--seeds", 1, "--jobs", 1)


def test_a_machine_reads_json_and_nothing_else(here: Here, finished: Path, tmp_path: Path) -> None:
    out = tmp_path / "results"
    done = here("--profile", finished / "tiny.toml", "--out", out, *SMALL, "--json")
    assert (done.returncode, done.stderr) == (0, "")
    *cells, end = [json.loads(line) for line in done.stdout.splitlines()]
    assert {(one["event"], one["cell"], one["status"]) for one in cells} == {
        ("cell", f"bitvector/{name}/0", "ok") for name in ("sfe", "dense", "gumbel")
    }
    assert all(one["seconds"] > 0 for one in cells)
    assert end == {
        "event": "end", "cells": 3, "counts": {"ok": 3}, "results": str(out),
        "report": str(out / "report.md"),
    }  # fmt: skip


def test_quiet_tells_how_it_ended_alone(here: Here, finished: Path, tmp_path: Path) -> None:
    out = tmp_path / "results"
    done = here("--profile", finished / "tiny.toml", "--out", out, *SMALL, "--quiet")
    assert done.returncode == 0
    assert done.stdout == f"3 cells:\n  3 ok\ntables and figures: {out / 'report.md'}\n"


def test_hyperparameters_are_json_with_everything(finished: Path) -> None:
    table = load_results(finished / "results")
    row = table[(table["task"] == "ssvae") & (table["estimator"] == "gumbel")].iloc[0]
    settings = json.loads(row["hyperparameters"])
    assert settings["estimator"]["minimum"] == 0.5
    assert settings["task"]["hidden"] == 8
    assert settings["evaluation"]["samples"] == 4
