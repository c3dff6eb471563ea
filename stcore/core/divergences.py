"""Divergences between two predictions: logits (B, C), (B, C) → (B,) (paper section 4.1).

Every divergence is called `divergence(ops, reference, other, stop_targets)` on logits. Squeeze training
passes the collaborative logits as the reference and the adversarial ones as the other.

KL(a‖b) = Σ a·log(a/b) is the textbook order. The paper prints the arguments in reverse order (as the function it
used takes them); read so, its JS is the standard one and its Eq. 3 equals TRADES.
"""

from __future__ import annotations

import math
from typing import Protocol

from stcore.protocols import Ops, Tensor


class Divergence(Protocol):
    """The signature of a divergence.

    reference, other: logits (B, C).   stop_targets: whether targets are constants, for those that have targets.
    Returns (B,), in nats for KL and JS.
    """

    def __call__(self, ops: Ops, reference: Tensor, other: Tensor, stop_targets: bool = True) -> Tensor: ...


def _kl_from_logs(ops: Ops, log_p: Tensor, log_q: Tensor) -> Tensor:
    return ops.sum(ops.exp(log_p) * (log_p - log_q))


def kl(ops: Ops, reference: Tensor, other: Tensor, stop_targets: bool = True) -> Tensor:
    """KL(p_reference‖p_other), in nats. Both arguments are differentiated; there is no target to stop."""
    return _kl_from_logs(ops, ops.log_softmax(reference), ops.log_softmax(other))


def symmetric_kl(ops: Ops, reference: Tensor, other: Tensor, stop_targets: bool = True) -> Tensor:
    """½·[KL(p‖q) + KL(q‖p)], in nats.

    With `stop_targets` the target of each half is a constant, as in the released code: the value is the same; the
    gradient with respect to the logits is (p − q)/2, about half the true one for small gaps.
    """
    log_p, log_q = ops.log_softmax(reference), ops.log_softmax(other)
    target_p, target_q = (ops.stop_gradient(log_p), ops.stop_gradient(log_q)) if stop_targets else (log_p, log_q)
    return 0.5 * (_kl_from_logs(ops, target_p, log_q) + _kl_from_logs(ops, target_q, log_p))


def js(ops: Ops, reference: Tensor, other: Tensor, stop_targets: bool = True) -> Tensor:
    """Jensen–Shannon: ½·[KL(p‖m) + KL(q‖m)], m = (p + q)/2, in nats, in [0, log 2].

    Both arguments are differentiated.
    """
    log_p, log_q = ops.log_softmax(reference), ops.log_softmax(other)
    log_m = ops.logaddexp(log_p, log_q) - math.log(2.0)
    return 0.5 * (_kl_from_logs(ops, log_p, log_m) + _kl_from_logs(ops, log_q, log_m))


def squared_l2(ops: Ops, reference: Tensor, other: Tensor, stop_targets: bool = True) -> Tensor:
    """‖p − q‖², summed over the classes, in [0, 2]. Both arguments are differentiated."""
    gap = ops.exp(ops.log_softmax(reference)) - ops.exp(ops.log_softmax(other))
    return ops.sum(gap * gap)


def improved_kl(ops: Ops, reference: Tensor, other: Tensor, stop_targets: bool = True) -> Tensor:
    """KL(sg p‖q) + ½·Var_{sg p}(log p − log q), in nats: decoupled KL with one gradient restored.

    Cui et al., 2024 (Decoupled KL). With q constant in the variance, the gradient would be that of KL(p‖q); here q
    is differentiated there too (their first improvement). Their second, weights from class means, would add state
    to training and is left out.
    """
    log_p, log_q = ops.log_softmax(reference), ops.log_softmax(other)
    target = ops.stop_gradient(log_p)
    gap, weights = log_p - log_q, ops.exp(target)
    spread = gap - ops.expand_dims_like(ops.sum(weights * gap), gap)
    return _kl_from_logs(ops, target, log_q) + 0.5 * ops.sum(weights * spread * spread)


DIVERGENCES: dict[str, Divergence] = {
    "symmetric_kl": symmetric_kl,
    "js": js,
    "squared_l2": squared_l2,
    "kl": kl,
    "improved_kl": improved_kl,
}
