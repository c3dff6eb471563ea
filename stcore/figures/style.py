"""Style of all figures: readable in a paper's column and with colour blindness.

The colours are those of Okabe and Ito (2008). Curves also differ in marker and line style, never in colour alone.
"""

from __future__ import annotations

import functools
import io
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol, TypeVar

from matplotlib import rc_context
from matplotlib.figure import Figure

from stcore.base import checks
from stcore.base.files import replacing
from stcore.figures.palette import DARK, LIGHT

COLUMN, PAGE = 3.3, 6.9
"""Widths in inches: 84 mm, a paper's column, and 175 mm, its page."""

FORMATS = ("png", "svg", "pdf")
_UNDATED: dict[str, dict[str, None]] = {"png": {}, "svg": {"Date": None}, "pdf": {"CreationDate": None}}

_SHAPE: Any = {
    "font.size": 8,
    "axes.titlesize": 8,
    "axes.labelsize": 8,
    "xtick.labelsize": 7,
    "ytick.labelsize": 7,
    "legend.fontsize": 7,
    "legend.title_fontsize": 7,
    "legend.frameon": False,
    "lines.linewidth": 1.2,
    "lines.markersize": 4,
    "axes.linewidth": 0.6,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.linewidth": 0.4,
    "figure.constrained_layout.use": True,
    "savefig.dpi": 300,
    "svg.fonttype": "none",  # text stays text
    "svg.hashsalt": "stcore",  # the same file for the same figure
    "pdf.fonttype": 42,
}

Result = TypeVar("Result", contravariant=True)


class Drawer(Protocol[Result]):
    """Draws a result on a light or a dark background."""

    def __call__(self, result: Result, *, dark: bool = False) -> Figure: ...


@contextmanager
def style(dark: bool = False) -> Iterator[None]:
    """Context in which figures are made in the project's style, on a dark background if `dark`."""
    with rc_context({**_SHAPE, **_colours(*(DARK if dark else LIGHT))}):
        yield


def styled(draw: Callable[[Result], Figure]) -> Drawer[Result]:
    """Decorates a function that draws a result: it draws in the project's style."""

    @functools.wraps(draw)
    def drawer(result: Result, *, dark: bool = False) -> Figure:
        with style(dark):
            figure = draw(result)
            figure.draw_without_rendering()  # ticks get their colours when they are first drawn
            return figure

    return drawer


def save(figure: Figure, path: Path, formats: Sequence[str] = ("png",)) -> list[Path]:
    """Writes the figure to `path` plus .png, .svg or .pdf, each file atomically; returns the files' paths."""
    for kind in formats:
        checks.choice("formats", kind, FORMATS)
    files = [path.with_name(f"{path.name}.{kind}") for kind in formats]
    for file, kind in zip(files, formats, strict=True):
        with replacing(file) as out:
            out.write(_encoded(figure, kind))
    return files


def svg(figure: Figure) -> str:
    """The figure as an <svg> element for embedding in a page."""
    text = _encoded(figure, "svg").decode()
    return text[text.index("<svg") :]


def _encoded(figure: Figure, kind: str) -> bytes:
    out = io.BytesIO()
    with rc_context(_SHAPE):
        figure.savefig(out, format=kind, metadata=_UNDATED[kind])
    return out.getvalue()


def _colours(background: str, ink: str, grid: str) -> Any:
    inked = ("text.color", "axes.labelcolor", "axes.edgecolor", "axes.titlecolor", "xtick.color", "ytick.color")
    filled: tuple[str, ...] = ("figure.facecolor", "axes.facecolor")
    filled += tuple(f"axes3d.{axis}axis.panecolor" for axis in "xyz")
    return {"grid.color": grid, **dict.fromkeys(inked, ink), **dict.fromkeys(filled, background)}
