"""Common corruptions of images: the fifteen of CIFAR-10-C at five severities (Hendrycks and Dietterich, 2019).

`corrupt` makes them from the images, in numpy and scipy alone, with the published severities of CIFAR-10-C. They
follow the published images, and are not equal to them: the random numbers differ, and frost is a drawn texture
instead of photographs. `Published` reads the published files.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np

from stcore.base import checks
from stcore.data.corruptions import blur, digital, noise, weather
from stcore.data.corruptions.draws import Draws
from stcore.data.rows import Pixels
from stcore.errors import DataError
from stcore.protocols import Array

SEVERITIES = (1, 2, 3, 4, 5)
_CHUNK = 1 << 22
"""Values of the images that are worked on at one time."""


class Corruption(NamedTuple):
    """A corruption of float images (B, H, W, C) in [0, 1].

    apply: (images, draws, *settings) → images, of any range.   settings: for each severity.
    """

    apply: Callable[..., Array]
    settings: tuple[tuple[Any, ...], ...]


CORRUPTIONS: Mapping[str, Corruption] = {
    "gaussian_noise": Corruption(noise.gaussian_noise, ((0.04,), (0.06,), (0.08,), (0.09,), (0.1,))),
    "shot_noise": Corruption(noise.shot_noise, ((500,), (250,), (100,), (75,), (50,))),
    "impulse_noise": Corruption(noise.impulse_noise, ((0.01,), (0.02,), (0.03,), (0.05,), (0.07,))),
    "defocus_blur": Corruption(blur.defocus_blur, ((0.3, 0.4), (0.4, 0.5), (0.5, 0.6), (1, 0.2), (1.5, 0.1))),
    "glass_blur": Corruption(
        blur.glass_blur, ((0.05, 1, 1), (0.25, 1, 1), (0.4, 1, 1), (0.25, 1, 2), (0.4, 1, 2))
    ),
    "motion_blur": Corruption(blur.motion_blur, ((6, 1), (6, 1.5), (6, 2), (8, 2), (9, 2.5))),
    "zoom_blur": Corruption(blur.zoom_blur, ((0.05,), (0.1,), (0.15,), (0.2,), (0.25,))),
    "snow": Corruption(
        weather.snow,
        (
            (0.1, 0.2, 1, 0.6, 8, 3, 0.95),
            (0.1, 0.2, 1, 0.5, 10, 4, 0.9),
            (0.15, 0.3, 1.75, 0.55, 10, 4, 0.9),
            (0.25, 0.3, 2.25, 0.6, 12, 6, 0.85),
            (0.3, 0.3, 1.25, 0.65, 14, 12, 0.8),
        ),
    ),
    "frost": Corruption(weather.frost, ((1, 0.2), (1, 0.3), (0.9, 0.4), (0.85, 0.4), (0.75, 0.45))),
    "fog": Corruption(weather.fog, ((0.2, 3), (0.5, 3), (0.75, 2.5), (1, 2), (1.5, 1.75))),
    "brightness": Corruption(weather.brightness, ((0.05,), (0.1,), (0.15,), (0.2,), (0.3,))),
    "contrast": Corruption(digital.contrast, ((0.75,), (0.5,), (0.4,), (0.3,), (0.15,))),
    "elastic_transform": Corruption(
        digital.elastic_transform,
        ((0, 0, 0.08), (0.05, 0.2, 0.07), (0.08, 0.06, 0.06), (0.1, 0.04, 0.05), (0.1, 0.03, 0.03)),
    ),
    "pixelate": Corruption(digital.pixelate, ((0.95,), (0.9,), (0.85,), (0.75,), (0.65,))),
    "jpeg_compression": Corruption(digital.jpeg_compression, ((80,), (65,), (58,), (50,), (40,))),
}
"""By name, in the paper's order: noise, blur, weather, digital."""


def corrupt(images: Pixels, name: str, severity: int, positions: Array | None = None, seed: int = 0) -> Pixels:
    """Returns corrupted images, uint8 (B, H, W, C), of uint8 images (B, H, W, C).

    name: one of `CORRUPTIONS`.   severity: 1 to 5.
    positions: (B,) integers ≥ 0, each image's place in the whole data set, by default 0 to B − 1. They and the
        seed address the random numbers, so that an image's corruption does not depend on its batch. The
        severities of a corruption share them.
    The published lengths, in pixels of images of 32×32, grow with larger images; smaller ones keep them.
    Raises UsageError for an unknown name or severity, DataError for images of another shape or type.
    """
    checks.choice("corruption", name, CORRUPTIONS)
    checks.choice("severity", str(severity), map(str, SEVERITIES))
    if images.ndim != 4 or images.dtype != np.uint8:
        raise DataError(
            f"images: expected uint8 (B, H, W, C) to corrupt; received {images.dtype} of shape {images.shape}"
        )
    places = np.arange(len(images)) if positions is None else np.asarray(positions)
    chosen, number = CORRUPTIONS[name], list(CORRUPTIONS).index(name)
    step = max(1, _CHUNK // max(1, images[0].size)) if len(images) else 1
    found = np.empty_like(images)
    for begin in range(0, len(images), step):
        rows = slice(begin, begin + step)
        draws = Draws(seed, number, places[rows])
        made = chosen.apply(images[rows] / 255, draws, *chosen.settings[severity - 1])
        found[rows] = np.rint(np.clip(made, 0, 1) * 255)
    return found
