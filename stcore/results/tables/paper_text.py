"""Formats of a table in the paper's style: Markdown, CSV, JSON, LaTeX. All but CSV include caption and notes."""

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
from stcore.results.tables.text import content, json_text, show


def sheet_of(paper: PaperTable) -> Sheet:
    """Each row of runs, followed by the paper's row if there is one."""
    rows: list[list[Cell]] = []
    for row, printed in zip(paper.table.rows, paper.printed, strict=True):
        settings = [Cell(show(row.settings.get(name))) for name in paper.extra]
        figures = [Cell(show(row.figure(attack)), paper.is_best(row, attack)) for attack in paper.attacks]
        rows.append([Cell(names.method(row.settings)), *settings, *figures])
        if printed is not None:
            blank = [Cell("")] * len(paper.extra)
            rows.append([Cell("– as printed"), *blank, *(Cell(_show_printed(printed, a)) for a in paper.attacks)])
    titles = ["Method", *paper.extra, *map(names.attack, paper.attacks)]
    return Sheet(titles, 1 + len(paper.extra), rows, notes(paper), caption(paper.table))


def _show_printed(printed: Printed, attack: str) -> str:
    figure = printed.figure(attack)
    if figure is None:
        return "–"
    half = "" if figure.half_width is None else f" ± {figure.half_width:.2f}"
    return f"{figure.mean:.2f}{half}" + ("?" if attack in printed.preset.uncertain else "")


def caption_and_notes(table: RunTable) -> list[str]:
    """The caption, then the notes."""
    return [caption(table), *notes(in_paper_style(table))]


def comma_separated(paper: PaperTable) -> str:
    """Our rows and the paper's, distinguished by the column `source`; each figure with its interval's ends."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    of_attacks = [f"{attack}{part}" for attack in paper.attacks for part in (" %", " low %", " high %")]
    writer.writerow(["method", *paper.extra, "source", "seeds", *of_attacks])
    for row, printed in zip(paper.table.rows, paper.printed, strict=True):
        labels = [names.method(row.settings), *(show(row.settings.get(name)) for name in paper.extra)]
        found = [row.figure(attack) for attack in paper.attacks]
        ours = [x for one in found for x in ((one.mean, one.low, one.high) if one else [None] * 3)]
        writer.writerow([*labels, "runs", len(row.runs), *ours])
        if printed is not None:
            theirs = [x for attack in paper.attacks for x in _mean_low_high(printed.figure(attack))]
            writer.writerow([*labels, printed.preset.name, "", *theirs])
    return text.getvalue()


def _mean_low_high(figure: Expected | None) -> Sequence[float | None]:
    if figure is None or figure.half_width is None:
        return [figure.mean if figure else None, None, None]
    return [figure.mean, round(figure.mean - figure.half_width, 2), round(figure.mean + figure.half_width, 2)]


def as_json(paper: PaperTable) -> dict[str, Any]:
    """The content of the runs style, plus the caption and, for each row, its best figures and the paper's row."""
    found = content(paper.table)
    for one, row, printed in zip(found["rows"], paper.table.rows, paper.printed, strict=True):
        one["method"] = names.method(row.settings)
        one["best"] = [attack for attack in paper.attacks if paper.is_best(row, attack)]
        one["paper"] = None if printed is None else _as_json(printed)
    return {**found, "caption": caption(paper.table), "notes": notes(paper)}


def _as_json(printed: Printed) -> dict[str, Any]:
    expected = accuracies_as_json(printed.preset.expected)
    return {"preset": printed.preset.name, "accuracies": expected, "not_comparable": list(printed.reasons)}


FORMATS: dict[str, Callable[[RunTable], str]] = {
    "markdown": lambda table: sheet.markdown(sheet_of(in_paper_style(table))),
    "csv": lambda table: comma_separated(in_paper_style(table)),
    "json": lambda table: json_text(as_json(in_paper_style(table))),
    "latex": lambda table: sheet.latex(sheet_of(in_paper_style(table))),
}
