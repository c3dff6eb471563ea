"""Tables that fit the terminal, of which nothing is ever cut off."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Collection, Sequence

from rich.console import Console, ConsoleOptions, RenderResult
from rich.measure import Measurement
from rich.table import Table

ROOMS = range(60, 5, -1)
"""So wide texts may be where all columns do not fit: the first that helps."""


class Fitting:
    """The first of some layouts that the terminal has room for, or else the last."""

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
    """A table whose cells have a line each. Where that is too wide an interval stands below its value; then texts
    are folded, and numbers last. texts: which columns, counted from 0, are no numbers."""
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
    """One way to lay it out. folds: which columns may fold their words, and do beyond `room`."""
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
    """What is in brackets, or follows ±, below what it belongs to."""
    return re.sub(r" (?=[\[(±])", "\n", cell)


def _folded(head: str, cells: Sequence[str]) -> str:
    """A title over several lines where it is wider than its cells."""
    widest = max((len(line) for cell in cells for line in cell.split("\n")), default=1)
    return textwrap.fill(head, max(widest, 1), break_long_words=False, break_on_hyphens=False)
