"""Fig. 7: distribution of the angles at some steps, a panel per model, and the median over all steps."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from stcore.analysis.angles import BINS, Angles, Result
from stcore.figures.palette import method_styles
from stcore.figures.style import COLUMN, PAGE, styled

_LINES: list[Any] = ["-", "--", "-.", ":"]
_SHADES = ("#E69F00", "#56B4E9", "#009E73", "#CC79A7")


@styled
def draw(result: Result) -> Figure:
    """Draws histograms at the shown steps above, and the median and quartiles of each step below."""
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
    _medians(figure.add_subplot(grid[1, :]), result)
    return figure


def _histograms(axes: Axes, model: Angles, steps: list[int]) -> None:
    for step, line, colour in zip(steps, _LINES, _SHADES, strict=False):
        share = 100 * model.histogram(step) / max(len(model.at(step)), 1)
        axes.stairs(share, BINS, label=str(step), color=colour, linestyle=line, linewidth=1.2)
    axes.set_title(model.name)
    axes.set_xlabel("angle in degrees")
    axes.set_xticks([0, 45, 90, 135, 180])


def _medians(axes: Axes, result: Result) -> None:
    steps = range(1, result.settings.steps + 1)
    for model, style in zip(result.models, method_styles([m.method for m in result.models]), strict=True):
        defined = [step for step in steps if len(model.at(step))]
        low, middle, high = np.array([np.quantile(model.at(step), (0.25, 0.5, 0.75)) for step in defined]).T
        axes.fill_between(defined, low, high, color=style.colour, alpha=0.2, linewidth=0)
        axes.plot(defined, middle, label=model.name, markevery=-(-len(steps) // 20), **style.plot)
    axes.axhline(90, color="0.5", linewidth=0.6)
    axes.set_xlabel("step")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_ylabel("angle in degrees")
    axes.set_yticks([0, 45, 90, 135, 180])
    axes.legend(title="median; shaded: middle half of the images", ncols=4)
