"""How many of the neighbours that TRADES and its like find are collaborative, not adversarial (Fig. 5 lower)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stcore.analysis.logs import Course, in_series, read_logs
from stcore.errors import UsageError

LOGGED_BY = ("trades", "trades2", "mart", "mart2", "bat", "gair-rst")
"""The methods whose search climbs away from the natural prediction, and so may find either."""

SHARE = "collaborative_share"


@dataclass(frozen=True)
class Settings:
    """Nothing to ask."""


@dataclass(frozen=True)
class Share:
    """Of runs over seeds: the share, in [0, 1], of the neighbours whose loss is below that of their image."""

    label: str
    method: str
    share: Course


@dataclass(frozen=True)
class Result:
    """A share for each group of runs."""

    shares: list[Share]

    def rows(self) -> list[dict[str, Any]]:
        """A row for each group of runs and epoch."""
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
    """The shares of some runs; UsageError for one whose method has none, or that is older than its log."""
    logs = read_logs(runs)
    for log in logs.values():
        if SHARE not in log.rows[0]:
            known = log.plan.method.name in LOGGED_BY
            raise UsageError(
                f"runs: expected runs of {', '.join(LOGGED_BY)}, whose search finds collaborative points too; "
                f"{log.name} is of {log.plan.method.name}"
                + (", trained before their share was logged. Train it anew" if known else ". Leave it out")
            )
    return Result([Share(s.label, s.method, s.course(lambda row: row[SHARE])) for s in in_series(logs.values())])
