"""Pictures of results, as SVG: the same results give the same file, on one release of matplotlib.

Text stays text, in whatever font the reader has. This module knows nothing of what was measured: a picture is a value
(`_harness.bars`, `_harness.curves`).
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import LogLocator, NullLocator, StrMethodFormatter

COLOURS = ("#0b6e99", "#d9822b", "#5f7f3a", "#a23b72", "#7a7a7a", "#c9a227", "#4b3f72", "#8c4a2f")
"""Ours is the first. They can be told apart in shades of grey too."""
STYLE = {
    "svg.hashsalt": "aiopplx",
    "svg.fonttype": "none",
    "font.family": "sans-serif",
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#dddddd",
    "figure.facecolor": "white",
}
WIDTH = 8.0


def draw(picture: Mapping[str, Any], path: Path) -> None:
    """Write one picture."""
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(WIDTH, 0.0), layout="constrained")
        (_bars if picture["kind"] == "bars" else _curves)(figure, picture)
        figure.savefig(path, format="svg", metadata={"Date": None, "Creator": None})
    lines = path.read_text(encoding="utf-8").splitlines()
    path.write_text("\n".join(line.rstrip() for line in lines) + "\n", encoding="utf-8")


def _bars(figure: Figure, picture: Mapping[str, Any]) -> None:
    """Lying bars, since names are long: one group under the other."""
    groups, series = picture["groups"], picture["series"]
    figure.set_size_inches(WIDTH, 1.0 + 0.19 * len(groups) * (len(series) + 1))
    axes = figure.subplots()
    height = 0.85 / len(series)
    for number, (name, values) in enumerate(series.items()):
        for place, value in enumerate(values):
            if value is None:
                continue
            middle = value["median"] if isinstance(value, Mapping) else value
            at = place - 0.425 + height * (number + 0.5)
            axes.barh(at, middle, height * 0.92, color=COLOURS[number % len(COLOURS)], label=None if place else name)
            end = middle
            if isinstance(value, Mapping):
                axes.plot([value["low"], value["high"]], [at, at], color="#222222", linewidth=1.0)
                end = max(end, value["high"])
            axes.annotate(f"{middle:,.4g}", (end, at), (3, 0), textcoords="offset points", va="center", fontsize=7)
    axes.set_yticks(range(len(groups)), groups)
    axes.invert_yaxis()
    axes.grid(visible=False, axis="y")
    axes.margins(x=0.12)
    if picture["logarithmic"]:
        _tenfolds(axes)
    _dress(axes, picture["title"], picture["unit"], "", legend=len(series) > 1)


def _tenfolds(axes: Axes) -> None:
    """From one on, if nothing is less: where figures are multiples of an ideal, a bar is what lies beyond it."""
    axes.set_xscale("log")
    least = min((patch.get_width() for patch in axes.patches if isinstance(patch, Rectangle)), default=1.0)
    axes.set_xlim(left=1.0 if least >= 1.0 else least / 2.0)
    axes.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    axes.xaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
    axes.xaxis.set_minor_locator(NullLocator())


def _curves(figure: Figure, picture: Mapping[str, Any]) -> None:
    figure.set_size_inches(WIDTH, 4.2)
    axes = figure.subplots()
    for number, (name, points) in enumerate(picture["series"].items()):
        across, up = [point[0] for point in points], [point[1] for point in points]
        mark = "o" if len(points) < 30 else None
        axes.plot(across, up, color=COLOURS[number % len(COLOURS)], label=name, marker=mark, markersize=4)
    if picture["logarithmic"]:
        axes.set_xscale("log")
        axes.set_yscale("log")
    _dress(axes, picture["title"], picture["across"], picture["up"], legend=True)


def _dress(axes: Axes, title: str, across: str, up: str, *, legend: bool) -> None:
    axes.set_title(title, loc="left")
    axes.set_xlabel(across)
    axes.set_ylabel(up)
    if legend:
        axes.legend(loc="upper left", bbox_to_anchor=(1.01, 1.0), frameon=False, fontsize=8)
