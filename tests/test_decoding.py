"""Images as they come: upright, and by no decoder that starts another program."""

import io
import os

import numpy as np
import pytest

pytest.importorskip("PIL")
from PIL import Image

from stcore.data.decoding import FORMATS, decode_one
from stcore.errors import DataError

PICTURE = np.random.default_rng(0).integers(0, 256, (5, 7, 3), np.uint8)
STORED = {  # how a camera stores an upright picture for each EXIF orientation (CIPA DC-008, 4.6.4)
    1: lambda p: p,
    2: lambda p: p[:, ::-1],
    3: lambda p: p[::-1, ::-1],
    4: lambda p: p[::-1],
    5: lambda p: p.transpose(1, 0, 2),
    6: lambda p: np.rot90(p),
    7: lambda p: p[::-1, ::-1].transpose(1, 0, 2),
    8: lambda p: np.rot90(p, -1),
}


def encoded(pixels, form="PNG", orientation=None):
    exif, out = Image.Exif(), io.BytesIO()
    if orientation is not None:
        exif[0x0112] = orientation
    Image.fromarray(np.ascontiguousarray(pixels)).save(out, form, exif=exif)
    return out.getvalue()


@pytest.mark.parametrize("orientation", STORED)
@pytest.mark.parametrize("form", ["PNG", "TIFF"])
def test_a_picture_is_decoded_upright(form, orientation):
    stored = STORED[orientation](PICTURE)
    np.testing.assert_array_equal(decode_one("it", encoded(stored, form, orientation)), PICTURE)


@pytest.mark.parametrize("form", ["JPEG", "WEBP"])
def test_a_phones_photo_is_decoded_upright(form):
    wide = np.zeros((16, 32, 3), np.uint8)
    wide[:, :16] = 255  # white on the left
    seen = decode_one("it", encoded(STORED[6](wide), form, 6))
    assert seen.shape == wide.shape
    assert np.abs(seen.astype(int) - wide).mean() < 10


def test_a_damaged_orientation_leaves_the_picture_as_it_is():
    np.testing.assert_array_equal(decode_one("it", encoded(PICTURE, "PNG", 77)), PICTURE)


@pytest.mark.parametrize("name", ["0.png", "0.jpg"])
def test_no_picture_starts_a_program(tmp_path, monkeypatch, name):
    """Pillow gives EPS to Ghostscript, whatever the file is called."""
    started, gs = tmp_path / "started", tmp_path / "bin" / "gs"
    gs.parent.mkdir()
    gs.write_text(f"#!/bin/sh\ntouch {started}\n")
    gs.chmod(0o755)
    monkeypatch.setenv("PATH", f"{gs.parent}{os.pathsep}{os.environ['PATH']}")
    Image.fromarray(PICTURE).save(tmp_path / "it.eps")
    with pytest.raises(DataError, match=rf"{name}: expected an image in one of PNG, JPEG.*bytes of no such image"):
        decode_one(name, (tmp_path / "it.eps").read_bytes())
    assert not started.exists()


@pytest.mark.parametrize("form", ["EPS", "PDF", "PCX", "TGA", "ICO", "SGI", "JPEG2000"])
def test_other_formats_are_refused_without_an_objects_address(form):
    out = io.BytesIO()
    Image.fromarray(PICTURE).save(out, form)
    with pytest.raises(DataError, match="expected an image in one of") as refused:
        decode_one("it", out.getvalue())
    assert " at 0x" not in str(refused.value)


@pytest.mark.parametrize("form", FORMATS)
def test_the_usual_formats_are_read(form):
    seen = decode_one("it", encoded(PICTURE, form) if form != "PPM" else _ppm(PICTURE))
    assert seen.shape == PICTURE.shape
    if form in ("PNG", "BMP", "TIFF", "PPM"):
        np.testing.assert_array_equal(seen, PICTURE)


def _ppm(pixels):
    return b"P6 %d %d 255\n" % (pixels.shape[1], pixels.shape[0]) + pixels.tobytes()
