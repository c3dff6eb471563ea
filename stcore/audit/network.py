"""Checks of what a network answers, before anything attacks it."""

from __future__ import annotations

import numpy as np

from stcore.audit.finding import Measured, Unmeasured
from stcore.audit.subject import Subject
from stcore.errors import DivergedError
from stcore.protocols import Array

REPEATS = 4
_ALIKE = 1e-6  # of the largest logit: what rounding alone may change from one run to the next


def is_finite(subject: Subject) -> Measured | Unmeasured:
    """Whether the logits of the images are numbers."""
    try:
        count = subject.logits.shape[1]
    except DivergedError:
        return Measured(False, "NaN or +∞")
    return Measured(True, f"{count} for each of {len(subject.images)} images")


def tells_apart(subject: Subject) -> Measured | Unmeasured:
    """Whether images of several classes get several classes."""
    if len(np.unique(subject.labels)) == 1:
        return Unmeasured("The images are all of one class.")
    given = len(np.unique(subject.logits.argmax(axis=1)))
    return Measured(given > 1, f"{given} class{'es' * (given > 1)} given to {len(subject.images)} images")


def are_logits(subject: Subject) -> Measured | Unmeasured:
    """Whether rows are anything else than non-negative with sum one. Logarithms of such rows do no harm."""
    logits = subject.logits.astype(np.float64)
    if (logits >= 0).all() and _is_one(logits.sum(axis=1)):
        return Measured(False, "rows are non-negative and sum to 1")
    if (logits <= 0).all() and _is_one(np.exp(logits).sum(axis=1)):
        return Measured(True, "log-probabilities, which are logits as good as any")
    return Measured(True, f"logits in [{logits.min():.3g}, {logits.max():.3g}]")


def answers_alike(subject: Subject) -> Measured | Unmeasured:
    """Whether further forwards give the same logits again."""
    first, changed = subject.logits, np.zeros(len(subject.images), bool)
    largest = np.abs(first[np.isfinite(first)]).max(initial=0.0)
    for _ in range(REPEATS):
        again = subject.ask()
        differs = again != first
        change = np.abs(np.subtract(again, first, where=differs, out=np.zeros_like(first)))
        changed |= (change > _ALIKE * largest).any(axis=1)
    count = int(changed.sum())
    return Measured(count == 0, f"{count} of {len(changed)} images get other logits in {REPEATS} more forwards")


def _is_one(sums: Array) -> bool:
    return bool(np.allclose(sums, 1.0, atol=1e-3))
