"""Learning curves: natural and robust accuracy after each epoch, as logged in training (Figs. 4, 9, 10)."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from stcore.analysis.logs import Course, Log, Series, attack_budget, common, in_series, read_logs
from stcore.errors import UsageError


@dataclass(frozen=True)
class Settings:
    """attack: the attack of the robust accuracy; by default the one that selects the runs' best epoch."""

    attack: str | None = None


@dataclass(frozen=True)
class Curve:
    """Accuracies in [0, 1] over the epochs, of runs that differ only in their seed, or of their averaged weights.

    best: for each seed, the best epoch with its natural and robust accuracy.
    """

    label: str
    method: str
    natural: Course
    robust: Course
    best: tuple[tuple[int, float, float], ...]


@dataclass(frozen=True)
class Result:
    """The curves, and what they have in common.

    split: validation or test.   drops: epochs in which a learning rate dropped.
    """

    settings: Settings
    attack: str
    epsilon: float
    norm: str
    split: str
    drops: tuple[int, ...]
    curves: list[Curve]

    def rows(self) -> list[dict[str, Any]]:
        """A row per curve and epoch."""
        return [
            {
                "run": curve.label,
                "method": curve.method,
                "epoch": curve.natural.epochs[n],
                **_with_range("natural", curve.natural, n),
                **_with_range("robust", curve.robust, n),
                "seeds": curve.natural.seeds[n],
            }
            for curve in self.curves
            for n in range(len(curve.natural.epochs))
        ]

    def table(self) -> list[dict[str, Any]]:
        """A row per curve: the last and the highest robust accuracy, whose gap is robust overfitting."""
        return [
            {
                "run": curve.label,
                "epochs": curve.natural.epochs[-1],
                "natural": curve.natural.mean[-1],
                "robust": curve.robust.mean[-1],
                **dict(zip(("highest robust", "in epoch"), _highest(curve.robust), strict=True)),
            }
            for curve in self.curves
        ]

    def content(self) -> dict[str, Any]:
        common = {name: getattr(self, name) for name in ("attack", "epsilon", "norm", "split", "drops")}
        best = {curve.label: [epoch for epoch, *_ in curve.best] for curve in self.curves}
        return {"settings": dataclasses.asdict(self.settings), **common, "best_epochs": best, "rows": self.rows()}


def _highest(course: Course) -> tuple[float, int]:
    return max(zip(course.mean, course.epochs, strict=True))


def _with_range(what: str, course: Course, n: int) -> dict[str, float]:
    return {what: course.mean[n], f"{what}_low": course.low[n], f"{what}_high": course.high[n]}


def compute(runs: Mapping[str, Path], settings: Settings) -> Result:
    """The curves of runs, including the finished epochs of unfinished runs.

    Raises UsageError if the runs differ in data, split, attack or ε, or did not log the attack.
    """
    logs = read_logs(runs)
    split = common(logs, "split for the evaluation of the epochs", _split)
    attack = settings.attack or common(logs, "attack that selects the best epoch", _attack)
    common(logs, "ε of the attacks", attack_budget)
    for log in logs.values():
        logged = [name.removesuffix("_accuracy") for name in log.rows[0] if name.endswith("_accuracy")]
        if attack not in logged:
            raise UsageError(
                f"attack: expected one that every run logged; received {attack}, but {log.name} logged "
                f"{', '.join(name for name in logged if not name.startswith('ema_'))}"
            )
    curves = [
        _curve(series, attack, prefix)
        for series in in_series(logs.values())
        for prefix in ("", "ema_")
        if f"{prefix}natural_accuracy" in series.logs[0].rows[0]
    ]
    drops = tuple(sorted({epoch for log in logs.values() for epoch in _drops(log)}))
    plan = next(iter(logs.values())).plan
    return Result(settings, attack, plan.evaluation.epsilon, plan.norm, split, drops, curves)


def _split(log: Log) -> str:
    return "test" if log.plan.evaluation.select == "test" else "validation"


def _attack(log: Log) -> str:
    return "pgd20" if log.plan.evaluation.select_by == "natural" else log.plan.evaluation.select_by


def _curve(series: Series, attack: str, prefix: str) -> Curve:
    names = [f"{prefix}{of}_accuracy" for of in ("natural", attack)]
    natural, robust = (series.course(lambda row, name=name: row[name]) for name in names)  # type: ignore[misc]
    best = []
    for log in series.logs:
        chosen = log.rows[-1][f"{prefix}best_epoch"]
        best += [(chosen, *(row[name] for name in names)) for row in log.rows if row["epoch"] == chosen]
    label = f"{series.label}, averaged weights" if prefix else series.label
    return Curve(label, series.method, natural, robust, tuple(best))


def _drops(log: Log) -> list[int]:
    """The epochs in which the learning rate dropped below half; none for a cosine, which falls in every epoch."""
    if log.plan.optimisation.schedule == "cosine":
        return []
    rates = [(int(row["epoch"]), row["learning_rate"]) for row in log.rows]
    return [epoch for (_, before), (epoch, now) in pairwise(rates) if now < 0.5 * before]
