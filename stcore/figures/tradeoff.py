"""Fig. 6: natural against robust accuracy over β, a panel per divergence and one with all of st."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from matplotlib import rcParams
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from stcore.analysis.lines import Line
from stcore.analysis.tradeoff import Result
from stcore.figures.palette import GREY, METHOD_STYLES, CurveStyle, method_styles
from stcore.figures.panels import side_by_side
from stcore.figures.style import styled
from stcore.results import names


@styled
def draw(result: Result) -> Figure:
    """Draws the lines; upper right is better. TRADES as published is in every panel, in grey."""
    panels = panels_of(result.lines)
    figure, all_axes = side_by_side(len(panels), height=2.6, per_row=2)
    for axes, (title, lines) in zip(all_axes, panels.items(), strict=True):
        styles = _styles(lines)
        for line, style in zip(lines, styles, strict=True):
            _line(axes, line, style, result)
        axes.margins(0.12)
        axes.set_title(title)
        axes.set_xlabel("natural accuracy in %")
        axes.tick_params(labelleft=True, labelbottom=True)
        _legend(axes, lines, styles)
    figure.supylabel("robust accuracy in %", size=8)
    attacked = names.attacked(result.attack, result.epsilon, result.norm)
    figure.suptitle(f"test split, {result.settings.checkpoint} checkpoint; {attacked}", size=8, wrap=True)
    return figure


def panels_of(lines: Sequence[Line]) -> dict[str, list[Line]]:
    """The lines of each panel by its title. Lines without a choice of divergence are in every panel."""
    shared = [line for line in lines if line.original or line.divergence is None]
    used = {line.divergence for line in lines if line.divergence is not None}
    found = {
        names.divergence(divergence): [
            *shared,
            *(line for line in lines if line.divergence == divergence and line not in shared),
        ]
        for divergence in (*names.DIVERGENCES, *sorted(used - names.DIVERGENCES.keys()))
        if any(line.divergence == divergence and line not in shared for line in lines)
    }
    own = [line for line in lines if line.method == "st"]
    if len({line.divergence for line in own}) > 1:
        found["all of st"] = [*shared, *sorted(own, key=lambda line: line.divergence != "symmetric_kl")]
    return found or {"": shared}


def _styles(lines: Sequence[Line]) -> list[CurveStyle]:
    """Each method's style, but grey for TRADES as published, and stars for the paper's points."""
    own = [line for line in lines if not (line.original or line.paper)]
    found = iter(method_styles([line.method for line in own]))
    return [next(found) if line in own else _special_style(line) for line in lines]


def _special_style(line: Line) -> CurveStyle:
    colour = GREY if line.original else METHOD_STYLES[line.method].colour
    return CurveStyle(colour, "*" if line.paper else "s", ":" if line.original else "-")


def _line(axes: Axes, line: Line, style: CurveStyle, result: Result) -> None:
    x, y = ([getattr(point, of).mean for point in line.points] for of in ("natural", "robust"))
    if result.settings.intervals:
        axes.errorbar(x, y, xerr=_bars(line, "natural"), yerr=_bars(line, "robust"), **_BARS, ecolor=style.colour)
    axes.plot(x, y, **_keywords(line, style))
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
    """The distances from the mean to the interval's lower and upper ends."""
    figures = [getattr(point, of) for point in line.points]
    return [[figure.mean - figure.low for figure in figures], [figure.high - figure.mean for figure in figures]]


def _keywords(line: Line, style: CurveStyle) -> dict[str, Any]:
    return {**style.plot, "markersize": 8, "markeredgecolor": rcParams["text.color"]} if line.paper else style.plot


def _legend(axes: Axes, lines: Sequence[Line], styles: Sequence[CurveStyle]) -> None:
    """Draws the legend below the panel, so that it hides no point."""
    several = len({line.divergence for line in lines if line.method == "st"}) > 1
    handles = [
        Line2D([], [], **_keywords(line, style), label=_label(line, several=several))
        for line, style in zip(lines, styles, strict=True)
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
    return f"{line.label}, {names.divergence(line.divergence)}" if several and line.divergence else line.label
