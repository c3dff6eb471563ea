"""Figs. 4, 9, 10: natural and robust accuracy over the epochs, one panel above the other."""

from __future__ import annotations

from typing import Any

from matplotlib import rcParams
from matplotlib.artist import Artist
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from stcore.analysis.curves import Result
from stcore.figures.epochs import course, of_epochs
from stcore.figures.palette import looks
from stcore.figures.style import COLUMN, styled
from stcore.results import names

_DROP: dict[str, Any] = {"color": "0.5", "linestyle": (0, (2, 1)), "linewidth": 1.0}


@styled
def draw(result: Result) -> Figure:
    """A star stands where a run found its best epoch, an upright line where a learning rate was lowered."""
    labels = [curve.label for curve in result.curves]
    columns = 1 if max(map(len, labels)) > 18 else 2
    figure = Figure(figsize=(COLUMN, 3.6 + 0.16 * (len(labels) + 2) / columns))
    upper, lower = panels = figure.subplots(2, 1, sharex=True)
    for curve, look in zip(result.curves, looks([curve.method for curve in result.curves]), strict=True):
        for place, axes, one in zip((1, 2), panels, (curve.natural, curve.robust), strict=True):
            course(axes, one, look, curve.label, 100)
            stars = [(best[0], 100 * best[place]) for best in curve.best]
            axes.plot(*zip(*stars, strict=True), **_star(look.colour))
    for axes in panels:
        for epoch in result.drops:
            axes.axvline(epoch, zorder=0, **_DROP)
    upper.set_ylabel("natural accuracy in %")
    lower.set_ylabel("robust accuracy in %")
    upper.set_title(f"{result.split} split; {names.attacked(result.attack, result.epsilon, result.norm)}")
    of_epochs(lower)
    handles, _ = upper.get_legend_handles_labels()
    figure.legend(handles=[*handles, *_signs(result)], loc="outside lower center", ncols=columns)
    return figure


def _star(colour: str) -> dict[str, Any]:
    edge = {"markeredgecolor": rcParams["text.color"], "markeredgewidth": 0.6}
    return {"color": colour, "marker": "*", "markersize": 7, "linestyle": "none", **edge}


def _signs(result: Result) -> list[Artist]:
    """What the legend says beside the curves."""
    star = Line2D([], [], label="best epoch", **_star("0.5"))
    drop = Line2D([], [], label="learning rate lowered", **_DROP)
    band = Patch(color="0.5", alpha=0.2, label="lowest to highest seed")
    several = any(max(curve.natural.seeds) > 1 for curve in result.curves)
    return [star, *([drop] if result.drops else []), *([band] if several else [])]
