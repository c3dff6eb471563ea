"""Losses of one forward, per example."""

from __future__ import annotations

import math

from stcore.protocols import Ops, Tensor


def cross_entropy(ops: Ops, logits: Tensor, labels: Tensor) -> Tensor:
    """−log p_y, per example: logits (B, C), integer labels (B,) → (B,), in nats."""
    return -of_label(ops, ops.log_softmax(logits), labels)


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
