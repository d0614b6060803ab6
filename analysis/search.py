"""Tables and figures of a search for hyper-parameters, from its table of trials.

How much an estimator gains from its search, and how many trials that takes, is a result about the
estimator.
"""

from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import NullFormatter
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
    json_to_distribution,
)

from analysis.figures import save_figure, save_row
from analysis.files import write_whole
from analysis.scores import LESS_IS_BETTER
from analysis.stored import ResultsError
from analysis.style import colour, linestyle, marker, own_style
from analysis.tables import markdown
from analysis.texts import in_markdown
from analysis.trials import load_trials


def best_so_far(trials: pd.DataFrame) -> np.ndarray[Any, np.dtype[np.float64]]:
    """The best value up to each place of one study; NaN before the first complete trial."""
    values = trials.sort_values("place")["value"]
    best = values.cummin() if trials["less_is_better"].iloc[0] else values.cummax()
    return best.ffill().to_numpy(dtype=np.float64)


def expected_best(trials: pd.DataFrame) -> np.ndarray[Any, np.dtype[np.float64]]:
    """The expected best value of k trials drawn from those of one study, for k = 1 to n.

    Drawn without replacement, so that its last number is the best of all: the i-th of n values from
    the worst is the best of k with probability C(i − 1, k − 1) / C(n, k) (after Dodge et al. 2019,
    section 3, who draw with replacement). Trials that were pruned or failed count as the worst
    value that was reached. NaN where no trial is complete.
    """
    less = bool(trials["less_is_better"].iloc[0])
    signed = trials["value"].to_numpy(dtype=np.float64) * (-1 if less else 1)
    worst = np.nanmin(signed) if np.isfinite(signed).any() else np.nan
    ranked = np.sort(np.where(np.isnan(signed), worst, signed))
    n = len(ranked)
    means = np.empty(n)
    for k in range(1, n + 1):
        i = np.arange(n, k, -1)  # from k / n for the best, each share by its ratio to the next
        shares = k / n * np.cumprod([1, *((i - k) / (i - 1))])
        means[k - 1] = shares @ ranked[: k - 2 : -1] if k > 1 else shares @ ranked[::-1]
    return means * (-1 if less else 1)


def importances(trials: pd.DataFrame) -> dict[str, float]:
    """Share of each parameter in the variance of one study's values (fANOVA, Hutter et al. 2014).

    Empty where fewer than four trials are complete, or all have the same value.
    """
    complete = trials[trials["state"] == "complete"].sort_values("place")
    if len(complete) < 4 or complete["value"].nunique() < 2:
        return {}
    space = {n: json_to_distribution(d) for n, d in complete["space"].iloc[0].items()}
    if len(space) == 1:
        return dict.fromkeys(space, 1.0)
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    study = optuna.create_study()
    study.add_trials(
        [
            optuna.trial.create_trial(params=p, distributions=space, value=v)
            for p, v in zip(complete["parameters"], complete["value"], strict=True)
        ]
    )
    evaluator = optuna.importance.FanovaImportanceEvaluator(seed=0)
    return dict(optuna.importance.get_param_importances(study, evaluator=evaluator))


def sensitivity(table: pd.DataFrame, task: str) -> pd.DataFrame:
    """What the search of each estimator came to: a row for each, best first."""
    rows: dict[str, dict[str, str]] = {}
    here = table[table["task"] == task]
    less = bool(here["less_is_better"].iloc[0])
    order = here.groupby("estimator")["value"].agg("min" if less else "max")
    for name in order.sort_values(ascending=less, na_position="last").index:
        own = here[here["estimator"] == name]
        values, start = own["value"].dropna(), own.loc[own["place"] == 0, "value"].dropna()
        best = own.loc[values.idxmin() if less else values.idxmax()] if len(values) else None
        rows[str(name)] = {
            "trials": _counts(own["state"]),
            "start": f"{start.iloc[0]:.4g}" if len(start) else "",
            "best": "" if best is None else f"{best['value']:.4g}",
            "median": f"{values.median():.4g}" if len(values) else "",
            "worst": f"{values.max() if less else values.min():.4g}" if len(values) else "",
            "best settings": "" if best is None else settings_text(best["parameters"]),
            "training (s)": f"{own['train_seconds'].sum():.0f}",
        }
    return pd.DataFrame.from_dict(rows, orient="index")


def _counts(states: pd.Series) -> str:
    """How many trials there are, and how many of them did not end well: "20 (6 pruned)"."""
    others = states[states != "complete"].value_counts()
    lost = ", ".join(f"{count} {state}" for state, count in others.items())
    return f"{len(states)} ({lost})" if lost else str(len(states))


def settings_text(parameters: dict[str, Any]) -> str:
    """A trial's settings as "learning_rate=0.003 decay=0.9"."""
    short = {name.partition(".")[2]: value for name, value in parameters.items()}
    return " ".join(
        f"{name}={value:.3g}" if isinstance(value, float) else f"{name}={value}"
        for name, value in short.items()
    )


def front(trials: pd.DataFrame) -> pd.DataFrame:
    """The complete trials of one task that no other of it is at least as good as in everything."""
    complete = trials[trials["state"] == "complete"]
    names = complete["objectives"].iloc[0] if len(complete) else []
    signs = np.array([1 if name in LESS_IS_BETTER else -1 for name in names])
    values = np.array(complete["values"].tolist()).reshape(len(complete), len(names)) * signs
    no_worse = (values[:, None] <= values[None]).all(axis=2)
    better = (values[:, None] < values[None]).any(axis=2)
    kept = complete[~(no_worse & better).any(axis=0)]
    columns: dict[str, Any] = {"estimator": kept["estimator"]}
    for place, name in enumerate(names):
        columns[name] = [f"{values[place]:.4g}" for values in kept["values"]]
    columns["settings"] = kept["parameters"].map(settings_text)
    order = kept["values"].map(lambda values: values[-1]).sort_values().index
    return pd.DataFrame(columns).loc[order].set_index("estimator")


def history(table: pd.DataFrame, task: str, axes: Axes) -> None:
    """Best value so far against the number of trials, for each estimator."""
    _curves(table, task, axes, best_so_far)
    axes.set(xlabel="trials", title=task)


def expected_best_curves(table: pd.DataFrame, task: str, axes: Axes) -> None:
    """Expected best value against the number of trials: how much tuning an estimator needs."""
    _curves(table, task, axes, expected_best)
    axes.set(xlabel="trials", title=task)


def _curves(table: pd.DataFrame, task: str, axes: Axes, curve_of: Any) -> None:
    here = table[table["task"] == task]
    for name, own in here.groupby("estimator"):
        curve = curve_of(own)
        axes.plot(
            np.arange(1, len(curve) + 1), curve, color=colour(str(name)), marker=marker(str(name)),
            linestyle=linestyle(str(name)), linewidth=1, markersize=3, label=name,
        )  # fmt: skip
    axes.set_ylabel(f"{here['objectives'].iloc[0][0]} on validation")


def parameter_importances(table: pd.DataFrame, task: str, axes: Axes) -> None:
    """Share of each parameter in the variance of the values, estimator by parameter."""
    here = table[table["task"] == task]
    shares = {str(name): importances(own) for name, own in here.groupby("estimator")}
    frame = pd.DataFrame.from_dict(shares, orient="index").sort_index(axis=1)
    axes.set(title=task)
    if frame.empty:
        axes.text(0.5, 0.5, "too few complete trials", ha="center", transform=axes.transAxes)
        return
    frame.columns = [name.partition(".")[2] for name in frame.columns]
    axes.imshow(frame.to_numpy(dtype=np.float64), cmap="Blues", vmin=0, vmax=1, aspect="auto")
    axes.set_xticks(range(frame.shape[1]), frame.columns, rotation=30, ha="right")
    axes.set_yticks(range(frame.shape[0]), frame.index)
    for (i, j), share in np.ndenumerate(frame.to_numpy(dtype=np.float64)):
        if np.isfinite(share):
            dark = share > 0.6
            axes.text(j, i, f"{share:.2f}", ha="center", va="center", color="w" if dark else "k")


def slice_plot(trials: pd.DataFrame, parameter: str, axes: Axes) -> None:
    """Values of one study's complete trials against one parameter; the start is ringed."""
    rows = trials[
        (trials["state"] == "complete") & trials["parameters"].map(lambda p: parameter in p)
    ]
    name = str(trials["estimator"].iloc[0])
    at = rows["parameters"].map(lambda p: p[parameter])
    axes.scatter(at, rows["value"], color=colour(name), marker=marker(name), s=12)
    start = rows["place"] == 0
    axes.scatter(at[start], rows.loc[start, "value"], s=60, facecolors="none", edgecolors="k")
    among = json_to_distribution(trials["space"].iloc[0][parameter])
    if isinstance(among, (FloatDistribution, IntDistribution)):
        axes.set(xscale="log" if among.log else "linear", xlim=(among.low, among.high))
        axes.xaxis.set_minor_formatter(NullFormatter())
    axes.set_xlabel(parameter.partition(".")[2])


def parallel_plot(trials: pd.DataFrame, axes: Axes) -> None:
    """One study's trials as lines through its parameters, the better the darker.

    Each axis goes from the parameter's lowest to its highest value, by its own scale. Trials that
    are not complete are dotted.
    """
    space = {n: json_to_distribution(d) for n, d in sorted(trials["space"].iloc[0].items())}
    ranks = trials["value"].rank(pct=True, ascending=not trials["less_is_better"].iloc[0])
    for (_, trial), rank in zip(trials.iterrows(), ranks, strict=True):
        heights = [_height(space[name], trial["parameters"].get(name)) for name in space]
        done = trial["state"] == "complete"
        axes.plot(
            heights, color=str(0.85 * (1 - rank)) if done else "0.6", linewidth=1,
            linestyle="-" if done else ":",
        )  # fmt: skip
    names = [name.partition(".")[2] for name in space]
    axes.set_xticks(range(len(space)), names, rotation=20, ha="right")
    axes.set_yticks([0, 1], ["low", "high"])
    axes.set_title(trials["estimator"].iloc[0])


def _height(among: BaseDistribution, value: Any) -> float:
    """Where a parameter's value stands between its lowest, 0, and its highest, 1."""
    if value is None:
        return np.nan
    if isinstance(among, CategoricalDistribution):
        return among.choices.index(value) / max(1, len(among.choices) - 1)
    assert isinstance(among, (FloatDistribution, IntDistribution))
    low, high = np.log([among.low, among.high]) if among.log else (among.low, among.high)
    return float(((np.log(value) if among.log else value) - low) / ((high - low) or 1.0))


def write_search_report(folder: Path) -> list[Path]:
    """Write `search.md` and `figures/` into the folder of a search; the paths of what was written.

    Raises:
        ResultsError: the folder can't be read, or holds no trial that has ended.
    """
    table = load_trials(folder)
    if table.empty:
        raise ResultsError(f"{folder} holds a search of which no trial has ended yet")
    scored = table[table["value"].notna()]
    tasks = sorted(scored["task"].unique())
    draws = (history, expected_best_curves, parameter_importances)
    figures = [save_row(table, tasks, draw, folder / "figures") for draw in draws if tasks]
    for task in tasks:
        studies = [own for _, own in scored[scored["task"] == task].groupby("estimator")]
        figures.append(_save_slices(studies, folder / "figures" / f"slices-{task}"))
        here = table[(table["task"] == task) & table["study"].isin(scored["study"])]
        wide = here[here["space"].map(len) > 2]
        several = [own for _, own in wide.groupby("estimator")]
        if several:
            figures.append(_save_parallel(several, folder / "figures" / f"parallel-{task}"))
    parts = [f"# {in_markdown(folder.name)}", _how(table)]
    for task in sorted(table["task"].unique()):
        here = table[table["task"] == task]
        parts += [f"## {task}", markdown(sensitivity(table, task), task)]
        if len(here["objectives"].iloc[0]) > 1:
            parts += ["No other trial is at least as good in everything:"]
            parts += [markdown(front(here), "estimator")]
    bad = table[(table["state"] == "failed") | table["reason"].str.startswith("diverged", na=False)]
    parts += [
        "\n".join(
            f"- {in_markdown(f'{r.study} trial {r.place}: {r.reason}')}" for r in bad.itertuples()
        )
    ]
    parts += [f"![{path.stem}](figures/{path.name})" for path in figures]
    path = folder / "search.md"
    write_whole(path, "\n\n".join(filter(None, parts)) + "\n")
    return [path, *figures]


def _how(table: pd.DataFrame) -> str:
    """How the trials were made, in a sentence."""
    sampler, pruner, seeds, command = (
        " or ".join(sorted(map(str, table[name].unique())))
        for name in ("sampler", "pruner", "seeds", "command")
    )
    return (
        f"Each pair's trials: sampler {sampler}, pruner {pruner}, {seeds} seed(s) a trial, none of "
        f"them the benchmark's; values are on validation data. Made by `{command}`. The best of "
        "many noisy values is too good: compare on test, with other seeds."
    )


def _save_slices(studies: list[pd.DataFrame], stem: Path) -> Path:
    """A row for each estimator, a column for each of its parameters."""
    columns = max(len(own["space"].iloc[0]) for own in studies)
    with own_style():
        figure = Figure(figsize=(2 * columns, 1.5 * len(studies)), layout="constrained")
        grid = figure.subplots(len(studies), columns, squeeze=False)
        for row, own in zip(grid, studies, strict=True):
            space = sorted(own["space"].iloc[0])
            for axes, parameter in zip(row, space, strict=False):
                slice_plot(own, parameter, axes)
            for axes in row[len(space) :]:
                axes.set_axis_off()
            row[0].set_ylabel(own["estimator"].iloc[0])
        return save_figure(figure, stem)


def _save_parallel(studies: list[pd.DataFrame], stem: Path) -> Path:
    """An axes for each estimator."""
    with own_style():
        figure = Figure(figsize=(3.4, 1.8 * len(studies)), layout="constrained")
        for axes, own in zip(figure.subplots(len(studies), 1, squeeze=False), studies, strict=True):
            parallel_plot(own, axes[0])
        return save_figure(figure, stem)
