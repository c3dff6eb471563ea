"""Fig. 5 (lower): the share of collaborative points over the epochs."""

from __future__ import annotations

from matplotlib.figure import Figure

from stcore.analysis.ratio import Result
from stcore.figures.epochs import course, of_epochs
from stcore.figures.palette import looks
from stcore.figures.style import COLUMN, styled


@styled
def draw(result: Result) -> Figure:
    """With the line at one half, below which fewer are collaborative than adversarial."""
    figure = Figure(figsize=(COLUMN, 2.3 + 0.14 * len(result.shares)))
    axes = figure.subplots()
    for one, look in zip(result.shares, looks([one.method for one in result.shares]), strict=True):
        course(axes, one.share, look, one.label, 100)
    axes.axhline(50, color="0.5", linestyle="--", linewidth=0.8, zorder=0)
    axes.annotate("50 %", (1, 50), xycoords=("axes fraction", "data"), ha="right", va="bottom", fontsize=7)
    axes.set_ylim(0, max(55, *(100 * value + 5 for one in result.shares for value in one.share.high)))
    axes.set_ylabel("collaborative points in %")
    of_epochs(axes)
    figure.legend(*axes.get_legend_handles_labels(), loc="outside lower center", ncols=2)
    return figure
