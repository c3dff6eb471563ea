"""safetensors, image folders, hub sets and images of many sizes: what is read, and what is refused."""

import csv
import json
import os
import pickle
import sys
import warnings
from collections import Counter
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from photos import LEFT_OUT, photos
from safetensors.numpy import save_file
from small import stcli, train, words
from test_data import encoded, write
from test_readers import Calls

from stcore.data import ImageData, load
from stcore.data.decoding import decode, decode_one
from stcore.data.readers.shards import NOTHING
from stcore.data.readers.sources import load_test
from stcore.errors import BrokenImageWarning, DataError, UsageError

NAMES = ["cat", "dog", "eel"]


def pictures(count, seed=0, size=(6, 5), channels=3):
    return np.random.default_rng(seed).integers(0, 256, (count, *size, channels), np.uint8)


PARTS = {"train": (pictures(12, 1), np.arange(12) % 3), "test": (pictures(6, 2), np.arange(6) // 2)}
OWN = {**PARTS, "validation": (pictures(3, 3), np.arange(3))}


def fingerprints(parts):
    return {part: ImageData.from_arrays(*arrays, num_classes=3).fingerprint() for part, arrays in parts.items()}


def assert_read(splits, parts):
    """The same pixels, labels and classes as were written."""
    assert {part: getattr(splits, part).fingerprint() for part in parts} == fingerprints(parts)


# safetensors


def write_safetensors(folder, parts=PARTS, metadata=None):
    for part, (images, labels) in parts.items():
        save_file({"images": images, "labels": labels}, folder / f"{part}.safetensors", metadata)
    return folder


def test_safetensors_folders_are_read(tmp_path):
    assert_read(load(f"safetensors:{write_safetensors(tmp_path)}", validation="test"), PARTS)
    assert_read(load(f"safetensors:{write_safetensors(tmp_path, OWN)}"), OWN)


def test_one_safetensors_file_with_all_parts_is_read(tmp_path):
    arrays = {f"x_{part}": images for part, (images, _) in OWN.items()}
    arrays |= {f"{part}_labels": labels for part, (_, labels) in OWN.items()}
    save_file(arrays, tmp_path / "all.safetensors", {"class_names": "\n".join(NAMES)})
    splits = load(f"safetensors:{tmp_path / 'all.safetensors'}")
    assert_read(splits, OWN)
    assert splits.train.class_names == tuple(NAMES)


def test_safetensors_may_count_its_classes(tmp_path):
    write_safetensors(tmp_path)
    images, labels = PARTS["test"]
    save_file({"images": images, "labels": labels, "num_classes": np.array([7])}, tmp_path / "test.safetensors")
    assert load(f"safetensors:{tmp_path}", validation=1).train.num_classes == 7


def test_broken_safetensors_is_refused(tmp_path):
    whole = (write_safetensors(tmp_path) / "train.safetensors").read_bytes()
    mark = tmp_path / "was_here"
    broken = (b"", whole[:100], whole[:-1], b"<!DOCTYPE html><html></html>")
    for raw in (*broken, pickle.dumps(Calls(os.system, f"touch {mark}"))):
        (tmp_path / "train.safetensors").write_bytes(raw)
        with pytest.raises(
            DataError, match=r"train.safetensors: expected a whole safetensors file, received: .*; fetch it again"
        ):
            load(f"safetensors:{tmp_path}")
    assert not mark.exists()


def test_safetensors_that_does_not_fit_is_refused(tmp_path):
    with pytest.raises(DataError, match=r"with train.safetensors and test.safetensors, .* received .*nowhere'"):
        load(f"safetensors:{tmp_path / 'nowhere'}")
    with pytest.raises(DataError, match=r"expected train.safetensors, received an empty folder"):
        load(f"safetensors:{tmp_path}")
    write_safetensors(tmp_path)
    save_file({"images": pictures(2)[0], "labels": np.arange(2)}, tmp_path / "train.safetensors")
    with pytest.raises(DataError, match=r"train of .*: expected one label per image, received 2 labels for 6"):
        load(f"safetensors:{tmp_path}")
    save_file({"pixels": pictures(2)}, tmp_path / "train.safetensors")
    with pytest.raises(DataError, match=r"images named images or image or x or data, received pixels; rename"):
        load(f"safetensors:{tmp_path}")


# Folders


def write_folder(folder, parts=PARTS, form="png", names=NAMES):
    for part, (images, labels) in parts.items():
        for name in names:
            (folder / part / name).mkdir(parents=True)
        for number, (image, label) in enumerate(zip(images, labels, strict=True)):
            (folder / part / names[label] / f"{number:03d}.{form}").write_bytes(
                encoded(image.squeeze(), {"png": "PNG", "BMP": "BMP"}[form])
            )
    return folder


def sorted_by_class(parts):
    order = {part: np.argsort(labels, kind="stable") for part, (_, labels) in parts.items()}
    return {part: (images[order[part]], labels[order[part]]) for part, (images, labels) in parts.items()}


@pytest.mark.parametrize("form", ["png", "BMP"])
def test_image_folders_are_read(tmp_path, form):
    splits = load(f"folder:{write_folder(tmp_path, form=form)}", validation="test")
    assert_read(splits, sorted_by_class(PARTS))
    assert splits.train.class_names == tuple(NAMES)
    held = load(f"folder:{tmp_path}", validation=3)
    assert (len(held.train), len(held.validation)) == (9, 3)


@pytest.mark.parametrize("name", ["val", "validation"])
def test_folders_take_their_own_validation(tmp_path, name):
    write_folder(tmp_path, OWN)
    (tmp_path / "validation").rename(tmp_path / name)
    (tmp_path / "train" / "cat" / ".DS_Store").touch()
    (tmp_path / ".cache").mkdir()
    assert_read(load(f"folder:{tmp_path}"), sorted_by_class(OWN))
    with pytest.raises(UsageError, match="validation files of its own, received 3"):
        load(f"folder:{tmp_path}", validation=3)
    (tmp_path / ("val" if name == "validation" else "validation")).mkdir()
    with pytest.raises(DataError, match="expected one of validation and val, received both"):
        load(f"folder:{tmp_path}")


def test_grey_folders_stay_grey(tmp_path):
    grey = {part: (images[..., :1], labels) for part, (images, labels) in PARTS.items()}
    assert load(f"folder:{write_folder(tmp_path, grey)}", validation=1).train.image_shape == (6, 5, 1)


def test_jpegs_in_a_folder_are_read(tmp_path):
    for part in ("train", "test"):
        for name, level in (("dark", 40), ("light", 200)):
            (tmp_path / part / name).mkdir(parents=True)
            (tmp_path / part / name / "one.JPEG").write_bytes(encoded(np.full((8, 8, 3), level, np.uint8), "JPEG"))
    train = load(f"folder:{tmp_path}", validation="test").train
    assert np.abs(train.images[:].astype(int).mean(axis=(1, 2, 3)) - [40, 200]).max() <= 2


@pytest.mark.parametrize("part", ["train", "test"])
def test_the_first_image_of_another_size_is_named(tmp_path, part):
    write_folder(tmp_path)
    odd = sorted((tmp_path / part / "dog").iterdir())[1]
    odd.write_bytes(encoded(pictures(1, size=(7, 5))[0]))
    with pytest.raises(
        DataError, match=rf"{odd}: expected an image of 6x5 pixels .* received 7x5; resize .*--image-size"
    ):
        load(f"folder:{tmp_path}")
    assert load(f"folder:{tmp_path}", image_size=4, validation=1).train.image_shape == (4, 4, 3)


def test_a_folder_of_classes_alone_is_split(tmp_path):
    """A fifth of each class is the test set, always the same; junk of other systems is no image."""
    write_folder(tmp_path, {"train": (pictures(30, 4), np.arange(30) % 3)})
    flat = (tmp_path / "train").rename(tmp_path / "flat")
    for junk in ("Thumbs.db", "desktop.ini", ".DS_Store"):
        (flat / NAMES[0] / junk).write_bytes(b"junk")
    (flat / "__MACOSX").mkdir()
    splits = load(f"folder:{flat}", validation=3)
    parts = (splits.train, splits.validation, splits.test)
    assert [part.class_counts().tolist() for part in parts] == [[7] * 3, [1] * 3, [2] * 3]
    assert splits.test.class_names == tuple(NAMES)
    assert "a fifth" in splits.test.name
    np.testing.assert_array_equal(load_test(f"folder:{flat}", NOTHING).images, splits.test.images)
    assert len({image.tobytes() for part in parts for image in part.images}) == 30
    assert len(load(f"folder:{flat}").validation) == 3


def folder_of(folder, broken):
    """Twelve and six pictures, of which these of the training part are broken; returns what is to be read."""
    write_folder(folder)
    files = sorted((folder / "train").rglob("*.png"), key=lambda path: path.name)
    for number in broken:
        files[number].write_bytes(b"<html>")
    return f"folder:{folder}"


def parquet_of(folder, broken):
    for part, (images, labels) in PARTS.items():
        rows = [encoded(image) for image in images]
        for number in broken if part == "train" else ():
            rows[number] = b"<html>" if number % 2 else b""
        write(folder / f"{part}-0.parquet", rows, labels.tolist())
    return f"parquet:{folder}"


@pytest.mark.parametrize("made", [folder_of, parquet_of])
@pytest.mark.parametrize("broken", [(), (0,), (3, 11), (0, 1, 2, 3, 5)])
def test_broken_images_are_left_out_where_asked_and_said(tmp_path, made, broken):
    """One corrupt file a run, with a run between two of them, is no way to find them."""
    spec = made(tmp_path, broken)
    if broken:
        with pytest.raises(DataError, match="expected an"):
            load(spec, validation="test")
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        splits = load(spec, validation="test", skip_broken=True)
    images, labels = PARTS["train"]
    kept = np.setdiff1d(np.arange(12), broken)
    order = kept[np.argsort(labels[kept], kind="stable")] if made is folder_of else kept
    np.testing.assert_array_equal(splits.train.images, images[order])
    np.testing.assert_array_equal(splits.train.labels, labels[order])
    assert len(splits.test) == 6
    warned = [str(one.message) for one in said if one.category is BrokenImageWarning]
    assert len(warned) == bool(broken)
    if broken:
        assert warned[0].startswith(f"{len(broken)} of 18 images were left out: {tmp_path}")
        assert ("and 2 more" in warned[0]) == (len(broken) == 5)


def test_the_command_skips_broken_images_in_training_and_in_evaluation(tmp_path):
    """The run keeps the setting, so that its evaluation reads the same images."""
    spec = folder_of(tmp_path / "data", (1,))
    (tmp_path / "data" / "test" / "eel" / "004.png").write_bytes(b"x")
    settings = {"dataset": spec, "model": "tiny", "batch_size": 4, "epochs": 1, "steps": 1, "attacks": "fgsm"}
    asked = ["train", *words({**settings, "image_size": 8, "select": "test", "out": tmp_path / "run"})]
    assert stcli(*asked).code == 3
    said = stcli(*asked, "--skip-broken")
    assert said.code == 0, said.err
    assert "note: 2 of 18 images were left out" in said.err
    said = stcli("evaluate", tmp_path / "run", "--attacks", "fgsm", "--no-audit", "--json")
    assert said.code == 0, said.err
    assert {score["natural"]["total"] for score in json.loads(said.out).values()} == {5}
    said = stcli("train", "--dataset", "digits", "--skip-broken")
    assert said.code == 2
    assert "skip_broken" in said.err


def test_a_run_on_a_folder_writes_which_file_is_in_which_part(tmp_path):
    photos(tmp_path / "data")
    settings = {"model": "tiny", "image_size": 8, "batch_size": 8, "epochs": 1, "steps": 1, "attacks": "fgsm"}
    asked = words({**settings, "dataset": f"folder:{tmp_path / 'data'}", "out": tmp_path / "run"})
    said = stcli("train", *asked)
    assert said.code == 3
    said = stcli("train", *asked, "--skip-broken")
    assert said.code == 0, said.err
    assert "note: 3 of 33 images were left out" in said.err
    header, *rows = csv.reader((tmp_path / "run" / "images.csv").read_text().splitlines())
    assert header == ["file", "part", "class", "reason"]
    left_out = {file: reason for file, part, _, reason in rows if part == "left out"}
    assert left_out.keys() == LEFT_OUT
    assert all(reason.startswith("expected an") for reason in left_out.values())
    kept = {file: (part, label) for file, part, label, _ in rows if part != "left out"}
    assert len(kept) == len(rows) - 3 == 30
    assert all(file.startswith(f"{label}/") for file, (_, label) in kept.items())
    counts = Counter(kept.values())
    assert {counts["test", label] for label in ("cat", "dog", "eel")} == {2}
    assert Counter(part for part, _ in kept.values()) == {"train": 21, "validation": 3, "test": 6}
    splits = load(f"folder:{tmp_path / 'data'}", image_size=8, skip_broken=True)
    assert dict.fromkeys(splits.train.files, "train") == {f: p for f, (p, _) in kept.items() if p == "train"}
    first = decode_one("it", (tmp_path / "data" / splits.test.files[0]).read_bytes(), 8)
    np.testing.assert_array_equal(splits.test.images[0], np.broadcast_to(first, (8, 8, 3)))


def test_other_runs_have_no_such_list(tmp_path):
    assert train(tmp_path / "run", steps=1, attacks="fgsm").code == 0
    assert not (tmp_path / "run" / "images.csv").exists()


def test_a_validation_part_without_a_test_part_is_told_what_to_do(tmp_path):
    write_folder(tmp_path, {"train": PARTS["train"], "val": PARTS["test"]})
    with pytest.raises(
        DataError, match=r"expected test/ .* received train/, val/; rename the validation part to test"
    ):
        load(f"folder:{tmp_path}")


def test_folders_that_do_not_fit_are_refused(tmp_path):
    with pytest.raises(DataError, match=r"with train/ and test/, received .*nowhere'; check the path"):
        load(f"folder:{tmp_path / 'nowhere'}")
    with pytest.raises(DataError, match=r"expected train/ with a folder for each class, received an empty folder"):
        load(f"folder:{tmp_path}")
    write_folder(tmp_path)
    image = next((tmp_path / "train" / "cat").iterdir())
    whole = image.read_bytes()
    for raw in (whole[:60], b"<html>", b"", pickle.dumps(Calls(os.system, f"touch {tmp_path / 'was_here'}"))):
        image.write_bytes(raw)
        with pytest.raises(DataError, match=rf"{image}: expected "):
            load(f"folder:{tmp_path}")
    assert not (tmp_path / "was_here").exists()
    image.write_bytes(whole)
    (tmp_path / "test" / "eel" / "notes.txt").touch()
    with pytest.raises(DataError, match=r"notes.txt: expected an image \(.png, .*\), received this; move it"):
        load(f"folder:{tmp_path}")
    (tmp_path / "test" / "eel" / "notes.txt").unlink()
    (tmp_path / "test" / "fox").mkdir()
    with pytest.raises(DataError, match=r"test: expected the classes of .*train, .* which differ in fox"):
        load(f"folder:{tmp_path}")
    (tmp_path / "train" / "fox").mkdir()
    with pytest.raises(DataError, match=r"train/fox: expected at least one image of this class, received none"):
        load(f"folder:{tmp_path}")


# image_size


@given(height=st.integers(1, 40), width=st.integers(1, 40), size=st.integers(1, 40), grey=st.booleans())
@settings(max_examples=60)
def test_images_of_any_size_become_square(height, width, size, grey):
    image = pictures(1, size=(height, width), channels=1 if grey else 3)[0]
    found, *_ = decode([("here", encoded(image.squeeze(-1) if grey else image))], size)
    assert found.shape == (1, size, size, 1 if grey else 3)
    if height == width == size:
        np.testing.assert_array_equal(found[0], image)


def test_the_shorter_side_is_resized_and_the_middle_kept():
    """Of a wide image, three even squares side by side, the middle one is left, at half its size."""
    wide = np.concatenate([np.full((8, 8, 3), level, np.uint8) for level in (0, 100, 255)], axis=1)
    for image in (wide, wide.transpose(1, 0, 2)):
        (found,), *_ = decode([("here", encoded(image))], 4)
        assert np.abs(found.astype(int) - 100).max() <= 40  # the bicubic kernel sees a little of what is beside it
        (found,), *_ = decode([("here", encoded(image))], 8)
        np.testing.assert_array_equal(found, np.full((8, 8, 3), 100))


@pytest.mark.parametrize("kind", ["digits", "npz:X", "npy:X", "safetensors:X", "svhn:X", "cifar10:X"])
def test_only_encoded_images_are_resized(kind):
    with pytest.raises(UsageError, match=f"expected no image_size for {kind.partition(':')[0]}, .* received 8"):
        load(kind, image_size=8)


def test_parquet_is_resized(tmp_path):
    for part in ("train", "test"):
        write(tmp_path / f"{part}-0.parquet", [encoded(pictures(1, size=(9, n))[0]) for n in (7, 8, 9)], [0, 1, 2])
    with pytest.raises(DataError, match="row 1: expected an image of 9x7 pixels"):
        load(f"parquet:{tmp_path}")
    assert load(f"parquet:{tmp_path}", image_size=8, validation="test").train.images.shape == (3, 8, 8, 3)


def test_a_run_resizes_its_images(tmp_path):
    pytest.importorskip("torch")
    many = {part: (pictures(60, seed, (11, 9)), np.arange(60) % 3) for seed, part in enumerate(("train", "test"))}
    write_folder(tmp_path / "data", many)
    odd = tmp_path / "data" / "train" / "cat" / "000.png"
    odd.write_bytes(encoded(pictures(1, size=(14, 30))[0]))
    settings = {"train_size": 16, "validation_size": 1, "test_size": 8, "batch_size": 8, "attacks": "fgsm"}
    said = train(tmp_path / "run", dataset=f"folder:{tmp_path / 'data'}", image_size=8, **settings)
    assert said.code == 0, said.err
    info = stcli("data", "info", f"folder:{tmp_path / 'data'}", "--image-size", 8, "--json")
    assert json.loads(info.out)["test"]["image_shape"] == [8, 8, 3]


def test_an_image_size_below_one_is_refused(tmp_path):
    said = stcli("train", "--image-size", 0, "--out", tmp_path / "run")
    assert (said.code, "image_size" in said.err) == (2, True)


# The hub


class FakeRows:
    """As much of `datasets.Dataset` as is asked of it."""

    def __init__(self, rows, features, decoded=True):
        self.rows, self.features, self.decoded = rows, features, decoded

    def cast_column(self, column, feature):
        assert (column, feature.decode) == ("img", False)
        return FakeRows(self.rows, self.features, False)

    def select_columns(self, names):
        return FakeRows([{name: row[name] for name in names} for row in self.rows], self.features, self.decoded)

    def __iter__(self):
        assert not self.decoded  # pillow's decoding is ours, with its checks
        return iter(self.rows)


def fake_hub(monkeypatch, parts=OWN, change=lambda row: row, error=None):
    """A module `datasets` that knows one set; returns what it was asked for."""
    asked = []
    features = {"img": None, "label": SimpleNamespace(names=NAMES)}

    def load_dataset(*args):
        asked.append(args)
        if error is not None:
            raise error
        return {
            part: FakeRows(
                [
                    change({"img": {"bytes": encoded(image), "path": None}, "label": int(label), "more": 1})
                    for image, label in zip(*arrays, strict=True)
                ],
                features,
            )
            for part, arrays in parts.items()
        }

    module = SimpleNamespace(load_dataset=load_dataset, Image=SimpleNamespace)
    monkeypatch.setitem(sys.modules, "datasets", module)
    return asked


def test_hub_sets_are_read(monkeypatch):
    asked = fake_hub(monkeypatch)
    splits = load("hub:someone/pets")
    assert_read(splits, OWN)
    assert splits.train.class_names == tuple(NAMES)
    load("hub:someone/pets:small", columns=("img", "label"), image_size=4)
    assert asked == [("someone/pets", None), ("someone/pets", "small")]
    with pytest.raises(UsageError, match="validation files of its own, received 2"):
        load("hub:someone/pets", validation=2)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"parts": {"train": OWN["train"]}}, "expected splits named train and test, received train; choose"),
        ({"error": ConnectionError("no network")}, "hub:a/b: expected a data set of the hub, .* received: no net"),
        (
            {"change": lambda row: {**row, "label": "cat"}},
            "hub:a/b train row 0: expected an integer label, received 'cat'",
        ),
        (
            {"change": lambda row: {**row, "img": None}},
            "hub:a/b train row 0: expected an encoded image, received no",
        ),
        ({"change": lambda row: {**row, "label": 3}}, r"expected labels in \[0, 3\), received 3 at position 0"),
    ],
)
def test_hub_sets_that_do_not_fit_are_refused(monkeypatch, settings, message):
    fake_hub(monkeypatch, **settings)
    with pytest.raises(DataError, match=message):
        load("hub:a/b")


def test_hub_columns_that_are_not_there_are_refused(monkeypatch):
    fake_hub(monkeypatch)
    with pytest.raises(DataError, match=r"a column of images named picture, received the columns img, label"):
        load("hub:a/b", columns=("picture", "label"))


def test_a_missing_package_is_named_with_its_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(UsageError, match=r"the package of 'datasets' .* pip install '\.\[datasets\]'"):
        load("hub:a/b")


def test_the_package_reads_local_folders_and_its_offline_cache(tmp_path, monkeypatch):
    """By the real package, without a network."""
    datasets = pytest.importorskip("datasets")
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    write_folder(tmp_path / "pets")
    splits = load(f"hub:{tmp_path / 'pets'}", validation="test")
    assert_read(splits, sorted_by_class(PARTS))
    assert splits.train.class_names == tuple(NAMES)
    for part, (images, labels) in OWN.items():
        write(
            tmp_path / "parquet" / "data" / f"{part}-0.parquet", [encoded(i) for i in images], labels, names=NAMES
        )
    assert_read(load(f"hub:{tmp_path / 'parquet'}"), OWN)
    with pytest.raises(DataError, match=r"hub:nobody/nothing: expected a data set of the hub, or of its cache"):
        load("hub:nobody/nothing")
