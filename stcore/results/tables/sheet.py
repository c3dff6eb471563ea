"""Typeset tables: titles, cells and notes as Markdown or LaTeX."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import NamedTuple


class Cell(NamedTuple):
    """A cell: plain text, and whether it is bold."""

    text: str
    bold: bool = False


@dataclass(frozen=True)
class Sheet:
    """A table ready for typesetting.

    texts: the number of left columns that hold text; the others hold numbers.   caption: omitted if empty.
    """

    titles: list[str]
    texts: int
    rows: list[list[Cell]]
    notes: list[str]
    caption: str = ""


def markdown(sheet: Sheet) -> str:
    """A pipe table with its caption above and its notes as a list below."""

    def escaped(text: str) -> str:
        return re.sub(r"([\\|*<`])", r"\\\1", text)

    def line(cells: list[Cell]) -> str:
        return "| " + " | ".join(f"**{escaped(c.text)}**" if c.bold else escaped(c.text) for c in cells) + " |"

    rule = "|" + "|".join(["---"] * sheet.texts + ["---:"] * (len(sheet.titles) - sheet.texts)) + "|"
    above = [escaped(sheet.caption), ""] if sheet.caption else []
    below = ["", *(f"- {escaped(note)}" for note in sheet.notes)] if sheet.notes else []
    return "\n".join([*above, line([*map(Cell, sheet.titles)]), rule, *map(line, sheet.rows), *below]) + "\n"


def latex(sheet: Sheet) -> str:
    """A booktabs tabular (UTF-8) with its notes below; a float if there is a caption."""

    def line(cells: list[Cell]) -> str:
        return (
            " & ".join(f"\\textbf{{{latex_text(c.text)}}}" if c.bold else latex_text(c.text) for c in cells)
            + r" \\"
        )

    above = ["\\begin{table}", "\\centering", f"\\caption{{{latex_text(sheet.caption)}}}"] if sheet.caption else []
    lines = [
        "% needs \\usepackage{booktabs}",
        *above,
        f"\\begin{{tabular}}{{{'l' * sheet.texts}{'r' * (len(sheet.titles) - sheet.texts)}}}",
        "\\toprule",
        line([*map(Cell, sheet.titles)]),
        "\\midrule",
        *map(line, sheet.rows),
        "\\bottomrule",
        "\\end{tabular}",
        *(f"\\par{{\\footnotesize {latex_text(note)}\\par}}" for note in sheet.notes),
        *(["\\end{table}"] if sheet.caption else []),
    ]
    return "\n".join(lines) + "\n"


_LATEX = str.maketrans(
    {
        **{character: f"\\{character}" for character in "&%$#_{}"},
        **{character: f"{{{character}}}" for character in "[]*"},  # after \\ LaTeX reads them as its arguments
        "\\": r"\textbackslash{}",
        "~": r"\textasciitilde{}",
        "^": r"\textasciicircum{}",
        "<": r"\textless{}",
        ">": r"\textgreater{}",
        "|": r"\textbar{}",
        "±": r"$\pm$",
        "ε": r"$\varepsilon$",
        "β": r"$\beta$",
        "ℓ": r"$\ell$",
        "∞": r"$_\infty$",
        "†": r"$^\dagger$",
        "–": r"\textendash{}",
    }
)


def latex_text(text: str) -> str:
    """The text with LaTeX's special characters escaped."""
    return re.sub("-(?=-)", "-{}", text.replace("l∞", "ℓ∞").translate(_LATEX))  # LaTeX makes a dash of two hyphens
