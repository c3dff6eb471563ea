"""Blur: of a lens out of focus, of frosted glass, of movement, and of zooming."""

from __future__ import annotations

import numpy as np

from stcore.data.corruptions.draws import Draws
from stcore.data.corruptions.resampling import moved, scale_of, zoomed
from stcore.protocols import Array


def defocus_blur(x: Array, draws: Draws, radius: float, smoothing: float) -> Array:
    """Averages over a disk; smoothing: standard deviation of the blur of the disk's edge. Both in pixels."""
    from scipy import ndimage

    scale = scale_of(x)
    reach = int(np.ceil(scale * radius)) + 1
    grid = np.arange(-reach, reach + 1)
    disk = (grid[:, None] ** 2 + grid**2 <= (scale * radius) ** 2).astype(float)
    kernel = ndimage.gaussian_filter(disk, scale * smoothing, mode="constant", radius=int(np.ceil(scale)))
    blurred: Array = ndimage.correlate(x, (kernel / kernel.sum())[None, :, :, None], mode="mirror")
    return blurred


def glass_blur(x: Array, draws: Draws, sigma: float, reach: int, rounds: int) -> Array:
    """Blurs, moves each pixel by at most `reach` pixels down and right, `rounds` times, and blurs again.

    sigma: of the blur, in pixels. The published images were made so: where a swap of two pixels was meant, one was
    copied over the other.
    """
    from scipy import ndimage

    scale = scale_of(x)
    height, width = x.shape[1:3]

    def soft(images: Array) -> Array:
        blurred: Array = ndimage.gaussian_filter(images, (0, scale * sigma, scale * sigma, 0), mode="nearest")
        return blurred

    found, image = soft(x), np.arange(len(x))[:, None, None]
    for n in range(rounds):
        shift = np.floor((round(scale * reach) + 1) * np.abs(draws.uniform(2, height, width, draw=n)))
        rows = np.maximum(np.arange(height)[:, None] - shift[:, 0], 0).astype(int)
        columns = np.maximum(np.arange(width) - shift[:, 1], 0).astype(int)
        found = found[image, rows, columns]
    return soft(found)


def motion_blur(x: Array, draws: Draws, radius: float, sigma: float) -> Array:
    """Blurs along a line within 45° of the rows; radius, sigma: of the weights along it, in pixels."""
    scale = scale_of(x)
    return moved(x, draws.angles(-45, 45), scale * radius, scale * sigma)


def zoom_blur(x: Array, draws: Draws, most: float) -> Array:
    """Averages the image with its enlargements by 0, 1, 2, … percent, up to `most`."""
    factors = 1 + 0.01 * np.arange(round(100 * most) + 1)
    total = x.copy()
    for factor in factors:
        total += zoomed(x, factor)
    return total / (len(factors) + 1)
