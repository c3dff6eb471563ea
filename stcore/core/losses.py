"""Losses per example: logits (B, C), integer labels (B,) → (B,)."""

from __future__ import annotations

import math

from stcore.protocols import Ops, Tensor

_TINY = 1e-12  # as published: keeps the denominator positive if logits are equal


def cross_entropy(ops: Ops, logits: Tensor, labels: Tensor) -> Tensor:
    """Cross-entropy −log p_y, in nats: logits (B, C), integer labels (B,) → (B,)."""
    return -ops.of_label(ops.log_softmax(logits), labels)


def smoothed(ops: Ops, natural: Tensor, logits: Tensor, smoothing: float) -> Tensor:
    """Cross-entropy (B,), in nats, against the mixture (1 − s)·one-hot + s/C.

    natural: the cross-entropy (B,) against the labels; returned unchanged if s = 0.   logits: (B, C).
    smoothing: s in [0, 1]. Szegedy et al., 2016 (label smoothing).
    """
    if not smoothing:
        return natural
    log_p = ops.log_softmax(logits)
    uniform = -ops.sum(log_p) / ops.sum(ops.ones_like(log_p))
    return (1.0 - smoothing) * natural + smoothing * uniform


def margin(ops: Ops, logits: Tensor, labels: Tensor) -> Tensor:
    """Margin max_{j≠y} z_j − z_y, (B,): negative for a correct prediction (Carlini & Wagner, 2017)."""
    return best_other(ops, logits, labels) - ops.of_label(logits, labels)


def correct(ops: Ops, logits: Tensor, labels: Tensor) -> Tensor:
    """1 for a correct prediction, 0 otherwise or for a tie: (B,), in the logits' dtype."""
    gap = margin(ops, logits, labels)
    return ops.flag(gap < 0.0, gap)


def best_other(ops: Ops, values: Tensor, labels: Tensor) -> Tensor:
    """Selects each example's largest entry at a class other than its label: (B, C), (B,) → (B,)."""
    minus_infinity = ops.ones_like(values) * -math.inf
    return ops.max(ops.where(ops.one_hot(labels, values), minus_infinity, values))


def difference_of_logits_ratio(ops: Ops, logits: Tensor, labels: Tensor) -> Tensor:
    """DLR −(z_y − max_{j≠y} z_j) / (z_(1) − z_(3)), (B,): invariant to the logits' scale and offset.

    Croce and Hein, 2020. With two classes there is no third logit: returns the plain margin.
    """
    gap = margin(ops, logits, labels)
    first, _, *third = ops.top_k(logits, 3)
    return gap / (first - third[0] + _TINY) if third else gap


def targeted_difference_of_logits_ratio(ops: Ops, logits: Tensor, labels: Tensor, target: Tensor) -> Tensor:
    """Targeted DLR −(z_y − z_t) / (z_(1) − (z_(3) + z_(4)) / 2), (B,), for target classes t (B,).

    Croce and Hein, 2020. With three classes the denominator is z_(1) − z_(3); with two, returns z_t − z_y.
    """
    gap = ops.of_label(logits, target) - ops.of_label(logits, labels)
    first, _, *lower = ops.top_k(logits, 4)
    return gap / (first - sum(lower[1:], lower[0]) / len(lower) + _TINY) if lower else gap
