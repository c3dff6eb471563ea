"""Panels, curves and axes that several figures share."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from stcore.analysis.logs import Course
from stcore.figures.palette import CurveStyle
from stcore.figures.style import COLUMN, PAGE


def side_by_side(count: int, height: float = 2.2, per_row: int = 4) -> tuple[Figure, list[Axes]]:
    """A figure with `count` panels that share their axes.

    One panel is a column wide, several share a page's width. height: of a panel, in inches.
    """
    across = min(count, per_row)
    down = -(-count // across)
    figure = Figure(figsize=(COLUMN if count == 1 else PAGE, height * down))
    axes = figure.subplots(down, across, sharex=True, sharey=True, squeeze=False)
    for spare in axes.flat[count:]:
        spare.remove()
    return figure, list(axes.flat[:count])


def in_255(radii: Sequence[float]) -> bool:
    """Whether to label these radii in 1/255: all are whole multiples of it, and not all are short decimals."""
    plain = all(abs(radius - round(radius, 3)) < 1e-9 for radius in radii)  # 0.2 is 51/255, too
    return not plain and all(abs(radius * 255 - round(radius * 255)) < 1e-6 for radius in radii)


def plot_course(axes: Axes, course: Course, style: CurveStyle, label: str, scale: float = 1.0) -> None:
    """Plots the mean over epochs; with several seeds, also a band from the lowest to the highest."""
    low, mean, high = ([scale * value for value in values] for values in (course.low, course.mean, course.high))
    if max(course.seeds) > 1:
        axes.fill_between(course.epochs, low, high, color=style.colour, alpha=0.2, linewidth=0)
    axes.plot(course.epochs, mean, label=label, **ten_markers(style, course))


def ten_markers(style: CurveStyle, course: Course) -> dict[str, Any]:
    """Keywords of `Axes.plot` for this style with about ten markers, whatever the number of epochs."""
    return {**style.plot, "markevery": max(1, len(course.epochs) // 10), "markersize": 3}


def label_epochs(axes: Axes) -> None:
    """Labels the horizontal axis with whole epochs."""
    axes.set_xlabel("epoch")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=6))
