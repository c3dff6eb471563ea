"""Console output: progress bars on a terminal, plain lines elsewhere, and tables."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from stcore.audit import Finding
from stcore.cli.fitting import Fitting, fitting
from stcore.evaluation.accuracy import Accuracy
from stcore.evaluation.assessment import StageResult
from stcore.evaluation.results import STRICT

LINE_EVERY = 30.0  # seconds between plain progress lines
NARROW, NARROWEST = 60, 20  # columns: below the first tables become lists; below the second nothing is narrower


class Bars:
    """`stcore.base.progress.Progress` on a terminal."""

    def __init__(self, console: Console) -> None:
        columns = (
            TextColumn("{task.description:>14}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[note]}"),
        )
        self._bars = Progress(*columns, console=console, transient=True)

    def begin(self, label: str, total: int, unit: str = "images") -> None:
        self._bars.start()
        self._task = self._bars.add_task(label, total=total, note="")

    def advance(self, amount: int, note: str = "") -> None:
        self._bars.update(self._task, advance=amount, note=note)

    def end(self) -> None:
        self._bars.remove_task(self._task)
        self._bars.stop()


class Lines:
    """Progress without a terminal: a line every 30 seconds, with the remaining time."""

    def __init__(self, console: Console) -> None:
        self._console = console

    def begin(self, label: str, total: int, unit: str = "images") -> None:
        self._label, self._total, self._unit, self._done = label, total, unit, 0
        self._begun = self._said = time.monotonic()

    def advance(self, amount: int, note: str = "") -> None:
        self._done += amount
        now = time.monotonic()
        if now - self._said >= LINE_EVERY and 0 < self._done < self._total:
            self._said = now
            left = (now - self._begun) / self._done * (self._total - self._done)
            said = f"{self._done}/{self._total} {self._unit}, {left:.0f} s left" + (f", {note}" if note else "")
            self._console.print(f"  {self._label}: {said}")

    def end(self) -> None:
        """Does nothing: the lines stay."""


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


_COLUMNS = (
    ("loss", "loss", ".3f"),
    ("natural_loss", "CE nat", ".3f"),
    ("adversarial_loss", "CE adv", ".3f"),
    ("collaborative_loss", "CE col", ".3f"),
    ("divergence", "div", ".4f"),
    ("collaborative_share", "col share", "%"),
    ("kappa", "κ", ".1f"),
    ("selected_intended", "pair as intended", "%"),
    ("selected_flipped", "swapped", "%"),
    ("selected_natural", "natural selected", "%"),
)
"""Metric, what an epoch's line calls it, format; % stands for a share in whole percent."""


def epoch_line(row: Mapping[str, Any], epochs: int, select: str) -> str:
    """One epoch's metrics in a line. The accuracies are those of the split that the best epoch is chosen on."""
    cells = [
        f"{name} {100 * row[key]:.0f} %" if form == "%" else f"{name} {row[key]:{form}}"
        for key, name, form in _COLUMNS
        if key in row
    ]
    cells += [f"lr {row['learning_rate']:.3g}", f"{row['images_per_second']:.0f} img/s"]
    for key in row:
        if key.endswith("_accuracy"):
            cells.append(f"{key.removesuffix('_accuracy')} {100 * row[key]:.1f} %")
    mark = " *" if row["best_epoch"] == row["epoch"] else ""
    return f"epoch {row['epoch']:>3}/{epochs}  " + "  ".join(cells) + f" on {select}{mark}"


def label_of(checkpoint: str, epoch: str | None, precision: str) -> str:
    """A checkpoint with its epoch and, if it is not the usual, the precision: best (epoch 3, tf32)."""
    about = [*([] if epoch is None else [f"epoch {epoch}"]), *([] if precision == STRICT else [precision])]
    return f"{checkpoint} ({', '.join(about)})" if about else checkpoint


def score_table(scores: Mapping[str, Mapping[str, Accuracy]]) -> Fitting:
    """Checkpoints by attacks, accuracies with 95 % intervals; one row per attack if the columns do not fit."""
    attacks = list(next(iter(scores.values())))
    rows = [(name, *(percent(found[attack]) for attack in attacks)) for name, found in scores.items()]
    across = fitting(["checkpoint", *(f"{attack} %" for attack in attacks)], rows).layouts[:2]
    each = [(name, attack, percent(found[attack])) for name, found in scores.items() for attack in attacks]
    return Fitting([*across, *fitting(["checkpoint", "attack", "correct %"], each, (0, 1)).layouts])


def percent(accuracy: Accuracy) -> str:
    """72.05 [67.02, 76.70], in percent."""
    low, high = accuracy.interval()
    return f"{100 * accuracy.value:.2f} [{100 * low:.2f}, {100 * high:.2f}]"


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
