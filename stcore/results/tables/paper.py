"""A table of runs as the paper prints its own: methods down, attacks across, the best of each column in bold.

Where runs were made by a row's preset, what the paper prints in that row stands below them; whether the two may be
compared is said as `stcli verify` says it.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

from stcore.paper import PRESETS
from stcore.paper.preset import ATTACKS, Expected, Preset
from stcore.results import names
from stcore.results.comparison import compare
from stcore.results.tables.notes import intervals, same_task, warnings
from stcore.results.tables.table import Row, RunTable, varied
from stcore.runs.record import read_record


@dataclass(frozen=True)
class Printed:
    """The paper's row of some runs' preset, and what stands against comparing them."""

    preset: Preset
    reasons: tuple[str, ...]

    def figure(self, attack: str) -> Expected | None:
        return self.preset.expected.get(attack)


@dataclass(frozen=True)
class PaperTable:
    """extra: settings beside the method's name.   printed: for each row, or None."""

    table: RunTable
    extra: tuple[str, ...]
    attacks: tuple[str, ...]
    printed: tuple[Printed | None, ...]

    def best(self, attack: str) -> float | None:
        """The highest mean of our rows, if there are several that compare."""
        means = [figure.mean for row in self.table.rows if (figure := row.figure(attack)) is not None]
        return max(means) if len(means) > 1 and same_task(self.table) else None

    def is_best(self, row: Row, attack: str) -> bool:
        figure = row.figure(attack)
        return figure is not None and figure.mean == self.best(attack)


def in_paper_style(table: RunTable) -> PaperTable:
    """The attacks in the paper's order, others behind them."""
    order = sorted(table.attacks, key=_place)
    extra = tuple(name for name in table.columns if name != "method")
    return PaperTable(table, extra, tuple(order), tuple(_printed(row, table) for row in table.rows))


def narrowed(table: RunTable) -> RunTable:
    """With only those settings that rows differ in whose methods are called alike."""
    alike: dict[str, list[Row]] = {}
    for row in table.rows:
        alike.setdefault(names.method(row.settings), []).append(row)
    apart = {name for rows in alike.values() for name in varied([row.settings for row in rows])}
    return dataclasses.replace(table, columns=tuple(name for name in table.columns if name in apart))


def _place(attack: str) -> tuple[int, bool]:
    known, otherwise, _ = attack.partition(" ")
    return ATTACKS.index(known) if known in ATTACKS else len(ATTACKS), bool(otherwise)


def _printed(row: Row, table: RunTable) -> Printed | None:
    preset = PRESETS.get(row.settings.get("preset", ""))
    if preset is None or preset.checkpoint != table.checkpoint or not any(preset.expected.values()):
        return None
    return Printed(preset, compare(preset, [read_record(run.path) for run in row.runs]).reasons)


def caption(table: RunTable) -> str:
    """What the rows have in common: data set, network, ε, checkpoint, seeds, and what the intervals are."""
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
    """What stands against the figures, and against comparing them with the paper's."""
    said = warnings(paper.table)
    if said and any(paper.printed):
        said.append("rows are counted without those as printed")
    for row, printed in zip(paper.table.rows, paper.printed, strict=True):
        if printed is not None:
            against = f"; not comparable: {'; '.join(printed.reasons)}" if printed.reasons else ""
            said.append(f"{names.method(row.settings)} as printed: {printed.preset.name}{against}")
    if any(a in one.preset.uncertain for one in paper.printed if one is not None for a in paper.attacks):
        said.append("? digits of it are reconstructed from a damaged scan")
    return said
