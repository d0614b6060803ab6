"""Tables and figures of gradient quality."""

from pathlib import Path

import pandas as pd
from matplotlib.axes import Axes

from analysis.figures import colour, marker, save_row
from analysis.load import load_gradients
from analysis.tables import markdown

GROUP = "encoder"
"""The group of parameters that the figures show, unless told otherwise."""


def default_knob(table: pd.DataFrame) -> pd.DataFrame:
    """The rows of each estimator at the first value of its knob that was measured."""
    first = table.groupby(["task", "estimator"])["knob_value"].transform("min")
    return table[table["knob_value"].isna() | (table["knob_value"] == first)]


def relative(table: pd.DataFrame) -> pd.DataFrame:
    """The table with bias, its bounds, variance and distance as shares of the exact gradient.

    Biases are relative to its norm, variances and mean squared errors to its square.
    """
    out = table.copy()
    norm = table["exact_norm"].where(table["exact_norm"] > 0)
    for name in ("bias", "bias_low", "bias_high"):
        out[name] = table[name] / norm
    for name in ("variance", "mean_squared_error"):
        out[name] = table[name] / norm**2
    out["objective_distance"] = table["objective_distance"] / table["plain_norm"]
    return out


def variance_against_calls(table: pd.DataFrame, task: str, axes: Axes, group: str = GROUP) -> None:
    """Variance of a single estimate, relative to the exact gradient, against decoder calls.

    At the last checkpoint, means over seeds; a line joins the values of an estimator's knob.
    Estimates without variance are drawn at the bottom.
    """
    rows = _last(relative(table), task, group)
    means = rows.groupby(["estimator", "knob_value"], dropna=False)[["decoder_calls", "variance"]]
    points = means.mean().reset_index()
    positive = points.loc[points["variance"] > 1e-12, "variance"]
    bottom = positive.min() / 10 if len(positive) else 1.0
    for name, own in points.groupby("estimator"):
        own = own.sort_values("decoder_calls")
        axes.plot(
            own["decoder_calls"], own["variance"].clip(lower=bottom), color=colour(str(name)),
            marker=marker(str(name)), linewidth=0.8, markersize=4, label=name,
        )  # fmt: skip
    axes.set(xscale="log", yscale="log", xlabel="decoder calls for each example", title=task)
    axes.set_ylabel("variance / ‖exact gradient‖²")
    axes.axhline(bottom, color="grey", linestyle=":", linewidth=0.8)


def bias_against_variance(table: pd.DataFrame, task: str, axes: Axes, group: str = GROUP) -> None:
    """Relative bias with its interval against relative variance, at the last checkpoint.

    An interval that reaches down to zero is drawn from the bottom: no bias was found.
    """
    rows = _last(relative(default_knob(table)), task, group)
    means = rows.groupby("estimator")[["bias", "bias_low", "bias_high", "variance"]].mean()
    noisy = means[means["variance"] > 1e-12]
    bottom = 1e-3
    for name, row in noisy.iterrows():
        low, high = max(bottom, row["bias_low"]), max(bottom, row["bias_high"])
        axes.plot([row["variance"]] * 2, [low, high], color=colour(str(name)), linewidth=1)
        axes.plot(
            row["variance"], max(bottom, row["bias"]), color=colour(str(name)),
            marker=marker(str(name)), linestyle="none", markersize=4, label=name,
        )  # fmt: skip
    axes.set(xscale="log", yscale="log", xlabel="variance / ‖exact gradient‖²", title=task)
    axes.set_ylabel("‖bias‖ / ‖exact gradient‖")


def along_training(table: pd.DataFrame, task: str, axes: Axes, group: str = GROUP) -> None:
    """Root mean squared error of a single estimate, relative to the exact gradient, by step."""
    rows = relative(default_knob(table))
    rows = rows[(rows["task"] == task) & (rows["group"] == group) & (rows["status"] == "ok")]
    for name, own in rows.groupby("estimator"):
        curve = own.groupby("step")["mean_squared_error"].mean() ** 0.5
        curve = curve[curve > 1e-6]
        axes.plot(
            curve.index, curve, color=colour(str(name)), marker=marker(str(name)), linewidth=0.8,
            markersize=3, label=name if len(curve) else None,
        )  # fmt: skip
    axes.set(xscale="symlog", yscale="log", xlabel="training step", title=task)
    axes.set_ylabel("root mean squared error / ‖exact gradient‖")


def knob_effects(table: pd.DataFrame, task: str, axes: Axes, group: str = GROUP) -> None:
    """Mean squared error of a single estimate against the knob, at the last checkpoint."""
    rows = _last(relative(table), task, group)
    rows = rows[rows["knob_value"].notna() & (rows["mean_squared_error"] > 1e-12)]
    for name, own in rows.groupby("estimator"):
        curve = own.groupby("knob_value")["mean_squared_error"].mean()
        axes.plot(
            curve.index, curve, color=colour(str(name)), marker=marker(str(name)), linewidth=0.8,
            markersize=4, label=f"{name} ({own['knob'].iloc[0]})",
        )  # fmt: skip
    axes.set(xscale="log", yscale="log", xlabel="value of the knob", title=task)
    axes.set_ylabel("mean squared error / ‖exact gradient‖²")


def quality_table(table: pd.DataFrame, task: str, group: str = GROUP) -> pd.DataFrame:
    """The last checkpoint in numbers: a row for each estimator and value of its knob."""
    rows = _last(relative(table), task, group)
    lines: dict[str, dict[str, str]] = {}
    for (name, knob, value), own in rows.groupby(["estimator", "knob", "knob_value"], dropna=False):
        mean = own.mean(numeric_only=True)
        label = str(name) if knob is None or knob != knob else f"{name}, {knob} = {value:g}"
        found = mean["bias_low"] > 0
        bias = f"{mean['bias']:.3f}" if found else f"< {mean['bias_high']:.2g}"
        exact = mean["variance"] < 1e-12
        lines[label] = {
            "bias": "0" if exact and mean["bias_high"] < 1e-6 else bias,
            "cosine": f"{mean['cosine']:.3f}",
            "variance": "0" if exact else f"{mean['variance']:.3g}",
            "variance × calls": "0" if exact else f"{mean['variance'] * mean['decoder_calls']:.3g}",
            "decoder calls": f"{mean['decoder_calls']:.1f}",
            "ms": f"{1e3 * mean['seconds']:.1f}",
            "objective's distance": f"{mean['objective_distance']:.2f}",
            "draws": f"{mean['draws']:.0f}",
        }
    return pd.DataFrame.from_dict(lines, orient="index")


def write_gradient_report(folder: Path) -> list[Path]:
    """Write `report.md` and `figures/` into a folder of gradient measurements.

    Raises:
        ResultsError: the folder can't be read.
    """
    table = load_gradients(folder)
    measured = table[table["status"] == "ok"]
    tasks = sorted(measured["task"].unique())
    draws = (variance_against_calls, bias_against_variance, along_training, knob_effects)
    figures = [save_row(measured, tasks, draw, folder / "figures") for draw in draws if tasks]
    parts = [f"# {folder.name}", f"Gradients of the {GROUP}'s parameters at the last checkpoint."]
    for task in tasks:
        parts += [f"## {task}", markdown(quality_table(measured, task), task)]
    failed = table[~table["status"].isin(["ok", "skipped"])].drop_duplicates("key")
    parts += [
        f"- {r.task} {r.estimator} {r.seed}: {r.status}: {r.reason}" for r in failed.itertuples()
    ]
    parts += [f"![{path.stem}](figures/{path.name})" for path in figures]
    path = folder / "report.md"
    path.write_text("\n\n".join(parts) + "\n")
    return [path, *figures]


def _last(table: pd.DataFrame, task: str, group: str) -> pd.DataFrame:
    """One task's rows of a group at the last checkpoint."""
    rows = table[(table["task"] == task) & (table["group"] == group) & (table["status"] == "ok")]
    return rows[rows["share"] == rows["share"].max()]
