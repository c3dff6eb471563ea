"""Robust accuracy against ε: a step curve per attack and network, with points of attacks in a ball."""

from __future__ import annotations

from itertools import cycle

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from stcore.analysis.robustness import TOGETHER, Curve, Point, Result
from stcore.figures.palette import CurveStyle, method_styles
from stcore.figures.style import COLUMN, styled
from stcore.results import names

_MARKERS = "osD^vP*X"
_UNITS = {"linf": "ε in 1/255 (l∞)", "l2": "ε (l2)", "l1": "ε (l1)", "l0": "ε: changed components (l0)"}


@styled
def draw(result: Result) -> Figure:
    """Draws the curves; each network's last, the lowest, has its 95 % band over the images."""
    several = len({curve.network for curve in result.curves}) > 1
    entries = len(result.curves) + len(result.points)
    figure = Figure(figsize=(COLUMN, 2.5 + 0.16 * (entries + 1)))
    axes = figure.subplots()
    styles = method_styles([None] * len(result.curves))
    last = {curve.network: curve for curve in result.curves}
    end = 1.05 * max(curve.radii[-1] for curve in result.curves) or 1.0
    for curve, style in zip(result.curves, styles, strict=True):
        label = f"{_label(curve.network, curve.attack, several=several)}{_median(curve, result.norm)}"
        _curve(axes, curve, style, label, end, banded=last[curve.network] is curve)
    colours = {curve.network: style.colour for curve, style in zip(result.curves, styles, strict=True)}
    for point, marker in zip(result.points, cycle(_MARKERS)):
        if point.epsilon <= end:
            _point(axes, point, colours[point.network], marker, several=several)
    axes.set_ylim(0, None)
    axes.set_xlabel(_UNITS[result.norm])
    axes.set_ylabel("robust accuracy in %")
    axes.xaxis.set_major_locator(MaxNLocator(nbins=6, integer=result.norm == "l0"))
    if result.norm == "linf":
        axes.set_xticks([tick / 255 for tick in MaxNLocator(nbins=6).tick_values(0, 255 * end)])
        axes.xaxis.set_major_formatter(lambda value, _: f"{255 * value:.4g}")
    axes.set_xlim(0, end)
    figure.legend(*axes.get_legend_handles_labels(), loc="outside lower center", ncols=1)
    return figure


def _label(network: str, attack: str, *, several: bool) -> str:
    what = attack if attack == TOGETHER else names.attack(attack)
    return f"{network}, {what}" if several else what


def _median(curve: Curve, norm: str) -> str:
    if curve.median is None:
        return ""
    return f", median {f'{255 * curve.median:.3g}/255' if norm == 'linf' else f'{curve.median:.3g}'}"


def _curve(axes: Axes, curve: Curve, style: CurveStyle, label: str, end: float, *, banded: bool) -> None:
    radii = [*curve.radii, end]
    accuracies = [curve.at(radius) for radius in radii]
    low, high = 100 * np.array([accuracy.interval() for accuracy in accuracies]).T
    wide = {"linestyle": "-", "linewidth": 3.5, "alpha": 0.4} if curve.attack == TOGETHER else {}
    shape = {"linestyle": style.line, **wide, "color": style.colour}
    axes.step(radii, [100 * one.value for one in accuracies], where="post", label=label, **shape)
    if banded:
        axes.fill_between(radii, low, high, step="post", color=style.colour, alpha=0.12, linewidth=0)


def _point(axes: Axes, point: Point, colour: str, marker: str, *, several: bool) -> None:
    low, high = (100 * end for end in point.robust.interval())
    value = 100 * point.robust.value
    axes.errorbar(
        [point.epsilon],
        [value],
        yerr=[[value - low], [high - value]],
        color=colour,
        marker=marker,
        linestyle="none",
        elinewidth=0.6,
        capsize=1.5,
        label=_label(point.network, point.attack, several=several),
    )
