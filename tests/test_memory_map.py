"""Data that stays on the disk: views of a memory map, and training on a set that memory has no room for."""

import os
import pickle
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from small import stcli, train
from test_readers import Calls

from stcore.data import Batches, ImageData, MixedBatches, Rows, Splits, hold_out, in_order, load, save_npy
from stcore.errors import DataError, UsageError


def pictures(count, seed=0, side=6, channels=3):
    return np.random.default_rng(seed).integers(0, 256, (count, side, side, channels), np.uint8)


IMAGES, LABELS = pictures(60), np.arange(60) % 3


def write(folder, images=IMAGES, labels=LABELS, parts=("train", "test"), form="{}_{}"):
    folder.mkdir(exist_ok=True)
    for part in parts:
        np.save(folder / f"{form.format(part, 'images')}.npy", images)
        np.save(folder / f"{form.format(part, 'labels')}.npy", labels)
    return folder


@pytest.fixture(scope="module")
def both(tmp_path_factory):
    """The same data in memory and as a memory map."""
    folder = write(tmp_path_factory.mktemp("map"))
    return ImageData.from_arrays(IMAGES, LABELS), load(f"npy:{folder}", validation="test").train


def on_disk(data):
    assert isinstance(data.images, Rows)
    return data


def assert_equal(one, other):
    np.testing.assert_array_equal(one.images, np.asarray(other.images))
    np.testing.assert_array_equal(one.labels, other.labels)
    assert one.fingerprint() == other.fingerprint()


# Views


@settings(deadline=None)  # what is read for the first time comes from the disk
@given(data=st.data())
def test_views_of_views_are_what_copies_of_copies_are(both, data):
    memory, mapped = both
    for _ in range(data.draw(st.integers(1, 3))):
        places = data.draw(st.lists(st.integers(0, len(memory) - 1), min_size=1, max_size=len(memory)))
        memory, mapped = memory.subset(places), mapped.subset(places)
        n = data.draw(st.integers(1, len(memory)))
        memory, mapped = memory.head(n), mapped.head(n)
    assert_equal(memory, on_disk(mapped))
    assert mapped.images.shape == memory.images.shape
    np.testing.assert_array_equal(mapped.images[0], memory.images[0])
    np.testing.assert_array_equal(mapped.images[1:3], memory.images[1:3])


def test_a_map_is_held_out_and_batched_as_memory_is(both):
    memory, mapped = both
    for one, other in zip(hold_out(memory, 0.2), hold_out(mapped, 0.2), strict=True):
        assert_equal(one, on_disk(other))
    pairs = [
        (Batches(memory, 7, 1, "crop-flip"), Batches(mapped, 7, 1, "crop-flip")),
        (MixedBatches(memory, memory, 0.5, 8, 1), MixedBatches(mapped, mapped, 0.5, 8, 1)),
    ]
    drawn = [zip(one.epoch(2), other.epoch(2), strict=True) for one, other in pairs]
    for one, other in [
        *(pair for each in drawn for pair in each),
        *zip(in_order(memory, 9), in_order(mapped, 9), strict=True),
    ]:
        assert other.images.flags.writeable  # its own memory
        for ours, theirs in zip(one, other, strict=True):
            np.testing.assert_array_equal(ours, theirs)


def test_a_fingerprint_is_read_in_pieces(both, monkeypatch):
    memory, mapped = both
    whole = memory.fingerprint()
    monkeypatch.setattr("stcore.data.images.CHUNK", 7 * 6 * 6 * 3)
    assert [len(images) for images in mapped.chunks()] == [7] * 8 + [4]
    assert memory.fingerprint() == mapped.fingerprint() == whole
    monkeypatch.setattr("stcore.data.images.CHUNK", 1)  # less than an image
    assert mapped.fingerprint() == whole


def test_a_map_given_by_hand_stays_on_the_disk(tmp_path):
    mapped = np.load(write(tmp_path) / "train_images.npy", mmap_mode="r")
    assert_equal(ImageData.from_arrays(IMAGES, LABELS), on_disk(ImageData.from_arrays(mapped, LABELS)))
    np.save(tmp_path / "floats.npy", IMAGES / 255)
    floats = np.load(tmp_path / "floats.npy", mmap_mode="r")
    assert isinstance(ImageData.from_arrays(floats, LABELS).images, np.ndarray)  # rounded, so in memory


def test_rows_are_read_whole_only_when_asked(both):
    rows = both[1].images
    assert (len(rows), rows.ndim, rows.dtype) == (60, 4, np.uint8)
    np.testing.assert_array_equal(np.asarray(rows, np.float32), IMAGES.astype(np.float32))
    if np.lib.NumpyVersion(np.__version__) >= "2.0.0":
        with pytest.raises(ValueError, match="expected a copy to be allowed"):
            np.array(rows, copy=False)


# The format


@pytest.mark.parametrize("form", ["{}_{}", "{1}_{0}"])
def test_npy_folders_are_read(tmp_path, form):
    write(tmp_path, form=form)
    splits = load(f"npy:{tmp_path}", validation=6)
    assert [len(part) for part in (splits.train, splits.validation, splits.test)] == [54, 6, 60]
    write(tmp_path, pictures(9, 4), np.arange(9) % 3, ["validation"], form)
    np.save(tmp_path / "num_classes.npy", 5)
    own = load(f"npy:{tmp_path}")
    assert_equal(ImageData.from_arrays(pictures(9, 4), np.arange(9) % 3, 5), on_disk(own.validation))
    assert len(own.train) == 60


def test_grey_maps_need_no_channel_axis(tmp_path):
    write(tmp_path, IMAGES[..., 0])
    assert on_disk(load(f"npy:{tmp_path}").train).image_shape == (6, 6, 1)


def test_what_is_saved_is_read_back(tmp_path):
    names = ["a", "b", "c", "d"]
    data = ImageData.from_arrays(IMAGES, LABELS, 4, class_names=names)
    save_npy(tmp_path / "one", Splits(data, data.head(5), data.subset([3, 1])))
    found = load(f"npy:{tmp_path / 'one'}")
    save_npy(tmp_path / "two", found)  # from a map
    for splits in (found, load(f"npy:{tmp_path / 'two'}")):
        assert_equal(data, on_disk(splits.train))
        assert_equal(data.head(5), splits.validation)
        assert_equal(data.subset([3, 1]), splits.test)
        assert splits.train.class_names == tuple(names)
    with pytest.raises(UsageError, match="two: expected a new or empty folder, received one with files"):
        save_npy(tmp_path / "two", found)


def test_any_set_is_converted_and_trains_alike(tmp_path):
    """The run on the map of the digits has the figures of the run on the digits."""
    pytest.importorskip("torch")
    assert stcli("data", "convert", "digits", f"npy:{tmp_path / 'map'}").code == 0
    results = []
    for name, dataset in (("memory", "digits"), ("mapped", f"npy:{tmp_path / 'map'}")):
        said = train(tmp_path / name, "--preset", "digits", model="tiny", dataset=dataset, attacks="fgsm")
        assert said.code == 0, said.err
        rows = (tmp_path / name / "metrics.jsonl").read_text()
        results.append([field for field in rows.split(", ") if "second" not in field])
    assert results[0] == results[1]
    evaluated = stcli(
        "evaluate", tmp_path / "mapped", "--attacks", "apgd-ce", "--subset", "4:12", "--batch-size", 8
    )
    assert evaluated.code == 0, evaluated.err
    wrong = stcli("data", "convert", "digits", tmp_path / "other")
    assert (wrong.code, "expected npy:DIR" in wrong.err) == (2, True)


@pytest.mark.parametrize("array", ["images", "labels"])
def test_broken_npy_is_refused(tmp_path, array):
    path = write(tmp_path) / f"train_{array}.npy"
    whole, mark = path.read_bytes(), tmp_path / "was_here"
    np.savez(tmp_path / "archive.npz", IMAGES)
    objects = tmp_path / "objects.npy"
    np.save(objects, np.array([Calls(os.system, f"touch {mark}")], object), allow_pickle=True)
    broken = {
        "empty": b"",
        "no header": whole[:20],
        "truncated": whole[:-1],
        "a page": b"<!DOCTYPE html><html>",
        "an archive": (tmp_path / "archive.npz").read_bytes(),
        "a pickle": pickle.dumps(Calls(os.system, f"touch {mark}")),
        "objects": objects.read_bytes(),
    }
    for raw in broken.values():
        path.write_bytes(raw)
        with pytest.raises(
            DataError, match=rf"train_{array}.npy: expected a whole npy file of numbers or text, rec"
        ):
            load(f"npy:{tmp_path}")
    assert not mark.exists()
    with pytest.raises(ValueError, match="allow_pickle"):
        np.load(objects)
    np.load(objects, allow_pickle=True)
    assert mark.exists()  # it would have run


@pytest.mark.parametrize(
    ("images", "labels", "message"),
    [
        (
            IMAGES / 255,
            LABELS,
            "train_images.npy: expected images as uint8 .* received float64; save them as uint8",
        ),
        (IMAGES, LABELS[:-1], "train of .*: expected one label per image, received 59 labels for 60 images"),
        (IMAGES, LABELS / 2, "expected integer labels, received float64"),
        (IMAGES, LABELS - 1, r"expected labels in \[0, 2\), received -1 at position 0"),
        (IMAGES.reshape(60, -1), LABELS, r"expected images of shape .* received shape \(60, 108\)"),
        (IMAGES.transpose(0, 3, 1, 2), LABELS, "expected channels last"),
    ],
)
def test_npy_that_does_not_fit_is_refused(tmp_path, images, labels, message):
    with pytest.raises(DataError, match=message):
        load(f"npy:{write(tmp_path, images, labels)}")


def test_missing_npy_is_refused(tmp_path):
    with pytest.raises(DataError, match=r"expected a folder with train_images.npy, .* received .*nowhere'; check"):
        load(f"npy:{tmp_path / 'nowhere'}")
    write(tmp_path, parts=["train"])
    with pytest.raises(
        DataError, match=r"expected x_test, received train_images, train_labels; add it, or rename"
    ):
        load(f"npy:{tmp_path}")
    (tmp_path / "train_labels.npy").unlink()
    write(tmp_path, parts=["test"])
    with pytest.raises(
        DataError, match=r"train of .*: expected an array of labels named labels or label or y, rece"
    ):
        load(f"npy:{tmp_path}")


# Larger than memory

SIZE = 1 << 30  # bytes of the map
ROOM = 1 << 28  # bytes that the process may take beyond what it has when its network is built

PROGRAM = """
import itertools, re, resource, sys
import numpy as np
import torch
import stcore
from stcore.data import Batches, load
from stcore.models import build

torch.set_num_threads(1)
folder, room = sys.argv[1], int(sys.argv[2])
model = build("tiny", "torch", num_classes=3, in_channels=3, image_size=(32, 32))
learner = stcore.make_learner(model, torch.optim.SGD(model.parameters(), lr=0.1))
config = stcore.SqueezeConfig(steps=1)

def steps(data, count):
    for batch in itertools.islice(Batches(data, 64, 0, "crop-flip").epoch(0), count):
        x = learner.images(batch.images)
        stcore.train_step(learner, config, x, learner.labels(batch.labels), rng=np.random.default_rng(0))

steps(load("npy:" + folder, validation="test").test, 1)  # what the first step takes for itself, it has now
taken = int(re.search(r"VmData:\\s+(\\d+) kB", open("/proc/self/status").read())[1]) << 10
resource.setrlimit(resource.RLIMIT_DATA, (taken + room, taken + room))

splits = load("npy:" + folder)
assert splits.train.images.shape[0] * 3072 > taken + room, "the map fits"
print("held out", len(splits.train), len(splits.validation))
print("fingerprint", splits.train.fingerprint())
steps(splits.train, 4)
print("trained")
try:
    np.asarray(splits.train.images)
except MemoryError:
    print("does not fit")
"""


@pytest.mark.slow  # seven seconds of writing and reading what does not fit
@pytest.mark.skipif(
    not sys.platform.startswith("linux"), reason="RLIMIT_DATA counts maps of memory on Linux alone"
)
def test_a_set_larger_than_memory_trains(tmp_path):
    """Under ulimit -d; read whole, it does not fit, by the same process's word."""
    pytest.importorskip("torch")
    count = SIZE // 3072
    images = np.lib.format.open_memmap(tmp_path / "train_images.npy", "w+", np.uint8, (count, 32, 32, 3))
    images[::1000] = pictures(1, side=32)  # the rest of the file takes no place on the disk
    del images
    np.save(tmp_path / "train_labels.npy", np.arange(count) % 3)
    write(tmp_path, pictures(64, side=32), np.arange(64) % 3, ["test"])
    run = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(tmp_path), str(ROOM)],
        capture_output=True,
        text=True,
        timeout=120,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert run.returncode == 0, run.stderr
    said = run.stdout.splitlines()
    assert said[0] == f"held out {count - round(0.02 * count)} {round(0.02 * count)}"
    assert [line.partition(" ")[0] for line in said[1:]] == ["fingerprint", "trained", "does"]
