"""Audit checks of a network's outputs, without an attack."""

from __future__ import annotations

import numpy as np

from stcore.audit.finding import Measured, Unmeasured
from stcore.audit.subject import REPEATS, Subject
from stcore.errors import DivergedError
from stcore.protocols import Array

_RESOLUTION = 1e-5  # of the range of all logits: values that are nearer are the same
_PILED = 0.1  # sound networks, in bfloat16 too, have 0.03 of their logits at the two most frequent values
_FLAT = 0.05  # by less, the likeliest class is at most a twentieth more likely than any other
_TOLERANCE_OF_BATCHES = 1e-3  # of the largest logit: in another batch kernels round otherwise


def logits_are_finite(subject: Subject) -> Measured | Unmeasured:
    """Whether the logits of the images are finite."""
    try:
        count = subject.logits.shape[1]
    except DivergedError:
        return Measured(False, "NaN or +∞")
    return Measured(True, f"{count} for each of {len(subject.images)} images")


def predicts_several_classes(subject: Subject) -> Measured | Unmeasured:
    """Whether the network predicts several classes for images of several classes."""
    if len(np.unique(subject.labels)) == 1:
        return Unmeasured("The images are all of one class.")
    count = len(np.unique(subject.logits.argmax(axis=1)))
    return Measured(count > 1, f"{count} class{'es' * (count > 1)} predicted for {len(subject.images)} images")


def outputs_are_logits(subject: Subject) -> Measured | Unmeasured:
    """Whether the outputs are not probabilities, i.e. non-negative rows with sum 1. Log-probabilities are fine."""
    logits = subject.logits.astype(np.float64)
    if (logits >= 0).all() and _is_one(logits.sum(axis=1)):
        return Measured(False, "rows are non-negative and sum to 1")
    if (logits <= 0).all() and _is_one(np.exp(logits).sum(axis=1)):
        return Measured(True, "log-probabilities, which are valid logits")
    return Measured(True, f"logits in [{logits.min():.3g}, {logits.max():.3g}]")


def logits_are_graded(subject: Subject) -> Measured | Unmeasured:
    """Whether the logits take many values, rather than the one or two of an argmax layer, a clip or a tanh."""
    logits = subject.logits.astype(np.float64)
    logits = logits[:, np.ptp(logits, axis=0) > 0]  # of two classes, one may be constant
    if not logits.size:
        return Unmeasured("Every image has the same logits.")
    places = np.round((logits - logits.min()) / (_RESOLUTION * np.ptp(logits)))
    share = float(np.sort(np.unique(places, return_counts=True)[1])[-2:].sum() / places.size)
    return Measured(share <= _PILED, f"{share:.0%} of the logits have one of two values")


def logits_differ(subject: Subject) -> Measured | Unmeasured:
    """Whether the logits of an image differ enough for its softmax to prefer a class."""
    if subject.logits.shape[1] == 2:
        return Unmeasured("Of two classes, one is the only other.")
    spread = float(np.median(np.ptp(subject.logits, axis=1)))
    return Measured(spread >= _FLAT, f"an image's logits differ by {spread:.3g} at the median")


def is_deterministic(subject: Subject) -> Measured | Unmeasured:
    """Whether repeated forwards give the same logits."""
    count, total = int(subject.changes.sum()), len(subject.images)
    return Measured(count == 0, f"logits of {count} of {total} images change in {REPEATS} more forwards")


def ignores_neighbours(subject: Subject) -> Measured | Unmeasured:
    """Whether an image's logits are the same in a smaller batch, among other images."""
    if len(subject.images) < 3:
        return Unmeasured("It takes at least three images.")
    if subject.changes.any():
        return Unmeasured("The network is random.")
    moved = subject.changed(subject.among_others(), _TOLERANCE_OF_BATCHES)
    count, total = int(moved.sum()), len(moved)
    return Measured(count == 0, f"logits of {count} of {total} images change with the rest of the batch")


def _is_one(sums: Array) -> bool:
    return bool(np.allclose(sums, 1.0, atol=1e-3))
