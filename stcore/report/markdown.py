"""Markdown rendering, with the figures as PNG files in a folder beside it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from stcore.figures import style
from stcore.report.blocks import Block, Cell, Code, Document, Folded, Headline, Picture, Pictures, Table, Text


def markdown(document: Document, folder: str) -> str:
    """The Markdown text of a report. folder: of its figures, relative to the file."""
    lines = [f"# {escaped(document.title)}", "", escaped(document.subtitle), ""]
    for block in document.headline:
        lines += _block(block, folder)
    for part in document.parts:
        level = "##" if part.title is None else "###"
        lines += [] if part.title is None else [f"## {escaped(part.title)}", ""]
        for section in part.sections:
            lines += [f"{level} {escaped(section.title)}", ""]
            for block in section.blocks:
                lines += _block(block, folder)
    return "\n".join(lines).rstrip() + "\n"


def pictures(document: Document) -> Iterator[Picture]:
    """Yields all figures of a document."""
    for part in document.parts:
        for section in part.sections:
            for block in section.blocks:
                if isinstance(block, Pictures):
                    yield from block.pictures


def save_pictures(document: Document, folder: Path) -> None:
    """Writes all figures as PNG files on a light background."""
    for picture in pictures(document):
        style.save(picture.draw(False), folder / picture.name, ("png",))


def escaped(text: str) -> str:
    """The text on one line, with the special characters of Markdown and HTML escaped."""
    return re.sub(r"([\\`*_\[\]<>|#~&])", r"\\\1", re.sub(r"[\r\n]+", " ", text))


_TONES = {"plain": "", "note": "> **Note.** ", "warning": "> **Warning.** "}


def _block(block: Block, folder: str) -> Iterator[str]:
    """The block's lines, followed by an empty one."""
    match block:
        case Text():
            yield _TONES[block.tone] + escaped(block.text)
        case Headline():
            for number in block.numbers:
                yield f"- **{escaped(number.value)}** {escaped(number.label)} ({escaped(number.detail)})"
        case Table():
            yield from table(block)
        case Code():
            yield from fenced(block)
        case Pictures():
            for picture in block.pictures:
                yield f"![{escaped(picture.alt)}]({folder}/{picture.name}.png)"
                yield ""
                yield f"*{escaped(picture.caption)}*"
                yield ""
        case Folded():
            yield f"**{escaped(block.title)}**"
            yield ""
            for one in block.blocks:
                yield from _block(one, folder)
    yield ""


def table(block: Table) -> Iterator[str]:
    """The lines of a pipe table, its caption above it."""
    yield f"{escaped(block.caption)}:"
    yield ""
    yield _line(list(map(escaped, block.titles)))
    yield _line(["---"] * (len(block.titles) - block.numbers) + ["---:"] * block.numbers)
    for row in block.rows:
        yield _line(list(map(_cell, row)))


def fenced(block: Code) -> Iterator[str]:
    """The lines of a code block whose fence is longer than any run of backticks in it."""
    fence = "`" * max(3, *(len(run) + 1 for run in re.findall("`+", block.text)), 3)
    yield f"{fence}{block.language}"
    yield block.text
    yield fence


def _line(cells: list[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def _cell(cell: Cell) -> str:
    text = escaped(f"{cell.text} {cell.detail}".strip())
    return f"**{text}**" if cell.marked and text else text
