"""Whether two networks are one and the same function, up to rounding."""

from __future__ import annotations

import numpy as np

from stcore.core.search import forward
from stcore.protocols import Array, Classifier, Mode, Tensor

_LOGITS = {"float32": 1e-4, "float64": 1e-9}
_GRADIENTS = 1e-2
"""Coarser, as rounding can switch a ReLU. What it has to find is far off: gradients lost or made up."""


def same_function(one: Classifier, other: Classifier, x: Tensor) -> bool:
    """Whether on images x (B, …) both give the same logits, and the same way back from them to the pixels.

    Logits may lie apart by 1e-4 of the largest in float32, by 1e-9 in float64; not at all where one is NaN, nor
    for a network that answers at random. False, too, where one of them cannot be asked.
    """
    try:
        (logits, gradients), (logits2, gradients2) = _answers(one, x), _answers(other, x)
    except Exception:  # a network is anybody's code
        return False
    tolerance = _LOGITS.get(str(logits.dtype), 0.0)
    same = np.abs(logits - logits2).max(initial=0) <= tolerance * np.abs(logits).max(initial=0)
    return bool(same and np.linalg.norm(gradients - gradients2) <= _GRADIENTS * np.linalg.norm(gradients))


def _answers(model: Classifier, x: Tensor) -> tuple[Array, Array]:
    """Logits, and the gradient of half their square sum, with respect to the pixels."""

    def ask() -> tuple[Tensor, Tensor]:
        logits, pullback = forward(model, x, Mode.EVAL)
        return logits, pullback(logits)[0]

    logits, gradients = model.ops.unrecorded(ask)
    return model.ops.to_numpy(logits), model.ops.to_numpy(gradients)
