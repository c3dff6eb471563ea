"""Audit checks of a network's gradients and of gradient attacks."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from stcore.attacks import PGD
from stcore.audit.finding import Measured, Unmeasured
from stcore.audit.subject import Subject
from stcore.core.losses import cross_entropy, difference_of_logits_ratio
from stcore.core.search import forward
from stcore.protocols import Array, Mode, Ops, Tensor

_Loss = Callable[[Ops, Tensor, Tensor], Tensor]


def cross_entropy_vanishes(subject: Subject) -> Measured | Unmeasured:
    """Whether the cross-entropy has a gradient at the images."""
    return _vanishes(subject, cross_entropy)


def dlr_vanishes(subject: Subject) -> Measured | Unmeasured:
    """Whether the difference of logits ratio (DLR) has a gradient at the images."""
    return _vanishes(subject, difference_of_logits_ratio)


def zero_budget_changes_predictions(subject: Subject) -> Measured | Unmeasured:
    """Whether PGD at ε = 0 leaves every prediction unchanged."""
    attack = PGD(0.0, 2 / 255, 2, norm=subject.norm, bounds=subject.bounds)
    changed = int((subject.classes_under(attack) != subject.logits.argmax(axis=1)).sum())
    return Measured(changed == 0, f"{changed} of {len(subject.images)} predictions change")


def unbounded_attack_fails(subject: Subject) -> Measured | Unmeasured:
    """Whether PGD-20 from the natural image reaches chance accuracy if the ball contains the whole pixel range.

    A random start alone would turn an image into noise, so there is none.
    """
    span = subject.bounds[1] - subject.bounds[0]
    if subject.norm == "l2":
        span *= float(np.sqrt(subject.images[0].size))  # the diagonal of the range
    attack = PGD(span, span / 4, 20, "natural", norm=subject.norm, bounds=subject.bounds)
    correct, total = int(subject.is_correct(subject.classes_under(attack)).sum()), len(subject.images)
    chance = total / subject.logits.shape[1]
    value = f"{correct} of {total} correct at ε = {span:.4g}"
    return Measured(correct <= max(chance, subject.tolerance()), value)


def _vanishes(subject: Subject, loss: _Loss) -> Measured | Unmeasured:
    """Checks correctly classified images only: DLR is rightly constant if the label is third."""
    if not subject.correct.any():
        return Unmeasured("No image is classified correctly.")
    gradient = _gradients(subject, loss)[subject.correct]
    usable = np.isfinite(gradient).all(axis=1) & (gradient != 0).any(axis=1)
    count = int((~usable).sum())
    return Measured(count <= subject.tolerance(), f"{count} of {len(usable)} images have none")


def _gradients(subject: Subject, loss: _Loss) -> Array:
    """(N, d): the gradient of each image's loss at its pixels."""
    model, ops = subject.classifier, subject.classifier.ops

    def find(x: Tensor, y: Tensor) -> Tensor:
        natural = forward(model, x, Mode.EVAL)
        value, pullback = ops.vjp(lambda logits: loss(ops, logits, y), natural.logits)
        return natural.pullback(pullback(ops.ones_like(value))[0])[0]

    # Eagerly: a batch or two, which take less than tracing does.
    batches = ((model.images(batch.images), model.labels(batch.labels)) for batch in subject.batches())
    found = [ops.to_numpy(ops.unrecorded(lambda x=x, y=y: find(x, y))) for x, y in batches]
    gradients = np.concatenate(found)
    return gradients.reshape(len(gradients), -1)
