"""What the figures of several models share: panels side by side, and an axis of radii."""

from __future__ import annotations

from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from stcore.figures.style import COLUMN, PAGE


def side_by_side(count: int, height: float = 2.2, per_row: int = 4) -> tuple[Figure, list[Axes]]:
    """A figure with so many panels of so many inches that share their axes: a column wide, or a page."""
    across = min(count, per_row)
    down = -(-count // across)
    figure = Figure(figsize=(COLUMN if count == 1 else PAGE, height * down))
    axes = figure.subplots(down, across, sharex=True, sharey=True, squeeze=False)
    for spare in axes.flat[count:]:
        spare.remove()
    return figure, list(axes.flat[:count])


def in_255(radii: Sequence[float]) -> bool:
    """Whether these are whole multiples of 1/255, and to be told as such."""
    plain = all(abs(radius - round(radius, 3)) < 1e-9 for radius in radii)  # 0.2 is 51/255, too
    return not plain and all(abs(radius * 255 - round(radius * 255)) < 1e-6 for radius in radii)
