"""Console output: lines, tables, and what shows progress."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.table import Table

from stcore.api.display import Bars, Lines
from stcore.audit import Finding
from stcore.cli.fitting import Fitting, fitting
from stcore.evaluation.accuracy import Accuracy, MeanAccuracy, percent
from stcore.evaluation.assessment import StageResult
from stcore.evaluation.results import unusual

NARROW, NARROWEST = 60, 20  # columns: below the first tables become lists; below the second nothing is narrower


class _Console(Console):
    def print(self, *objects: Any, **options: Any) -> None:
        """Prints; on a narrow terminal a table becomes a list of its rows."""
        narrow = self.width < NARROW
        super().print(*(listed(one) if narrow and isinstance(one, Table) else one for one in objects), **options)


def listed(table: Table) -> str:
    """A table's rows one below the other, a line per cell that is not empty."""
    heads = [str(column.header) for column in table.columns]
    rows = zip(*(column.cells for column in table.columns), strict=True)
    blocks = ["\n".join(f"{head}: {cell}" for head, cell in zip(heads, row, strict=True) if cell) for row in rows]
    return "\n\n".join([*([str(table.title)] if table.title else []), *blocks]) + "\n"


def make_console(stderr: bool = False) -> Console:
    """A console as wide as the terminal, within limits; lines of a log are not folded."""
    console = _Console(stderr=stderr, highlight=False, markup=False, emoji=False)  # a path may hold brackets
    if not console.is_terminal:
        console.width = 250
    elif console.width < NARROWEST:
        console.width = NARROWEST  # the terminal breaks the lines
    return console


def make_progress(console: Console) -> Bars | Lines:
    """Bars on a terminal, lines elsewhere."""
    return Bars(console) if console.is_terminal else Lines(console)


def label_of(checkpoint: str, epoch: str | None, about: Mapping[str, Any]) -> str:
    """A checkpoint with its epoch and what is unusual in the evaluation of this identity: best (epoch 3, tf32)."""
    said = [*([] if epoch is None else [f"epoch {epoch}"]), *unusual(about)]
    return f"{checkpoint} ({', '.join(said)})" if said else checkpoint


def score_table(scores: Mapping[str, Mapping[str, Accuracy]]) -> Fitting:
    """Checkpoints by attacks, accuracies with 95 % intervals; one row per attack if the columns do not fit."""
    attacks = list(next(iter(scores.values())))
    rows = [(name, *(percent(found[attack]) for attack in attacks)) for name, found in scores.items()]
    across = fitting(["checkpoint", *(f"{attack} %" for attack in attacks)], rows).layouts[:2]
    each = [(name, attack, percent(found[attack])) for name, found in scores.items() for attack in attacks]
    return Fitting([*across, *fitting(["checkpoint", "attack", "correct %"], each, (0, 1)).layouts])


def stage_table(title: str, stages: Sequence[StageResult]) -> Fitting:
    """A cascade's stages: how many images withstand each, and its cost per image of the evaluation."""
    rows = [
        (
            stage.name,
            f"{stage.robust.correct}/{stage.robust.total}",
            percent(stage.robust),
            f"{stage.forwards:,}",
            f"{stage.backwards:,}",
            f"{stage.seconds:.0f}",
        )
        for stage in stages
    ]
    return fitting(["attack", "withstand", "robust %", "forwards", "backwards", "seconds"], rows, title=title)


def corruption_table(title: str, mean: MeanAccuracy) -> Fitting:
    """Corruptions by severities, and the mean over them with its 95 % interval."""
    severities = list(next(iter(mean.table.values())))
    rows = [
        (name, *(f"{100 * mean.table[name][severity].value:.2f}" for severity in severities), percent(average))
        for name, average in mean.rows().items()
    ]
    means = (f"{100 * column.value:.2f}" for column in mean.columns().values())
    titles = ["corruption", *map(str, severities), "mean"]
    return fitting(titles, [*rows, ("mean", *means, percent(mean))], title=title)


def say(console: Console, text: str) -> None:
    """Prints a line without folding it, so that commands and paths can be copied."""
    console.print(text, soft_wrap=True)


def findings_table(title: str, findings: Sequence[Finding]) -> Table:
    """An audit's findings; a check that did not pass is explained."""
    table = Table(title=title, title_justify="left")
    table.add_column("check", no_wrap=True)
    table.add_column("", no_wrap=True)
    table.add_column("measured", overflow="fold")
    table.add_column("what it means", overflow="fold")
    for finding in findings:
        meaning = "" if finding.status == "pass" else finding.meaning
        table.add_row(finding.check, finding.status, finding.value, meaning)
    return table
