"""A table of runs as Markdown, CSV, JSON or LaTeX; its notes are part of all but CSV, which has no place."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Callable
from typing import Any

from stcore.run_table import Figure, Row, RunTable
from stcore.run_table_notes import notes


def markdown(table: RunTable) -> str:
    """A pipe table, the notes in a list below it."""

    def line(cells: list[str]) -> str:
        return "| " + " | ".join(re.sub(r"([\\|*<`])", r"\\\1", cell) for cell in cells) + " |"

    titles = _titles(table)
    rule = "|" + "|".join(["---"] * _texts(table) + ["---:"] * (len(titles) - _texts(table))) + "|"
    rows = [line([_show(value) for value in _cells(table, row)]) for row in table.rows]
    return "\n".join([line(titles), rule, *rows, "", *(f"- {note}" for note in notes(table))]) + "\n"


def latex(table: RunTable) -> str:
    """A booktabs tabular for a document in UTF-8, the notes below it."""

    def line(cells: list[str]) -> str:
        return " & ".join(map(latex_text, cells)) + r" \\"

    titles = _titles(table)
    lines = [
        "% needs \\usepackage{booktabs}",
        f"\\begin{{tabular}}{{{'l' * _texts(table)}{'r' * (len(titles) - _texts(table))}}}",
        "\\toprule",
        line(titles),
        "\\midrule",
        *(line([_show(value) for value in _cells(table, row)]) for row in table.rows),
        "\\bottomrule",
        "\\end{tabular}",
        *(f"\\par{{\\footnotesize {latex_text(note)}\\par}}" for note in notes(table)),
    ]
    return "\n".join(lines) + "\n"


def comma_separated(table: RunTable) -> str:
    """Each figure in four columns: mean, low, high, and the number of seeds (1: the interval is over images)."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    of_attacks = [f"{attack}{part}" for attack in table.attacks for part in (" %", " low %", " high %", " seeds")]
    writer.writerow([*table.columns, "seeds", *of_attacks, *table.rows[0].costs])
    for row in table.rows:
        figures = [row.figure(attack) for attack in table.attacks]
        numbers = [x for figure in figures for x in (vars(figure).values() if figure else [None] * 4)]
        settings = ["" if (value := row.settings.get(name)) is None else _show(value) for name in table.columns]
        writer.writerow([*settings, _show(row.seeds), *numbers, *row.costs.values()])
    return text.getvalue()


def as_json(table: RunTable) -> str:
    """One object: checkpoint, rows, notes; accuracies in percent."""
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
    said = {"checkpoint": table.checkpoint, "rows": rows, "notes": notes(table)}
    return json.dumps(said, indent=2, ensure_ascii=False) + "\n"


FORMATS: dict[str, Callable[[RunTable], str]] = {
    "markdown": markdown,
    "csv": comma_separated,
    "json": as_json,
    "latex": latex,
}

_LATEX = str.maketrans(
    {
        **{character: f"\\{character}" for character in "&%$#_{}"},
        **{character: f"{{{character}}}" for character in "[]*"},  # after \\ they would be its arguments
        "\\": r"\textbackslash{}",
        "~": r"\textasciitilde{}",
        "^": r"\textasciicircum{}",
        "<": r"\textless{}",
        ">": r"\textgreater{}",
        "|": r"\textbar{}",
        "±": r"$\pm$",
        "ε": r"$\varepsilon$",
        "–": r"\textendash{}",
    }
)


def latex_text(text: str) -> str:
    """Text that LaTeX sets as it stands."""
    return re.sub("-(?=-)", "-{}", text.translate(_LATEX))  # two hyphens would make a dash


def _texts(table: RunTable) -> int:
    """How many columns, from the left, are no figures."""
    return len(table.columns) + 1


def _titles(table: RunTable) -> list[str]:
    return [*table.columns, "seeds", *(f"{attack} %" for attack in table.attacks), *table.rows[0].costs]


def _cells(table: RunTable, row: Row) -> list[Any]:
    settings = [row.settings.get(name) for name in table.columns]
    return [*settings, row.seeds, *map(row.figure, table.attacks), *row.costs.values()]


def _show(value: Any) -> str:
    if isinstance(value, Figure):
        width = f"± {value.high - value.mean:.2f}" if value.seeds > 1 else f"[{value.low:.2f}, {value.high:.2f}]"
        return f"{value.mean:.2f} {width}"
    if isinstance(value, (tuple, list)):
        return ", ".join(map(_show, value))
    if isinstance(value, bool) or value is None:
        return {True: "yes", False: "no", None: "–"}[value]
    if isinstance(value, float):
        return f"{value:.4g}" if abs(value) < 1e4 else f"{value:.0f}"
    return " ".join(str(value).split())


def _json(figure: Figure) -> dict[str, Any]:
    interval = [figure.low, figure.high]
    over = "seeds" if figure.seeds > 1 else "images"
    return {"mean": figure.mean, "interval_95": interval, "seeds": figure.seeds, "interval_over": over}
