"""The HTML page: what is in it, without a browser."""

import json
import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from analysis import page_data
from analysis.page import write_page
from analysis.page_data import SYMBOLS, leading_number, rounded
from analysis.style import _MARKERS
from tests.analysis.pages import BAD, HOSTILE, cell, hostile, ordinary, table_of


class Reader(HTMLParser):
    """Every element's name, and the text of scripts by their id."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.names: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.data = ""
        self._inside = False
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.names.append(tag)
        self.attributes += attrs
        self._inside = ("id", "data") in attrs

    def handle_data(self, data: str) -> None:
        self.data += data if self._inside else ""


def page_of(table: pd.DataFrame, folder: Path) -> Reader:
    return Reader(write_page(folder, table, [], {}).read_text())


def test_the_data_is_json_whatever_the_texts_are(tmp_path: Path) -> None:
    page = page_of(hostile(), tmp_path)
    assert HOSTILE in json.loads(page.data)["tasks"]
    assert page.names.count("script") == 4
    assert "img" not in page.names
    plain = page_of(ordinary(), tmp_path)
    assert page.names.count("script") == plain.names.count("script")


def test_nothing_is_fetched(tmp_path: Path) -> None:
    page = page_of(ordinary(), tmp_path)
    fetched = [(name, value or "") for name, value in page.attributes if name in ("src", "href")]
    assert not [value for _, value in fetched if not value.startswith("data:")]
    assert any(
        name == "content" and (value or "").startswith("default-src 'none'")
        for name, value in page.attributes
    )


def test_means_errors_and_runs_are_those_of_the_rows(tmp_path: Path) -> None:
    images = page_data.page_data(ordinary(), tmp_path)["tasks"]["images"]
    assert images["final"]["sfe"]["accuracy"] == [0.41, 0.01, 2]
    assert images["means"]["sfe"]["accuracy"] == [0, 0.205, 0.41]
    assert images["means"]["sfe"]["accuracy error"] == [0, 0.005, 0.01]
    assert images["means"]["sfe"]["train_seconds"] == [0, 2.5, 5]
    assert images["means"]["theirs"]["accuracy error"] == [None] * 3
    mixed = ordinary()
    slow = mixed["key"] == "imagessfe1"
    mixed.loc[slow, ["cells_beside", "train_seconds"]] = (7, 1000.0)
    images = page_data.page_data(mixed, tmp_path)["tasks"]["images"]
    assert images["means"]["sfe"]["train_seconds"] == [0, 2.5, 5]
    assert images["final"]["sfe"]["train_seconds"] == [5, None, 1]
    diverged = images["runs"]["theirs"][1]
    assert (diverged["seed"], diverged["diverged"]) == (1, True)
    assert images["score"] == "accuracy"
    assert images["chance"] == 0.1


def test_cells_have_their_status_numbers_and_file(tmp_path: Path) -> None:
    stored = tmp_path / "cells" / "task=images" / "estimator=a%3Cb" / "imagessfe1.parquet"
    stored.parent.mkdir(parents=True)
    stored.touch()
    cells = {tuple(row[:3]): row for row in page_data.page_data(ordinary(), tmp_path)["cells"]}
    assert cells["images", "sfe", 1][3:5] == ["ok", 0.42]
    assert cells["images", "sfe", 1][-1] == (
        "cells/task%3Dimages/estimator%3Da%253Cb/imagessfe1.parquet"
    )
    assert cells["images", "sfe", 0][-1] is None
    assert cells["images", "theirs", 1][3:5] == ["diverged", None]
    assert len(cells) == ordinary()["key"].nunique()
    empty = table_of(cell("images", "sfe", 0, 0.5, accuracy=np.nan), cell("images", "sfe", 1, 0.5))
    without, with_score = page_data.page_data(empty, tmp_path)["cells"]
    assert without[3:5] == ["without score", None]
    assert with_score[3:5] == ["ok", 0.5]


def test_costs_that_no_cell_of_a_task_has_leave_their_column_empty(tmp_path: Path) -> None:
    """The page hides it then."""
    few = table_of(
        cell("game", "sfe", 0, 0.5, slopes=0.0, oracle_calls=0.0),
        cell("game", "lost", 0, 0.5, "diverged", slopes=7.0),
        cell("images", "sfe", 0, 0.5, slopes=0.0, oracle_calls=0.0),
        cell("images", "gumbel", 0, 0.5, slopes=3.0, oracle_calls=0.0),
    )
    data = page_data.page_data(few, tmp_path)
    places = [4 + [*data["metrics"]].index(name) for name in ("slopes", "oracle_calls")]
    found = {tuple(row[:2]): [row[place] for place in places] for row in data["cells"]}
    assert found == {
        ("game", "sfe"): [None, None], ("game", "lost"): [None, None],
        ("images", "sfe"): [0, None], ("images", "gumbel"): [3, None],
    }  # fmt: skip
    assert not {"slopes", "oracle_calls"} & {*data["tasks"]["images"]["metrics"]}


@pytest.mark.parametrize("name", BAD)
def test_bad_input_gives_a_page(name: str, tmp_path: Path) -> None:
    page = write_page(tmp_path, BAD[name], [], {}).read_text()
    assert "NaN" not in Reader(page).data
    expected = {
        "one seed": "With one seed nothing can be said",
        "all failed": "no cell has a score",
        "no number": "no cell has a score",
        "unknown estimator": "of another package",
        "empty": "holds no cells",
    }
    assert expected[name] in page


def best_on_the_card(table: pd.DataFrame, folder: Path) -> list[str]:
    """The names on the card of `images`."""
    text = write_page(folder, table, [], {}).read_text()
    card = text.split('value="images"')[1].split("</label>")[0]
    return re.findall(r"</svg> (.+?)</span>", card)


def test_what_lost_a_run_is_not_among_the_best_unless_all_did(tmp_path: Path) -> None:
    lost = [cell("images", name, 2, 0, "diverged") for name in ("sfe", "dense")]
    table = table_of(cell("images", "rloo", 0, 0.3), *lost)
    assert best_on_the_card(ordinary(), tmp_path) == ["dense", "sfe"]
    assert best_on_the_card(pd.concat([ordinary(), table]), tmp_path) == ["rloo"]
    table = table[table["estimator"] != "rloo"]
    names = ["dense (1 ✕)", "theirs (1 ✕)", "sfe (1 ✕)"]
    assert best_on_the_card(pd.concat([ordinary(), table]), tmp_path) == names


def test_many_rows_are_thinned_and_many_seeds_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Means go over all of them nevertheless."""
    monkeypatch.setattr(page_data, "MOST", 600)
    monkeypatch.setattr(page_data, "POINTS", 40)
    base = pd.DataFrame([*cell("images", "sfe", 0, 0.5)][:1])
    runs = [
        pd.concat([base] * 100).assign(
            seed=seed, key=f"k{seed}", step=range(100), epoch=np.arange(100), accuracy=float(seed)
        )
        for seed in range(10)
    ]
    table = table_of(iter(pd.concat(runs).to_dict("records")))  # type: ignore[arg-type]
    images = page_data.page_data(table, tmp_path)["tasks"]["images"]
    assert len(images["means"]["sfe"]["accuracy"]) == 40
    assert images["means"]["sfe"]["epoch"][-1] == 99
    assert set(images["means"]["sfe"]["accuracy"]) == {4.5}
    runs_kept = images["runs"]["sfe"]
    assert len(runs_kept[0]["epoch"]) == page_data.FEWEST_POINTS
    assert runs_kept[0]["epoch"][-1] == 99
    assert sum(len(run["epoch"]) * 6 for run in runs_kept) <= 600
    assert images["seedsLeftOut"] == 10 - len(runs_kept) > 0


def test_a_thousand_cells_fit(tmp_path: Path) -> None:
    """With the scripts, some five and a half megabytes, and nothing that grows faster."""
    table = table_of(
        *(cell("images", f"e{i % 20}", i, 0.5, "failed" if i % 3 else "ok") for i in range(1000))
    )
    one, many = (write_page(tmp_path, part, [], {}).stat().st_size for part in (table[:1], table))
    assert one < 6e6
    assert many - one < 5e5


def test_settings_are_shared_or_an_estimators_own(tmp_path: Path) -> None:
    text = re.sub(r"\s+", " ", write_page(tmp_path, ordinary(), [], {}).read_text())
    assert "Of all cells of images</h3> <p><code>task.hidden = 8</code>" in text
    assert "<code>estimator.samples = 0 or 1</code>" in text


def test_every_marker_has_a_symbol() -> None:
    assert set(SYMBOLS) >= {*_MARKERS, "."}
    assert len(set(SYMBOLS.values())) == len(SYMBOLS) - 1  # the floor's dot is a circle too


def test_numbers_are_rounded_and_read_back() -> None:
    assert rounded([1.234567, float("nan"), float("inf"), -1e-9]) == [1.2346, None, None, -1e-9]
    assert leading_number("-22.90 ± 0.07") == -22.9
    assert leading_number("**0.857 ± 0.011**") == 0.857
    assert leading_number("1.5e+07") == 1.5e7
    assert leading_number("3 skipped") == 0
    assert leading_number("2, 1 without score") == 2
    assert leading_number("") is None
