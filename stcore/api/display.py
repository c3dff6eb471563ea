"""Progress and metrics of a run as a person sees them: on a terminal, in a log, in a notebook."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Mapping
from html import escape
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as RichProgress

from stcore.base.progress import Progress, Silent
from stcore.results.names import radius
from stcore.runs.plan import Plan

LINE_EVERY = 30.0  # seconds between plain progress lines
REFRESH = 0.2  # seconds between two updates of a notebook's bar


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
        self._bars = RichProgress(*columns, console=console, transient=True)

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


def title(plan: Plan) -> str:
    """The run in one line."""
    around = {
        "awp": plan.method.awp,
        "rwp": plan.method.rwp,
        "ema": plan.optimisation.ema,
        "mixup": plan.data.mixup,
        "cutmix": plan.data.cutmix,
        "extra data": plan.data.extra_fraction,
    }
    said = [f"{name} {value:.4g}" for name, value in around.items() if value is not None]
    if plan.method.teacher is not None:
        said.append(f"{plan.method.guidance} by {Path(plan.method.teacher).name}")
    epochs = f"{plan.optimisation.epochs} epoch{'s' * (plan.optimisation.epochs > 1)}"
    method = f"{plan.method.name} with {', '.join(said)}" if said else plan.method.name
    data, model = (name.removeprefix("given:") for name in (plan.data.dataset, plan.model.name))
    what = (f"{method} on {data}", model, plan.runtime.backend, epsilons(plan), epochs)
    return f"{', '.join(what)}, seed {plan.seed}"


def epsilons(plan: Plan) -> str:
    """The ε of training, and that of the evaluation if it differs."""
    if balls := plan.method.settings.get("balls"):
        return f"ε = {' or '.join(balls)}"
    trained = plan.method.settings.get("epsilon", plan.evaluation.epsilon)
    norm = " in l2" if plan.norm == "l2" else ""
    apart = f", evaluated at {radius(plan.evaluation.epsilon)}" if trained != plan.evaluation.epsilon else ""
    return f"ε = {radius(trained)}{norm}{apart}"


class NotebookBar:
    """`stcore.base.progress.Progress` in a notebook: a bar that is updated in place and removed at the end."""

    def __init__(self) -> None:
        self._handle: Any = None

    def begin(self, label: str, total: int, unit: str = "images") -> None:
        self._label, self._total, self._unit, self._done, self._note = label, max(total, 1), unit, 0, ""
        self._begun, self._shown = time.monotonic(), 0.0
        self._show()

    def advance(self, amount: int, note: str = "") -> None:
        self._done, self._note = self._done + amount, note
        if time.monotonic() - self._shown >= REFRESH:
            self._show()

    def end(self) -> None:
        self._update("")

    def _show(self) -> None:
        self._shown = time.monotonic()
        said = f"{self._label}: {self._done}/{self._total} {self._unit}"
        if self._done:
            said += f", {(self._shown - self._begun) / self._done * max(0, self._total - self._done):.0f} s left"
        said += f", {self._note}" if self._note else ""
        self._update(f'<progress max="{self._total}" value="{self._done}"></progress> {escape(said)}')

    def _update(self, html: str) -> None:
        from IPython.display import HTML, display

        shown = HTML(html)  # type: ignore[no-untyped-call]
        if self._handle is None:
            self._handle = display(shown, display_id=True)  # type: ignore[no-untyped-call]
        else:
            self._handle.update(shown)


def in_notebook() -> bool:
    """Whether this process is the kernel of a notebook."""
    ipython = sys.modules.get("IPython")
    shell = None if ipython is None else ipython.get_ipython()
    return shell is not None and "IPKernelApp" in shell.config


def make_display(choice: bool | Progress) -> tuple[Progress, Callable[[str], None]]:
    """What shows progress, and what prints a line.

    choice: True for a bar on a terminal or in a notebook and lines elsewhere, False for nothing, or a `Progress`.
    """
    if choice is False:
        return Silent(), lambda text: None
    console = Console(highlight=False, markup=False, emoji=False)
    if not isinstance(choice, bool):
        progress = choice
    elif in_notebook():
        progress = NotebookBar()
    else:
        progress = Bars(console) if console.is_terminal else Lines(console)
    return progress, lambda text: console.print(text, soft_wrap=True)
