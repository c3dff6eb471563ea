"""Noise: of a sensor's electronics (Gaussian), of its photons (shot), and of single dead values (impulse)."""

from __future__ import annotations

import numpy as np

from stcore.data.corruptions.draws import Draws
from stcore.protocols import Array


def gaussian_noise(x: Array, draws: Draws, deviation: float) -> Array:
    """Adds normal noise of this standard deviation."""
    return x + deviation * draws.normal(*x.shape[1:])


def shot_noise(x: Array, draws: Draws, photons: float) -> Array:
    """Counts photons: a white value receives `photons` of them in the mean."""
    return draws.poisson(x * photons) / photons


def impulse_noise(x: Array, draws: Draws, share: float) -> Array:
    """Replaces this share of the values, one half by 0, the other by 1."""
    u = draws.uniform(*x.shape[1:])
    replaced: Array = np.where(np.abs(u) > 1 - share, u > 0, x)
    return replaced
