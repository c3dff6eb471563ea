"""Losses of one forward, per example."""

from __future__ import annotations

from stcore.protocols import Ops, Tensor


def cross_entropy(ops: Ops, logits: Tensor, labels: Tensor) -> Tensor:
    """−log p_y, per example: logits (B, C), integer labels (B,) → (B,), in nats."""
    picked = ops.where(ops.one_hot(labels, logits), ops.log_softmax(logits), 0.0)
    return -ops.sum(picked)
