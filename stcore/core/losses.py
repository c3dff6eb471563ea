"""Losses of one forward, per example."""

from __future__ import annotations

import math

from stcore.protocols import Ops, Tensor

_TINY = 1e-12  # of the published losses, so that equal logits do not divide by zero


def cross_entropy(ops: Ops, logits: Tensor, labels: Tensor) -> Tensor:
    """−log p_y, per example: logits (B, C), integer labels (B,) → (B,), in nats."""
    return -of_label(ops, ops.log_softmax(logits), labels)


def smoothed(ops: Ops, natural: Tensor, logits: Tensor, smoothing: float) -> Tensor:
    """Cross-entropy (B,) against the mixture (1 − s)·one-hot + s/C, from the cross-entropy against the labels.

    Szegedy et al., 2016 (label smoothing). With s = 0 it is `natural` itself.
    """
    if not smoothing:
        return natural
    log_p = ops.log_softmax(logits)
    uniform = -ops.sum(log_p) / ops.sum(ops.ones_like(log_p))
    return (1.0 - smoothing) * natural + smoothing * uniform


def margin(ops: Ops, logits: Tensor, labels: Tensor) -> Tensor:
    """max over j ≠ y of z_j, less z_y (Carlini & Wagner, 2017): negative where the prediction is right."""
    return best_other(ops, logits, labels) - of_label(ops, logits, labels)


def correct(ops: Ops, logits: Tensor, labels: Tensor) -> Tensor:
    """One where the label's logit is the largest, else zero; (B,), in the logits' dtype."""
    gap = margin(ops, logits, labels)
    one = ops.ones_like(gap)
    return ops.where(gap < 0.0, one, one - one)


def of_label(ops: Ops, values: Tensor, labels: Tensor) -> Tensor:
    """(B, C) → (B,): each example's entry at its label."""
    return ops.sum(ops.where(ops.one_hot(labels, values), values, 0.0))


def best_other(ops: Ops, values: Tensor, labels: Tensor) -> Tensor:
    """(B, C) → (B,): each example's largest entry at another class than its label."""
    never = ops.ones_like(values) * -math.inf
    return ops.max(ops.where(ops.one_hot(labels, values), never, values))


def difference_of_logits_ratio(ops: Ops, logits: Tensor, labels: Tensor) -> Tensor:
    """−(z_y − max over j ≠ y of z_j) / (z_(1) − z_(3)), (B,): does not change with the logits' scale or offset.

    Croce and Hein, 2020 (DLR). Of two classes there is no third logit: the plain margin takes its place.
    """
    gap = margin(ops, logits, labels)
    first, _, *third = ops.top_k(logits, 3)
    return gap / (first - third[0] + _TINY) if third else gap


def targeted_difference_of_logits_ratio(ops: Ops, logits: Tensor, labels: Tensor, target: Tensor) -> Tensor:
    """−(z_y − z_t) / (z_(1) − (z_(3) + z_(4)) / 2), (B,), for a class t of each example.

    Croce and Hein, 2020. Three classes: the denominator is z_(1) − z_(3); two: the plain difference z_t − z_y.
    """
    gap = of_label(ops, logits, target) - of_label(ops, logits, labels)
    first, _, *lower = ops.top_k(logits, 4)
    return gap / (first - sum(lower[1:], lower[0]) / len(lower) + _TINY) if lower else gap
