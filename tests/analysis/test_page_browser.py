"""The HTML page in a headless Chromium."""

import html
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from matplotlib.figure import Figure
from selenium import webdriver
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.ui import WebDriverWait

from analysis.page import write_page
from analysis.page_data import SYMBOLS, brightened
from analysis.style import colour, marker
from tests.analysis.pages import BAD, HOSTILE, cell, hostile, ordinary, table_of

FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
    "--disable-dev-shm-usage", "--window-size=1280,900",
)  # fmt: skip
CHROMIUM, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")

SUMMARY = "[data-task=images] .summary"
"""The summary table of the task `images`."""

pytestmark = pytest.mark.skipif(
    not (CHROMIUM and DRIVER), reason="needs Debian's packages chromium and chromium-driver"
)


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[webdriver.Chrome]:
    options = webdriver.ChromeOptions()
    options.binary_location = str(CHROMIUM)
    for flag in (*FLAGS, f"--user-data-dir={tmp_path_factory.mktemp('profile')}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options=options, service=Service(str(DRIVER)))
    yield driver
    driver.quit()


class Page:
    """A page of results, open, with what a test asks of it."""

    def __init__(self, browser: webdriver.Chrome, path: Path) -> None:
        self.browser = browser
        browser.get_log("browser")  # of the page before
        browser.get(path.as_uri())

    def run(self, script: str) -> Any:
        return self.browser.execute_script(script)

    def wait(self, condition: str) -> None:
        """Until an expression is true: DataTables sorts when it has the time."""
        WebDriverWait(self.browser, 10, 0.05).until(lambda _: self.run(f"return {condition}"))

    def click(self, selector: str) -> None:
        self.run(f"document.querySelector({json.dumps(selector)}).click()")

    def choose(self, metric: str) -> None:
        self.run(
            f"const m = document.getElementById('metric'); m.value = {json.dumps(metric)};"
            "m.dispatchEvent(new Event('change', {bubbles: true}))"
        )

    def column(self, table: str, place: int) -> list[str]:
        cells = f"document.querySelectorAll('{table} tbody tr')"
        return self.run(f"return [...{cells}].map((row) => row.cells[{place}].innerText.trim())")

    def curves(self) -> list[str]:
        """The names of the lines in the learning curves."""
        return self.run(
            "return document.getElementById('curves').data.map((t) => t.name).filter((n) => n)"
        )

    def ranks(self) -> list[str]:
        """The estimators in the chart of final scores, best first."""
        axis = "document.getElementById('scores').layout.yaxis"
        text = f"{axis}.ticktext?.toReversed() ?? []"
        return [html.unescape(name) for name in self.run(f"return {text}")]

    def errors(self) -> list[str]:
        return [entry["message"] for entry in self.browser.get_log("browser")]


@pytest.fixture(scope="module")
def ordinary_page(browser: webdriver.Chrome, tmp_path_factory: pytest.TempPathFactory) -> Page:
    folder = tmp_path_factory.mktemp("ordinary")
    Figure().savefig(folder / "some.png")
    examples = {("images", "sfe"): folder / "some.png", ("game", "dense"): folder / "some.png"}
    page = Page(browser, write_page(folder, ordinary(), ["Be careful."], examples))
    assert page.errors() == []
    return page


@pytest.fixture
def page(ordinary_page: Page) -> Page:
    """The page as it is opened."""
    ordinary_page.click("#all")
    ordinary_page.click("input[value=images]")
    ordinary_page.choose("accuracy")
    ordinary_page.click("input[value=epoch]")
    ordinary_page.click("input[value=means]")
    return ordinary_page


def test_the_filters_change_the_plots(page: Page) -> None:
    assert page.ranks() == ["dense", "theirs (1 ✕)", "sfe", "none"]
    assert page.curves() == ["dense", "sfe", "theirs", "none"]
    page.click("input[value=dense]")
    assert page.ranks() == ["theirs (1 ✕)", "sfe", "none"]
    assert page.run("return document.getElementById('scores-caption').innerText").endswith(
        "✕ counts runs that failed, diverged or gave no score."
    )
    assert page.curves() == ["sfe", "theirs", "none"]
    assert page.column(SUMMARY, 0) == ["sfe", "theirs", "none", "start", "chance"]
    assert "dense" not in page.column("#cells", 0)
    page.click("#none")
    assert (page.ranks(), page.curves()) == ([], [])
    assert page.run("return document.getElementById('scores-caption').innerText").startswith("None")


def test_a_task_brings_its_own_cells_and_examples(page: Page) -> None:
    page.click("input[value=game]")
    assert page.ranks() == ["dense", "sfe", "none"]
    assert "skipped" in page.column("#cells", 2)
    shown = page.run(
        "return [...document.querySelectorAll('figure')].filter((f) => f.checkVisibility())"
        ".map((f) => f.dataset.estimator)"
    )
    assert shown == ["dense"]
    assert (
        page.run("return document.querySelector('[data-task=images]').checkVisibility()") is False
    )


def test_the_metric_and_the_axis_change_the_plots(page: Page) -> None:
    title = "return document.getElementById('{}').layout.{}.title.text"
    assert page.run(title.format("scores", "xaxis")) == "test accuracy"
    page.choose("elbo")
    assert page.run(title.format("scores", "xaxis")) == "test ELBO (nats)"
    assert page.run(title.format("curves", "yaxis")) == "validation ELBO (nats)"
    page.click("input[value=decoder_calls_total]")
    assert page.run(title.format("curves", "xaxis")) == "decoder calls in all"
    calls = page.run(
        "return document.getElementById('curves').data.find((t) => t.name === 'sfe').x"
    )
    assert calls == [640, 1280]
    page.click("input[value=runs]")
    assert page.curves() == ["dense", "dense", "sfe", "sfe", "theirs", "theirs", "none", "none"]
    dashes = page.run("return document.getElementById('curves').data.map((t) => t.line.dash)")
    assert dashes.count("dot") == 1


def test_the_line_of_chance_is_drawn_where_the_data_reach_it_alone(page: Page) -> None:
    layout = "return document.getElementById('{}').layout.{}"
    page.click("#none")
    page.click("input[value=dense]")
    low, high = page.run(layout.format("scores", "xaxis.range"))
    assert 0.79 < low < 0.8 < 0.82 < high < 0.83
    assert page.run(layout.format("scores", "shapes")) == []
    assert page.run(layout.format("curves", "shapes")) == []
    page.click("input[value=none]")
    page.click("input[value=dense]")
    low, high = page.run(layout.format("curves", "yaxis.range"))
    assert -0.05 < low < 0 < 0.22 < high < 0.25
    assert len(page.run(layout.format("curves", "shapes"))) == 1


def test_a_logarithmic_axis_of_less_than_a_decade_has_ticks(page: Page) -> None:
    page.click("input[value=decoder_calls_total]")
    ticks = "return document.querySelectorAll('#curves .xtick').length"
    assert page.run(ticks) > 1


def test_an_estimator_looks_as_in_the_figures(page: Page) -> None:
    line = page.run("return document.getElementById('curves').data.find((t) => t.name === 'dense')")
    assert line["line"]["color"] == colour("dense")
    assert line["marker"]["symbol"] == SYMBOLS[marker("dense")]


@pytest.mark.parametrize("by", ["mouse", "keyboard"])
def test_a_table_is_sorted_by_a_column(page: Page, by: str) -> None:
    header = page.browser.find_element(By.CSS_SELECTOR, f"{SUMMARY} th:nth-child(3)")
    page.browser.execute_script("arguments[0].scrollIntoView({block: 'center'})", header)
    button = header.find_element(By.CSS_SELECTOR, "[role=button]")
    for order in ("ascending", "descending"):
        if by == "mouse":
            header.click()
        else:
            button.send_keys(Keys.ENTER)
        page.wait(f"document.querySelector('{SUMMARY} th:nth-child(3)').ariaSort === '{order}'")
        values = [float(text.split()[0]) for text in page.column(SUMMARY, 2)]
        assert values == sorted([0.41, 0.6, 0.81, 0.21, 0.0, 0.1], reverse=order == "descending")
    page.click(f"{SUMMARY} th")
    page.wait(f"document.querySelector('{SUMMARY} th').ariaSort")


@pytest.mark.parametrize(("table", "place"), [(SUMMARY, 1), ("#cells", 3)])
def test_what_is_missing_comes_last_whichever_way_a_table_is_sorted(
    page: Page, table: str, place: int
) -> None:
    header = f"{table} th:nth-child({place + 1})"
    if table == "#cells":  # its header stands in a table of its own, so that it scrolls
        header = f".dt-scroll-head th:nth-child({place + 1})"
    for order in ("ascending", "descending"):
        page.click(f"{header} [role=button]")
        page.wait(f"document.querySelector('{header}').ariaSort === '{order}'")
        values = page.column(table, place)
        numbers = [float(text.split(",")[0]) for text in values if text]
        assert 0 < len(numbers) < len(values)
        assert not any(values[len(numbers) :])
        assert numbers == sorted(numbers, reverse=order == "descending")
    page.click(f"{header} [role=button]")
    page.wait(f"!document.querySelector('{header}').ariaSort")


def test_nothing_is_fetched_or_offered_to_a_server(page: Page) -> None:
    fetched = page.run("return performance.getEntriesByType('resource').map((e) => e.name)")
    assert not [name for name in fetched if not name.startswith("data:")]
    buttons = page.run(
        "return [...document.querySelectorAll('.modebar-btn')].map((b) => b.dataset.title)"
    )
    assert buttons
    assert not [name for name in buttons if "loud" in name or "hare" in name]


def test_the_dark_page_is_dark(page: Page) -> None:
    ink = "return document.getElementById('curves').layout.font.color"
    dense = "return document.getElementById('curves').data.find((t) => t.name === 'dense')"
    light = page.run(ink)
    assert page.run(dense)["line"]["color"] == "#000000"
    try:
        page.browser.execute_cdp_cmd(
            "Emulation.setEmulatedMedia",
            {"features": [{"name": "prefers-color-scheme", "value": "dark"}]},
        )
        page.run("return document.body.offsetHeight")
        assert page.run("return matchMedia('(prefers-color-scheme: dark)').matches")
        assert page.run(ink) != light
        assert page.run(dense)["line"]["color"] == brightened("#000000") == "#8c8c8c"
    finally:
        page.browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": []})


def test_the_bar_leaves_room_for_the_page(browser: webdriver.Chrome, tmp_path: Path) -> None:
    """Also with many and long names, and on a telephone, where it does not stick."""
    names = [f"{place}{'long' * 20}" for place in range(24)]
    table = table_of(*(cell("images", name, 0, 0.5) for name in names))
    path = write_page(tmp_path, table, [], {})
    page = Page(browser, path)
    bar = "document.querySelector('.bar').getBoundingClientRect()"
    title = "document.getElementById('curves-title')"
    page.run(f"{title}.scrollIntoView()")
    top = page.run(f"return {title}.getBoundingClientRect().top")
    assert 0 < page.run(f"return {bar}.bottom") <= top < 300
    try:
        browser.execute_cdp_cmd(
            "Emulation.setDeviceMetricsOverride",
            {"width": 420, "height": 900, "deviceScaleFactor": 1, "mobile": False},
        )
        page = Page(browser, path)
        page.run(f"{title}.scrollIntoView()")
        assert page.run(f"return {bar}.bottom") < 0
        assert 0 <= page.run(f"return {title}.getBoundingClientRect().top") < 20
        assert page.run("return document.documentElement.scrollWidth") <= 420
    finally:
        browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


def test_no_text_of_the_data_is_taken_for_markup(browser: webdriver.Chrome, tmp_path: Path) -> None:
    page = Page(browser, write_page(tmp_path, hostile(), [HOSTILE], {}))
    assert page.errors() == []
    assert HOSTILE in page.run("return document.querySelector('.note').innerText")
    for task in ("images", HOSTILE):
        radios = "[...document.getElementsByName('task')]"
        page.run(f"{radios}.find((radio) => radio.value === {json.dumps(task)}).click()")
        page.click("input[value=runs]")
        assert HOSTILE in page.column("#cells", 0)
        labels = "[...document.querySelectorAll('#scores .ytick text')]"
        assert HOSTILE in page.run(f"return {labels}.map((text) => text.textContent)")
    assert page.run("return window.hacked") is None
    assert page.run("return document.querySelectorAll('img').length") == 0
    assert page.errors() == []


@pytest.mark.parametrize("name", BAD)
def test_bad_input_gives_a_page_without_errors(
    browser: webdriver.Chrome, tmp_path: Path, name: str
) -> None:
    page = Page(browser, write_page(tmp_path, BAD[name], [], {}))
    assert page.errors() == []
    assert page.run("return document.querySelector('h1').innerText") == tmp_path.name
