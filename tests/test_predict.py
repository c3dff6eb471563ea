"""Photos as people have them, classified: `stcli predict` and `predict` of a loaded network."""

import csv
import io
import json
import shutil

import numpy as np
import pytest
from harness import NAMES, load
from small import stcli
from test_decoding import STORED
from test_deployment import CLASSES, NORMALIZE, network, weights

import stcore
from stcore.base.weights_file import load_weights, save_weights
from stcore.data.photos import read_photos
from stcore.errors import DataError, UsageError

Image = pytest.importorskip("PIL.Image")
ON_EACH = pytest.mark.parametrize("backend", NAMES)
SCENE = np.random.default_rng(0).integers(0, 256, (16, 24, 3), np.uint8)
"""Twice the size of the network's images."""


def turned(orientation, path):
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(np.ascontiguousarray(STORED[orientation](SCENE))).save(path, exif=exif)


@pytest.fixture
def album(tmp_path):
    """Photos of several sizes, orientations and modes, among other files."""
    folder = tmp_path / "album"
    (folder / "inner").mkdir(parents=True)
    Image.fromarray(SCENE).save(folder / "a.png")
    turned(6, folder / "b.png")
    Image.fromarray(SCENE[..., 0]).save(folder / "grey.png")
    Image.fromarray(np.dstack([SCENE, np.full((16, 24), 9, np.uint8)])).save(folder / "alpha.png")
    Image.fromarray(np.tile(SCENE, (5, 3, 1))).save(folder / "inner" / "large.JPG", "JPEG")
    (folder / "notes.txt").write_text("junk")
    (folder / ".hidden.png").write_bytes(b"junk")
    return folder


def rows(said):
    return list(csv.DictReader(io.StringIO(said.out)))


@ON_EACH
def test_photos_of_any_kind_are_classified(album, backend):
    load(backend)
    said = stcli("predict", weights(), album, album / "a.png", "--backend", backend)
    assert (said.code, said.err) == (0, ""), said.err
    found = rows(said)
    names = ["a.png", "alpha.png", "b.png", "grey.png", "inner/large.JPG", "a.png"]
    assert [row["image"] for row in found] == [str(album / name) for name in names]
    assert list(found[0]) == ["image", "class", "probability", *(f"p({name})" for name in CLASSES)]
    for row in found:
        shares = {name: float(row[f"p({name})"]) for name in CLASSES}
        assert sum(shares.values()) == pytest.approx(1, abs=1e-5)
        assert row["class"] == max(shares, key=shares.get)
        assert float(row["probability"]) == max(shares.values())
    one, alpha, upright = ([row[f"p({name})"] for name in CLASSES] for row in found[:3])
    assert one == alpha == upright  # of the same scene, with transparency, and stored on its side


def test_json_and_python_have_the_same_numbers(album):
    said = stcli("predict", weights(), album, "--format", "json", "--backend", "torch")
    assert said.code == 0, said.err
    found = json.loads(said.out)
    net = network("torch")
    np.testing.assert_allclose(
        [list(row["probabilities"].values()) for row in found], net.probabilities(album), rtol=1e-6
    )
    assert [row["class"] for row in found] == [CLASSES[number] for number in net.predict(album)]
    with Image.open(album / "b.png") as photo:
        np.testing.assert_allclose(net.probabilities([photo]), net.probabilities(album / "a.png"))


def test_preprocess_is_what_predict_computes_with(album):
    net = network("torch")
    pixels = net.preprocess([album / "a.png", album / "grey.png"])
    assert pixels.shape == (2, 3, 8, 12)
    expected = Image.fromarray(SCENE).resize((12, 8), Image.Resampling.BICUBIC)
    np.testing.assert_array_equal(np.rint(pixels[0].numpy() * 255).transpose(1, 2, 0), np.asarray(expected))
    np.testing.assert_array_equal(pixels[1][0], pixels[1][2])


def test_a_photo_is_cut_to_the_centre_of_the_networks_shape():
    wide = np.zeros((10, 100, 3), np.uint8)
    wide[:, 45:55] = 255
    shown = read_photos(Image.fromarray(wide), (10, 10, 1)).images
    assert shown.shape == (1, 10, 10, 1)
    assert (shown == 255).all()


def test_a_broken_photo_is_refused_or_named_and_left_out(album):
    whole = (album / "a.png").read_bytes()
    (album / "c.png").write_bytes(whole[: len(whole) // 2])
    said = stcli("predict", weights(), album)
    assert (said.code, said.out) == (3, "")
    assert f"{album}/c.png: expected an image" in said.err
    said = stcli("predict", weights(), album, "--skip-broken")
    assert said.code == 0
    assert f"note: {album}/c.png: expected an image" in said.err
    assert len(rows(said)) == 5
    with pytest.raises(DataError, match=r"c\.png: expected an image"):
        network("torch").predict(album)


@pytest.mark.parametrize(
    ("photo", "said"),
    [
        ("none.png", "none.png does not exist"),
        ("notes.txt", "expected an image in one of"),
        ("empty", "at least one"),
    ],
)
def test_what_is_no_photo_is_refused(album, photo, said):
    (album / "empty").mkdir()
    found = stcli("predict", weights(), album / photo)
    assert (found.code, found.out) == (3, "")
    assert said in found.err


def test_other_words_are_refused(album, tmp_path):
    assert "format: expected one of csv, json" in stcli("predict", weights(), album, "--format", "xml").err
    assert stcli("predict", tmp_path / "none", album).code == 2
    arrays, metadata = load_weights(weights())
    save_weights(tmp_path / "other.safetensors", arrays, {**metadata, "resize": "stretch"})
    said = stcli("predict", tmp_path / "other.safetensors", album)
    assert (said.code, "expected weights with the resize rule 'centre crop, bicubic'" in said.err) == (2, True)


def test_a_run_and_a_network_of_the_zoo_take_photos(album):
    found = rows(stcli("predict", "zoo:digits-small-cnn-st", album / "a.png"))
    assert found[0]["class"] in map(str, range(10))
    net = stcore.load("zoo:digits-small-cnn-st", backend="torch")
    assert net.preprocess(album / "a.png").shape == (1, 1, 8, 8)  # colours become grey
    assert net.resize == "centre crop, bicubic"


def test_weights_of_a_run_say_how_photos_become_images(tmp_path):
    from small import trained

    metadata = load_weights(trained("torch").path / "best.safetensors")[1]
    assert metadata["resize"] == "centre crop, bicubic"
    assert (metadata["image_shape"], metadata["normalize"]) == ("8x8x1", "none")
    assert load_weights(weights())[1]["normalize"] == NORMALIZE
    shutil.rmtree(tmp_path)


def test_arrays_are_taken_as_before():
    with pytest.raises(UsageError, match="expected \\(N, 8, 12, 3\\)"):
        network("torch").predict(SCENE[None])
    assert network("torch").predict(SCENE[None, :8, :12]).shape == (1,)
