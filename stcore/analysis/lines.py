"""Points of the trade-off between natural and robust accuracy, joined to lines over β."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from stcore.analysis.logs import attack_budget
from stcore.errors import UsageError
from stcore.paper import PRESETS
from stcore.results.tables.table import Figure, Row, varied
from stcore.runs.record import FinishedRun


@dataclass(frozen=True)
class Point:
    """Accuracies in percent of a network, or of several over seeds.

    beta: None if the method has no β.   optimal: Pareto-optimal among our points: no other is at least as accurate
    in both and better in one.
    """

    beta: float | None
    natural: Figure
    robust: Figure
    optimal: bool = False


@dataclass(frozen=True)
class Line:
    """Points that differ only in β, in ascending order.

    label: the method, and the settings in which the line differs from the others.   divergence: None if the method
    has no choice of it.
    """

    label: str
    method: str
    divergence: str | None
    points: list[Point]
    paper: bool = False

    @property
    def original(self) -> bool:
        """Whether this is TRADES as published."""
        return (self.method, self.divergence) == ("trades", "kl")


def lines_of(rows: Sequence[Row], attack: str) -> list[Line]:
    """Joins rows with the same settings except β and the preset's name."""
    grouped: dict[str, list[Row]] = {}
    for row in rows:
        shared = {name: value for name, value in row.settings.items() if name not in ("beta", "preset")}
        grouped.setdefault(json.dumps(shared, sort_keys=True), []).append(row)
    names = [n for n in varied([group[0].settings for group in grouped.values()]) if n not in NOT_IN_LABELS]
    return [
        Line(
            _label(group[0].settings, names),
            group[0].settings["method"],
            group[0].settings.get("divergence"),
            sorted((_point(row, attack) for row in group), key=lambda point: point.beta or 0.0),
        )
        for group in grouped.values()
    ]


NOT_IN_LABELS = ("method", "divergence", "beta", "preset", "stop_gradient_targets")
"""Settings that a line's label omits: the figure shows them, or (the last) they follow from the divergence."""


def _label(settings: Mapping[str, Any], names: Sequence[str]) -> str:
    return ", ".join([settings["method"], *(f"{name} {settings[name]}" for name in names if name in settings)])


def _point(row: Row, attack: str) -> Point:
    figures = [row.figure(name) for name in ("natural", attack)]  # all runs have both
    return Point(row.settings.get("beta"), *figures)  # type: ignore[arg-type]


def marked(lines: Sequence[Line]) -> list[Line]:
    """The lines with their Pareto-optimal points marked."""
    all_points = [(point.natural.mean, point.robust.mean) for line in lines for point in line.points]

    def dominated(point: Point) -> bool:
        own = point.natural.mean, point.robust.mean
        return any(other != own and other[0] >= own[0] and other[1] >= own[1] for other in all_points)

    return [
        dataclasses.replace(line, points=[dataclasses.replace(p, optimal=not dominated(p)) for p in line.points])
        for line in lines
    ]


def printed(runs: Sequence[FinishedRun], attack: str) -> list[Line]:
    """The points of Fig. 6 that the paper's tables print.

    Raises UsageError unless the runs have its network, data set and attack budget, and a number for the attack.
    """
    known = [
        preset
        for name, preset in PRESETS.items()
        if name.startswith("table2/") and preset.expected["natural"] and preset.expected.get(attack)
    ]
    plan = runs[0].plan
    kind = plan.data.dataset.partition(":")[0]
    same = (kind, plan.model.name, attack_budget(runs[0])) == ("cifar10", "resnet18", f"linf {8 / 255:.6g}")
    if not (same and known):
        raise UsageError(
            "paper: expected runs of resnet18 on cifar10, attacked at 8/255, as in its Fig. 6; received "
            f"{plan.model.name} on {kind}, {attack} at {attack_budget(runs[0])}. Omit --paper"
        )
    lines = []
    for preset in known:
        natural, robust = (_as_figure(preset.expected[name]) for name in ("natural", attack))
        method, divergence = preset.settings["method"], preset.settings["divergence"]
        lines.append(
            Line(
                f"paper, {method}",
                method,
                divergence,
                [Point(preset.settings["beta"], natural, robust)],
                paper=True,
            )
        )
    return lines


def _as_figure(expected: Any) -> Figure:
    half = expected.half_width or 0.0
    return Figure(expected.mean, expected.mean - half, expected.mean + half, 7)
