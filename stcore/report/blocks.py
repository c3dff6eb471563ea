"""Blocks of a report, independent of the output format.

All texts are plain; the writer of a format escapes its special characters.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, ClassVar, TypeAlias


@dataclass(frozen=True)
class Text:
    """A paragraph. tone: `plain`, or highlighted as a `note` or a `warning`."""

    kind: ClassVar = "text"
    text: str
    tone: str = "plain"


@dataclass(frozen=True)
class Number:
    """A number with its label and a detail, such as its interval."""

    label: str
    value: str
    detail: str


@dataclass(frozen=True)
class Headline:
    """The most important numbers, side by side."""

    kind: ClassVar = "headline"
    numbers: tuple[Number, ...]


@dataclass(frozen=True)
class Cell:
    """A table's cell: a text, and in small type a detail such as an interval. marked: highlighted."""

    text: str
    detail: str = ""
    marked: bool = False


@dataclass(frozen=True)
class Table:
    """Rows under titles; the first column names each row.

    numbers: the number of columns, from the right, that hold numbers.
    """

    kind: ClassVar = "table"
    caption: str
    titles: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]
    numbers: int = 0


@dataclass(frozen=True)
class Code:
    """Lines to copy. language: `sh`, `toml` or `python`."""

    kind: ClassVar = "code"
    text: str
    language: str = "sh"


@dataclass(frozen=True)
class Picture:
    """A figure. name: of its file.   alt: its description for readers who cannot see it.

    draw: given whether the background is dark, a `matplotlib.figure.Figure`.   wide: wider than a column.
    """

    kind: ClassVar = "picture"
    name: str
    alt: str
    caption: str
    draw: Callable[[bool], Any] = field(compare=False)
    wide: bool = False


@dataclass(frozen=True)
class Pictures:
    """Figures, side by side if there is room."""

    kind: ClassVar = "pictures"
    pictures: tuple[Picture, ...]


@dataclass(frozen=True)
class Folded:
    """Details that are hidden until the reader opens them."""

    kind: ClassVar = "folded"
    title: str
    blocks: tuple[Block, ...]


Block: TypeAlias = Text | Headline | Table | Code | Pictures | Folded


@dataclass(frozen=True)
class Section:
    """A titled part; key: its anchor, unique in the report."""

    key: str
    title: str
    blocks: tuple[Block, ...]


@dataclass(frozen=True)
class Part:
    """The sections of one run, or of the comparison of all. title: None if the report has only one part."""

    key: str
    title: str | None
    sections: tuple[Section, ...]


@dataclass(frozen=True)
class Document:
    """A whole report."""

    title: str
    subtitle: str
    headline: tuple[Block, ...]
    parts: tuple[Part, ...]
