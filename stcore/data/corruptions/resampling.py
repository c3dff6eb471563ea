"""Resampling of images at other places of their grid, and lengths in pixels."""

from __future__ import annotations

import numpy as np

from stcore.protocols import Array

SIDE = 32
"""Side of the images whose severities were published, in pixels."""


def scale_of(x: Array) -> float:
    """What a published length in pixels is multiplied by: side / 32, and 1 for smaller images."""
    return max(1.0, int(min(x.shape[1:3])) / SIDE)


def bilinear(x: Array, rows: Array, columns: Array) -> Array:
    """The images (B, h, w, C) at the places `rows` (h,) × `columns` (w,) of x (B, H, W, C), clamped to them."""
    count, height, width, channels = x.shape
    below = (_weights(rows, height) @ x.reshape(count, height, -1)).reshape(count, len(rows), width, channels)
    found: Array = _weights(columns, width) @ below
    return found


def _weights(places: Array, size: int) -> Array:
    """The matrix (places, size) that interpolates linearly between `size` values."""
    inside = np.clip(places, 0, size - 1)
    matrix: Array = np.maximum(0, 1 - np.abs(inside[:, None] - np.arange(size)))
    return matrix


def zoomed(x: Array, factor: float) -> Array:
    """The images (B, H, W, C) enlarged about their centre, with their size kept."""
    rows, columns = (
        (np.arange(size) - (size - 1) / 2) / factor + (size - 1) / 2 for size in (x.shape[1], x.shape[2])
    )
    return bilinear(x, rows, columns)


def moved(x: Array, angles: Array, radius: float, sigma: float) -> Array:
    """The images (B, H, W, C) blurred by a movement along a line.

    angles: (B,), of the line to the rows, in degrees.   radius, sigma: in pixels; the weights along the line are
    one side of a normal curve over 2 · radius + 1 pixels, as ImageMagick has them.
    """
    height, width = x.shape[1:3]
    taps = np.arange(2 * int(np.ceil(radius)) + 1)
    weights = np.exp(-(taps**2) / (2 * sigma**2))
    image = np.arange(len(x))[:, None, None]
    blurred = np.zeros_like(x)
    for tap, weight in zip(taps, weights / weights.sum(), strict=True):
        down, right = (np.rint(tap * along(np.radians(angles)))[:, None, None] for along in (np.sin, np.cos))
        rows = np.clip(np.arange(height)[:, None] + down, 0, height - 1).astype(int)
        columns = np.clip(np.arange(width) + right, 0, width - 1).astype(int)
        blurred += weight * x[image, rows, columns]
    return blurred
