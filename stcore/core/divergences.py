"""Divergences between two predictions: log-probabilities (B, C), (B, C) → (B,) (paper section 4.1).

Every divergence is called `divergence(ops, log_p, log_q, stop_targets)`: p is the reference, q the other.
Squeeze training passes the collaborative one as p and the adversarial one as q.

KL(a‖b) = Σ a·log(a/b) is the textbook order. The paper prints the arguments in reverse order (as the function it
used takes them); read so, its JS is the standard one and its Eq. 3 equals TRADES.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any, Protocol

from stcore.base import checks
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
    is differentiated there too (their first improvement). Their second, weights from class means, is `gkl`.
    """
    target = ops.stop_gradient(log_p)
    return kl(ops, target, log_q) + _half_variance(ops, ops.exp(target), log_p - log_q)


@dataclass(frozen=True, eq=False)
class GeneralizedKL:
    """½·Var_w(log p − log q) + ratio·KL(sg p‖q), in nats: the generalized KL (GKL) of Cui et al., 2025.

    Both arguments are differentiated in the variance over the classes, of weights w; p is constant in the KL.
    Published is β·½·Var + α·KL with β = 20 and α = 4: a method's β is that of the variance, and the ratio α/β.

    weights: w (B, C), at least 0, in proportion; None: every class weighs the same. `stcore.ClassWise` gives each
        example the mean prediction for its class, as published.
    ratio: α/β, at least 0. A search ascends the sum with a ratio of 1 (see `for_search`).
    Raises UsageError for a ratio out of range.
    """

    weights: Tensor | None = None
    ratio: float = 4 / 20

    def __post_init__(self) -> None:
        checks.number("ratio", self.ratio)

    def __call__(self, ops: Ops, log_p: Tensor, log_q: Tensor, stop_targets: bool = True) -> Tensor:
        weights = ops.ones_like(log_p) if self.weights is None else self.weights
        shares = weights / ops.expand_dims_like(ops.sum(weights), weights)
        variance = _half_variance(ops, shares, log_p - log_q)
        return variance + self.ratio * kl(ops, ops.stop_gradient(log_p), log_q)


gkl = GeneralizedKL()


def _half_variance(ops: Ops, weights: Tensor, gap: Tensor) -> Tensor:
    """½·Var_w(gap) over the classes: weights that sum to one and gap, (B, C) each → (B,)."""
    spread = gap - ops.expand_dims_like(ops.sum(weights * gap), gap)
    return 0.5 * ops.sum(weights * spread * spread)


def for_search(divergence: Divergence) -> Divergence:
    """The form of a divergence that a search ascends: the generalized KL has a ratio of 1 there, as published."""
    return replace(divergence, ratio=1.0) if isinstance(divergence, GeneralizedKL) else divergence


def from_natural(model: Network, x: Tensor, divergence: Divergence = kl, stop_targets: bool = True) -> Loss:
    """The divergence from the natural prediction, which is forwarded once, in EVAL: what a search maximises.

    x: natural images (B, …). Returns a loss of logits, (B, C) → (B,).
    """
    ops, gap = model.ops, for_search(divergence)
    natural = ops.stop_gradient(ops.log_softmax(model.logits(x, Mode.EVAL)))
    return lambda logits: gap(ops, natural, ops.log_softmax(logits), stop_targets)


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
        "gkl": gkl,
    },
    _accepted,
)
