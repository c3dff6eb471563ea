"""Divergences between two predictions: log-probabilities (B, C), (B, C) → (B,) (paper section 4.1).

Every divergence is called `divergence(ops, log_p, log_q, stop_targets)`: p is the reference, q the other.
Squeeze training passes the collaborative one as p and the adversarial one as q.

KL(a‖b) = Σ a·log(a/b) is the textbook order. The paper prints the arguments in reverse order (as the function it
used takes them); read so, its JS is the standard one and its Eq. 3 equals TRADES.
"""

from __future__ import annotations

import math
from typing import Any, Protocol

from stcore.base.registry import Registry
from stcore.core.search import Loss
from stcore.errors import UsageError
from stcore.protocols import Mode, Network, Ops, Tensor


class Divergence(Protocol):
    """The signature of a divergence.

    log_p, log_q: log-probabilities (B, C), in nats.
    stop_targets: whether targets are constants, for those that have targets.
    Returns (B,), in nats for KL and JS.
    """

    def __call__(self, ops: Ops, log_p: Tensor, log_q: Tensor, stop_targets: bool = True) -> Tensor: ...


def kl(ops: Ops, log_p: Tensor, log_q: Tensor, stop_targets: bool = True) -> Tensor:
    """KL(p‖q), in nats. Both arguments are differentiated; there is no target to stop."""
    return ops.sum(ops.exp(log_p) * (log_p - log_q))


def symmetric_kl(ops: Ops, log_p: Tensor, log_q: Tensor, stop_targets: bool = True) -> Tensor:
    """½·[KL(p‖q) + KL(q‖p)], in nats.

    With `stop_targets` the target of each half is a constant, as in the released code: the value is the same; the
    gradient with respect to the logits is (p − q)/2, about half the true one for small gaps.
    """
    target_p, target_q = (ops.stop_gradient(log_p), ops.stop_gradient(log_q)) if stop_targets else (log_p, log_q)
    return 0.5 * (kl(ops, target_p, log_q) + kl(ops, target_q, log_p))


def js(ops: Ops, log_p: Tensor, log_q: Tensor, stop_targets: bool = True) -> Tensor:
    """Jensen–Shannon: ½·[KL(p‖m) + KL(q‖m)], m = (p + q)/2, in nats, in [0, log 2].

    Both arguments are differentiated.
    """
    log_m = ops.logaddexp(log_p, log_q) - math.log(2.0)
    return 0.5 * (kl(ops, log_p, log_m) + kl(ops, log_q, log_m))


def squared_l2(ops: Ops, log_p: Tensor, log_q: Tensor, stop_targets: bool = True) -> Tensor:
    """‖p − q‖², summed over the classes, in [0, 2]. Both arguments are differentiated."""
    gap = ops.exp(log_p) - ops.exp(log_q)
    return ops.sum(gap * gap)


def improved_kl(ops: Ops, log_p: Tensor, log_q: Tensor, stop_targets: bool = True) -> Tensor:
    """KL(sg p‖q) + ½·Var_{sg p}(log p − log q), in nats: decoupled KL with one gradient restored.

    Cui et al., 2024 (Decoupled KL). With q constant in the variance, the gradient would be that of KL(p‖q); here q
    is differentiated there too (their first improvement). Their second, weights from class means, would add state
    to training and is left out.
    """
    target = ops.stop_gradient(log_p)
    gap, weights = log_p - log_q, ops.exp(target)
    spread = gap - ops.expand_dims_like(ops.sum(weights * gap), gap)
    return kl(ops, target, log_q) + 0.5 * ops.sum(weights * spread * spread)


def from_natural(model: Network, x: Tensor, divergence: Divergence = kl, stop_targets: bool = True) -> Loss:
    """The divergence from the natural prediction, which is forwarded once, in EVAL: what a search maximises.

    x: natural images (B, …). Returns a loss of logits, (B, C) → (B,).
    """
    ops = model.ops
    natural = ops.stop_gradient(ops.log_softmax(model.logits(x, Mode.EVAL)))
    return lambda logits: divergence(ops, natural, ops.log_softmax(logits), stop_targets)


def _accepted(part: Any, name: str) -> Divergence:
    if not callable(part) or isinstance(part, type):
        raise UsageError(
            f"divergence: expected {name} to be a function (ops, log_p, log_q, stop_targets) → (B,); received "
            f"{part!r:.100}"
        )
    return part  # type: ignore[no-any-return]


DIVERGENCES: Registry[Divergence] = Registry(
    "divergence",
    "stcore.divergences",
    {
        "symmetric_kl": symmetric_kl,
        "js": js,
        "squared_l2": squared_l2,
        "kl": kl,
        "improved_kl": improved_kl,
    },
    _accepted,
)
