"""The points of the trade-off between natural and robust accuracy, and the lines that join them over β."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from stcore.analysis.logs import attacked_at
from stcore.errors import UsageError
from stcore.paper import PRESETS
from stcore.results.tables.table import Figure, Row, varied
from stcore.runs.record import FinishedRun


@dataclass(frozen=True)
class Point:
    """A network, or several over seeds: accuracies in percent.   beta: None where the method has none.

    optimal: no other of our points is at least as accurate in both, and more so in one.
    """

    beta: float | None
    natural: Figure
    robust: Figure
    optimal: bool = False


@dataclass(frozen=True)
class Line:
    """Points that differ in β alone, by rising β.

    label: the method, with what else tells it from the other lines.   divergence: None where there is no choice.
    """

    label: str
    method: str
    divergence: str | None
    points: list[Point]
    paper: bool = False

    @property
    def original(self) -> bool:
        """Whether this is TRADES as it was published."""
        return (self.method, self.divergence) == ("trades", "kl")


def lines_of(rows: Sequence[Row], attack: str) -> list[Line]:
    """The points of the same settings but β, whichever preset said them."""
    grouped: dict[str, list[Row]] = {}
    for row in rows:
        apart = {name: value for name, value in row.settings.items() if name not in ("beta", "preset")}
        grouped.setdefault(json.dumps(apart, sort_keys=True), []).append(row)
    names = [name for name in varied([group[0].settings for group in grouped.values()]) if name not in TOLD]
    return [
        Line(
            _label(group[0].settings, names),
            group[0].settings["method"],
            group[0].settings.get("divergence"),
            sorted((_point(row, attack) for row in group), key=lambda point: point.beta or 0.0),
        )
        for group in grouped.values()
    ]


TOLD = ("method", "divergence", "beta", "preset", "stop_gradient_targets")
"""What a line's label need not say: the last follows from the divergence."""


def _label(settings: Mapping[str, Any], names: Sequence[str]) -> str:
    said = [f"{name} {settings[name]}" for name in names if name in settings]
    return ", ".join([settings["method"], *said])


def _point(row: Row, attack: str) -> Point:
    figures = [row.figure(name) for name in ("natural", attack)]  # which all runs have
    return Point(row.settings.get("beta"), *figures)  # type: ignore[arg-type]


def marked(lines: Sequence[Line]) -> list[Line]:
    """With the optimal points told as such."""
    all_points = [(point.natural.mean, point.robust.mean) for line in lines for point in line.points]

    def beaten(point: Point) -> bool:
        own = point.natural.mean, point.robust.mean
        return any(other != own and other[0] >= own[0] and other[1] >= own[1] for other in all_points)

    return [
        dataclasses.replace(line, points=[dataclasses.replace(p, optimal=not beaten(p)) for p in line.points])
        for line in lines
    ]


def printed(runs: Sequence[FinishedRun], attack: str) -> list[Line]:
    """What the paper's tables print of its Fig. 6; UsageError where these runs have nothing to do with it."""
    known = [
        preset
        for name, preset in PRESETS.items()
        if name.startswith("table2/") and preset.expected["natural"] and preset.expected.get(attack)
    ]
    plan = runs[0].plan
    kind = plan.data.dataset.partition(":")[0]
    there = (kind, plan.model.name, attacked_at(runs[0])) == ("cifar10", "resnet18", f"linf {8 / 255:.6g}")
    if not (there and known):
        raise UsageError(
            "paper: expected runs of resnet18 on cifar10, attacked at 8/255, as in its Fig. 6; received "
            f"{plan.model.name} on {kind}, {attack} at {attacked_at(runs[0])}. Leave it out"
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
