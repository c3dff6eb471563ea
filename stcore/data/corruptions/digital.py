"""Digital: low contrast, elastic deformation, coarse pixels, and JPEG."""

from __future__ import annotations

from itertools import pairwise

import numpy as np

from stcore.data.corruptions.draws import Draws
from stcore.data.corruptions.resampling import bilinear
from stcore.protocols import Array

BLOCK = 8
_LUMINANCE = """
    16 11 10 16 24 40 51 61  12 12 14 19 26 58 60 55  14 13 16 24 40 57 69 56  14 17 22 29 51 87 80 62
    18 22 37 56 68 109 103 77  24 35 55 64 81 104 113 92  49 64 78 87 103 121 120 101  72 92 95 98 112 100 103 99
"""
_CHROMINANCE = "17 18 24 47 99 99 99 99  18 21 26 66 99 99 99 99  24 26 56 99 99 99 99 99  47 66" + " 99" * 38
LUMINANCE, CHROMINANCE = (np.array(text.split(), float).reshape(8, 8) for text in (_LUMINANCE, _CHROMINANCE))
"""Steps of quantisation at quality 50: ITU T.81, annex K."""
TO_YCC = np.array([[0.299, 0.587, 0.114], [-0.168736, -0.331264, 0.5], [0.5, -0.418688, -0.081312]])
_frequency, _place = np.mgrid[:BLOCK, :BLOCK]
COSINES = np.cos((2 * _place + 1) * _frequency * np.pi / (2 * BLOCK)) / 2
COSINES[0] /= np.sqrt(2)
"""The orthonormal cosine transform of 8 values."""


def contrast(x: Array, draws: Draws, left: float) -> Array:
    """Moves the pixels towards their mean, a mean for each channel; left: the share of contrast that remains."""
    mean = x.mean(axis=(1, 2), keepdims=True)
    flat: Array = mean + left * (x - mean)
    return flat


def elastic_transform(x: Array, draws: Draws, strength: float, smoothness: float, affine: float) -> Array:
    """Moves the corners of a triangle, by an affine map, and each pixel by a smooth random field.

    All three in sides of the image. strength: factor of the field.   smoothness: standard deviation of the
    field's blur.   affine: the most that a corner moves along each axis.   Source: Simard et al. (2003).
    """
    from scipy import ndimage

    height, width, channels = x.shape[1:]
    side = min(height, width)
    middle, third = np.array([height, width]) // 2, side // 3
    corners = middle + max(third, 1) * np.array([(1, 1), (1, -1), (-1, -1)])
    moved = corners + affine * side * draws.uniform(3, 2)
    fields = draws.uniform(2, height, width, draw=1)
    fields = ndimage.gaussian_filter(fields, (0, 0, *(smoothness * side,) * 2), mode="reflect", truncate=3)
    pixels = np.stack([*np.mgrid[:height, :width], np.ones((height, width))])
    found = np.empty_like(x)
    for n in range(len(x)):  # the affine map back: from the moved corners to the corners
        back = np.linalg.solve(np.column_stack((moved[n], np.ones(3))), corners).T
        places = np.tensordot(back, pixels, 1) + strength * side * fields[n]
        for channel in range(channels):
            found[n, :, :, channel] = ndimage.map_coordinates(x[n, :, :, channel], places, order=1, mode="reflect")
    return found


def pixelate(x: Array, draws: Draws, share: float) -> Array:
    """Shrinks the sides to this share, by means over whole pixels, and enlarges them by repetition."""
    for axis in (1, 2):
        size = x.shape[axis]
        few = max(1, int(size * share))
        edges = [_round_half_up(n * size / few) for n in range(few + 1)]
        means = [x.take(range(low, high), axis).mean(axis, keepdims=True) for low, high in pairwise(edges)]
        x = np.concatenate(means, axis).take((2 * np.arange(size) + 1) * few // (2 * size), axis)
    return x


def _round_half_up(value: float) -> int:
    """The nearest integer; of two the larger."""
    return int(np.floor(value + 0.5))


def jpeg_compression(x: Array, draws: Draws, quality: int) -> Array:
    """What JPEG's quantisation leaves of the image: colour at half the resolution, cosine transform of 8×8 blocks.

    Images of other than three channels have each channel quantised as luminance.   quality: 1 to 100.
    """
    per_cent = 5000 // quality if quality < 50 else 200 - 2 * quality
    fine, coarse = (np.clip((50 + per_cent * table) // 100, 1, 255) for table in (LUMINANCE, CHROMINANCE))
    pixels = np.rint(255 * x)
    if x.shape[3] != 3:
        return np.stack([_quantised(pixels[..., n], fine) for n in range(x.shape[3])], axis=-1) / 255
    bright, *colours = (sum(weight * pixels[..., n] for n, weight in enumerate(row)) for row in TO_YCC)
    height, width = x.shape[1:3]
    rows, columns = ((np.arange(size) - 0.5) / 2 for size in (height, width))
    halves = [_quantised(np.rint(_halved(colour) + 128), coarse) - 128 for colour in colours]
    y = _quantised(np.rint(bright), fine)
    blue, red = (bilinear(half[..., None], rows, columns)[..., 0] for half in halves)
    back = np.linalg.inv(TO_YCC)
    return np.stack([row[0] * y + row[1] * blue + row[2] * red for row in back], axis=-1) / 255


def _quantised(plane: Array, steps: Array) -> Array:
    """A plane (B, H, W) in 0 to 255 after quantisation of its blocks; the border repeats in blocks beyond it."""
    count, height, width = plane.shape
    whole = _padded(plane, BLOCK)
    shape = (count, whole.shape[1] // BLOCK, BLOCK, whole.shape[2] // BLOCK, BLOCK)
    blocks = whole.reshape(shape).swapaxes(2, 3) - 128
    levels = np.rint(COSINES @ blocks @ COSINES.T / steps)
    back = np.rint(COSINES.T @ (levels * steps) @ COSINES) + 128
    decoded: Array = np.clip(back, 0, 255).swapaxes(2, 3).reshape(whole.shape)[:, :height, :width]
    return decoded


def _halved(plane: Array) -> Array:
    whole = _padded(plane, 2)
    return (whole[:, ::2, ::2] + whole[:, 1::2, ::2] + whole[:, ::2, 1::2] + whole[:, 1::2, 1::2]) / 4


def _padded(plane: Array, multiple: int) -> Array:
    """The plane (B, H, W) with sides of whole multiples, by repetition of its border."""
    _, height, width = plane.shape
    return np.pad(plane, ((0, 0), (0, -height % multiple), (0, -width % multiple)), mode="edge")
