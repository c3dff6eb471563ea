"""Mean cross-entropy of natural, adversarial and collaborative points in training (Figs. 5 upper, 8).

TRADES and similar methods run one search that finds both kinds: points with a lower loss than their image are
collaborative, and the mean loss of the others follows from the mean of all. Squeeze training searches for both.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stcore.analysis.logs import SHARE, Course, Log, Row, Series, in_series, read_logs
from stcore.base import checks
from stcore.errors import UsageError

ROLES = ("natural", "adversarial", "collaborative")


@dataclass(frozen=True)
class Settings:
    """shade: half-width of the shaded band, in standard deviations over the epoch's examples."""

    shade: float = 0.1

    def __post_init__(self) -> None:
        checks.number("shade", self.shade)


@dataclass(frozen=True)
class Kind:
    """One kind of points over the epochs.   loss: in nats.   deviation: over examples; empty if not logged."""

    role: str
    loss: Course
    deviation: Course


@dataclass(frozen=True)
class Panel:
    """The kinds of points of one group of runs."""

    label: str
    method: str
    kinds: list[Kind]


@dataclass(frozen=True)
class Result:
    """A panel per group of runs."""

    settings: Settings
    panels: list[Panel]

    def rows(self) -> list[dict[str, Any]]:
        """A row per group of runs, epoch and kind of points."""
        return [
            {
                "run": panel.label,
                "method": panel.method,
                "epoch": epoch,
                "points": kind.role,
                "loss": loss,
                "loss_deviation": kind.deviation.by_epoch().get(epoch),
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
    return next((kind.loss.by_epoch().get(epoch) for kind in panel.kinds if kind.role == role), None)


def compute(runs: Mapping[str, Path], settings: Settings) -> Result:
    """The losses of runs. Raises UsageError for a run that logged no losses, or not the collaborative share."""
    logs = read_logs(runs)
    for log in logs.values():
        _check(log)
    return Result(settings, [_panel(series) for series in in_series(logs.values())])


def _check(log: Log) -> None:
    row = log.rows[0]
    if not any(f"{role}_loss" in row for role in ROLES):
        raise UsageError(f"runs: expected losses in the metrics; {log.name} logged none. Train it again")
    unsorted = {"natural_loss", "adversarial_loss"} <= set(row) and not {"collaborative_loss", SHARE} & set(row)
    if unsorted:
        raise UsageError(
            f"runs: expected the share of collaborative points; {log.name} ({log.plan.method.name}) was trained "
            "before it was logged. Train it again"
        )


def adversarial(row: Row) -> float | None:
    """The mean loss of the adversarial points; None if there are none."""
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
    """The deviation; that of adversarial points is known only in epochs without collaborative ones."""
    return series.course(
        lambda row: None if role == "adversarial" and row.get(SHARE) else row.get(f"{role}_loss_deviation")
    )
