"""Share of collaborative points among those that TRADES and similar methods find (Fig. 5 lower)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stcore.analysis.logs import SHARE, Course, in_series, read_logs
from stcore.errors import UsageError

LOGGED_BY = ("trades", "trades2", "mart", "mart2", "bat", "gair-rst")
"""The methods whose search maximises the distance from the natural prediction, so that it finds both kinds."""


@dataclass(frozen=True)
class Settings:
    """This analysis has no settings."""


@dataclass(frozen=True)
class Share:
    """The share of collaborative points over the epochs, in [0, 1], of runs that differ only in their seed."""

    label: str
    method: str
    share: Course


@dataclass(frozen=True)
class Result:
    """A share per group of runs."""

    shares: list[Share]

    def rows(self) -> list[dict[str, Any]]:
        """A row per group of runs and epoch."""
        return [
            {
                "run": one.label,
                "method": one.method,
                "epoch": epoch,
                SHARE: mean,
                "low": low,
                "high": high,
                "seeds": n,
            }
            for one in self.shares
            for epoch, mean, low, high, n in zip(*vars(one.share).values(), strict=True)
        ]

    def table(self) -> list[dict[str, Any]]:
        """The first, the highest and the last share."""
        return [
            {
                "run": one.label,
                "epochs": one.share.epochs[-1],
                "first": one.share.mean[0],
                "highest": max(one.share.mean),
                "last": one.share.mean[-1],
            }
            for one in self.shares
        ]

    def content(self) -> dict[str, Any]:
        return {"rows": self.rows()}


def compute(runs: Mapping[str, Path], settings: Settings) -> Result:
    """The shares of runs. Raises UsageError for a run whose method has none, or that did not log it."""
    logs = read_logs(runs)
    for log in logs.values():
        if SHARE not in log.rows[0]:
            known = log.plan.method.name in LOGGED_BY
            raise UsageError(
                f"runs: expected runs of {', '.join(LOGGED_BY)}, whose search finds collaborative points too; "
                f"{log.name} is of {log.plan.method.name}"
                + (", trained before their share was logged. Train it again" if known else ". Omit it")
            )
    return Result([Share(s.label, s.method, s.course(lambda row: row[SHARE])) for s in in_series(logs.values())])
