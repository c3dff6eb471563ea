"""Fig. 1: loss against the radius of the ball, a panel for each model."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import NullFormatter

from stcore.analysis.collaborative import Curve, Result
from stcore.figures.palette import ROLES, Look
from stcore.figures.panels import in_255, side_by_side
from stcore.figures.style import styled
from stcore.protocols import Array
from stcore.results import names

SHADED = 0.1
SHADE = f"means of the images, shaded ± {SHADED:g} of their standard deviation"
_WIDE = 20  # the ratio of means from which on a linear axis would hide the small ones
_FLOOR = 1e-6  # in nats: what lies below is nothing to look at


@styled
def draw(result: Result) -> Figure:
    """The natural images are a level line, since no radius changes them; at radius 0 all examples are natural."""
    figure, panels = side_by_side(len(result.curves))
    small = in_255(result.settings.budgets)
    radii = np.array(result.budgets) * (255 if small else 1)
    means = np.array([curve.mean for curve in result.curves])
    scale = "log" if means.max() > _WIDE * means.min() else "linear"
    for axes, curve in zip(panels, result.curves, strict=True):
        _panel(axes, curve, radii)
        axes.set_title(curve.name)
        axes.set_yscale(scale)
        axes.yaxis.set_major_formatter("{x:g}")
        axes.yaxis.set_minor_formatter(NullFormatter())
        axes.set_xticks(radii, [f"{radius:.3g}" for radius in radii])
    figure.supxlabel(
        f"radius ε of the ball{' in 1/255' if small else ''} ({names.norm(result.settings.norm)})", size=8
    )
    figure.supylabel(f"cross-entropy in nats{' (log scale)' if scale == 'log' else ''}", size=8)
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside upper center", ncols=2, title=SHADE)
    return figure


def _panel(axes: Axes, curve: Curve, radii: Array) -> None:
    level = np.ones(len(radii))
    _curve(axes, "natural", ROLES["natural"], radii, curve.mean[0] * level, curve.deviation[0] * level)
    _curve(axes, "collaborative", ROLES["collaborative"], radii, curve.mean, curve.deviation)


def _curve(axes: Axes, label: str, look: Look, radii: Array, mean: Array, deviation: Array) -> None:
    low, high = mean - SHADED * deviation, mean + SHADED * deviation
    axes.fill_between(radii, np.maximum(low, _FLOOR), high, color=look.colour, alpha=0.25, linewidth=0)
    axes.plot(radii, np.maximum(mean, _FLOOR), label=label, **look.plot)
