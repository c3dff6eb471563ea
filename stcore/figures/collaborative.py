"""Fig. 1: loss against the radius of the ball, a panel per model."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import NullFormatter

from stcore.analysis.collaborative import Curve, Result
from stcore.figures.palette import ROLE_STYLES
from stcore.figures.panels import in_255, side_by_side
from stcore.figures.style import styled
from stcore.protocols import Array
from stcore.results import names

SHADED = 0.1
SHADE = f"mean over the images; shaded: ± {SHADED:g} standard deviations"
_WIDE = 20  # from this ratio of means, a linear axis would hide the small ones
_FLOOR = 1e-6  # in nats: smaller losses are drawn at this value


@styled
def draw(result: Result) -> Figure:
    """Draws natural images as a level line, since the radius does not change them. Radius 0: natural images."""
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
    _curve(axes, "natural", radii, curve.mean[0] * level, curve.deviation[0] * level)
    _curve(axes, "collaborative", radii, curve.mean, curve.deviation)


def _curve(axes: Axes, role: str, radii: Array, mean: Array, deviation: Array) -> None:
    low, high, style = mean - SHADED * deviation, mean + SHADED * deviation, ROLE_STYLES[role]
    axes.fill_between(radii, np.maximum(low, _FLOOR), high, color=style.colour, alpha=0.25, linewidth=0)
    axes.plot(radii, np.maximum(mean, _FLOOR), label=role, **style.plot)
