"""Trade-off between natural and robust accuracy on the test split, over β (Fig. 6)."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stcore.analysis.lines import Line, lines_of, marked, printed
from stcore.analysis.logs import attack_budget, common, test_data
from stcore.base import checks
from stcore.errors import UsageError
from stcore.results.tables.evaluations import with_evaluations
from stcore.results.tables.table import Figure, make_table
from stcore.runs.folder import CHECKPOINTS
from stcore.runs.record import FinishedRun, read_run

STRONGEST = "autoattack", "pgd20"
"""The default attack of the robust accuracy: the first of these that all runs have."""


@dataclass(frozen=True)
class Settings:
    """attack: the attack of the robust accuracy, such as autoattack or pgd20; by default see `STRONGEST`.

    checkpoint: best, last, best-ema or last-ema.   intervals: draw the 95 % intervals.
    paper: add the points of the figure that the paper's tables print.
    """

    attack: str | None = None
    checkpoint: str = "best"
    intervals: bool = False
    paper: bool = False

    def __post_init__(self) -> None:
        checks.choice("checkpoint", self.checkpoint, CHECKPOINTS)


@dataclass(frozen=True)
class Result:
    """The lines, and the reasons why runs were left out."""

    settings: Settings
    attack: str
    epsilon: float
    norm: str
    lines: list[Line]
    left_out: tuple[str, ...]

    def rows(self) -> list[dict[str, Any]]:
        """A row per point; intervals are over images for one seed, and over seeds for several."""
        return [
            {
                "line": line.label,
                "method": line.method,
                "divergence": line.divergence,
                "beta": point.beta,
                **_with_interval("natural", point.natural),
                **_with_interval("robust", point.robust),
                "seeds": point.robust.seeds,
                "pareto_optimal": point.optimal,
                "source": "paper" if line.paper else "runs",
            }
            for line in self.lines
            for point in line.points
        ]

    def table(self) -> list[dict[str, Any]]:
        names = ("line", "divergence", "beta", "natural", "robust", "seeds", "pareto_optimal", "source")
        return [{name: row[name] for name in names} for row in self.rows()]

    def content(self) -> dict[str, Any]:
        common = {name: getattr(self, name) for name in ("attack", "epsilon", "norm", "left_out")}
        return {"settings": dataclasses.asdict(self.settings), **common, "rows": self.rows()}


def _with_interval(what: str, figure: Figure) -> dict[str, float]:
    return {what: figure.mean, f"{what}_low": figure.low, f"{what}_high": figure.high}


def compute(runs: Mapping[str, Path], settings: Settings) -> Result:
    """The trade-offs of the finished runs.

    Raises UsageError if no run is finished, one lacks the attack, or they differ in test data or ε.
    """
    left_out: list[str] = []
    found = [run for path in runs.values() if (run := _read(path, settings.checkpoint, left_out)) is not None]
    if not found:
        raise UsageError(f"runs: expected at least one finished run; {'; '.join(left_out) or 'received none'}")
    by_path = {str(run.path): run for run in found}
    common(by_path, "data set", test_data)
    common(by_path, "ε of the attacks", attack_budget)
    attack = settings.attack or _strongest(found)
    for run in found:
        if attack not in run.accuracies:
            name = attack.partition(" ")[0]  # without a suffix such as " (subset 100)"
            raise UsageError(
                f"attack: expected one that every run has an accuracy for; {run.path} has no {attack}, only "
                f"{', '.join(run.accuracies)}. Evaluate it: stcli evaluate {run.path} --attacks {name}"
            )
    lines = marked(lines_of(make_table(found, settings.checkpoint).rows, attack))
    plan = found[0].plan
    of_paper = printed(found, attack) if settings.paper else []
    return Result(settings, attack, plan.evaluation.epsilon, plan.norm, lines + of_paper, tuple(left_out))


def _strongest(runs: Sequence[FinishedRun]) -> str:
    common = [attack for attack in runs[0].accuracies if all(attack in run.accuracies for run in runs)]
    return next((one for of in STRONGEST for one in common if one.partition(" ")[0] == of), STRONGEST[-1])


def _read(path: Path, checkpoint: str, left_out: list[str]) -> FinishedRun | None:
    try:
        return with_evaluations(read_run(path, checkpoint), checkpoint, left_out.append)
    except UsageError as reason:
        left_out.append(str(reason))
        return None
