"""Formats of a table of runs: Markdown, CSV, JSON, LaTeX. All but CSV include the notes."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable
from typing import Any

from stcore.results.tables import sheet
from stcore.results.tables.notes import notes
from stcore.results.tables.sheet import Cell, Sheet
from stcore.results.tables.table import Figure, Row, RunTable


def sheet_of(table: RunTable) -> Sheet:
    """The table with its settings, seeds, figures and costs as columns."""
    titles = [*table.columns, "seeds", *(f"{attack} %" for attack in table.attacks), *table.rows[0].costs]
    rows = [[Cell(show(value)) for value in _cells(table, row)] for row in table.rows]
    return Sheet(titles, len(table.columns) + 1, rows, notes(table))


def comma_separated(table: RunTable) -> str:
    """CSV with four columns per figure: mean, low, high, number of seeds (1: the interval is over images)."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    of_attacks = [f"{attack}{part}" for attack in table.attacks for part in (" %", " low %", " high %", " seeds")]
    writer.writerow([*table.columns, "seeds", *of_attacks, *table.rows[0].costs])
    for row in table.rows:
        figures = [row.figure(attack) for attack in table.attacks]
        numbers = [x for figure in figures for x in (vars(figure).values() if figure else [None] * 4)]
        settings = ["" if (value := row.settings.get(name)) is None else show(value) for name in table.columns]
        writer.writerow([*settings, show(row.seeds), *numbers, *row.costs.values()])
    return text.getvalue()


def content(table: RunTable) -> dict[str, Any]:
    """The table as plain JSON values: checkpoint, rows, notes; accuracies in percent."""
    rows = [
        {
            "settings": {name: row.settings.get(name) for name in table.columns},
            "runs": [str(run.path) for run in row.runs],
            "seeds": row.seeds,
            "accuracies": {a: _json(figure) for a in table.attacks if (figure := row.figure(a)) is not None},
            **dict(zip(("passes", "seconds_per_epoch", "images_per_second"), row.costs.values(), strict=True)),
        }
        for row in table.rows
    ]
    return {"checkpoint": table.checkpoint, "rows": rows, "notes": notes(table)}


def json_text(content: dict[str, Any]) -> str:
    """The content of a JSON file, indented."""
    return json.dumps(content, indent=2, ensure_ascii=False) + "\n"


FORMATS: dict[str, Callable[[RunTable], str]] = {
    "markdown": lambda table: sheet.markdown(sheet_of(table)),
    "csv": comma_separated,
    "json": lambda table: json_text(content(table)),
    "latex": lambda table: sheet.latex(sheet_of(table)),
}


def show(value: Any) -> str:
    """The cell's text for a setting, seeds, a cost or a figure."""
    if isinstance(value, Figure):
        width = f"± {value.high - value.mean:.2f}" if value.seeds > 1 else f"[{value.low:.2f}, {value.high:.2f}]"
        return f"{value.mean:.2f} {width}"
    if isinstance(value, (tuple, list)):
        return ", ".join(map(show, value))
    if isinstance(value, bool) or value is None:
        return {True: "yes", False: "no", None: "–"}[value]
    if isinstance(value, float):
        return f"{value:.4g}" if abs(value) < 1e4 else f"{value:.0f}"
    return " ".join(str(value).split())


def _cells(table: RunTable, row: Row) -> list[Any]:
    settings = [row.settings.get(name) for name in table.columns]
    return [*settings, row.seeds, *map(row.figure, table.attacks), *row.costs.values()]


def _json(figure: Figure) -> dict[str, Any]:
    interval = [figure.low, figure.high]
    over = "seeds" if figure.seeds > 1 else "images"
    return {"mean": figure.mean, "interval_95": interval, "seeds": figure.seeds, "interval_over": over}
