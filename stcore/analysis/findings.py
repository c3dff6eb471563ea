"""Checks of the paper's qualitative findings on four networks; each gives numbers and whether it holds.

The rows come from analyses of four networks with the names `standard`, `at`, `trades` and `st`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np

Rows: TypeAlias = Sequence[Mapping[str, Any]]

ROBUST = ("at", "trades", "st")
NEAR_ZERO = 0.05
"""A collaborative loss below this share of the natural loss, at the largest budget, counts as near zero."""
OPPOSITE, AROUND = 0.1, 20.0
"""Degrees: the largest distance from 180° that counts as opposite, and from 90° that counts as around it."""


@dataclass(frozen=True)
class Finding:
    """claim: the paper's finding and its measure here.   holds: whether it holds.   numbers: by name."""

    claim: str
    holds: bool
    numbers: dict[str, float]


def of_collaborative(rows: Rows) -> list[Finding]:
    """The findings of Fig. 1, from the rows of `collaborative`."""
    losses: dict[str, dict[float, float]] = {}
    for row in rows:
        losses.setdefault(row["model"], {})[row["budget"]] = row["loss"]
    standard = losses["standard"]
    largest = max(standard)
    at_largest = {name: of_model[largest] for name, of_model in losses.items()}
    return [
        Finding(
            f"collaborative loss of the standard network near zero (below {NEAR_ZERO:.0%} of the natural one, at "
            "the largest budget)",
            at_largest["standard"] < NEAR_ZERO * standard[0.0],
            {"natural": standard[0.0], "collaborative": at_largest["standard"]},
        ),
        Finding(
            "collaborative loss of each robust network higher than that of the standard one, at every budget",
            all(losses[name][budget] > standard[budget] for name in ROBUST for budget in standard if budget),
            at_largest,
        ),
    ]


def of_angles(rows: Rows) -> list[Finding]:
    """The findings of Fig. 7, from the rows of `angles`."""
    last_step = max(row["step"] for row in rows)
    first = {row["model"]: row["median_off_border"] for row in rows if row["step"] == 1}
    known = {name: median for name, median in first.items() if median is not None}
    last = {row["model"]: row["median"] for row in rows if row["step"] == last_step}
    spread = {row["model"]: row["deviation"] for row in rows if row["step"] == last_step}
    away = {name: abs(median - 90) for name, median in last.items()}
    return [
        Finding(
            f"angle after the first step 180° (median of images without a pixel at 0 or 1, within {OPPOSITE:g}°)",
            bool(known) and min(known.values()) >= 180 - OPPOSITE,
            known or {row["model"]: row["median"] for row in rows if row["step"] == 1},
        ),
        Finding(
            f"angle after step {last_step} around 90° on the standard network (median within {AROUND:g}°)",
            away["standard"] <= AROUND,
            last,
        ),
        _robust_above(f"median after step {last_step} further from 90° on each robust network", away),
        _robust_above(f"angles after step {last_step} wider spread (deviation) on each robust network", spread),
    ]


def _robust_above(claim: str, values: Mapping[str, float]) -> Finding:
    return Finding(claim, all(values[name] > values["standard"] for name in ROBUST), dict(values))


def of_ratio(rows: Rows) -> list[Finding]:
    """The findings of Fig. 5 (lower), from the rows of `ratio`."""
    shares = [row["collaborative_share"] for row in rows if row["run"] == "trades"]
    slope = float(np.polyfit(np.arange(len(shares)), shares, 1)[0]) if len(shares) > 1 else 0.0
    return [
        Finding(
            "share of collaborative examples in TRADES below 50 % in every epoch",
            max(shares) < 0.5,
            {"highest": max(shares)},
        ),
        Finding(
            "share of collaborative examples in TRADES falling (last epoch below the first, negative slope)",
            shares[-1] < shares[0] and slope < 0,
            {"first": shares[0], "last": shares[-1], "slope per epoch": slope},
        ),
    ]


def of_losses(rows: Rows) -> list[Finding]:
    """The findings of Figs. 5 (upper) and 8, from the rows of `losses`: the gaps in the last epoch."""

    def gap(run: str, higher: str, lower: str) -> float:
        last = max(row["epoch"] for row in rows if row["run"] == run)
        now = {row["points"]: row["loss"] for row in rows if row["run"] == run and row["epoch"] == last}
        return float(now[higher] - now[lower])

    return [
        Finding(
            f"gap of {higher} and {lower} loss in training narrower by ST than by TRADES, in the last epoch",
            (squeezed := gap("st", higher, lower)) < (usual := gap("trades", higher, lower)),
            {"st": squeezed, "trades": usual},
        )
        for higher, lower in (("adversarial", "natural"), ("natural", "collaborative"))
    ]


CHECKED: dict[str, Callable[[Rows], list[Finding]]] = {
    "collaborative": of_collaborative,
    "angles": of_angles,
    "ratio": of_ratio,
    "losses": of_losses,
}
"""The checks by the analysis whose rows they take."""
