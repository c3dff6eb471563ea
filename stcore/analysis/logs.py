"""Training logs of finished and unfinished runs; runs that differ only in their seed form a series."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias, TypeVar

from stcore.errors import UsageError
from stcore.results.tables.table import varied
from stcore.runs.plan import Plan
from stcore.runs.record import FinishedRun, data_of, plan_of, read_metrics, read_record, recorded_settings

SHARE = "collaborative_share"
"""The metric: the share, in [0, 1], of the points found by the search whose loss is below that of their image."""

Row: TypeAlias = Mapping[str, Any]
Run = TypeVar("Run")


@dataclass(frozen=True)
class Log:
    """A run and its finished epochs, at least one.   settings: all except the seed.   data: by split."""

    name: str
    path: Path
    plan: Plan
    settings: Mapping[str, Any]
    data: Mapping[str, Any]
    rows: Sequence[Row]


@dataclass(frozen=True)
class Course:
    """A quantity over E epochs: its mean, lowest and highest value over the seeds, and the number of seeds.

    Epochs without a value are left out.
    """

    epochs: list[int]
    mean: list[float]
    low: list[float]
    high: list[float]
    seeds: list[int]

    def by_epoch(self) -> dict[int, float]:
        """The mean by epoch."""
        return dict(zip(self.epochs, self.mean, strict=True))


@dataclass(frozen=True)
class Series:
    """Runs that differ only in their seed."""

    label: str
    logs: tuple[Log, ...]

    @property
    def method(self) -> str:
        return self.logs[0].plan.method.name

    def course(self, value: Callable[[Row], float | None]) -> Course:
        """The quantity that `value` extracts from each row; rows with None are skipped."""
        found: dict[int, list[float]] = {}
        for row in (row for log in self.logs for row in log.rows):
            if (one := value(row)) is not None:
                found.setdefault(int(row["epoch"]), []).append(float(one))
        epochs = sorted(found)
        values = [found[epoch] for epoch in epochs]
        means = [sum(one) / len(one) for one in values]
        return Course(epochs, means, [*map(min, values)], [*map(max, values)], [*map(len, values)])


def read_logs(runs: Mapping[str, Path]) -> dict[str, Log]:
    """The logs by name.

    Raises UsageError for no run, a run without a finished epoch, or runs on different test data.
    """
    if not runs:
        raise UsageError("runs: expected at least one run's folder, as stcli train leaves it; received none")
    logs = {name: _read(name, path) for name, path in runs.items()}
    common(logs, "data set", test_data)
    return logs


def _read(name: str, path: Path) -> Log:
    record = read_record(path)
    plan = plan_of(record)
    try:
        rows = read_metrics(path)
    except UsageError:
        rows = []
    if not rows:
        raise UsageError(f"runs: expected a finished epoch; {path} has none yet. Wait for it, or omit the run")
    return Log(name, path, plan, recorded_settings(record, plan), data_of(record), rows)


def common(runs: Mapping[str, Run], what: str, value: Callable[[Run], str]) -> str:
    """The value that all runs share. Raises UsageError if they differ in it."""
    found: dict[str, str] = {}
    for name, run in runs.items():
        found.setdefault(value(run), name)
    if len(found) > 1:
        listed = "; ".join(f"{name} has {one}" for one, name in found.items())
        raise UsageError(f"runs: expected one {what} for all; received {listed}. Analyse them separately")
    return next(iter(found))


def test_data(run: Log | FinishedRun) -> str:
    """The data set with the fingerprint of its test images, whatever part of it trained the network."""
    return f"{run.plan.data.dataset.partition(':')[0]} ({str(run.data.get('test', {}).get('sha256'))[:8]})"


def attack_budget(run: Log | FinishedRun) -> str:
    """The norm and ε of the attacks."""
    return f"{run.plan.norm} {run.plan.evaluation.epsilon:.6g}"


def in_series(logs: Iterable[Log]) -> list[Series]:
    """Groups runs that differ only in their seed. A single run keeps its name; several are named by settings."""
    groups: dict[str, list[Log]] = {}
    for log in logs:
        groups.setdefault(json.dumps([log.settings, log.data], sort_keys=True), []).append(log)
    return [Series(_label(group, [*groups.values()]), tuple(group)) for group in groups.values()]


def _label(group: Sequence[Log], groups: Sequence[Sequence[Log]]) -> str:
    """The run's name; for several, the method and the settings in which it differs from others of the method."""
    if len(group) == 1:
        return group[0].name
    method, settings = group[0].plan.method.name, group[0].settings
    names = varied([other[0].settings for other in groups if other[0].plan.method.name == method])
    shown = [f"{name} {settings[name]}" for name in names if name in settings]
    return ", ".join([method, *shown, f"{len(group)} seeds"])
