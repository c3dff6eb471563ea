"""Losses that projected gradient attacks maximise, by name."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from stcore.core.divergences import from_natural
from stcore.core.losses import cross_entropy, difference_of_logits_ratio, margin, probability_margin
from stcore.core.search import Loss
from stcore.protocols import Network, Tensor

ASCENT_LOSSES: Mapping[str, Callable[[Network, Tensor, Tensor], Loss]] = {
    "cross_entropy": lambda model, x, y: lambda z: cross_entropy(model.ops, z, y),
    "dlr": lambda model, x, y: lambda z: difference_of_logits_ratio(model.ops, z, y),
    "margin": lambda model, x, y: lambda z: margin(model.ops, z, y),
    "probability_margin": lambda model, x, y: lambda z: probability_margin(model.ops, z, y),
    "kl": lambda model, x, y: from_natural(model, x),
    "collaborative": lambda model, x, y: lambda z: -cross_entropy(model.ops, z, y),
}
"""Network, natural images (B, …), labels (B,) → a loss of logits, (B, C) → (B,). `kl` forwards the images once."""
