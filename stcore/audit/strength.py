"""Audit checks of PGD's strength: whether something else fools images that withstand it."""

from __future__ import annotations

import numpy as np

from stcore.attacks import PGD
from stcore.attacks.square import Square
from stcore.audit.finding import Measured, Unmeasured
from stcore.audit.subject import Subject
from stcore.autoattack.cascade import Cascade
from stcore.autoattack.lanes import lanes_on
from stcore.autoattack.versions import Stage
from stcore.protocols import Array

DRAWS = 10
LOSS_SHARE = 0.05
"""Tolerated share of all images. The paper's networks lose 1.2 to 4.5 points from PGD-100 to C&W, MART's up to 7.2
(Table 1)."""

_NONE_ROBUST = Unmeasured("No image withstands the gradient attacks: there is no robustness to doubt.")


def more_steps(subject: Subject) -> Measured | Unmeasured:
    """Whether as many images withstand 100 steps of PGD as 20 steps."""
    few, many = (int(subject.robust_under_pgd(steps).sum()) for steps in (20, 100))
    value = f"{few} of {len(subject.images)} withstand PGD-20, {many} PGD-100"
    return Measured(few - many <= subject.tolerance(), value) if few else _NONE_ROBUST


def other_loss_wins(subject: Subject) -> Measured | Unmeasured:
    """Whether C&W-100 fools images that withstand PGD."""
    robust = subject.withstands_pgd
    fooled = robust & ~subject.withstands_gradients
    return _judge(subject, fooled, robust, "withstand PGD", LOSS_SHARE)


def square_wins(subject: Subject) -> Measured | Unmeasured:
    """Whether Square fools images that withstand PGD and C&W."""
    robust = subject.withstands_gradients
    if not robust.any():
        return _NONE_ROBUST
    fooled = np.zeros_like(robust)
    fooled[robust] = _fooled_by_square(subject, np.flatnonzero(robust))
    return _judge(subject, fooled, robust)


def noise_wins(subject: Subject) -> Measured | Unmeasured:
    """Whether one of ten uniform draws from the ball fools such images: PGD with one step of length zero."""
    robust = subject.withstands_gradients
    noise = PGD(subject.epsilon, 0.0, 1, norm=subject.norm, bounds=subject.bounds, restarts=DRAWS)
    return _judge(subject, robust & ~subject.is_correct(subject.classes_under(noise)), robust)


def transfer_wins(subject: Subject) -> Measured | Unmeasured:
    """Whether the adversarial examples of another network fool such images."""
    if not subject.transfer:
        return Unmeasured("There are no adversarial examples of another network.")
    robust = subject.withstands_gradients
    fooled = [robust & ~subject.is_correct(subject.classes_of(x)) for x in subject.transfer.values()]
    return _judge(subject, np.logical_or.reduce(fooled), robust)


def _judge(
    subject: Subject, fooled: Array, robust: Array, which: str = "withstand PGD and C&W", share: float = 0.02
) -> Measured | Unmeasured:
    """Passes if at most the tolerated share of all images is fooled. fooled, robust: (N,) booleans."""
    if not robust.any():
        return _NONE_ROBUST
    count = int(fooled.sum())
    return Measured(count <= subject.tolerance(share), f"{count} of the {robust.sum()} that {which} are fooled")


def _fooled_by_square(subject: Subject, rows: Array) -> Array:
    """Which of these images Square fools, (n,) booleans; as in AutoAttack but with fewer queries."""
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
        lanes=lanes_on(subject.target),
    )
    while cascade.advance():
        pass
    return ~cascade.records.robust
