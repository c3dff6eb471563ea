"""Figs. 4, 9, 10: natural accuracy over the epochs, and robust accuracy below it."""

from __future__ import annotations

from typing import Any

from matplotlib import rcParams
from matplotlib.artist import Artist
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from stcore.analysis.curves import Result
from stcore.figures.palette import method_styles
from stcore.figures.panels import label_epochs, plot_course
from stcore.figures.style import COLUMN, styled
from stcore.results import names

_DROP: dict[str, Any] = {"color": "0.5", "linestyle": (0, (2, 1)), "linewidth": 1.0}


@styled
def draw(result: Result) -> Figure:
    """Draws a star at each run's best epoch, and a vertical line at each drop of the learning rate."""
    labels = [curve.label for curve in result.curves]
    columns = 1 if max(map(len, labels)) > 18 else 2
    figure = Figure(figsize=(COLUMN, 3.6 + 0.16 * (len(labels) + 2) / columns))
    upper, lower = panels = figure.subplots(2, 1, sharex=True)
    for curve, style in zip(result.curves, method_styles([c.method for c in result.curves]), strict=True):
        for n, axes, course in zip((1, 2), panels, (curve.natural, curve.robust), strict=True):
            plot_course(axes, course, style, curve.label, 100)
            stars = [(best[0], 100 * best[n]) for best in curve.best]
            axes.plot(*zip(*stars, strict=True), **_star(style.colour))
    for axes in panels:
        for epoch in result.drops:
            axes.axvline(epoch, zorder=0, **_DROP)
    upper.set_ylabel("natural accuracy in %")
    lower.set_ylabel("robust accuracy in %")
    upper.set_title(f"{result.split} split; {names.attacked(result.attack, result.epsilon, result.norm)}")
    label_epochs(lower)
    handles, _ = upper.get_legend_handles_labels()
    figure.legend(handles=[*handles, *_symbols(result)], loc="outside lower center", ncols=columns)
    return figure


def _star(colour: str) -> dict[str, Any]:
    edge = {"markeredgecolor": rcParams["text.color"], "markeredgewidth": 0.6}
    return {"color": colour, "marker": "*", "markersize": 7, "linestyle": "none", **edge}


def _symbols(result: Result) -> list[Artist]:
    """The legend's entries for stars, vertical lines and bands."""
    star = Line2D([], [], label="best epoch", **_star("0.5"))
    drop = Line2D([], [], label="learning rate lowered", **_DROP)
    band = Patch(color="0.5", alpha=0.2, label="lowest to highest seed")
    several = any(max(curve.natural.seeds) > 1 for curve in result.curves)
    return [star, *([drop] if result.drops else []), *([band] if several else [])]
