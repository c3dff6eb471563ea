"""Numerical equivalence of two networks, up to rounding."""

from __future__ import annotations

import numpy as np

from stcore.core.search import forward
from stcore.protocols import Array, Classifier, Mode, Tensor

_LOGITS = {"float32": 1e-4, "float64": 1e-9}
_GRADIENTS = 1e-2
"""Coarser, since rounding can switch a ReLU. The faults it must detect are large: gradients lost or spurious."""


_FORWARDS = 12
"""A network that flips its images by the toss of a coin passes for one that does not once in 2 000 times."""


def same_function(model: Classifier, other: Classifier, x: Tensor) -> bool:
    """Returns whether both networks have the same logits and input gradients on images x (B, …).

    Tolerances, relative: logits 1e-4 in float32, 1e-9 in float64; gradients 1e-2. False if a logit is NaN, if a
    forward fails, or if `model` is random: if one of twelve forwards differs, since a copy may hold one draw.
    """
    try:
        logits, gradients = _logits_and_gradients(model, x)
        other_logits, other_gradients = _logits_and_gradients(other, x)
        if not all(_same_logits(_logits(model, x), logits) for _ in range(_FORWARDS)):
            return False
    except Exception:  # a network is user code: it may raise anything
        return False
    same = _same_logits(other_logits, logits)
    return bool(same and np.linalg.norm(gradients - other_gradients) <= _GRADIENTS * np.linalg.norm(gradients))


def _same_logits(one: Array, expected: Array) -> bool:
    tolerance = _LOGITS.get(str(expected.dtype), 0.0)
    return bool(np.abs(one - expected).max(initial=0) <= tolerance * np.abs(expected).max(initial=0))


def _logits(model: Classifier, x: Tensor) -> Array:
    return model.ops.to_numpy(model.ops.unrecorded(lambda: model.logits(x, Mode.EVAL)))


def _logits_and_gradients(model: Classifier, x: Tensor) -> tuple[Array, Array]:
    """Returns the logits, and the input gradient of half the sum of their squares."""

    def differentiate() -> tuple[Tensor, Tensor]:
        logits, pullback = forward(model, x, Mode.EVAL)
        return logits, pullback(logits)[0]

    logits, gradients = model.ops.unrecorded(differentiate)
    return model.ops.to_numpy(logits), model.ops.to_numpy(gradients)
