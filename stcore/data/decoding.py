"""Encoded images (PNG, JPEG, …) to one uint8 array."""

import io
from collections.abc import Iterable
from typing import Any

import numpy as np
import numpy.typing as npt

from stcore.data.optional import hub
from stcore.errors import DataError

_GREY = ("1", "L", "LA")
_DEEP = ("I", "F")  # more than 8 bits a pixel, with no agreed scale


def decode(rows: Iterable[tuple[str, bytes | None]]) -> npt.NDArray[np.uint8]:
    """(where it stands, encoded bytes) of each image -> uint8 (N, H, W, C).

    C is 1 if all are grey, else 3. DataError, with the place, if one is missing, cannot be decoded or differs
    in size.
    """
    images: list[npt.NDArray[np.uint8]] = []
    for where, encoded in rows:
        image = _decode(where, encoded)
        if images and image.shape[:2] != images[0].shape[:2]:
            raise DataError(
                f"{where}: expected an image of {_size(images[0])} pixels like those before it, "
                f"received {_size(image)}; resize the images to one size"
            )
        images.append(image)
    if not images:
        return np.empty((0, 0, 0, 1), np.uint8)
    channels = max(image.shape[-1] for image in images)
    out = np.empty((len(images), *images[0].shape[:2], channels), np.uint8)
    for slot, image in zip(out, images, strict=True):
        slot[:] = image  # grey among colours is repeated over the channels
    return out


def _decode(where: str, encoded: bytes | None) -> npt.NDArray[np.uint8]:
    pillow: Any = hub("PIL.Image")
    if not encoded:
        raise DataError(
            f"{where}: expected an encoded image, received no bytes; the file must hold the images "
            "themselves, not only their paths"
        )
    try:
        with pillow.open(io.BytesIO(encoded)) as image:
            mode = image.mode
            pixels = np.asarray(image.convert("L" if mode in _GREY else "RGB"))
    except Exception as error:  # pillow's decoders raise many kinds on foreign bytes
        raise DataError(
            f"{where}: expected a PNG, JPEG or other image pillow reads, received {len(encoded)} bytes that "
            f"are none ({error}); fetch the file again or drop the row"
        ) from error
    if mode.startswith(_DEEP):
        raise DataError(
            f"{where}: expected 8 bits a channel, received pillow mode {mode!r}; "
            "convert the images to 8 bits first"
        )
    return pixels[..., None] if pixels.ndim == 2 else pixels


def _size(image: npt.NDArray[np.uint8]) -> str:
    return f"{image.shape[0]}x{image.shape[1]}"
