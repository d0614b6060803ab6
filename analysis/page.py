"""One HTML page of a results folder: `report.html`, which needs no network.

plotly.js draws, and DataTables sorts and searches: the scripts of the installed packages plotly and
itables, embedded. The whole of plotly.js is 4.8 MB, a third of what a page may have. Vega-Lite is
smaller, but plotly has all of matplotlib's markers, so that an estimator looks the same here as in
the figures, and zooms by dragging without taking the wheel from the page. Its own smaller bundles
come in no Python package that we know.

Text from results is escaped by the templates; what the script reads goes through Jinja's `tojson`,
which leaves nothing that could end a script element. The content security policy forbids any
connection.
"""

import json
from base64 import b64encode
from collections.abc import Mapping, Sequence
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup
from matplotlib.colors import to_hex
from matplotlib.markers import MarkerStyle
from matplotlib.path import Path as Outline

from analysis.examples import CAPTION
from analysis.files import write_whole
from analysis.load import FLOOR, cell_rows, settings_of
from analysis.page_data import Json, brightened, estimators, leading_number, page_data
from analysis.scores import judged
from analysis.style import colour, marker
from analysis.tables import COLUMNS, summary
from analysis.times import CIRCUMSTANCES

PAGE = "report.html"

ORIGIN = {
    "profile": "profile", "dataset": "data set", "command": "command", "commit": "commit",
    "machine": "machine", "device": "device", "threads": "threads of a cell",
    "cells_beside": "cells beside it", "python": "Python", "torch": "torch", "numba": "numba",
    "numerics": "version of the numerics",
}  # fmt: skip
"""Columns that say where numbers come from."""


def write_page(
    folder: Path,
    table: pd.DataFrame,
    notes: Sequence[str],
    examples: Mapping[tuple[str, str], Path],
) -> Path:
    """Write `report.html` into a results folder.

    Args:
        folder: what `--out` named.
        table: its rows.
        notes: what a reader has to know, in a sentence each.
        examples: a PNG for each task and estimator that has examples.
    """
    environment = Environment(
        loader=PackageLoader("analysis"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.policies["json.dumps_kwargs"] = {"allow_nan": False, "separators": (",", ":")}
    cells = cell_rows(table)
    became = judged(table)
    texts = {"hyperparameters", "diagnostics", *ORIGIN} - CIRCUMSTANCES.keys()
    numbers = table.drop(columns=[*texts], errors="ignore")
    data = page_data(numbers, folder) | {"floor": FLOOR, "name": folder.resolve().name}
    html = environment.get_template("page.html").render(
        data=data,
        overview=_overview(cells, became),
        notes=notes,
        chips={name: _chip(name) for name in estimators(table)},
        leaders={task: _leaders(own, data) for task, own in data["tasks"].items()},
        summaries={task: _summary(table, task) for task in data["tasks"]},
        unfinished=_unfinished(became),
        settings={task: _settings(cells[cells["task"] == task]) for task in data["tasks"]},
        origin=_origin(cells),
        examples_caption=CAPTION,
        examples=[
            {"task": task, "estimator": estimator, "png": b64encode(path.read_bytes()).decode()}
            for (task, estimator), path in examples.items()
        ],
        **_scripts(),
    )
    path = folder / PAGE
    write_whole(path, html)
    return path


@cache
def _scripts() -> dict[str, Markup]:
    """Scripts and styles, ours and the libraries'."""
    from plotly.offline import get_plotlyjs

    ours = resources.files("analysis") / "templates"
    theirs = resources.files("itables") / "html"
    return {
        "plotly": _inline(get_plotlyjs(), "script"),
        # In base 64, for the import map.
        "datatables": Markup(b64encode((theirs / "dt_bundle.js").read_bytes()).decode()),
        "datatables_style": _inline((theirs / "dt_bundle.css").read_text("utf-8"), "style"),
        "style": _inline((ours / "page.css").read_text("utf-8"), "style"),
        "script": _inline((ours / "page.js").read_text("utf-8"), "script"),
    }


def _inline(source: str, element: str) -> Markup:
    """Trusted source to put into an element.

    Raises:
        ValueError: it would end the element.
    """
    lower = source.lower()
    if f"</{element}" in lower or ("<!--" in lower and "<script" in lower):
        raise ValueError(f"this can't be embedded in a {element} element")
    return Markup(source)


def _overview(cells: pd.DataFrame, became: pd.DataFrame) -> Json:
    """What there is, in numbers."""
    started = sorted(cells["started"].dropna().astype(str))
    return {
        "cells": len(cells),
        "statuses": {str(name): int(n) for name, n in became["status"].value_counts().items()},
        "seeds": cells["seed"].nunique(),
        "days": list(dict.fromkeys(moment[:10] for moment in (started[:1] + started[-1:]))),
        "trained": _duration(cells["train_seconds"].sum()),
    }


def _duration(seconds: float) -> str:
    """A time as a person says it."""
    for unit, size in (("hours", 3600), ("minutes", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.0f} seconds"


def _chip(name: str) -> Json:
    """Colour and marker of an estimator, as an outline on (−1, 1)²."""
    style = MarkerStyle(marker(name))
    outline = style.get_path().transformed(style.get_transform())
    size = float(np.abs(np.asarray(outline.vertices)).max()) or 1.0
    own = colour(name)
    return {
        "colour": to_hex(own),
        "bright": brightened(own),
        "outline": _svg(outline, 0.8 / size),
    }


def _svg(outline: Outline, scale: float) -> str:
    """An outline as the `d` of an SVG path, whose y axis points down."""
    letters = {Outline.MOVETO: "M", Outline.LINETO: "L", Outline.CURVE3: "Q", Outline.CURVE4: "C"}
    parts = []
    for points, code in outline.iter_segments():
        pairs = [f"{x * scale:.3f} {-y * scale:.3f}" for x, y in points.reshape(-1, 2)]
        parts.append("Z" if code == Outline.CLOSEPOLY else letters[code] + " ".join(pairs))
    return "".join(parts)


def _leaders(task: Json, data: Json, count: int = 3) -> Json:
    """The best few estimators of a task by its score, with how many runs each lost.

    The floor is left out, and so is what lost a run, unless all did: the mean of its others
    flatters it.
    """
    score = task["score"]
    if score is None:
        return {"label": None, "best": []}
    label, fmt = COLUMNS[score]
    sign = -1 if data["metrics"][score]["better"] == "more" else 1
    means = {
        name: own[score][0]
        for name, own in task["final"].items()
        if name != FLOOR and own[score][0] is not None
    }
    lost = task["lost"]
    whole = [name for name in means if name not in lost]
    best = sorted(whole or means, key=lambda name: sign * means[name])[:count]
    return {
        "label": label,
        "best": [(name, format(means[name], fmt), lost.get(name, 0)) for name in best],
    }


def _summary(table: pd.DataFrame, task: str) -> Json:
    """A task's summary table as text, with what to sort by."""
    frame = summary(table, task)
    rows = [
        (str(name), [(str(cell), leading_number(str(cell))) for cell in cells])
        for name, *cells in frame.itertuples()
    ]
    return {"columns": list(frame.columns), "rows": rows}


def _unfinished(cells: pd.DataFrame) -> list[Json]:
    """Cells that gave no score, those of one reason together, skipped ones last."""
    cells = cells[cells["status"] != "ok"]
    cells = cells.assign(reason=cells["reason"].fillna("no reason given"))
    groups = cells.groupby(["task", "estimator", "status", "reason"], sort=True)["seed"]
    found = [
        {
            "task": task, "estimator": estimator, "status": status, "reason": reason,
            "seeds": ", ".join(str(seed) for seed in sorted(seeds)), "count": len(seeds),
        }
        for (task, estimator, status, reason), seeds in groups
    ]  # fmt: skip
    return sorted(found, key=lambda entry: entry["status"] == "skipped")


def _settings(cells: pd.DataFrame) -> Json:
    """Settings of a task: what all its cells share, and what is an estimator's own."""
    cells = cells.drop_duplicates(["estimator", "hyperparameters"])
    flat = [
        (str(estimator), _flat(settings_of(text)))
        for estimator, text in zip(cells["estimator"], cells["hyperparameters"], strict=True)
        if isinstance(text, str)
    ]
    shared = {
        name: value
        for name, value in (flat[0][1] if flat else {}).items()
        if all(name in other and other[name] == value for _, other in flat)
    }
    own: dict[str, dict[str, str]] = {}
    for estimator, values in flat:
        mine = own.setdefault(estimator, {})
        for name, value in values.items():
            if name not in shared:
                before = mine.get(name)
                mine[name] = value if before in (None, value) else f"{before} or {value}"
    return {"shared": shared, "own": dict(sorted(own.items(), key=lambda i: (i[0] == FLOOR, i[0])))}


def _flat(settings: dict[str, Any], prefix: str = "") -> dict[str, str]:
    """Nested settings as texts by dotted names."""
    out: dict[str, str] = {}
    for name, value in settings.items():
        if isinstance(value, dict):
            out |= _flat(value, f"{prefix}{name}.")
        else:
            out[prefix + name] = value if isinstance(value, str) else json.dumps(value)
    return out


def _origin(cells: pd.DataFrame) -> dict[str, list[tuple[str, int]]]:
    """The values of each column of `ORIGIN`, with the number of cells."""
    found: dict[str, list[tuple[str, int]]] = {}
    for column, label in ORIGIN.items():
        values = cells[column].dropna().astype(str) if column in cells else pd.Series(dtype=str)
        found[label] = [(str(value), int(n)) for value, n in values.value_counts().items()]
    if "dirty" in cells and cells["dirty"].eq(True).any():
        found["with changed files"] = [("yes", int(cells["dirty"].eq(True).sum()))]
    return {label: values for label, values in found.items() if values}
