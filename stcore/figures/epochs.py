"""What the figures over epochs share: a course with its band, and an axis of epochs."""

from __future__ import annotations

from typing import Any

from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from stcore.analysis.logs import Course
from stcore.figures.palette import Look


def course(axes: Axes, one: Course, look: Look, label: str, scale: float = 1.0) -> None:
    """Its mean; over several seeds with a band from the lowest to the highest."""
    low, mean, high = ([scale * value for value in values] for values in (one.low, one.mean, one.high))
    if max(one.seeds) > 1:
        axes.fill_between(one.epochs, low, high, color=look.colour, alpha=0.2, linewidth=0)
    axes.plot(one.epochs, mean, label=label, **spaced(look, one))


def spaced(look: Look, one: Course) -> dict[str, Any]:
    """A curve's look with some ten markers along it, however many epochs there are."""
    return {**look.plot, "markevery": max(1, len(one.epochs) // 10), "markersize": 3}


def of_epochs(axes: Axes) -> None:
    """Whole epochs below the panel."""
    axes.set_xlabel("epoch")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=6))
