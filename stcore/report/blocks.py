"""What a report is made of, before anyone decides on HTML or Markdown.

All texts are plain: whoever writes them out escapes what his format would read otherwise.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, ClassVar, TypeAlias


@dataclass(frozen=True)
class Text:
    """A paragraph. tone: `plain`, or what catches the eye: a `note`, or a `warning`."""

    kind: ClassVar = "text"
    text: str
    tone: str = "plain"


@dataclass(frozen=True)
class Number:
    """A figure to be read at a glance, what it is, and how sure it is."""

    label: str
    value: str
    detail: str


@dataclass(frozen=True)
class Headline:
    """The few numbers that matter most, side by side."""

    kind: ClassVar = "headline"
    numbers: tuple[Number, ...]


@dataclass(frozen=True)
class Cell:
    """Of a table: a text, and smaller behind it a detail such as an interval. marked: to be noticed."""

    text: str
    detail: str = ""
    marked: bool = False


@dataclass(frozen=True)
class Table:
    """Rows under titles; the first column says what each row is.

    numbers: how many columns, from the right, are numbers.
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
    """A figure. name: of its file.   alt: what is to be seen, for those who do not see it.

    draw: of a dark ground or not, a `matplotlib.figure.Figure`.   wide: more than a column's width.
    """

    kind: ClassVar = "picture"
    name: str
    alt: str
    caption: str
    draw: Callable[[bool], Any] = field(compare=False)
    wide: bool = False


@dataclass(frozen=True)
class Pictures:
    """Figures side by side where there is room."""

    kind: ClassVar = "pictures"
    pictures: tuple[Picture, ...]


@dataclass(frozen=True)
class Folded:
    """What is there for those who want it."""

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
    """One run's sections, or those of the comparison of all. title: None where the report has but one part."""

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
