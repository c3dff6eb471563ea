"""Figs. 5 (upper) and 8: the losses of natural, adversarial and collaborative points, a panel for each method."""

from __future__ import annotations

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from stcore.analysis.losses import Kind, Result
from stcore.figures.epochs import of_epochs, spaced
from stcore.figures.palette import ROLES
from stcore.figures.panels import side_by_side
from stcore.figures.style import styled


@styled
def draw(result: Result) -> Figure:
    """Shaded as the settings say, where the deviation was logged."""
    figure, panels = side_by_side(len(result.panels), height=2.6)
    for axes, panel in zip(panels, result.panels, strict=True):
        for kind in panel.kinds:
            _kind(axes, kind, result.settings.shade)
        axes.set_title(panel.label)
        of_epochs(axes)
    figure.supylabel("cross-entropy in nats", size=8)
    found = {
        label: handle for axes in panels for handle, label in zip(*axes.get_legend_handles_labels(), strict=True)
    }
    figure.legend(
        [*found.values()],
        [*found],
        title=f"mean over the epoch;\nshaded ± {result.settings.shade:g} standard deviations, where known",
        title_fontsize=7,
        loc="outside lower center",
        ncols=3,
    )
    return figure


def _kind(axes: Axes, kind: Kind, shade: float) -> None:
    look, mean = ROLES[kind.role], kind.loss.at()
    axes.plot(kind.loss.epochs, kind.loss.mean, label=kind.role, **spaced(look, kind.loss))
    spread = {epoch: shade * deviation for epoch, deviation in kind.deviation.at().items() if epoch in mean}
    low, high = ([mean[epoch] + sign * spread[epoch] for epoch in spread] for sign in (-1, 1))
    axes.fill_between([*spread], low, high, color=look.colour, alpha=0.25, linewidth=0)
