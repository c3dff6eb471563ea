"""Decoding of images (PNG, JPEG, npy, …) to uint8 arrays, by pillow and numpy."""

import importlib
import io
from collections.abc import Iterable
from types import ModuleType
from typing import Any

import numpy as np
import numpy.typing as npt

from stcore.base.declared import check_pixels, npy_bytes
from stcore.data.rows import Pixels
from stcore.errors import DataError, UsageError

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm", ".pgm")
"""Suffixes of the image files that are read."""

FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "GIF", "TIFF", "PPM")
"""What is decoded, whatever a file is called: for some other formats pillow starts a program, as Ghostscript."""

RULE = 1
"""Raise it when the pixels of some image change, so that none are taken from the cache."""

RESIZE = "centre crop, bicubic"
"""How a picture is brought to a size: upright, cut to the largest centred part of the size's aspect ratio, and
resized bicubically, with antialiasing."""

MODES = {1: "L", 3: "RGB"}
"""Channels → pillow's mode."""

_GREY = ("1", "L", "LA")
_DEEP = ("I", "F")  # more than 8 bits per pixel, without a standard scale


def decode(
    rows: Iterable[tuple[str, bytes | None]], image_size: int | None = None, skip_broken: bool = False
) -> tuple[Pixels, npt.NDArray[np.bool_], tuple[str, ...]]:
    """Decodes (origin, encoded bytes) of each image to one uint8 array (N, H, W, C).

    Also returns which rows it has, and what is wrong with the others. C is 1 if all images are grey, else 3. The
    origin, such as a file and a row, names an image in errors.
    image_size: make all images square with this side in pixels: resize the shorter side, crop the centre.
    skip_broken: leave out images that are missing or cannot be decoded.
    Raises DataError, with the origin, if an image is missing, cannot be decoded or differs in size.
    """
    images: list[Pixels] = []
    sound: list[bool] = []
    broken: list[str] = []
    for origin, encoded in rows:
        try:
            image = decode_one(origin, encoded, image_size)
        except DataError as error:
            if not skip_broken:
                raise
            sound.append(False)
            broken.append(str(error))
            continue
        sound.append(True)
        if images and image.shape[:2] != images[0].shape[:2]:
            raise DataError(
                f"{origin}: expected an image of {_size(images[0])} pixels like those before it, "
                f"received {_size(image)}; resize the images to one size, or give --image-size"
            )
        images.append(image)
    if not images:
        return np.empty((0, 0, 0, 1), np.uint8), np.array(sound, bool), tuple(broken)
    channels = max(image.shape[-1] for image in images)
    out = np.empty((len(images), *images[0].shape[:2], channels), np.uint8)
    for slot, image in zip(out, images, strict=True):
        slot[:] = image  # a grey image among coloured ones is repeated over the channels
    return out, np.array(sound, bool), tuple(broken)


def decode_one(
    origin: str,
    encoded: bytes | None,
    image_size: int | tuple[int, int] | None = None,
    channels: int | None = None,
) -> Pixels:
    """Decodes one image to uint8 (H, W, C), upright as its EXIF orientation says.

    image_size: as in `decode`, or (height, width).   channels: 1 or 3; by default 1 for a grey image, else 3.
    Errors as in `decode`.
    """
    pillow: Any = import_optional("PIL.Image")
    ops: Any = import_optional("PIL.ImageOps")
    if not encoded:
        raise DataError(
            f"{origin}: expected an encoded image, received no bytes; the file must hold the images "
            "themselves, not only their paths"
        )
    try:
        with pillow.open(io.BytesIO(encoded), formats=FORMATS) as image:
            mode = image.mode
            check_pixels(origin, *image.size)
            ops.exif_transpose(image, in_place=True)
            colours = MODES[channels] if channels else "L" if mode in _GREY else "RGB"
            pixels = _pixels(image.convert(colours), image_size)
    except DataError:
        raise
    except Exception as error:  # pillow's decoders raise many kinds of errors on invalid bytes
        reason = "of no such image" if isinstance(error, pillow.UnidentifiedImageError) else f"with: {error}"
        raise DataError(
            f"{origin}: expected an image in one of {', '.join(FORMATS)}; received {len(encoded)} bytes {reason}. "
            "Fetch it again, convert it, or leave it out"
        ) from error
    if mode.startswith(_DEEP):
        raise DataError(
            f"{origin}: expected 8 bits a channel, received pillow mode {mode!r}; "
            "convert the images to 8 bits first"
        )
    return pixels


def decode_npy(origin: str, encoded: bytes, image_size: int | None = None) -> Pixels:
    """Decodes a numpy file of one image, uint8 (H, W) or (H, W, C), to (H, W, C); never runs a pickle in it.

    image_size and errors as in `decode`.
    """
    try:
        file = io.BytesIO(encoded)
        declared, held = npy_bytes(file), len(encoded) - file.tell()
        if declared != held:
            raise ValueError(f"{held} bytes, where its header declares {declared}")
        file.seek(0)
        pixels = np.lib.format.read_array(file, allow_pickle=False)
        if pixels.dtype != np.uint8 or pixels.ndim not in (2, 3) or pixels.shape[2:] not in ((), (1,), (3,)):
            raise ValueError(f"{pixels.dtype} of shape {pixels.shape}")
    except Exception as error:  # numpy raises many kinds of errors on invalid bytes
        raise DataError(
            f"{origin}: expected a numpy file of uint8, shape (H, W), (H, W, 1) or (H, W, 3), received: {error}; "
            "write it again"
        ) from error
    if image_size is None:
        return pixels.reshape(*pixels.shape[:2], -1)
    pillow: Any = import_optional("PIL.Image")
    return _pixels(pillow.fromarray(pixels[..., 0] if pixels.shape[2:] == (1,) else pixels), image_size)


def versions() -> dict[str, Any]:
    """What decoded pixels depend on beside the file: our rule, pillow, and the libraries it was built with."""
    features: Any = import_optional("PIL.features")
    codecs = {name: features.version(name) for name in ("jpg", "libjpeg_turbo", "webp", "libtiff")}
    return {"rule": RULE, "pillow": features.version("pil"), **codecs}


def _pixels(image: Any, image_size: int | tuple[int, int] | None) -> Pixels:
    if image_size is not None:
        ops: Any = import_optional("PIL.ImageOps")
        height, width = (image_size, image_size) if isinstance(image_size, int) else image_size
        image = ops.fit(image, (width, height))  # `RESIZE`
    pixels: npt.NDArray[np.uint8] = np.asarray(image)
    return pixels[..., None] if pixels.ndim == 2 else pixels


def _size(image: Pixels) -> str:
    return f"{image.shape[0]}x{image.shape[1]}"


def import_optional(module: str, extra: str = "hub") -> ModuleType:
    """Imports a module of an optional extra. Raises UsageError, with the pip command, if it is not installed."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise UsageError(
            f"expected the package of {module!r} to read these files, received: {error}; "
            f"in the repository: pip install '.[{extra}]'"
        ) from error
