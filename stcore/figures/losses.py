"""Figs. 5 (upper) and 8: losses of natural, adversarial and collaborative points, a panel per method."""

from __future__ import annotations

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from stcore.analysis.losses import Kind, Result
from stcore.figures.palette import ROLE_STYLES
from stcore.figures.panels import label_epochs, side_by_side, ten_markers
from stcore.figures.style import styled


@styled
def draw(result: Result) -> Figure:
    """Draws the mean losses, with a shaded band if the deviation was logged."""
    figure, panels = side_by_side(len(result.panels), height=2.6)
    for axes, panel in zip(panels, result.panels, strict=True):
        for kind in panel.kinds:
            _kind(axes, kind, result.settings.shade)
        axes.set_title(panel.label)
        label_epochs(axes)
    figure.supylabel("cross-entropy in nats", size=8)
    found = {
        label: handle for axes in panels for handle, label in zip(*axes.get_legend_handles_labels(), strict=True)
    }
    figure.legend(
        [*found.values()],
        [*found],
        title=f"mean over the epoch;\nshaded: ± {result.settings.shade:g} standard deviations, if logged",
        title_fontsize=7,
        loc="outside lower center",
        ncols=3,
    )
    return figure


def _kind(axes: Axes, kind: Kind, shade: float) -> None:
    style, mean = ROLE_STYLES[kind.role], kind.loss.by_epoch()
    axes.plot(kind.loss.epochs, kind.loss.mean, label=kind.role, **ten_markers(style, kind.loss))
    spread = {epoch: shade * value for epoch, value in kind.deviation.by_epoch().items() if epoch in mean}
    low, high = ([mean[epoch] + sign * spread[epoch] for epoch in spread] for sign in (-1, 1))
    axes.fill_between([*spread], low, high, color=style.colour, alpha=0.25, linewidth=0)
