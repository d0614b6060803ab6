"""How figures look: a fixed colour, marker and line for each estimator, whatever the subset."""

import math
import zlib
from collections.abc import Iterable
from contextlib import AbstractContextManager
from typing import Any

import numpy as np
from matplotlib import style
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.colors import to_rgb
from matplotlib.ticker import LogLocator, MaxNLocator, NullLocator

from analysis.load import FLOOR

FAMILIES: dict[str, dict[str, str]] = {
    "score function, one call": {
        "sfe": "#08306b",
        "sfe-ma": "#2171b5",
        "sfe-constant": "#4292c6",
        "sfe-learned": "#6baed6",
        "nvil": "#9cc4e4",
    },
    "score function, more calls": {
        "sfe-selfcritic": "#00441b",
        "sfe-second-sample": "#238b45",
        "rloo": "#41ab5d",
        "sfe-shrunk": "#6cbf70",
        "sum-and-sample": "#94d28f",
        "unordered-set": "#c2e8bc",
    },
    "coupled samples, flipped bits": {
        "arm": "#00323a",
        "disarm": "#00535e",
        "arms": "#007582",
        "bitflip": "#2b96a2",
        "ugc": "#63b4bd",
        "local-expectation": "#a1d3d9",
    },
    "coupled samples of categories": {
        "arsm": "#333600",
        "disarm-iw": "#5a5f00",
        "disarm-tree": "#868c1f",
        "carms": "#b4b961",
    },
    "control variates": {
        "muprop": "#4d3800",
        "double-cv": "#735600",
        "rodeo": "#997518",
        "rebar": "#bf9b30",
        "relax": "#ddc77c",
        "relax-rebar": "#eddfb0",
    },
    "importance-weighted samples": {"vimco": "#7f1010", "ovis": "#d9605a", "daps": "#f0aaa3"},
    "relaxations": {
        "gumbel": "#a63603",
        "st-gumbel": "#f28e2b",
        "gumbel-rao": "#fbb26a",
        "concrete": "#fdd3a6",
    },
    "straight-through": {"st": "#3b0f70", "reinmax": "#6a3d9a", "gapped-st": "#a283c7"},
    "through a MAP oracle": {
        "imle": "#262d38",
        "aimle": "#465265",
        "perturbed": "#67778f",
        "spigot": "#8b99ad",
        "blackbox": "#aeb9c8",
        "identity": "#d0d7e0",
    },
    "mixed variables": {
        "hard-concrete": "#3e2723",
        "hard-kuma": "#5d4037",
        "gaussian-sparsemax": "#7a5548",
        "mixed-dirichlet": "#88695c",
        "spike-exponential": "#977c72",
        "logistic-normal": "#b3a099",
        "kumaraswamy": "#d0c4bf",
    },
    "sums over a support": {
        "dense": "#000000",
        "sparsemax": "#7a0177",
        "topk-sparsemax": "#b8308f",
        "sparsemap": "#e0679f",
        "sparsemap-budget": "#eea3b5",
    },
}
"""Estimators that belong together share a hue, dark to light, and stand in one row of panels."""

OTHERS = "other estimators"
"""The family of estimators of other packages."""

GREY = "#8c8c8c"
"""Of the floor, of chance, and of what stands in the background."""

DARK = 0.179
"""Luminance below which white has more contrast than black, by the formula of WCAG."""

LONGEST = 32
"""Most characters of a name in a figure."""

_OTHER_COLOURS = ("#b8860b", "#00838f", "#6d4c41", "#c62828", "#5e35b1")
_MARKERS: tuple[Any, ...] = (
    "o", "s", "D", "^", "v", "<", ">", "P", "X", "p",
    "d", "*", (4, 1, 0), (3, 1, 0), (3, 1, 180),
)  # fmt: skip
_LINES: tuple[Any, ...] = (
    "-", "--", "-.", ":", (0, (5, 1, 1, 1, 1, 1)), (0, (8, 2)), (0, (1, 3)),
)  # fmt: skip
_COLOURS = {name: hue for family in FAMILIES.values() for name, hue in family.items()}
_PLACES = {name: place for family in FAMILIES.values() for place, name in enumerate(family)}

STYLE: dict[Any, Any] = {
    "axes.spines.top": False,
    "axes.spines.right": False,
    "font.size": 8,
    "axes.titlesize": 9,
    "axes.labelsize": 8,
    "xtick.labelsize": 7,
    "ytick.labelsize": 7,
    "legend.fontsize": 7,
    "legend.frameon": False,
    "axes.linewidth": 0.7,
    "lines.linewidth": 1.1,
    "lines.markersize": 4,
    "savefig.dpi": 200,
    "pdf.fonttype": 42,  # publishers refuse type 3
}


def own_style() -> AbstractContextManager[None]:
    """Has what is drawn and saved in a block look as `STYLE` and matplotlib's defaults say,
    whatever a user's own settings are."""
    return style.context(STYLE, after_reset=True)


def colour(estimator: str) -> str:
    """The estimator's colour, the same in every figure and for every subset."""
    if estimator == FLOOR:
        return GREY
    return _COLOURS.get(estimator, _OTHER_COLOURS[_digits(estimator)[1]])


def marker(estimator: str) -> Any:
    """The estimator's marker, which tells those of a family apart."""
    return "." if estimator == FLOOR else _MARKERS[_PLACES.get(estimator, _digits(estimator)[0])]


def linestyle(estimator: str) -> Any:
    """The estimator's line, which tells those of a family apart in greyscale."""
    return "-" if estimator == FLOOR else _LINES[_PLACES.get(estimator, _digits(estimator)[2])]


def luminance(shade: Any) -> float:
    """The relative luminance of a colour, from 0 for black to 1 for white."""
    parts = np.array(to_rgb(shade))
    linear = np.where(parts <= 0.04045, parts / 12.92, ((parts + 0.055) / 1.055) ** 2.4)
    return float(linear @ [0.2126, 0.7152, 0.0722])


def shortened(name: str) -> str:
    """A name as figures have room for: of a long one its beginning and end."""
    return name if len(name) <= LONGEST else f"{name[: LONGEST // 2]}…{name[1 - LONGEST // 2 :]}"


def text_width(names: Iterable[str], points: float = 7) -> float:
    """About how wide the longest of some names is, shortened, in inches.

    A character is taken for 0.6 of the font's size; to measure it would take a drawing.
    """
    return 0.6 * points / 72 * max((len(shortened(name)) for name in names), default=0)


def entitle(axes: Axes, task: str, *notes: str) -> None:
    """Head axes with the task, and under it what has to be said of them."""
    said = "; ".join(note for note in notes if note)
    axes.set_title(f"{task}\n{said}" if said else task, fontsize=8 if said else 9)


def floor_note(floor: float, limits: tuple[float, float]) -> str:
    """The floor's value, to stand above a panel where it lies off the scale; else empty."""
    near = np.isnan(floor) or limits[0] <= floor <= limits[1]
    return "" if near else f"{FLOOR}: {to_scale(floor, limits)}"


def to_scale(number: float, limits: tuple[float, float]) -> str:
    """A number to at least a hundredth of what a scale spans, which its differences are read on."""
    return f"{round(number, 2 - math.floor(math.log10(limits[1] - limits[0]))):.10g}"


def logarithmic(axis: Axis) -> None:
    """A logarithmic axis with few and plain numbers, whatever it spans."""
    if not np.isfinite(axis.get_minpos()):
        return  # nothing to scale to
    axes = axis.axes
    (axes.set_xscale if axis is axes.xaxis else axes.set_yscale)("log")
    axis.set_major_locator(_FewTicks())
    axis.set_major_formatter(lambda value, _: plain(value))
    axis.set_minor_locator(NullLocator())


def plain(number: float) -> str:
    """A number as short as it is said: 0.02, 500, 3e7."""
    digits, exponent = f"{number:.5e}".split("e")
    return f"{number:g}" if -4 <= int(exponent) < 4 else f"{float(digits):g}e{int(exponent)}"


class _FewTicks(LogLocator):
    """Three to six ticks: at 1, 2 and 5, at powers of ten, or evenly within less than a decade.

    matplotlib's own has no tick at all, or one, on some axes of many decades or of less than one.
    """

    MOST = 6

    def tick_values(self, vmin: float, vmax: float) -> Any:
        exponents = np.arange(math.floor(math.log10(vmin)), math.floor(math.log10(vmax)) + 1)
        powers = 10.0**exponents
        stride = 1 + (len(powers) - 1) // self.MOST
        evenly = MaxNLocator(self.MOST - 1, steps=[1, 2, 2.5, 5, 10], min_n_ticks=3)
        for ticks in (
            *(np.outer(powers, factors).ravel() for factors in ((1, 2, 5), (1, 3))),
            powers,
            powers[exponents % stride == 0],
            evenly.tick_values(vmin, vmax),
        ):
            inside = ticks[(ticks >= vmin) & (ticks <= vmax)]
            if 3 <= len(inside) <= self.MOST:
                break
        return inside


def families(estimators: Iterable[str]) -> dict[str, list[str]]:
    """The estimators by family, each in the order of its shades; the floor belongs to none."""
    names = set(estimators) - {FLOOR}
    parts = {
        title: [name for name in family if name in names] for title, family in FAMILIES.items()
    }
    parts[OTHERS] = sorted(names - set(_COLOURS))
    return {title: part for title, part in parts.items() if part}


def ordered(estimators: Iterable[str]) -> list[str]:
    """The estimators in the order of their families."""
    return [name for part in families(estimators).values() for name in part]


def _digits(name: str) -> tuple[int, int, int]:
    """Places of the marker, colour and line of an estimator that is not known, of its name alone.

    Each takes a digit of its own of the name's hash, so that none goes with another.
    """
    rest, place = divmod(zlib.crc32(name.encode()), len(_MARKERS))
    rest, hue = divmod(rest, len(_OTHER_COLOURS))
    return place, hue, rest % len(_LINES)
