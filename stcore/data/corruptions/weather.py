"""Weather: snow, frost, fog and bright light."""

from __future__ import annotations

import numpy as np

from stcore.data.corruptions.draws import Draws
from stcore.data.corruptions.resampling import moved, scale_of, zoomed
from stcore.protocols import Array

LUMA = (0.299, 0.587, 0.114)
ICE = (0.88, 0.95, 1.0)
"""Colour of frost: the white of ice, slightly blue."""


def snow(
    x: Array,
    draws: Draws,
    mean: float,
    deviation: float,
    size: float,
    least: float,
    radius: float,
    sigma: float,
    clear: float,
) -> Array:
    """Adds streaks of snow, and whitens the picture.

    mean, deviation: of the normal values from which flakes are the ones above `least`.   size: their enlargement.
    radius, sigma: of the flakes' fall, in pixels.   clear: share of the picture that is not whitened.
    """
    height, width, channels = x.shape[1:]
    scale = scale_of(x)
    flakes = zoomed(mean + deviation * draws.normal(height, width, 1), scale * size)
    flakes = np.clip(np.where(flakes < least, 0, flakes), 0, 1)
    flakes = moved(flakes, draws.angles(-135, -45), scale * radius, scale * sigma)
    grey = (x * LUMA).sum(axis=-1, keepdims=True) if channels == 3 else x.mean(axis=-1, keepdims=True)
    whitened = clear * x + (1 - clear) * np.maximum(x, 1.5 * grey + 0.5)
    snowy: Array = np.clip(whitened, 0, 1) + flakes + flakes[:, ::-1, ::-1]
    return snowy


def frost(x: Array, draws: Draws, picture: float, ice: float) -> Array:
    """Lays ice over the picture; picture, ice: weights of the two.

    The published corruption takes photographs of frost, which are not ours to ship. This one draws bright veins,
    the ridges of a plasma fractal, on a paler ground.
    """
    height, width, channels = x.shape[1:]
    veins = 1 - np.abs(2 * plasma(draws, height, width, 1.5) - 1)
    texture = 0.35 + 0.65 * veins**3
    colour = ICE if channels == 3 else (float(np.mean(ICE)),)
    frozen: Array = picture * x + ice * texture[..., None] * np.array(colour)
    return frozen


def fog(x: Array, draws: Draws, density: float, decay: float) -> Array:
    """Adds a plasma fractal and dims the sum to the picture's brightest value; decay: see `plasma`."""
    brightest = x.max(axis=(1, 2, 3), keepdims=True)
    dim = brightest / (brightest + density)
    mist = plasma(draws, x.shape[1], x.shape[2], decay)[..., None]
    foggy: Array = (x + density * mist) * dim
    return foggy


def brightness(x: Array, draws: Draws, more: float) -> Array:
    """Adds to the value, the largest channel, with hue and saturation kept."""
    value = x.max(axis=-1, keepdims=True)
    brighter = np.minimum(value + more, 1)
    lit: Array = np.where(value > 0, x * (brighter / np.maximum(value, 1e-9)), brighter)
    return lit


def plasma(draws: Draws, height: int, width: int, decay: float) -> Array:
    """Plasma fractals (B, height, width), each from 0 to 1, by midpoint displacement on a torus.

    Each halving of the grid divides the random displacements by `decay`.   Source: Fournier et al. (1982).
    """
    side, level, strength = max(height, width), 0, 1.0
    corner = np.zeros((len(draws.positions), 1, 1))
    while corner.shape[1] < side:
        size = corner.shape[1]
        shift = strength * draws.uniform(3, size, size, draw=level)
        right, below = np.roll(corner, -1, 2), np.roll(corner, -1, 1)
        centre = (corner + right + below + np.roll(below, -1, 2)) / 4 + shift[:, 0]
        top = (corner + right + centre + np.roll(centre, 1, 1)) / 4 + shift[:, 1]
        left = (corner + below + centre + np.roll(centre, 1, 2)) / 4 + shift[:, 2]
        grid = np.empty((len(corner), 2 * size, 2 * size))
        grid[:, ::2, ::2], grid[:, ::2, 1::2] = corner, top
        grid[:, 1::2, ::2], grid[:, 1::2, 1::2] = left, centre
        corner, level, strength = grid, level + 1, strength / decay
    cut = corner[:, :height, :width]
    low, high = cut.min(axis=(1, 2), keepdims=True), cut.max(axis=(1, 2), keepdims=True)
    whole: Array = (cut - low) / np.maximum(high - low, 1e-12)
    return whole
