"""Table of finished runs; runs that differ only in their seed share a row. Pure: runs in, rows out."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from stcore.base.checks import did_you_mean
from stcore.errors import UsageError
from stcore.evaluation.accuracy import over_runs
from stcore.runs.plan import of_methods, plan_options
from stcore.runs.record import FinishedRun

SELDOM_SHOWN = ("threads", "device", "dataset", "init", "step_size", "attacks")
"""Settings that are shown elsewhere or follow from others: columns only if nothing else distinguishes two rows."""


@dataclass(frozen=True)
class Figure:
    """An accuracy in percent with its 95 % interval: over images for one seed, a t-interval over several seeds."""

    mean: float
    low: float
    high: float
    seeds: int


@dataclass(frozen=True)
class Row:
    """Runs that differ only in their seed, ordered by it."""

    runs: tuple[FinishedRun, ...]

    @property
    def settings(self) -> Mapping[str, Any]:
        return self.runs[0].settings

    @property
    def seeds(self) -> tuple[int, ...]:
        return tuple(run.plan.seed for run in self.runs)

    @property
    def costs(self) -> dict[str, float]:
        """Passes of a training step, in forwards of the batch; median time and speed over all epochs."""
        seconds = [second for run in self.runs for second in run.seconds]
        speeds = [speed for run in self.runs for speed in run.images_per_second]
        medians = {"s/epoch": float(np.median(seconds)), "images/s": float(np.median(speeds))}
        return {"passes": self.runs[0].plan.units, **medians}

    def figure(self, attack: str) -> Figure | None:
        """The accuracy over the runs with this attack; None if no run has it."""
        scores = [run.accuracies[attack] for run in self.runs if attack in run.accuracies]
        return Figure(*over_runs(scores), len(scores)) if scores else None


@dataclass(frozen=True)
class RunTable:
    """Rows of one checkpoint's figures. columns: names of the settings that are shown."""

    checkpoint: str
    columns: tuple[str, ...]
    attacks: tuple[str, ...]
    rows: tuple[Row, ...]


def make_table(
    runs: Sequence[FinishedRun], checkpoint: str, columns: Sequence[str] | None = None, sort: str | None = None
) -> RunTable:
    """Groups runs in rows and sorts these, by default in the runs' order.

    columns: settings to show; by default those in which the rows differ.
    sort: a column; accuracies descend, everything else ascends.
    Raises UsageError for no run, an unknown setting, or an unknown column to sort by.
    """
    if not runs:
        raise UsageError("runs: expected at least one finished run; received none")
    groups: dict[str, list[FinishedRun]] = {}
    for run in runs:
        groups.setdefault(json.dumps([run.settings, run.data], sort_keys=True), []).append(run)
    rows = [Row(tuple(sorted(group, key=lambda run: run.plan.seed))) for group in groups.values()]
    shown = varied([row.settings for row in rows]) if columns is None else _known(columns, runs)
    attacks = dict.fromkeys(attack for run in runs for attack in run.accuracies)
    return _sorted(RunTable(checkpoint, tuple(shown), tuple(attacks), tuple(rows)), sort)


def varied(settings: Sequence[Mapping[str, Any]]) -> list[str]:
    """Names of settings in which the rows differ. A method's lack of a setting does not count as a difference."""
    of_some = of_methods(*{one["method"] for one in settings if "method" in one})

    def values(name: str) -> set[str]:
        return {json.dumps(one.get(name)) for one in settings if name in one or name not in of_some}

    varied = [name for name in dict.fromkeys(n for one in settings for n in one) if len(values(name)) > 1]
    shown = [name for name in varied if name not in SELDOM_SHOWN]
    apart = {json.dumps([one.get(name) for name in shown]) for one in settings}
    return shown if len(apart) == len(settings) else varied


def _known(columns: Sequence[str], runs: Sequence[FinishedRun]) -> Sequence[str]:
    known = plan_options() - {"seed"} | of_methods(*(run.plan.method.name for run in runs))
    for name in columns:
        if name not in known:
            raise UsageError(
                f"columns: expected settings, such as backend,method,awp; received {name!r}. "
                f"Known are {', '.join(sorted(known))}{did_you_mean(name, known)}"
            )
    return columns


def _sorted(table: RunTable, by: str | None) -> RunTable:
    if by is None:
        return table
    there = (*table.columns, "seeds", *table.attacks, *table.rows[0].costs)
    if by not in there:
        raise UsageError(
            f"sort: expected one of the columns {', '.join(there)}; received {by!r}{did_you_mean(by, there)}"
        )

    def key(row: Row) -> tuple[bool, bool, Any]:
        figure = row.figure(by)
        value = {**row.settings, **row.costs, "seeds": row.seeds[0]}.get(by) if figure is None else -figure.mean
        is_number = isinstance(value, (int, float))
        return value is None, not is_number, value if is_number else str(value)  # missing values come last

    return dataclasses.replace(table, rows=tuple(sorted(table.rows, key=key)))
