"""Fig. 5 (lower): share of collaborative points over the epochs."""

from __future__ import annotations

from matplotlib.figure import Figure

from stcore.analysis.ratio import Result
from stcore.figures.palette import method_styles
from stcore.figures.panels import label_epochs, plot_course
from stcore.figures.style import COLUMN, styled


@styled
def draw(result: Result) -> Figure:
    """Draws the shares, with a line at one half: below it, fewer points are collaborative than adversarial."""
    figure = Figure(figsize=(COLUMN, 2.3 + 0.14 * len(result.shares)))
    axes = figure.subplots()
    for one, style in zip(result.shares, method_styles([one.method for one in result.shares]), strict=True):
        plot_course(axes, one.share, style, one.label, 100)
    axes.axhline(50, color="0.5", linestyle="--", linewidth=0.8, zorder=0)
    axes.annotate("50 %", (1, 50), xycoords=("axes fraction", "data"), ha="right", va="bottom", fontsize=7)
    axes.set_ylim(0, max(55, *(100 * value + 5 for one in result.shares for value in one.share.high)))
    axes.set_ylabel("collaborative points in %")
    label_epochs(axes)
    figure.legend(*axes.get_legend_handles_labels(), loc="outside lower center", ncols=2)
    return figure
