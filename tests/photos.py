"""A folder of photos as people have them: sizes, greys, alpha and EXIF mixed; broken files, and junk."""

import numpy as np
import pytest

CLASSES = ("cat", "dog", "eel")
LEFT_OUT = {"cat/broken.jpg", "dog/empty.png", "eel/notes.txt"}
"""What is no image, by its contents."""


def photos(folder, count=30, sides=(9, 20)):
    """Writes class folders alone, without parts: `count` images, brighter from class to class, and other files."""
    pillow = pytest.importorskip("PIL.Image")
    rng = np.random.default_rng(0)
    for number in range(count):
        label = number % 3
        mode, suffix = (("RGB", "jpg"), ("L", "png"), ("RGBA", "png"))[number // 3 % 3]
        shape = (*rng.integers(*sides, 2), *(() if mode == "L" else (len(mode),)))
        pixels = rng.integers(0, 86, shape, np.uint8) + 85 * label
        if mode == "RGBA":
            pixels[..., 3] = rng.integers(128, 256, shape[:2])
        exif = pillow.Exif()
        exif[0x0112] = 1 + number % 8
        path = folder / CLASSES[label] / f"{number:03d}.{suffix}"
        path.parent.mkdir(parents=True, exist_ok=True)
        pillow.fromarray(pixels.astype(np.uint8)).save(path, **({"exif": exif} if suffix == "jpg" else {}))
    for junk in (*sorted(LEFT_OUT), "cat/Thumbs.db", "dog/.DS_Store", "eel/._001.jpg"):
        (folder / junk).write_bytes(b"" if junk.endswith("empty.png") else b"none")
