"""Figures: what is drawn, read back from the axes."""

from pathlib import Path

import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.lines import AxLine
from matplotlib.text import Text

from analysis import figures
from analysis.figures import (
    colour,
    final_scores,
    heat_map,
    learning_against_calls,
    learning_against_seconds,
    learning_curves,
    linestyle,
    marker,
    rate_against_distortion,
    save_figures,
    save_row,
    score_against_calls,
    score_against_seconds,
    step_times,
    support_during_training,
)
from analysis.load import final_rows
from analysis.points import pareto_front
from analysis.style import FAMILIES, families, luminance, ordered
from tests.analysis.synthetic import cell, grid, table_of

KNOWN = [name for family in FAMILIES.values() for name in family]

DRAWS = [
    final_scores, learning_against_calls, learning_against_seconds, learning_curves,
    score_against_calls, score_against_seconds, step_times, support_during_training,
]  # fmt: skip


@pytest.fixture
def axes() -> Axes:
    return Figure().subplots()


@pytest.fixture
def table() -> pd.DataFrame:
    return grid(["game", "bitvector"], ["sfe", "sparsemax", "dense", "none"], 4)


@pytest.fixture
def four() -> pd.DataFrame:
    """With one more, without the floor, the fewest of which one can be off the scale."""
    scores = {"sfe": 0.40, "sparsemax": 0.44, "dense": 0.44, "sfe-ma": 0.48, "none": 0.5}
    return table_of(
        cell("bitvector", name, seed, score) for name, score in scores.items() for seed in range(3)
    )


def filled(axes: Axes) -> set[str]:
    """The colours of the markers that are not open."""
    return {
        str(line.get_markerfacecolor())
        for line in axes.lines
        if line.get_marker() not in ("None", "none", None) and line.get_markerfacecolor() != "white"
    }


def names(axes: Axes) -> list[str]:
    return [label.get_text() for label in axes.get_yticklabels()]


def test_all_known_estimators_have_a_colour_of_their_own_and_a_marker_in_their_family() -> None:
    assert len({colour(name) for name in KNOWN}) == len(KNOWN)
    for family in FAMILIES.values():
        assert len({marker(name) for name in family}) == len(family)


def test_those_of_other_packages_take_marker_colour_and_line_apart() -> None:
    others = [f"theirs-{place}" for place in range(5000)]
    looks = {(marker(name), colour(name), linestyle(name)) for name in others}
    assert len(looks) == 15 * 5 * 7
    assert {colour(name) for name in others}.isdisjoint(map(colour, KNOWN))


def test_a_family_can_be_told_apart_in_greyscale() -> None:
    for family in FAMILIES.values():
        grey = [float(np.dot([0.299, 0.587, 0.114], to_rgb(colour(name)))) for name in family]
        assert np.diff(grey).min() > 0.05
        assert len({linestyle(name) for name in family}) == len(family)


def test_every_registered_estimator_belongs_to_a_family() -> None:
    from estimators.registry import all_estimators

    assert set(all_estimators()) - {"none"} == set(KNOWN)
    assert families(["dense", "theirs", "none"])["other estimators"] == ["theirs"]
    assert ordered(["theirs", "dense", "sfe", "none"]) == ["sfe", "dense", "theirs"]


def test_final_scores_show_the_best_on_top_with_what_failed_below(
    table: pd.DataFrame, axes: Axes
) -> None:
    lost = [
        cell("game", "dense", 4, 0.1, status="diverged"),
        cell("game", "x", 0, 0, status="failed"),
    ]
    final_scores(pd.concat([table, table_of(lost)]), "game", axes)
    assert names(axes) == ["x (1 ✕)", "sfe", "sparsemax", "dense (1 ✕)"]
    final_scores(table, "bitvector", other := Figure().subplots())
    assert names(other)[-1] == "sfe"


def test_final_scores_draw_the_t_interval(table: pd.DataFrame, axes: Axes) -> None:
    final_scores(table, "game", axes)
    final = final_rows(table[table["task"] == "game"])
    own = final.loc[final["estimator"] == "sfe", "accuracy"]
    low, high = axes.lines[0].get_xdata()
    assert (low + high) / 2 == pytest.approx(own.mean())
    assert (high - low) / 2 == pytest.approx(3.182446 * own.std() / 2)


def test_a_score_far_from_all_others_does_not_hide_their_differences(
    four: pd.DataFrame, axes: Axes
) -> None:
    awful = table_of(cell("bitvector", "nvil", seed, 1e6) for seed in range(4))
    final_scores(pd.concat([four, awful]), "bitvector", axes)
    assert axes.get_xlim()[1] < 2
    assert "1000000" in [text.get_text() for text in axes.texts]


@pytest.mark.parametrize(("others", "score", "shown"), [
    (5, 0.99, True), (5, 0.1, False), (3, 0.1, True), (2, 0.9, True),
])  # fmt: skip
def test_the_best_and_few_estimators_are_never_off_the_scale(
    others: int, score: float, shown: bool, axes: Axes
) -> None:
    tied = [cell("game", name, seed, 0.8) for name in KNOWN[:others] for seed in range(3)]
    other = [cell("game", "dense", seed, score) for seed in range(3)]
    final_scores(table_of(tied + other), "game", axes)
    low, high = axes.get_xlim()
    assert bool(low < score < high) == shown
    assert len(axes.texts) == (0 if shown else 1)


def test_a_seed_beyond_the_edge_is_an_arrow(four: pd.DataFrame, axes: Axes) -> None:
    scores = [0.5, 0.5, 0.5, 0.85]  # their mean is near the others', the last is not
    wide = table_of(cell("bitvector", "nvil", seed, score) for seed, score in enumerate(scores))
    final_scores(pd.concat([four, wide]), "bitvector", axes)
    right = axes.get_xlim()[1]
    assert right < 0.85
    interval, seed = (line for line in axes.lines if line.get_marker() in ("<", ">"))
    assert interval.get_xdata() == seed.get_xdata() == [right]
    assert interval.get_markerfacecolor() == "white"
    assert seed.get_markerfacecolor() == colour("nvil")


def test_an_interval_that_goes_on_beyond_the_edge_has_an_open_arrow(
    four: pd.DataFrame, axes: Axes
) -> None:
    """With no seed beyond, and at the one end that is."""
    scores = [0.43, 0.55, 0.67]
    wide = table_of(cell("bitvector", "nvil", seed, score) for seed, score in enumerate(scores))
    final_scores(pd.concat([four, wide]), "bitvector", axes)
    (arrow,) = (line for line in axes.lines if line.get_marker() in ("<", ">"))
    assert arrow.get_xdata() == [axes.get_xlim()[1]]
    assert arrow.get_markerfacecolor() == "white"


def test_the_pareto_front_is_what_nothing_beats() -> None:
    cost = pd.Series({"cheap": 1.0, "twin": 1.0, "good": 4.0, "dear": 9.0, "best": 10.0})
    gain = pd.Series({"cheap": 0.5, "twin": 0.5, "good": 0.8, "dear": 0.7, "best": 0.9})
    assert pareto_front(cost, gain) == ["cheap", "twin", "good", "best"]


def test_the_front_takes_less_for_better_where_the_score_is_a_cost(axes: Axes) -> None:
    cells = [("dense", 64, 2.0), ("rloo", 4, 2.1), ("sfe", 1, 3.0), ("nvil", 5, 2.5)]
    table = table_of(cell("bitvector", name, 0, bits, calls) for name, calls, bits in cells)
    score_against_calls(table, "bitvector", axes)
    assert filled(axes) == {colour("dense"), colour("rloo"), colour("sfe")}


def test_legends_show_open_markers_whatever_the_last_panel_fills(axes: Axes) -> None:
    score_against_calls(table_of([cell("game", "sfe", 0, 0.5)]), "game", axes)
    assert filled(axes) == {colour("sfe")}
    ((bar,), labels) = axes.get_legend_handles_labels()
    assert labels == ["sfe"]
    assert bar.lines[0].get_markerfacecolor() == "white"


@pytest.mark.parametrize("draw", [score_against_calls, score_against_seconds])
def test_what_lost_a_run_is_not_on_the_front(draw: figures.Draw, axes: Axes) -> None:
    cells = [cell("game", "sfe", s, score) for s, score in enumerate([0.4, 0.6])]
    cells += [cell("game", "gumbel", 0, 0.9), cell("game", "gumbel", 1, 0, status="diverged")]
    draw(table_of(cells), "game", axes)
    assert filled(axes) == {colour("sfe")}
    assert [text.get_text() for text in axes.texts] == ["1 ✕"]
    (front,) = (line for line in axes.lines if line.get_drawstyle() == "steps-post")
    assert list(front.get_ydata()) == [0.5]
    _, up = axes.containers[0].lines[2]
    assert up.get_segments()[0][:, 1] == pytest.approx([0.4, 0.6])  # 0.1 is the standard error


def test_costs_have_a_standard_error_too(axes: Axes) -> None:
    cells = [cell("game", "sfe", seed, 0.5, calls) for seed, calls in enumerate([4.0, 6.0])]
    score_against_calls(table_of(cells), "game", axes)
    across, _ = axes.containers[0].lines[2]
    assert across.get_segments()[0][:, 0] == pytest.approx([4, 6])  # 1 is the standard error


def test_rate_and_distortion_are_means(axes: Axes) -> None:
    cells = [cell("bitvector", "sfe", seed, rate) for seed, rate in enumerate([1.0, 3.0])]
    table = table_of([*cells, cell("bitvector", "sfe", 2, 9.0, status="diverged")])
    rate_against_distortion(table, "bitvector", axes)
    assert axes.texts[0].get_text() == "1 ✕"
    (bar,) = axes.containers
    assert (bar.lines[0].get_xdata()[0], bar.lines[0].get_ydata()[0]) == (2.0, 12.0)
    across, up = (part.get_segments()[0] for part in bar.lines[2])
    assert across == pytest.approx(np.array([[1, 12], [3, 12]]))  # 1 is the standard error
    assert up == pytest.approx(np.array([[2, 11], [2, 13]]))


def test_the_grey_lines_have_equal_elbo_and_its_value(table: pd.DataFrame, axes: Axes) -> None:
    rate_against_distortion(table, "bitvector", axes)
    lines = [line for line in axes.lines if isinstance(line, AxLine)]
    assert {line.get_slope() for line in lines} == {-1}
    axes.figure.draw_without_rendering()
    (left, right), (bottom, top) = axes.get_xlim(), axes.get_ylim()
    totals = [line.get_xy1()[1] for line in lines]
    inside = [total for total in totals if left + bottom < total < right + top]
    at_bottom = [-float(text.get_text().replace("−", "-")) for text in axes.texts]
    (edge,) = axes.child_axes
    assert sorted([*at_bottom, *-edge.get_yticks()]) == pytest.approx(inside)
    for text, total in zip(axes.texts, at_bottom, strict=True):
        assert text.xy == pytest.approx((total - bottom, bottom))
    for tick in edge.get_yticks():
        height = edge.transData.transform((0, tick))[1]
        assert height == pytest.approx(axes.transData.transform((0, -tick - right))[1])


def test_the_rate_of_the_floor_has_its_name_and_unit(table: pd.DataFrame, axes: Axes) -> None:
    table.loc[table["estimator"] == "none", ["rate", "distortion"]] = 0.01, 131.94
    rate_against_distortion(table, "bitvector", axes)
    assert axes.get_title() == "bitvector\nnone: rate 0.01, distortion 131.9 nats"


def test_step_times_are_of_cells_under_equal_circumstances(axes: Axes) -> None:
    """Two of three ran alone; the other had company and was slower, and is another estimator's."""
    cells = [
        cell("game", "sfe", 0, 0.4),
        cell("game", "dense", 0, 0.4),
        cell("game", "sfe", 1, 0.4),
    ]
    for row in cells[2]:
        row |= {"cells_beside": 3, "train_seconds": 100.0}
    step_times(table_of(cells), "game", axes)
    means = [float(line.get_xdata()[0]) for line in axes.lines if line.get_marker() != "."]
    assert means == pytest.approx([300.0, 300.0])
    assert "2 of 3 cells: 1 cells beside" in axes.get_title()
    score_against_seconds(table_of(cells), "game", other := Figure().subplots())
    assert "2 of 3 cells" in other.get_title()


def test_the_heat_map_has_every_mean_and_what_is_missing(axes: Axes, table: pd.DataFrame) -> None:
    lost = [cell("game", "sfe", 4, 0, status="failed"), cell("game", "x", 0, 0, status="failed")]
    heat_map(pd.concat([table, table_of(lost)]), axes)
    assert names(axes) == ["sfe", "dense", "sparsemax", "x", "none"]
    final = table[(table["split"] == "test") & (table["estimator"] == "sfe")]
    texts = [text.get_text() for text in axes.texts]
    assert f"{final['nll'].mean():.3f}" in texts
    assert f"{final['accuracy'].mean():.3f} 1 ✕" in texts
    assert " 1 ✕" in texts
    shades = axes.collections[0].get_array().compressed()
    assert sum(bool(area.get_hatch()) for area in axes.collections[1:]) == 2
    assert (shades.min(), shades.max()) == pytest.approx((0, 1))


def test_names_of_a_small_heat_map_are_upright_and_a_mean_alone_is_not_the_worst(
    table: pd.DataFrame, axes: Axes
) -> None:
    heat_map(table[table["estimator"] == "sfe"], axes)
    (label,) = axes.get_yticklabels()
    assert (label.get_text(), label.get_rotation()) == ("sfe", 0)
    assert [mesh.get_array().count() for mesh in axes.collections] == [0]  # and no hatches
    assert len(axes.figure.axes) == 1


def test_texts_of_the_heat_map_can_be_read_on_their_colours(axes: Axes) -> None:
    heat_map(grid(["game"], KNOWN, 2), axes)
    axes.figure.draw_without_rendering()
    shades = axes.collections[0].get_facecolors()
    assert len(shades) == len(axes.texts) == len(KNOWN)
    for shade, text in zip(shades, axes.texts, strict=True):
        lights = sorted((luminance(shade), luminance(text.get_color())))
        assert (lights[1] + 0.05) / (lights[0] + 0.05) > 4.5


@pytest.mark.parametrize("draw", DRAWS, ids=lambda draw: draw.__name__)
@pytest.mark.parametrize("spoilt", ["one seed", "no scores", "failed", "unknown", "infinite"])
def test_whatever_is_there_can_be_drawn(draw: figures.Draw, spoilt: str, axes: Axes) -> None:
    seeds = 1 if spoilt == "one seed" else 3
    estimator = "theirs" if spoilt == "unknown" else "sfe"
    score = {"no scores": np.nan, "infinite": np.inf}.get(spoilt, 0.5)
    status = "failed" if spoilt == "failed" else "ok"
    draw(
        table_of(cell("game", estimator, s, score, status=status) for s in range(seeds)),
        "game",
        axes,
    )
    axes.figure.draw_without_rendering()


def test_many_estimators_are_drawn_in_a_row_of_panels_for_each_family(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn: list[Figure] = []
    monkeypatch.setattr(figures, "save_figure", lambda figure, stem: drawn.append(figure) or stem)
    table = grid(["game"], [*KNOWN, "theirs", "none"], 1)
    paths = save_figures(table, tmp_path)
    panels = dict(zip([path.name for path in paths], drawn, strict=True))["learning_curves"]
    titles = [a.get_legend().get_title().get_text() for a in panels.axes if a.get_legend()]
    assert titles == [*FAMILIES, "other estimators"]
    few = save_figures(table[table["estimator"].isin(["sfe", "dense"])], tmp_path)
    assert len(few) == len(paths)
    assert len(drawn[-1].axes) == 1


def test_a_legend_of_many_estimators_is_drawn_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn: list[Figure] = []
    monkeypatch.setattr(figures, "save_figure", lambda figure, stem: drawn.append(figure) or stem)
    table = grid(["game"], [*(f"theirs-{place}" for place in range(20)), "sfe"], 1)
    figures.save_row(table, ["game"], score_against_calls, tmp_path)
    figures._save_curves(table, ["game"], learning_curves, tmp_path)
    for figure in drawn:
        figure.draw_without_rendering()
        legends = [*figure.legends, *filter(None, (one.get_legend() for one in figure.axes))]
        assert len(legends[-1].get_texts()) > 19
        for legend in legends:
            box = legend.get_window_extent()
            assert 0 <= box.y0 < box.y1 <= figure.bbox.height
    others = table[table["estimator"] != "sfe"]
    tasks = pd.concat([others, others.assign(task="again", key="again" + others["key"])])
    figures.save_row(tasks, ["again", "game"], score_against_calls, tmp_path)
    drawn[-1].draw_without_rendering()
    assert drawn[-1].axes[0].get_window_extent().height > drawn[-1].dpi


@pytest.mark.parametrize("length", [24, 32, 60])
def test_long_names_have_room(length: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[Figure] = []
    monkeypatch.setattr(figures, "save_figure", lambda figure, stem: drawn.append(figure) or stem)
    theirs = [f"theirs-{'long-wide-name-' * 5}"[: length - 1] + str(place) for place in range(4)]
    save_figures(grid(["bitvector"], ["sfe", "dense", "rloo", *theirs], 2), tmp_path)
    save_figures(grid(["bitvector", "game"], ["sfe", *theirs], 2), tmp_path)
    for figure in drawn:
        figure.draw_without_rendering()
        legends = [*figure.legends, *filter(None, (axes.get_legend() for axes in figure.axes))]
        labels = [label for axes in figure.axes for label in axes.get_yticklabels()]
        for part in [*legends, *labels, *(text for one in legends for text in one.get_texts())]:
            box = part.get_window_extent()
            assert 0 <= box.x0 <= box.x1 <= figure.bbox.width
            assert not isinstance(part, Text) or len(part.get_text()) <= 32
        assert figure.axes[0].get_window_extent().width > 1.4 * figure.dpi


def test_figures_depend_on_no_setting_of_the_users(
    table: pd.DataFrame, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(figures, "SUFFIXES", (".png",))
    monkeypatch.setitem(figures.STYLE, "savefig.dpi", 20)
    theirs = {
        "text.usetex": True, "font.family": "no such font", "text.color": "white",
        "axes.titlecolor": "white", "savefig.facecolor": "black", "savefig.bbox": "tight",
    }  # fmt: skip
    one = table[table["task"] == "game"]

    def pictures() -> list[bytes]:
        save_row(one, ["game"], final_scores, tmp_path)
        figures._save_heat_map(one, tmp_path)
        figures._save_curves(one, ["game"], learning_curves, tmp_path)
        return [path.read_bytes() for path in sorted(tmp_path.glob("**/*.png"))]

    ours = pictures()
    with mpl.rc_context(theirs):
        assert pictures() == ours
    assert len(ours) == 3
