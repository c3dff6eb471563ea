"""Mean cross-entropy of natural, adversarial and collaborative points as training met them (Figs. 5 upper, 8).

TRADES and its like search for one kind of neighbour and find both: those with a lower loss than their image are
collaborative, and the mean of the others is what is left of the mean of all. Squeeze training searches for both.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stcore.analysis.logs import Course, Log, Row, Series, in_series, read_logs
from stcore.base import checks
from stcore.errors import UsageError

ROLES = ("natural", "adversarial", "collaborative")


@dataclass(frozen=True)
class Settings:
    """shade: what is shaded, in standard deviations over the epoch's examples to each side of the mean."""

    shade: float = 0.1

    def __post_init__(self) -> None:
        checks.number("shade", self.shade)


@dataclass(frozen=True)
class Kind:
    """One kind of points over the epochs.   loss: in nats.   deviation: over examples; empty where not logged."""

    role: str
    loss: Course
    deviation: Course


@dataclass(frozen=True)
class Panel:
    """The kinds of points that a method meets."""

    label: str
    method: str
    kinds: list[Kind]


@dataclass(frozen=True)
class Result:
    """A panel for each group of runs."""

    settings: Settings
    panels: list[Panel]

    def rows(self) -> list[dict[str, Any]]:
        """A row for each group of runs, epoch and kind of points."""
        return [
            {
                "run": panel.label,
                "method": panel.method,
                "epoch": epoch,
                "points": kind.role,
                "loss": loss,
                "loss_deviation": kind.deviation.at().get(epoch),
                "seeds": seeds,
            }
            for panel in self.panels
            for kind in panel.kinds
            for epoch, loss, seeds in zip(kind.loss.epochs, kind.loss.mean, kind.loss.seeds, strict=True)
        ]

    def table(self) -> list[dict[str, Any]]:
        """The losses of the first and the last epoch."""
        return [
            {"run": panel.label, "epoch": epoch, **{role: _at(panel, role, epoch) for role in ROLES}}
            for panel in self.panels
            for epoch in dict.fromkeys((panel.kinds[0].loss.epochs[0], panel.kinds[0].loss.epochs[-1]))
        ]

    def content(self) -> dict[str, Any]:
        return {"settings": dataclasses.asdict(self.settings), "rows": self.rows()}


def _at(panel: Panel, role: str, epoch: int) -> float | None:
    return next((kind.loss.at().get(epoch) for kind in panel.kinds if kind.role == role), None)


def compute(runs: Mapping[str, Path], settings: Settings) -> Result:
    """The losses of some runs; UsageError for one that logged none, or not which of them were collaborative."""
    logs = read_logs(runs)
    for log in logs.values():
        _check(log)
    return Result(settings, [_panel(series) for series in in_series(logs.values())])


def _check(log: Log) -> None:
    row = log.rows[0]
    if not any(f"{role}_loss" in row for role in ROLES):
        raise UsageError(f"runs: expected losses in the metrics; {log.name} logged none. Train it anew")
    unsorted = {"natural_loss", "adversarial_loss"} <= set(row) and not {"collaborative_loss", SHARE} & set(row)
    if unsorted:
        raise UsageError(
            f"runs: expected the share of collaborative points; {log.name} ({log.plan.method.name}) was trained "
            "before it was logged. Train it anew"
        )


SHARE = "collaborative_share"


def adversarial(row: Row) -> float | None:
    """The mean loss of the points that are adversarial; None where none is."""
    loss, share = row.get("adversarial_loss"), row.get(SHARE, 0.0)
    if loss is None or share == 1.0:
        return None
    return float((loss - share * row.get("collaborative_loss", 0.0)) / (1 - share)) if share else float(loss)


def _panel(series: Series) -> Panel:
    values: dict[str, Callable[[Row], float | None]] = {
        "natural": lambda row: row.get("natural_loss"),
        "adversarial": adversarial,
        "collaborative": lambda row: row.get("collaborative_loss"),
    }
    kinds = [Kind(role, series.course(value), _deviation(series, role)) for role, value in values.items()]
    return Panel(series.label, series.method, [kind for kind in kinds if kind.loss.epochs])


def _deviation(series: Series, role: str) -> Course:
    """That of the adversarial points is known only where all of them are."""
    return series.course(
        lambda row: None if role == "adversarial" and row.get(SHARE) else row.get(f"{role}_loss_deviation")
    )
