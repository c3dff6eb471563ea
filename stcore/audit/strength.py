"""Checks of PGD's strength: whether something else fools the images that it leaves standing."""

from __future__ import annotations

import numpy as np

from stcore.attacks import PGD
from stcore.attacks.square import Square
from stcore.audit.finding import Measured, Unmeasured
from stcore.audit.subject import Subject
from stcore.autoattack.cascade import Cascade
from stcore.autoattack.versions import Stage
from stcore.protocols import Array

DRAWS = 10
LOSS_SHARE = 0.05
"""Of all images. The paper's networks lose 1.2 to 4.5 points from PGD-100 to C&W, MART's up to 7.2 (Table 1)."""

_NONE_STANDS = Unmeasured("No image withstands the gradient attacks: there is no robustness to doubt.")


def more_steps(subject: Subject) -> Measured | Unmeasured:
    """Whether 100 steps of PGD leave as many images standing as 20 do."""
    few, many = (int(subject.stands_under_pgd(steps).sum()) for steps in (20, 100))
    value = f"{few} of {len(subject.images)} withstand PGD-20, {many} PGD-100"
    return Measured(few - many <= subject.tolerated(), value) if few else _NONE_STANDS


def other_loss_wins(subject: Subject) -> Measured | Unmeasured:
    """Whether C&W-100 fools what withstands PGD."""
    standing = subject.withstands_pgd
    falls = standing & ~subject.withstands_gradients
    return _judged(subject, falls, standing, "withstand PGD", LOSS_SHARE)


def square_wins(subject: Subject) -> Measured | Unmeasured:
    """Whether Square fools what withstands PGD and C&W."""
    standing = subject.withstands_gradients
    if not standing.any():
        return _NONE_STANDS
    falls = np.zeros_like(standing)
    falls[standing] = _fooled_by_square(subject, np.flatnonzero(standing))
    return _judged(subject, falls, standing)


def noise_wins(subject: Subject) -> Measured | Unmeasured:
    """Whether one of ten uniform draws from the ball does: PGD of one step, of length zero."""
    standing = subject.withstands_gradients
    noise = PGD(subject.epsilon, 0.0, 1, norm=subject.norm, bounds=subject.bounds, restarts=DRAWS)
    return _judged(subject, standing & ~subject.stands(subject.classes_under(noise)), standing)


def transfer_wins(subject: Subject) -> Measured | Unmeasured:
    """Whether the examples of any other network do."""
    if not subject.transfer:
        return Unmeasured("No other network's adversarial examples are at hand.")
    standing = subject.withstands_gradients
    falls = [standing & ~subject.stands(subject.classes_of(points)) for points in subject.transfer.values()]
    return _judged(subject, np.logical_or.reduce(falls), standing)


def _judged(
    subject: Subject, falls: Array, standing: Array, what: str = "withstand PGD and C&W", share: float = 0.02
) -> Measured | Unmeasured:
    if not standing.any():
        return _NONE_STANDS
    count = int(falls.sum())
    return Measured(count <= subject.tolerated(share), f"{count} of the {standing.sum()} that {what} fall")


def _fooled_by_square(subject: Subject, rows: Array) -> Array:
    """(n,) booleans: which of these images Square fools, as in AutoAttack but with fewer queries."""
    attack = Square(subject.epsilon, subject.norm, subject.bounds, queries=subject.queries)
    cascade = Cascade(
        subject.classifier,
        [Stage("square", attack)],
        subject.images[rows],
        subject.labels[rows],
        subject.logits[rows],
        lambda points: subject.evaluator.classes(subject.classifier.images(points)),
        positions=rows,
        seed=subject.seed,
        batch_size=subject.batch_size,
    )
    while cascade.advance():
        pass
    return ~cascade.records.robust
