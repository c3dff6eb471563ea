"""Stripes in four directions under noise: images of 8×8 pixels, made in a moment."""

import numpy as np

from stcore.data import ImageData

NAMES = ("horizontal", "rising", "vertical", "falling")


def load(place: str | None = None) -> dict[str, ImageData]:
    """The parts; stripes:N has N training images instead of 400."""
    rng, parts = np.random.default_rng(0), {}
    for part, count in {"train": int(place or 400), "test": 100}.items():
        labels = np.arange(count) % len(NAMES)
        angle, phase = labels[:, None, None] * np.pi / 4, rng.uniform(0, 2 * np.pi, (count, 1, 1))
        rows, columns = np.mgrid[:8, :8]
        waves = np.sin(1.6 * (np.cos(angle) * rows + np.sin(angle) * columns) + phase)
        pixels = np.clip(128 + 80 * waves + rng.normal(0, 20, (count, 8, 8)), 0, 255).astype(np.uint8)
        parts[part] = ImageData.from_arrays(pixels, labels, name=f"stripes {part}", class_names=NAMES)
    return parts
