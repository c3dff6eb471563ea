"""Fig. 7: how the angles are distributed at some steps, a panel for each model, and how that goes on."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from stcore.analysis.angles import BINS, Angles, Result
from stcore.figures.palette import looks
from stcore.figures.style import COLUMN, PAGE, styled

_LINES: list[Any] = ["-", "--", "-.", ":"]
_SHADES = ("#E69F00", "#56B4E9", "#009E73", "#CC79A7")


@styled
def draw(result: Result) -> Figure:
    """Above the histograms at the steps that are shown, below the median and the quartiles of each step."""
    count = len(result.models)
    figure = Figure(figsize=(COLUMN if count == 1 else PAGE, 4.2))
    grid = figure.add_gridspec(2, count)
    first: Axes | None = None
    for n, model in enumerate(result.models):
        axes = figure.add_subplot(grid[0, n], sharex=first, sharey=first)
        _histograms(axes, model, result.shown)
        if first is None:
            first = axes
            axes.set_ylabel("share of images in %")
            axes.legend(title="after step", loc="upper left", fontsize=6, title_fontsize=6, handlelength=1.5)
        axes.tick_params(labelleft=n == 0)
    _course(figure.add_subplot(grid[1, :]), result)
    return figure


def _histograms(axes: Axes, model: Angles, steps: list[int]) -> None:
    for step, line, colour in zip(steps, _LINES, _SHADES, strict=False):
        share = 100 * model.histogram(step) / max(len(model.at(step)), 1)
        axes.stairs(share, BINS, label=str(step), color=colour, linestyle=line, linewidth=1.2)
    axes.set_title(model.name)
    axes.set_xlabel("angle in degrees")
    axes.set_xticks([0, 45, 90, 135, 180])


def _course(axes: Axes, result: Result) -> None:
    steps = range(1, result.settings.steps + 1)
    for model, look in zip(result.models, looks([model.method for model in result.models]), strict=True):
        some = [step for step in steps if len(model.at(step))]
        low, middle, high = np.array([np.quantile(model.at(step), (0.25, 0.5, 0.75)) for step in some]).T
        axes.fill_between(some, low, high, color=look.colour, alpha=0.2, linewidth=0)
        axes.plot(some, middle, label=model.name, markevery=-(-len(steps) // 20), **look.plot)
    axes.axhline(90, color="0.5", linewidth=0.6)
    axes.set_xlabel("step")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_ylabel("angle in degrees")
    axes.set_yticks([0, 45, 90, 135, 180])
    axes.legend(title="median, shaded the middle half of the images", ncols=4)
