"""What a search leaves: a table of its trials, and a profile of the best settings."""

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import tomli_w
from optuna.trial import FrozenTrial, TrialState

from analysis.files import written_whole
from analysis.schema import SEARCH, SEARCH_VERSION
from analysis.scores import LESS_IS_BETTER
from analysis.stored import TRIALS
from bench.cells.provenance import provenance
from bench.grid.runner import Execution
from bench.profiles.profile import Found, Profile
from bench.search.storage import open_storage
from bench.search.studies import SharedStudy, place

BEST = "best.toml"
"""The profile in a results folder that holds the best settings."""


def write_results(storage: str | None, execution: Execution, profile: Profile) -> Path | None:
    """Write the trials of all studies of a folder, and the profile of the best; the latter's path.

    None, and no profile, where no trial has a value.

    Args:
        storage: address of the storage; None for the folder's own.
        execution: names the folder.
        profile: what the search started from. Studies that started from another are in the table
            alone.
    """
    rows: list[dict[str, Any]] = []
    pairs = 0
    for shared in SharedStudy.stored(
        open_storage(storage, execution.results), f"{execution.results.name}:"
    ):
        common = _common(shared, execution)
        rows += [common | _row(trial) for trial in shared.counted()]
        best = best_trial(shared)
        if best is not None and shared.about["profile"] == execution.profile:
            found = Found(
                study=shared.study.study_name, trial=place(best), values=sorted(best.params)
            )
            task, estimator = shared.about["task"], shared.about["estimator"]
            profile = profile.with_values(task, estimator, best.params, found)
            # Which --dataset may have named: settings are best on the data that they were found on.
            profile = profile.with_dataset(task, shared.about["task settings"]["dataset"])
            pairs += 1
    with written_whole(execution.results / TRIALS) as file:
        pq.write_table(pa.Table.from_pylist(rows, schema=SEARCH), file)
    if not pairs:
        return None
    description = f"{profile.description}; settings of {pairs} pairs searched"
    content = profile.model_copy(update={"description": description})
    path = execution.results / BEST
    with written_whole(path) as file:
        tomli_w.dump(content.model_dump(exclude_defaults=True, exclude_none=True), file)
    return path


def best_trial(shared: SharedStudy) -> FrozenTrial | None:
    """The complete trial that is best by the first objective; None if none is complete."""
    complete = [trial for trial in shared.counted() if trial.state == TrialState.COMPLETE]
    sign = 1 if shared.about["objectives"][0] in LESS_IS_BETTER else -1
    return min(complete, key=lambda trial: (sign * trial.values[0], place(trial)), default=None)


def _common(shared: SharedStudy, execution: Execution) -> dict[str, Any]:
    """Columns that are the same for all trials of a study."""
    about = shared.about
    return {
        "schema_version": SEARCH_VERSION,
        "study": shared.study.study_name,
        "task": about["task"],
        "estimator": about["estimator"],
        "objectives": json.dumps(about["objectives"]),
        "less_is_better": about["objectives"][0] in LESS_IS_BETTER,
        "space": json.dumps(about["space"]),
        "profile": about["profile"],
        "dataset": about["task settings"]["dataset"],
        "sampler": about["sampler"],
        "pruner": about["pruner"] if len(about["objectives"]) == 1 else "none",
        "seeds": about["seeds"],
        "command": execution.command,
        **{name: provenance()[name] for name in ("machine", "commit", "dirty", "torch", "python")},
    }


def _row(trial: FrozenTrial) -> dict[str, Any]:
    assert trial.datetime_start is not None
    attributes = trial.user_attrs
    values = trial.values if trial.state == TrialState.COMPLETE else []
    return {
        "place": place(trial),
        "state": {"FAIL": "failed"}.get(trial.state.name, trial.state.name.lower()),
        "reason": attributes.get("reason"),
        "value": values[0] if values else None,
        "values": json.dumps(values),
        "parameters": json.dumps(trial.params),
        "metrics": json.dumps(attributes.get("metrics", {})),
        "keys": json.dumps(attributes.get("keys", [])),
        "started": trial.datetime_start.astimezone().isoformat(timespec="seconds"),
        "seconds": None if trial.duration is None else trial.duration.total_seconds(),
        "train_seconds": attributes.get("train_seconds"),
    }
