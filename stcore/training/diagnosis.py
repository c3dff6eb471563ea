"""Diagnosis of a run from its metrics: rules that name the trouble, its likely cause and a remedy.

Every rule is a pure function of the rows of metrics.jsonl and of the selection set. Accuracies are counts over a
few images: a rule reports a fall only if the 95 % intervals (Clopper–Pearson) are apart, so a small selection set
needs a large fall. Robust accuracy is that under PGD-20, which every run records: one-step attacks do not show a
collapse.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from stcore.evaluation.accuracy import Accuracy

Row = Mapping[str, Any]

NATURAL, ROBUST = "natural_accuracy", "pgd20_accuracy"
COLLAPSE = "collapse"
NOT_LEARNING_EPOCHS = 5
"""The number of epochs in a row with a natural accuracy near chance and a loss near log C."""
NOT_LEARNING_LOSS = 0.9
"""Near log C: at least this share of it. Naming the commonest class of uneven data costs less than log C."""
COLLAPSE_EPOCHS = 2
"""The number of epochs in a row near chance under attack: a single bad epoch at a high rate may pass."""
COLLAPSE_SHARE = 0.5
"""And at most this share of the best robust accuracy."""
OVERFITTING_EPOCHS = 5
"""The number of epochs in a row with a robust accuracy clearly below the best and a loss below that epoch's."""


class Trouble(NamedTuple):
    """A trouble: its kind (a key of records), and a sentence with its likely cause and a remedy."""

    kind: str
    said: str


@dataclass(frozen=True)
class Diagnosis:
    """The rules for a run whose accuracies are measured on `images` images of `classes` classes.

    chance: the share of the most frequent class among them, the accuracy of a constant answer.
    robust: whether the method trains for the attacks of the evaluation; otherwise robust accuracy is ignored.
    """

    images: int
    classes: int
    chance: float
    robust: bool = True

    @property
    def near_chance(self) -> float:
        """The upper limit of "near chance": twice chance, or a tenth of the way to 1, whichever is less."""
        return min(2 * self.chance, self.chance + 0.1 * (1 - self.chance))

    def __call__(self, rows: Sequence[Row]) -> list[Trouble]:
        """The troubles that the last row shows, given the rows before it."""
        rules = (self.not_learning, *((self.collapse, self.robust_overfitting) if self.robust else ()))
        return [trouble for rule in rules if (trouble := rule(rows)) is not None]

    def learns(self, row: Row) -> bool:
        """Whether the 95 % interval of the natural accuracy lies above chance."""
        return self._limits(row, NATURAL)[0] > self.chance

    def not_learning(self, rows: Sequence[Row]) -> Trouble | None:
        """The natural accuracy stays near chance and the loss near log C."""
        log_c = math.log(self.classes)

        def at_chance(row: Row) -> bool:
            low, high = self._limits(row, NATURAL)
            alike = low <= self.chance and row[NATURAL] <= self.near_chance  # of few images the limits are wide
            return (high < self.near_chance or alike) and row["loss"] >= NOT_LEARNING_LOSS * log_c

        recent = rows[-NOT_LEARNING_EPOCHS:]
        if len(recent) < NOT_LEARNING_EPOCHS or not all(map(at_chance, recent)):
            return None
        last = rows[-1]
        return Trouble(
            "not_learning",
            f"epoch {last['epoch']}: not learning. For {NOT_LEARNING_EPOCHS} epochs the natural accuracy "
            f"({last[NATURAL]:.1%}) has been that of naming one class ({self.chance:.1%}), with a loss of "
            f"{last['loss']:.4g} (log {self.classes} = {log_c:.3f}). Likely the learning rate is too high: try a "
            "tenth of it. Else ε or β is too large for this network, or the labels do not belong to the images: "
            "start with a smaller epsilon or beta, or from naturally trained weights (init_weights)",
        )

    def collapse(self, rows: Sequence[Row]) -> Trouble | None:
        """Catastrophic overfitting: from well above chance the robust accuracy falls to it, the natural stays."""
        before, recent = rows[:-COLLAPSE_EPOCHS], rows[-COLLAPSE_EPOCHS:]
        if not before:
            return None
        best, last = max(before, key=_robust), rows[-1]
        floor = self._limits(best, ROBUST)[0]

        def collapsed(row: Row) -> bool:
            low, high = self._limits(row, ROBUST)
            return low <= self.chance and high < floor and row[ROBUST] <= COLLAPSE_SHARE * best[ROBUST]

        if floor <= self.near_chance or not all(collapsed(row) and self.learns(row) for row in recent):
            return None
        return Trouble(
            COLLAPSE,
            f"epoch {last['epoch']}: collapse (catastrophic overfitting). Under PGD-20 the accuracy fell from "
            f"{best[ROBUST]:.1%} in epoch {best['epoch']} to {last[ROBUST]:.1%}, while the natural accuracy is "
            f"{last[NATURAL]:.1%}: the network has learnt to defeat the search, not the attack. Likely the search "
            "takes too few or too long steps (steps = 1 is the usual case). Take more steps with a smaller "
            "step_size, a random start (init), a smaller epsilon, or a lower learning rate",
        )

    def robust_overfitting(self, rows: Sequence[Row]) -> Trouble | None:
        """Rice et al. (2020): the robust accuracy stays clearly below its best while the training loss falls."""
        before, recent = rows[:-OVERFITTING_EPOCHS], rows[-OVERFITTING_EPOCHS:]
        if not before or self.collapse(rows) is not None:
            return None
        best, last = max(before, key=_robust), rows[-1]
        floor = self._limits(best, ROBUST)[0]
        if floor <= self.near_chance:  # never robust
            return None
        if not all(self._limits(row, ROBUST)[1] < floor and row["loss"] < best["loss"] for row in recent):
            return None
        return Trouble(
            "robust_overfitting",
            f"epoch {last['epoch']}: robust overfitting (Rice et al. 2020). For {OVERFITTING_EPOCHS} epochs the "
            f"accuracy under PGD-20 ({last[ROBUST]:.1%}) has been clearly below that of epoch {best['epoch']} "
            f"({best[ROBUST]:.1%}), while the training loss fell from {best['loss']:.3f} to {last['loss']:.3f}. "
            "More epochs will not help; the best epoch's weights are kept. Train for fewer epochs with earlier "
            "drops, or with awp, ema or extra data",
        )

    def _limits(self, row: Row, name: str) -> tuple[float, float]:
        return Accuracy(round(row[name] * self.images), self.images).interval()


def _robust(row: Row) -> float:
    return float(row[ROBUST])


def why_diverged(metrics: Mapping[str, float], epoch: int) -> str:
    """The likely cause of a non-finite loss, and a remedy.

    metrics: the means of the batch with that loss.
    """
    if math.isfinite(metrics.get("natural_loss", math.nan)):
        return (
            "Only the loss of the adversarial examples is not finite: likely β or ε is too large. Lower beta, or "
            "epsilon with its step_size; then the learning rate"
        )
    if epoch == 1:
        return "Likely the learning rate is too high for fresh weights. Lower it, a tenth first; then β, or ε"
    return (
        "Likely a step that was too long for the current weights. Lower the learning rate, or drop it before "
        "this epoch; then β, or ε"
    )
