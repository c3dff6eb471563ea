"""Tables that fit the terminal and are never truncated."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Collection, Sequence

from rich.console import Console, ConsoleOptions, RenderResult
from rich.measure import Measurement
from rich.table import Table

ROOMS = range(60, 5, -1)
"""Widths to try for columns of text if not all columns fit, widest first."""


class Fitting:
    """The first of several layouts that fits the terminal, else the last."""

    def __init__(self, layouts: Sequence[Table]) -> None:
        self.layouts = layouts

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        unbounded = options.update(width=10_000)
        widths = (Measurement.get(console, unbounded, one).maximum for one in self.layouts)
        fits = (one for one, width in zip(self.layouts, widths, strict=True) if width <= options.max_width)
        yield next(fits, self.layouts[-1])


def fitting(
    titles: Sequence[str],
    rows: Sequence[Sequence[str]],
    texts: Collection[int] = (0,),
    title: str | None = None,
) -> Fitting:
    """A table with one line per cell. If it is too wide, intervals go below their values, then texts are folded,
    then numbers. texts: indices of the columns that hold text."""
    below = [[stacked(cell) for cell in row] for row in rows]
    heads = [_folded(head, [row[n] for row in below]) for n, head in enumerate(titles)]
    return Fitting(
        [
            layout(titles, rows, texts, title),
            layout(heads, below, texts, title),
            *(layout(heads, below, texts, title, texts, room) for room in ROOMS),
            layout(heads, below, texts, title, range(len(heads))),
        ]
    )


def layout(
    titles: Sequence[str],
    rows: Sequence[Sequence[str]],
    texts: Collection[int],
    title: str | None,
    folds: Collection[int] = (),
    room: int | None = None,
) -> Table:
    """One layout. folds: indices of the columns whose words are folded beyond a width of `room`."""
    table = Table(title=title, title_justify="left")
    for n, head in enumerate(titles):
        table.add_column(
            head,
            justify="left" if n in texts else "right",
            no_wrap=n not in folds,
            overflow="fold",
            max_width=room if n in folds else None,
        )
    for row in rows:
        table.add_row(*row)
    return table


def stacked(cell: str) -> str:
    """Puts an interval in brackets, or a deviation after ±, on a line of its own."""
    return re.sub(r" (?=[\[(±])", "\n", cell)


def _folded(head: str, cells: Sequence[str]) -> str:
    """Folds a title that is wider than its cells."""
    widest = max((len(line) for cell in cells for line in cell.split("\n")), default=1)
    return textwrap.fill(head, max(widest, 1), break_long_words=False, break_on_hyphens=False)
