"""TrivialAugment (Müller and Hutter, 2021): one operation of 14, at a strength drawn at random, on each image.

The operations and their strengths are the wide space as torchvision has it, in pillow's arithmetic, for grey and
colour images. Crop-flip comes before.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from stcore.data.crop_flip import CropFlip

LEVELS = 31
"""The number of strengths, evenly spaced from none to the strongest."""

Images = npt.NDArray[np.uint8]
Numbers = npt.NDArray[Any]


class TrivialAugment(NamedTuple):
    """Random draws for N images, each (N,): crops; the operation's number, its level, and its sign, −1 or 1."""

    crops: CropFlip
    operation: npt.NDArray[np.int64]
    level: npt.NDArray[np.int64]
    sign: npt.NDArray[np.int64]

    def at(self, rows: slice) -> "TrivialAugment":
        """The draws of some of the images."""
        return TrivialAugment(self.crops.at(rows), self.operation[rows], self.level[rows], self.sign[rows])

    def applied(self, images: Images) -> Images:
        """The augmented images, uint8 (N, H, W, C), C = 1 or 3; the shape stays."""
        result = self.crops.applied(images)
        for number, operation in enumerate(OPERATIONS.values()):
            if (chosen := self.operation == number).any():
                strength = operation.strongest * self.level[chosen] / (LEVELS - 1)
                signed = strength * self.sign[chosen] if operation.signed else strength
                result[chosen] = operation.apply(result[chosen], signed)
        return result


def draw(rng: np.random.Generator, crops: CropFlip) -> TrivialAugment:
    """Draws for the images of these crops."""
    count = len(crops.flip)
    operation, level = rng.integers(len(OPERATIONS), size=count), rng.integers(LEVELS, size=count)
    return TrivialAugment(crops, operation, level, rng.integers(2, size=count) * 2 - 1)


class Operation(NamedTuple):
    """An operation on uint8 images (N, H, W, C), given a strength (N,) for each; `signed`: of either sign."""

    apply: Callable[[Images, Numbers], Images]
    strongest: float
    signed: bool


# --- Geometry: each pixel takes the value at one place of the image, or black outside ---


def _shear_x(images: Images, slope: Numbers) -> Images:
    return _affine(images, 1.0, slope, 0.0, 0.0, 1.0, 0.0)


def _shear_y(images: Images, slope: Numbers) -> Images:
    return _affine(images, 1.0, 0.0, 0.0, slope, 1.0, 0.0)


def _translate_x(images: Images, pixels: Numbers) -> Images:
    return _affine(images, 1.0, 0.0, -np.trunc(pixels), 0.0, 1.0, 0.0)


def _translate_y(images: Images, pixels: Numbers) -> Images:
    return _affine(images, 1.0, 0.0, 0.0, 0.0, 1.0, -np.trunc(pixels))


def _rotate(images: Images, degrees: Numbers) -> Images:
    """Counter-clockwise about the centre."""
    angle, (x, y) = np.deg2rad(-degrees), (images.shape[2] / 2, images.shape[1] / 2)
    cos, sin = np.round(np.cos(angle), 15), np.round(np.sin(angle), 15)
    return _affine(images, cos, sin, x - cos * x - sin * y, -sin, cos, y + sin * x - cos * y)


def _affine(images: Images, *matrix: float | Numbers) -> Images:
    """The pixel (x, y) takes the value at (a·x + b·y + c, d·x + e·y + f), in pixels, without interpolation.

    matrix: a to f, (N,) each or one number. Places are in units of 2⁻¹⁶ pixels.
    """
    count, height, width, _ = images.shape
    a, b, c, d, e, f = (np.broadcast_to(one, count)[:, None, None] for one in matrix)
    row, column = np.arange(height)[:, None], np.arange(width)

    def place(across: Numbers, down: Numbers, start: Numbers) -> Numbers:
        first = _fixed(start + across * 0.5 + down * 0.5)  # the centre of a pixel
        fixed: Numbers = first + _fixed(across) * column + _fixed(down) * row
        return fixed >> 16

    x, y = place(a, b, c), place(d, e, f)
    inside = (x >= 0) & (x < width) & (y >= 0) & (y < height)
    taken = images[np.arange(count)[:, None, None], np.clip(y, 0, height - 1), np.clip(x, 0, width - 1)]
    result: Images = taken * inside[..., None].astype(np.uint8)
    return result


def _fixed(number: Numbers) -> Numbers:
    return np.floor(number * 65536.0 + 0.5).astype(np.int64)


# --- Colour ---


def _brightness(images: Images, change: Numbers) -> Images:
    return _enhanced(images, np.zeros_like(images), change)


def _saturation(images: Images, change: Numbers) -> Images:
    return _enhanced(images, _grey(images), change)


def _contrast(images: Images, change: Numbers) -> Images:
    mean = np.floor(_grey(images).mean((1, 2, 3), keepdims=True) + 0.5)
    return _enhanced(images, mean.astype(np.uint8), change)


def _sharpness(images: Images, change: Numbers) -> Images:
    """From and to a smooth image: weights 5 for a pixel and 1 for each of its 8 neighbours; the border stays."""
    smooth, whole = images.copy(), images.astype(np.int32)
    height, width = images.shape[1:3]
    if height > 2 and width > 2:
        windows = np.lib.stride_tricks.sliding_window_view(whole, (3, 3), axis=(1, 2))
        total = windows.sum((-2, -1)) + 4 * whole[:, 1:-1, 1:-1]
        smooth[:, 1:-1, 1:-1] = (2 * total + 13) // 26  # rounded
    return _enhanced(images, smooth, change)


def _enhanced(images: Images, plain: Images, change: Numbers) -> Images:
    """plain + (1 + change)·(images − plain), truncated and clipped to 0..255."""
    factor = (1.0 + change).astype(np.float32)[:, None, None, None]
    plain = plain.astype(np.float32)
    return np.clip(plain + factor * (images.astype(np.float32) - plain), 0.0, 255.0).astype(np.uint8)


def _grey(images: Images) -> Images:
    """The luma, of one channel, uint8."""
    if images.shape[-1] == 1:
        return images
    luma = images.astype(np.int32) @ np.array([19595, 38470, 7471], np.int32)[:, None]
    return ((luma + 0x8000) >> 16).astype(np.uint8)


def _posterize(images: Images, lost: Numbers) -> Images:
    """Clears the lowest bits."""
    masks = 256 - 2 ** np.rint(lost).astype(np.int64)
    result: Images = images & masks.astype(np.uint8)[:, None, None, None]
    return result


def _solarize(images: Images, strength: Numbers) -> Images:
    """Inverts what is at least as bright as the threshold, 255 − strength."""
    return np.where(images < (255.0 - strength)[:, None, None, None], images, 255 - images)


# --- The histogram of each channel ---


def _autocontrast(images: Images, _: Numbers) -> Images:
    """Stretches the values to 0..255."""
    low, high = (one(images, axis=(1, 2))[..., None] for one in (np.min, np.max))
    with np.errstate(divide="ignore", invalid="ignore"):
        scale = 255.0 / (high.astype(np.float64) - low)
        stretched = np.clip(np.trunc(np.arange(256) * scale - low * scale), 0, 255)
    return _mapped(images, np.where(high > low, stretched, np.arange(256)))


def _equalize(images: Images, _: Numbers) -> Images:
    """Makes the values about equally frequent."""
    count, height, width, channels = images.shape
    number = np.arange(count * channels).reshape(count, 1, 1, channels)
    counts = np.bincount((256 * number + images).reshape(-1), minlength=256 * number.size)
    counts = counts.reshape(count, channels, 256)
    step = (height * width - np.take_along_axis(counts, images.max((1, 2))[..., None].astype(np.int64), 2)) // 255
    before = np.cumsum(counts, -1) - counts
    table = (step // 2 + before) // np.maximum(step, 1)
    return _mapped(images, np.where(step > 0, np.minimum(table, 255), np.arange(256)))


def _mapped(images: Images, table: Numbers) -> Images:
    """Each value's entry in its image's and channel's table, (N, C, 256)."""
    image = np.arange(len(images))[:, None, None, None]
    result: Images = table.astype(np.uint8)[image, np.arange(images.shape[-1]), images]
    return result


def _unchanged(images: Images, _: Numbers) -> Images:
    return images


OPERATIONS = {
    "identity": Operation(_unchanged, 0.0, False),
    "shear-x": Operation(_shear_x, 0.99, True),
    "shear-y": Operation(_shear_y, 0.99, True),
    "translate-x": Operation(_translate_x, 32.0, True),
    "translate-y": Operation(_translate_y, 32.0, True),
    "rotate": Operation(_rotate, 135.0, True),
    "brightness": Operation(_brightness, 0.99, True),
    "saturation": Operation(_saturation, 0.99, True),
    "contrast": Operation(_contrast, 0.99, True),
    "sharpness": Operation(_sharpness, 0.99, True),
    "posterize": Operation(_posterize, 6.0, False),
    "solarize": Operation(_solarize, 255.0, False),
    "autocontrast": Operation(_autocontrast, 0.0, False),
    "equalize": Operation(_equalize, 0.0, False),
}
"""By name; the strongest: slopes, pixels, degrees, changes of a factor, lost bits, levels of brightness."""
