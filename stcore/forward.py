"""One forward of pixels with the way back from its logits."""

from __future__ import annotations

from typing import NamedTuple

from stcore.protocols import Mode, Network, Pullback, Tensor


class Forward(NamedTuple):
    """Logits, and the way back from them to the pixels."""

    logits: Tensor
    pullback: Pullback


def forward(model: Network, x: Tensor, mode: Mode) -> Forward:
    """Logits that are differentiable with respect to the pixels, and to nothing else."""
    return Forward(*model.ops.vjp(lambda pixels: model.logits(pixels, mode), x))
