"""A table in the paper's style as Markdown, CSV, JSON or LaTeX; its caption and notes are part of all but CSV."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Sequence
from typing import Any

from stcore.paper.preset import Expected, accuracies_as_json
from stcore.results import names
from stcore.results.tables import sheet
from stcore.results.tables.paper import PaperTable, Printed, caption, in_paper_style, notes
from stcore.results.tables.sheet import Cell, Sheet
from stcore.results.tables.table import RunTable
from stcore.results.tables.text import content, dumped, show


def sheet_of(paper: PaperTable) -> Sheet:
    """Each row, and below it the paper's."""
    rows: list[list[Cell]] = []
    for row, printed in zip(paper.table.rows, paper.printed, strict=True):
        settings = [Cell(show(row.settings.get(name))) for name in paper.extra]
        figures = [Cell(show(row.figure(attack)), paper.is_best(row, attack)) for attack in paper.attacks]
        rows.append([Cell(names.method(row.settings)), *settings, *figures])
        if printed is not None:
            blank = [Cell("")] * len(paper.extra)
            rows.append([Cell("– as printed"), *blank, *(Cell(_told(printed, a)) for a in paper.attacks)])
    titles = ["Method", *paper.extra, *map(names.attack, paper.attacks)]
    return Sheet(titles, 1 + len(paper.extra), rows, notes(paper), caption(paper.table))


def _told(printed: Printed, attack: str) -> str:
    figure = printed.figure(attack)
    if figure is None:
        return "–"
    half = "" if figure.half_width is None else f" ± {figure.half_width:.2f}"
    return f"{figure.mean:.2f}{half}" + ("?" if attack in printed.preset.uncertain else "")


def told(table: RunTable) -> list[str]:
    """Caption and notes."""
    return [caption(table), *notes(in_paper_style(table))]


def comma_separated(paper: PaperTable) -> str:
    """Our rows and the paper's, told apart by `source`; each figure with the ends of its interval."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    of_attacks = [f"{attack}{part}" for attack in paper.attacks for part in (" %", " low %", " high %")]
    writer.writerow(["method", *paper.extra, "source", "seeds", *of_attacks])
    for row, printed in zip(paper.table.rows, paper.printed, strict=True):
        said = [names.method(row.settings), *(show(row.settings.get(name)) for name in paper.extra)]
        found = [row.figure(attack) for attack in paper.attacks]
        ours = [x for one in found for x in ((one.mean, one.low, one.high) if one else [None] * 3)]
        writer.writerow([*said, "runs", len(row.runs), *ours])
        if printed is not None:
            theirs = [x for attack in paper.attacks for x in _ends(printed.figure(attack))]
            writer.writerow([*said, printed.preset.name, "", *theirs])
    return text.getvalue()


def _ends(figure: Expected | None) -> Sequence[float | None]:
    if figure is None or figure.half_width is None:
        return [figure.mean if figure else None, None, None]
    return [figure.mean, round(figure.mean - figure.half_width, 2), round(figure.mean + figure.half_width, 2)]


def as_json(paper: PaperTable) -> dict[str, Any]:
    """As of the other style, with the caption, and for each row what is best and what the paper prints."""
    said = content(paper.table)
    for one, row, printed in zip(said["rows"], paper.table.rows, paper.printed, strict=True):
        one["method"] = names.method(row.settings)
        one["best"] = [attack for attack in paper.attacks if paper.is_best(row, attack)]
        one["paper"] = None if printed is None else _as_json(printed)
    return {**said, "caption": caption(paper.table), "notes": notes(paper)}


def _as_json(printed: Printed) -> dict[str, Any]:
    expected = accuracies_as_json(printed.preset.expected)
    return {"preset": printed.preset.name, "accuracies": expected, "not_comparable": list(printed.reasons)}


FORMATS: dict[str, Callable[[RunTable], str]] = {
    "markdown": lambda table: sheet.markdown(sheet_of(in_paper_style(table))),
    "csv": lambda table: comma_separated(in_paper_style(table)),
    "json": lambda table: dumped(as_json(in_paper_style(table))),
    "latex": lambda table: sheet.latex(sheet_of(in_paper_style(table))),
}
