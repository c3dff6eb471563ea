"""A table of runs in the paper's style: methods down, attacks across, the best of each column in bold.

Below runs of a row's preset stands the row as the paper prints it, with the verdict of `stcli verify` on whether
the two are comparable.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

from stcore.paper import PRESETS
from stcore.paper.preset import COLUMNS, Expected, Preset
from stcore.results import names
from stcore.results.comparison import compare
from stcore.results.tables.notes import intervals, same_task, warnings
from stcore.results.tables.table import Row, RunTable, varied
from stcore.runs.record import read_record


@dataclass(frozen=True)
class Printed:
    """The paper's row for the runs' preset, and the reasons why the two are not comparable."""

    preset: Preset
    reasons: tuple[str, ...]

    def figure(self, attack: str) -> Expected | None:
        return self.preset.expected.get(attack)


@dataclass(frozen=True)
class PaperTable:
    """A run table in the paper's style.

    extra: columns between the method's name and the attacks.   printed: for each row the paper's, or None.
    """

    table: RunTable
    extra: tuple[str, ...]
    attacks: tuple[str, ...]
    printed: tuple[Printed | None, ...]

    def best(self, attack: str) -> float | None:
        """The highest mean of our rows; None unless there are several comparable ones."""
        means = [figure.mean for row in self.table.rows if (figure := row.figure(attack)) is not None]
        return max(means) if len(means) > 1 and same_task(self.table) else None

    def is_best(self, row: Row, attack: str) -> bool:
        figure = row.figure(attack)
        return figure is not None and figure.mean == self.best(attack)


def in_paper_style(table: RunTable) -> PaperTable:
    """The table with its attacks in the paper's order, other attacks last."""
    order = sorted(table.attacks, key=_rank)
    extra = tuple(name for name in table.columns if name != "method")
    return PaperTable(table, extra, tuple(order), tuple(_printed(row, table) for row in table.rows))


def narrowed(table: RunTable) -> RunTable:
    """The table with only the columns that distinguish rows with the same method name."""
    by_method: dict[str, list[Row]] = {}
    for row in table.rows:
        by_method.setdefault(names.method(row.settings), []).append(row)
    needed = {name for rows in by_method.values() for name in varied([row.settings for row in rows])}
    return dataclasses.replace(table, columns=tuple(name for name in table.columns if name in needed))


def _rank(attack: str) -> tuple[int, bool]:
    known, suffix, _ = attack.partition(" ")
    return COLUMNS.index(known) if known in COLUMNS else len(COLUMNS), bool(suffix)


def _printed(row: Row, table: RunTable) -> Printed | None:
    preset = PRESETS.get(row.settings.get("preset", ""))
    if preset is None or preset.checkpoint != table.checkpoint or not any(preset.expected.values()):
        return None
    return Printed(preset, compare(preset, [read_record(run.path) for run in row.runs]).reasons)


def caption(table: RunTable) -> str:
    """The caption: data set, network, ε, checkpoint, number of seeds, and the kinds of intervals."""
    plans = [row.runs[0].plan for row in table.rows]
    seeds = sorted({len(row.runs) for row in table.rows})
    parts = [
        "Accuracy in % on the test split of " + _all(names.data(plan.data.dataset) for plan in plans),
        _all(names.model(plan.model.name) for plan in plans),
        _all(f"{names.norm(plan.norm)}, ε = {names.radius(plan.evaluation.epsilon)}" for plan in plans),
        f"{table.checkpoint} checkpoint",
        f"{' or '.join(map(str, seeds))} seed{'s' * (seeds != [1])}",
        *intervals(table),
    ]
    best = ". The best of each column is in bold" if len(table.rows) > 1 and same_task(table) else ""
    return "; ".join(parts) + best + "."


def _all(values: Any) -> str:
    return " or ".join(dict.fromkeys(values))


def notes(paper: PaperTable) -> list[str]:
    """The table's warnings, and whether each row is comparable with the paper's."""
    listed = warnings(paper.table)
    if listed and any(paper.printed):
        listed.append('row numbers do not count the "as printed" rows')
    for row, printed in zip(paper.table.rows, paper.printed, strict=True):
        if printed is not None:
            against = f"; not comparable: {'; '.join(printed.reasons)}" if printed.reasons else ""
            listed.append(f"{names.method(row.settings)} as printed: {printed.preset.name}{against}")
    if any(a in one.preset.uncertain for one in paper.printed if one is not None for a in paper.attacks):
        listed.append("?: some digits are reconstructed from a damaged scan of the paper")
    return listed
