"""Losses per example: logits (B, C), labels → (B,).

Labels are integers (B,), or soft: class probabilities t (B, C) in the logits' dtype, rows summing to one. A soft
label stands for a class drawn from t: a loss is its expectation Σ_y t_y·loss(z, y), as in mixup (Zhang et al.,
2018). It is written for one class y by `at_label` and `best_other`, and ends with `expected`.
"""

from __future__ import annotations

import math

from stcore.protocols import Ops, Tensor

_TINY = 1e-12  # as published: keeps the denominator positive if logits are equal


def are_soft(ops: Ops, labels: Tensor) -> bool:
    """Whether the labels are class probabilities (B, C) rather than integers (B,)."""
    return ops.rank(labels) == 2


def as_soft(ops: Ops, labels: Tensor, like: Tensor) -> Tensor:
    """The labels as class probabilities (B, C): soft ones as they are, integers as one-hot rows.

    like: (…, C), of which they have the number of classes and the dtype.
    """
    return labels if are_soft(ops, labels) else ops.flag(ops.one_hot(labels, like), like)


def at_label(ops: Ops, values: Tensor, labels: Tensor) -> Tensor:
    """Returns v_y of values v (B, C): (B,); for soft labels of every class y, (B, C)."""
    return values if are_soft(ops, labels) else ops.of_label(values, labels)


def best_other(ops: Ops, values: Tensor, labels: Tensor) -> Tensor:
    """Returns max_{j≠y} v_j of values v (B, C): (B,); for soft labels of every class y, (B, C)."""
    if are_soft(ops, labels):
        ones = ops.ones_like(values)
        first, second = (ops.expand_dims_like(v, values) * ones for v in ops.top_k(values, 2))
        return ops.where(values < first, first, second)
    minus_infinity = ops.ones_like(values) * -math.inf
    return ops.max(ops.where(ops.one_hot(labels, values), minus_infinity, values))


def expected(ops: Ops, values: Tensor, labels: Tensor) -> Tensor:
    """Returns v (B,) at integer labels as it is, and Σ_y t_y·v_y of v (B, C) for soft labels t: (B,)."""
    return ops.sum(labels * values) if are_soft(ops, labels) else values


def expected_at_label(ops: Ops, values: Tensor, labels: Tensor) -> Tensor:
    """Returns v_y, or Σ_y t_y·v_y for soft labels t, of values v (B, C): (B,)."""
    return expected(ops, at_label(ops, values, labels), labels)


def cross_entropy(ops: Ops, logits: Tensor, labels: Tensor) -> Tensor:
    """Cross-entropy −log p_y, or −Σ_y t_y·log p_y, in nats: logits (B, C) → (B,)."""
    return -expected_at_label(ops, ops.log_softmax(logits), labels)


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
    return expected(ops, _gap(ops, logits, labels), labels)


def clipped_margin(ops: Ops, logits: Tensor, labels: Tensor, largest: float) -> Tensor:
    """The margin, which stops gaining at `largest`: (B,)."""
    return expected(ops, ops.clip(_gap(ops, logits, labels), -math.inf, largest), labels)


def correct(ops: Ops, logits: Tensor, labels: Tensor) -> Tensor:
    """1 for a correct prediction, 0 otherwise or for a tie: (B,), in the logits' dtype.

    For soft labels it is the probability t_j of the predicted class j.
    """
    gap = _gap(ops, logits, labels)
    return expected(ops, ops.flag(gap < 0.0, gap), labels)


def _gap(ops: Ops, logits: Tensor, labels: Tensor) -> Tensor:
    """max_{j≠y} z_j − z_y, (B,); for soft labels of every class y, (B, C)."""
    return best_other(ops, logits, labels) - at_label(ops, logits, labels)


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


def probability_margin(ops: Ops, logits: Tensor, labels: Tensor) -> Tensor:
    """The probability margin m = p_max − p_y as log((1 + m) / (1 − m)), (B,), for integer labels.

    p_max is the largest probability of another class (Xie et al., 2024; PMA). In float32 m rounds to −1, and its
    gradient to zero, where logits are 17 apart. This increasing, odd function of m has the direction of m's
    gradient and the order of its values, for logits of any size; m = tanh(loss / 2).
    """
    label, best = _label_and_best(ops, logits, labels)
    return _log_ratio(ops, logits, 1.0 + best - label, 1.0 - best + label)


def label_probability(ops: Ops, logits: Tensor, labels: Tensor) -> Tensor:
    """The label's probability p_y as log(p_y / (1 − p_y)), (B,), for integer labels."""
    label, _ = _label_and_best(ops, logits, labels)
    return _log_ratio(ops, logits, label, 1.0 - label)


def best_other_probability(ops: Ops, logits: Tensor, labels: Tensor) -> Tensor:
    """The largest probability of another class, p_max, as log(p_max / (1 − p_max)), (B,), for integer labels."""
    _, best = _label_and_best(ops, logits, labels)
    return _log_ratio(ops, logits, best, 1.0 - best)


def _label_and_best(ops: Ops, logits: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Weights (B, C) that select p_y and p_max from the probabilities; equal classes share the second."""
    is_label = ops.one_hot(labels, logits)
    others = ops.where(is_label, ops.ones_like(logits) * -math.inf, logits)
    is_best = 1.0 - ops.flag(others < ops.expand_dims_like(ops.max(others), others), logits)
    return ops.flag(is_label, logits), is_best / ops.expand_dims_like(ops.sum(is_best), is_best)


def _log_ratio(ops: Ops, logits: Tensor, over: Tensor, under: Tensor) -> Tensor:
    """log (Σ_j over_j·exp(z_j) / Σ_j under_j·exp(z_j)), (B,), for weights ≥ 0, (B, C), and logits of any size."""
    (highest, above), (lowest, below) = (_log_sum(ops, logits, weights) for weights in (over, under))
    return (highest - lowest) + (above - below)


def _log_sum(ops: Ops, logits: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
    """Two terms, (B,) each, whose sum is log Σ_j w_j·exp(z_j): the largest logit, and a small remainder."""
    weighted = ops.where(weights > 0.0, logits, -math.inf)
    largest = ops.stop_gradient(ops.max(weighted))
    return largest, ops.log(ops.sum(weights * ops.exp(weighted - ops.expand_dims_like(largest, weighted))))
