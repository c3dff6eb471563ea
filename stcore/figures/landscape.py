"""Fig. 3: the loss over a plane as a surface and as contours, a column per model."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import Normalize
from matplotlib.figure import Figure

from stcore.analysis.landscape import Result, Surface
from stcore.figures.style import COLUMN, PAGE, styled

_MAP = "cividis"  # uniform in lightness, and readable with colour blindness


@styled
def draw(result: Result) -> Figure:
    """Draws all models on one scale of colour and height."""
    count = len(result.surfaces)
    figure = Figure(figsize=(COLUMN if count == 1 else PAGE, 4.4 if count < 3 else 11 / count + 0.8))
    low = min(surface.loss.min() for surface in result.surfaces)
    high = max(surface.loss.max() for surface in result.surfaces)
    scale = Normalize(low, high)
    axis = result.settings.axis
    panels: list[Axes] = []
    for n, surface in enumerate(result.surfaces):
        above = figure.add_subplot(2, count, n + 1, projection="3d")
        a, b = np.meshgrid(axis, axis, indexing="ij")
        above.plot_surface(a, b, surface.loss, cmap=_MAP, norm=scale, linewidth=0, rcount=60, ccount=60)
        above.set_zlim(low, high)
        above.set_xlabel("a", labelpad=-8)
        above.set_ylabel("b", labelpad=-8)
        above.tick_params(pad=-2, labelsize=6)
        above.set_title(surface.name)
        below = figure.add_subplot(2, count, count + n + 1)
        _contours(below, surface, result, scale)
        if n:
            below.tick_params(labelleft=False)
        else:
            below.set_ylabel("b, in lengths of v")
        panels += [above, below]
    shades = panels[1].collections[0]
    figure.colorbar(
        shades, ax=panels, label="cross-entropy in nats (height and colour)", shrink=0.6, format="%.2g"
    )
    figure.legend(*panels[1].get_legend_handles_labels(), loc="outside lower center", ncols=2)
    return figure


def _contours(axes: Axes, surface: Surface, result: Result, scale: Normalize) -> None:
    axis = result.settings.axis
    levels = np.linspace(scale.vmin or 0.0, scale.vmax or 1.0, 13)
    axes.contourf(axis, axis, surface.loss.T, levels, cmap=_MAP, norm=scale)
    axes.contour(axis, axis, surface.loss.T, levels, colors="black", linewidths=0.3)
    axes.grid(False)
    axes.plot(0, 0, "o", color="white", markeredgecolor="black", label="natural image", linestyle="")
    axes.plot(1, 0, "s", color="white", markeredgecolor="black", label="collaborative example", linestyle="")
    axes.set_xlabel("a, in lengths of u")
    axes.set_xticks(np.linspace(-result.settings.reach, result.settings.reach, 5))
    axes.set_yticks(axes.get_xticks())
    axes.set_aspect("equal")
