"""What a run shows: bars on a terminal, plain lines elsewhere, and the final table."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from stcore.evaluation import Accuracy

LINE_EVERY = 30.0  # seconds between two plain progress lines


class Bars:
    """`stcore.training.Progress` on a terminal."""

    def __init__(self, console: Console) -> None:
        columns = (TextColumn("{task.description:>14}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        self._bars = Progress(*columns, console=console, transient=True)

    def begin(self, label: str, total: int) -> None:
        self._bars.start()
        self._task = self._bars.add_task(label, total=total)

    def advance(self, images: int) -> None:
        self._bars.advance(self._task, images)

    def end(self) -> None:
        self._bars.remove_task(self._task)
        self._bars.stop()


class Lines:
    """`stcore.training.Progress` where there is no terminal: a line now and then, with the time that is left."""

    def __init__(self, console: Console) -> None:
        self._console = console

    def begin(self, label: str, total: int) -> None:
        self._label, self._total, self._done = label, total, 0
        self._begun = self._said = time.monotonic()

    def advance(self, images: int) -> None:
        self._done += images
        now = time.monotonic()
        if now - self._said >= LINE_EVERY and self._done < self._total:
            self._said = now
            left = (now - self._begun) / self._done * (self._total - self._done)
            self._console.print(f"  {self._label}: {self._done}/{self._total} images, {left:.0f} s left")

    def end(self) -> None:
        """Nothing to tidy up."""


class _Console(Console):
    def on_broken_pipe(self) -> None:
        """For the command to end as any other; rich itself would exit with 1."""
        raise BrokenPipeError


def make_console(stderr: bool = False) -> Console:
    """The terminal; where there is none, wide enough for any line: a log is not folded."""
    console = _Console(stderr=stderr, highlight=False, markup=False, emoji=False)  # a path may hold brackets
    if not console.is_terminal:
        console.width = 250
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
    ("collaborative_share", "col share", ".0%"),
    ("kappa", "κ", ".1f"),
    ("selected_intended", "as meant", ".0%"),
    ("selected_flipped", "flipped", ".0%"),
    ("selected_natural", "natural", ".0%"),
)


def epoch_line(row: Mapping[str, Any], epochs: int, select: str) -> str:
    """One epoch's metrics in a line; the accuracies are those of the split the best epoch is chosen on."""
    robust = [(k, f"{k.removesuffix('_accuracy')}", ".1%") for k in row if k.endswith("_accuracy")]
    cells = [f"{name} {row[key]:{form}}" for key, name, form in _COLUMNS if key in row]
    cells += [f"lr {row['learning_rate']:.3g}", f"{row['images_per_second']:.0f} img/s"]
    cells += [f"{name} {row[key]:{form}}" for key, name, form in robust]
    mark = " *" if row["best_epoch"] == row["epoch"] else ""
    return f"epoch {row['epoch']:>3}/{epochs}  " + "  ".join(cells) + f" on {select}{mark}"


def score_table(scores: Mapping[str, Mapping[str, Accuracy]]) -> Table:
    """Checkpoints by attacks, each accuracy with its 95 % interval."""
    table = Table()
    table.add_column("checkpoint", no_wrap=True)
    attacks = list(next(iter(scores.values())))
    for attack in attacks:
        table.add_column(f"{attack} %", justify="right", no_wrap=True)
    for checkpoint, accuracies in scores.items():
        table.add_row(checkpoint, *(percent(accuracies[attack]) for attack in attacks))
    return table


def percent(accuracy: Accuracy) -> str:
    """72.05 [67.02, 76.70], in percent."""
    low, high = accuracy.interval()
    return f"{100 * accuracy.value:.2f} [{100 * low:.2f}, {100 * high:.2f}]"
