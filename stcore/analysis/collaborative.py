"""Loss of natural images and of the collaborative examples near them (Fig. 1).

From the natural image, 100 sign-gradient steps of 1/255 descend the cross-entropy (Eq. 4) in balls of 4, 8, 16 and
32/255, with running statistics. For another ε, radii and step size scale in proportion.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Self

import numpy as np

from stcore.analysis.searches import PAPER_EPSILON, cross_entropies, search_for, within
from stcore.analysis.subject import Subject, on_same_images
from stcore.attacks import PGD
from stcore.base.progress import Progress, stretch
from stcore.errors import UsageError
from stcore.evaluation.evaluator import Evaluator
from stcore.protocols import Array


@dataclass(frozen=True)
class Settings:
    """The settings of the searches, one for each budget.

    budgets: radii ε of the balls, ascending, above 0, for pixels in [0, 1].   The other fields are those of
    `stcore.analysis.searches.SearchSettings`. Raises UsageError for a value out of range.
    """

    budgets: tuple[float, ...] = (4 / 255, 8 / 255, 16 / 255, 32 / 255)
    step_size: float = 1 / 255
    steps: int = 100
    norm: str = "linf"

    def __post_init__(self) -> None:
        rising = all(low < high for low, high in zip((0.0, *self.budgets), self.budgets, strict=False))
        if not self.budgets or not rising:
            raise UsageError(f"budgets: expected radii above 0, ascending; received {self.budgets}")
        _ = self.searches  # PGD checks its settings

    @classmethod
    def at(cls, epsilon: float, norm: str = "linf") -> Self:
        """The defaults scaled from 8/255 to another ε; the budgets become ε/2, ε, 2ε and 4ε."""
        usual, scale = cls(), epsilon / PAPER_EPSILON
        budgets = dict.fromkeys(within(budget * scale, norm) for budget in usual.budgets)
        return cls(tuple(budgets), usual.step_size * scale, usual.steps, norm)

    @property
    def searches(self) -> dict[str, PGD]:
        """A search per budget."""
        return {
            f"{budget:.6g}": search_for("collaborative", budget, self.step_size, self.steps, self.norm)
            for budget in self.budgets
        }


@dataclass(frozen=True, eq=False)
class Curve:
    """One model's losses at budget 0, the natural images, and at each of the K budgets.

    losses: (K + 1, N) cross-entropies in nats.   correct: (K + 1, N), whether classified correctly.
    """

    name: str
    method: str | None
    losses: Array
    correct: Array

    @property
    def mean(self) -> Array:
        """(K + 1,): the mean over the images."""
        return np.asarray(self.losses.mean(axis=1))

    @property
    def deviation(self) -> Array:
        """(K + 1,): the standard deviation over the images."""
        return np.asarray(self.losses.std(axis=1))


@dataclass(frozen=True, eq=False)
class Result:
    """A curve for each model."""

    settings: Settings
    curves: list[Curve]

    @property
    def budgets(self) -> tuple[float, ...]:
        """0 for the natural images, then the budgets."""
        return (0.0, *self.settings.budgets)

    def rows(self) -> list[dict[str, Any]]:
        """A row per model and budget."""
        return [
            {
                "model": curve.name,
                "budget": budget,
                "loss": float(curve.mean[k]),
                "loss_deviation": float(curve.deviation[k]),
                "accuracy": float(curve.correct[k].mean()),
                "images": curve.losses.shape[1],
            }
            for curve in self.curves
            for k, budget in enumerate(self.budgets)
        ]

    def table(self) -> list[dict[str, Any]]:
        return self.rows()

    def content(self) -> dict[str, Any]:
        return {"settings": dataclasses.asdict(self.settings), "rows": self.rows()}


def compute(subjects: Iterable[Subject], settings: Settings, *, progress: Progress) -> Result:
    """The curve of each model. Raises DataError if the models have different images."""
    return Result(settings, [_curve(subject, settings, progress) for subject in on_same_images(subjects)])


def _curve(subject: Subject, settings: Settings, progress: Progress) -> Curve:
    evaluator = Evaluator(subject.classifier, settings.searches)
    losses: list[Array] = []
    correct: list[Array] = []
    with stretch(progress, subject.name, len(subject.labels)):
        for batch in subject.batches():
            natural, _, found = evaluator.evaluate_batch(batch)
            logits = [natural, *(evaluator.logits(x) for x in found.values())]
            losses.append(np.stack([cross_entropies(one, batch.labels) for one in logits]))
            correct.append(np.stack([one.argmax(axis=1) == batch.labels for one in logits]))
            progress.advance(len(batch.labels))
    return Curve(subject.name, subject.method, np.concatenate(losses, axis=1), np.concatenate(correct, axis=1))
