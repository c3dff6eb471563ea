"""Audit checks of a network's gradients and of gradient attacks."""

from __future__ import annotations

import numpy as np

from stcore.attacks import PGD
from stcore.audit.blocking import Loss, where_lost
from stcore.audit.finding import Measured, Unmeasured
from stcore.audit.subject import Subject
from stcore.base.noise import sample
from stcore.base.seeding import Stream
from stcore.core.losses import cross_entropy, difference_of_logits_ratio, margin
from stcore.core.search import forward, noise_laws, value_and_input_gradient
from stcore.data.batches import Batch
from stcore.protocols import Array, Mode, Tensor

_SEGMENTS = 4
_EXPLAINED = 0.8
"""Seventeen sound networks, trained with and without adversarial examples, have 91 to 100 %."""


def cross_entropy_vanishes(subject: Subject) -> Measured | Unmeasured:
    """Whether the cross-entropy has a gradient at the images."""
    return _vanishes(subject, cross_entropy)


def dlr_vanishes(subject: Subject) -> Measured | Unmeasured:
    """Whether the difference of logits ratio (DLR) has a gradient at the images."""
    return _vanishes(subject, difference_of_logits_ratio)


def gradient_explains_loss(subject: Subject) -> Measured | Unmeasured:
    """Whether gradients predict how the margin changes on the way from each image to a random start in its ball.

    They predict a change between two points by the trapezoidal rule, up to the curvature between them. They
    explain no jump, and nothing of what changes where they are zero, random or those of another function.
    """
    if subject.changes.any():
        return Unmeasured("The network is random.")
    if not (subject.logits.astype(np.float32).view(np.uint32) & 0xFFFF).any():
        return Unmeasured("The logits are rounded, as in bfloat16, which hides small changes.")
    missed, of = np.sum([_unexplained(subject, batch) for batch in subject.batches()], axis=0)
    if of == 0:
        return Unmeasured("The loss does not change near the images.")
    share = 1 - missed / of
    return Measured(bool(share >= _EXPLAINED), f"explains {share:.0%} of the changes")


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


def _vanishes(subject: Subject, loss: Loss) -> Measured | Unmeasured:
    """Checks correctly classified images only: DLR is rightly constant if the label is third."""
    if not subject.correct.any():
        return Unmeasured("No image is classified correctly.")
    gradient = _gradients(subject, loss)[subject.correct]
    usable = np.isfinite(gradient).all(axis=1) & (gradient != 0).any(axis=1)
    count = int((~usable).sum())
    value = f"{count} of {len(usable)} images have none"
    if count <= subject.tolerance():
        return Measured(True, value)
    rows = np.flatnonzero(subject.correct)[~usable]
    place = "" if subject.changes.any() else where_lost(subject, rows, loss)
    return Measured(False, f"{value}, {place}" if place else value)


def _gradients(subject: Subject, loss: Loss) -> Array:
    """(N, d): the gradient of each image's loss at its pixels."""
    images = subject.classifier.images
    found = [_differentiated(subject, images(each.images), each.labels, loss)[1] for each in subject.batches()]
    return np.concatenate(found)


def _differentiated(subject: Subject, x: Tensor, labels: Array, loss: Loss) -> tuple[Array, Array]:
    """The loss (B,) of native images x (B, …), and its gradients (B, d). Eagerly: tracing takes more."""
    model, ops = subject.classifier, subject.classifier.ops
    y = model.labels(labels)

    def find() -> tuple[Tensor, Tensor]:
        return value_and_input_gradient(ops, forward(model, x, Mode.EVAL), lambda logits: loss(ops, logits, y))

    value, gradient = map(ops.to_numpy, ops.unrecorded(find))
    return value, gradient.reshape(len(gradient), -1)


def _unexplained(subject: Subject, batch: Batch) -> tuple[float, float]:
    """Over all images, the changes of the margin that its gradients miss, and changes and predictions together."""
    model = subject.classifier
    x = model.host_pixels(batch.images)
    laws = noise_laws(PGD(norm=subject.norm), 1)
    (noise,) = sample(laws, subject.seed, Stream.ATTACK, batch.positions, x.shape[1:])
    end = np.clip(x + subject.epsilon * noise, *subject.bounds)
    points = [x + (end - x) * (k / _SEGMENTS) for k in range(_SEGMENTS + 1)]
    native = [model.images(point.astype(x.dtype)) for point in points]
    values, gradients = zip(*(_differentiated(subject, p, batch.labels, margin) for p in native), strict=True)
    steps = np.diff([model.ops.to_numpy(p).reshape(len(x), -1) for p in native], axis=0)
    slopes, changes = np.array(gradients, np.float64), np.diff(np.array(values, np.float64), axis=0)
    predicted = ((slopes[1:] + slopes[:-1]) / 2 * steps).sum(axis=2)
    return float(np.abs(changes - predicted).sum()), float((np.abs(changes) + np.abs(predicted)).sum())
