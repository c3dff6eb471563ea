"""Fig. 6: natural against robust accuracy over β, a panel for each divergence and one of all of st."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from matplotlib import rcParams
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from stcore.analysis.lines import Line
from stcore.analysis.tradeoff import Result
from stcore.figures.palette import GREY, METHODS, Look, looks
from stcore.figures.panels import side_by_side
from stcore.figures.style import styled
from stcore.results import names

NAMES = {
    "js": "JS divergence",
    "squared_l2": "squared l2",
    "symmetric_kl": "symmetric KL",
    "kl": "KL",
    "improved_kl": "improved KL",
}


@styled
def draw(result: Result) -> Figure:
    """Top right is better. TRADES as it was published stands in every panel, in grey."""
    panels = panels_of(result.lines)
    figure, places = side_by_side(len(panels), height=2.6, per_row=2)
    for axes, (title, lines) in zip(places, panels.items(), strict=True):
        colours = _looks(lines)
        for line, look in zip(lines, colours, strict=True):
            _line(axes, line, look, result)
        axes.margins(0.12)
        axes.set_title(title)
        axes.set_xlabel("natural accuracy in %")
        axes.tick_params(labelleft=True, labelbottom=True)
        _legend(axes, lines, colours)
    figure.supylabel("robust accuracy in %", size=8)
    attacked = names.attacked(result.attack, result.epsilon, result.norm)
    figure.suptitle(f"test split, {result.settings.checkpoint} checkpoint; {attacked}", size=8, wrap=True)
    return figure


def panels_of(lines: Sequence[Line]) -> dict[str, list[Line]]:
    """The lines of each panel by its title. Those without a choice of divergence stand in all."""
    shared = [line for line in lines if line.original or line.divergence is None]
    found = {
        NAMES[divergence]: [
            *shared,
            *(line for line in lines if line.divergence == divergence and line not in shared),
        ]
        for divergence in NAMES
        if any(line.divergence == divergence and line not in shared for line in lines)
    }
    own = [line for line in lines if line.method == "st"]
    if len({line.divergence for line in own}) > 1:
        found["all of st"] = [*shared, *sorted(own, key=lambda line: line.divergence != "symmetric_kl")]
    return found or {"": shared}


def _looks(lines: Sequence[Line]) -> list[Look]:
    """By method, but grey for TRADES as it was published; the paper's own points are stars."""
    own = [line for line in lines if not (line.original or line.paper)]
    found = iter(looks([line.method for line in own]))
    return [next(found) if line in own else _apart(line) for line in lines]


def _apart(line: Line) -> Look:
    colour = GREY if line.original else METHODS[line.method].colour
    return Look(colour, "*" if line.paper else "s", ":" if line.original else "-")


def _line(axes: Axes, line: Line, look: Look, result: Result) -> None:
    x, y = ([getattr(point, of).mean for point in line.points] for of in ("natural", "robust"))
    if result.settings.intervals:
        axes.errorbar(x, y, xerr=_bars(line, "natural"), yerr=_bars(line, "robust"), **_BARS, ecolor=look.colour)
    axes.plot(x, y, **_style(line, look))
    best = [(a, b) for a, b, point in zip(x, y, line.points, strict=True) if point.optimal]
    axes.plot(*(zip(*best, strict=True) if best else ((), ())), **_RING)
    for a, b, point in zip(x, y, line.points, strict=True):
        if point.beta is not None:
            axes.annotate(f"{point.beta:g}", (a, b), xytext=(4, 3), textcoords="offset points", fontsize=6)


_BARS: dict[str, Any] = {"fmt": "none", "elinewidth": 0.6, "capsize": 1.5, "alpha": 0.7}
_RING: dict[str, Any] = {
    "marker": "o",
    "markersize": 9,
    "markerfacecolor": "none",
    "markeredgecolor": "0.5",
    "markeredgewidth": 0.8,
    "linestyle": "none",
}


def _bars(line: Line, of: str) -> list[list[float]]:
    """How far the interval goes below and above."""
    figures = [getattr(point, of) for point in line.points]
    return [[figure.mean - figure.low for figure in figures], [figure.high - figure.mean for figure in figures]]


def _style(line: Line, look: Look) -> dict[str, Any]:
    return {**look.plot, "markersize": 8, "markeredgecolor": rcParams["text.color"]} if line.paper else look.plot


def _legend(axes: Axes, lines: Sequence[Line], colours: Sequence[Look]) -> None:
    """Below the panel, for no point to be hidden."""
    several = len({line.divergence for line in lines if line.method == "st"}) > 1
    handles = [
        Line2D([], [], **_style(line, look), label=_label(line, several=several))
        for line, look in zip(lines, colours, strict=True)
    ]
    ring = Line2D([], [], **_RING, label="Pareto-optimal")
    title = "numbers are β" if any(point.beta is not None for line in lines for point in line.points) else None
    axes.legend(
        handles=[*handles, ring],
        title=title,
        title_fontsize=7,
        loc="upper center",
        bbox_to_anchor=(0.5, -0.24),
        ncols=2,
    )


def _label(line: Line, *, several: bool) -> str:
    if line.original:
        return line.label if line.paper else f"{line.label} (as published)"
    return f"{line.label}, {NAMES[line.divergence]}" if several and line.divergence else line.label
