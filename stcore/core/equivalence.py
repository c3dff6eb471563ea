"""Numerical equivalence of two networks, up to rounding."""

from __future__ import annotations

import numpy as np

from stcore.core.search import forward
from stcore.protocols import Array, Classifier, Mode, Tensor

_LOGITS = {"float32": 1e-4, "float64": 1e-9}
_GRADIENTS = 1e-2
"""Coarser, since rounding can switch a ReLU. The faults it must detect are large: gradients lost or spurious."""


def same_function(model: Classifier, other: Classifier, x: Tensor) -> bool:
    """Returns whether both networks have the same logits and input gradients on images x (B, …).

    Tolerances, relative: logits 1e-4 in float32, 1e-9 in float64; gradients 1e-2. False if a logit is NaN, if a
    network is random, or if a forward fails.
    """
    try:
        logits, gradients = _logits_and_gradients(model, x)
        other_logits, other_gradients = _logits_and_gradients(other, x)
    except Exception:  # a network is user code: it may raise anything
        return False
    tolerance = _LOGITS.get(str(logits.dtype), 0.0)
    same = np.abs(logits - other_logits).max(initial=0) <= tolerance * np.abs(logits).max(initial=0)
    return bool(same and np.linalg.norm(gradients - other_gradients) <= _GRADIENTS * np.linalg.norm(gradients))


def _logits_and_gradients(model: Classifier, x: Tensor) -> tuple[Array, Array]:
    """Returns the logits, and the input gradient of half the sum of their squares."""

    def differentiate() -> tuple[Tensor, Tensor]:
        logits, pullback = forward(model, x, Mode.EVAL)
        return logits, pullback(logits)[0]

    logits, gradients = model.ops.unrecorded(differentiate)
    return model.ops.to_numpy(logits), model.ops.to_numpy(gradients)
