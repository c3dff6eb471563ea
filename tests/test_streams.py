"""Streams of tar shards: what is read, in which order, how an epoch goes on, and every shard that is refused."""

import io
import json
import os
import pickle
import tarfile
import threading
import time
from contextlib import closing, contextmanager
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from small import stcli
from test_data import encoded
from test_readers import Calls

from stcore.base.ahead import NAME
from stcore.data import Batches, ImageData, Splits, StreamBatches, StreamData, load, load_stream
from stcore.data.augment import AUGMENT
from stcore.data.streams import tar
from stcore.data.streams.batches import buffered, default_workers
from stcore.data.streams.index import INDEX
from stcore.errors import DataError, UsageError
from stcore.training.trainer import Trainer

EACH, SHARDS = 10, 5
TOTAL = EACH * SHARDS
IMAGES = np.random.default_rng(0).integers(0, 256, (TOTAL, 6, 5, 3), np.uint8)
LABELS = np.arange(TOTAL) * 7 % 4


def npy(image):
    stream = io.BytesIO()
    np.save(stream, image)
    return stream.getvalue()


def members(numbers, form="png"):
    """(name, content) of each member of a shard."""
    for number in numbers:
        image = IMAGES[number]
        yield f"{number:06d}.{form}", npy(image) if form == "npy" else encoded(image, "PNG")
        yield f"{number:06d}.cls", str(LABELS[number]).encode()


def write_tar(path, content):
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as tar:
        for name, raw in content:
            member = name if isinstance(name, tarfile.TarInfo) else tarfile.TarInfo(name)
            member.size = len(raw)
            tar.addfile(member, io.BytesIO(raw))
    return path


def write(folder, form="png", parts=("train", "test"), named="{}-{:06d}.tar"):
    for part in parts:
        for shard in range(SHARDS if part == "train" else 1):
            write_tar(folder / named.format(part, shard), members(range(shard * EACH, (shard + 1) * EACH), form))
    return folder


WHOLE = ImageData.from_arrays(IMAGES, LABELS)


@pytest.fixture(scope="module")
def train(tmp_path_factory):
    return load_stream(write(tmp_path_factory.mktemp("stream"))).train


def joined(batches, epoch=0, **settings):
    """A whole epoch: images, labels, positions."""
    return [np.concatenate(parts) for parts in zip(*batches.epoch(epoch, **settings), strict=True)]


def places(images):
    """Where each of the images stands in `IMAGES`."""
    known = {image.tobytes(): place for place, image in enumerate(IMAGES)}
    return np.array([known[image.tobytes()] for image in images])


# Reading


@pytest.mark.parametrize("form", ["png", "npy", "PNG"])
@pytest.mark.parametrize("named", ["{}-{:06d}.tar", "{}-{:05d}.tar", "data/{}-{}.tar"])
def test_streams_are_read(tmp_path, form, named):
    splits = load(f"stream:{write(tmp_path, form, ('train', 'validation', 'test'), named)}")
    assert (len(splits.train), splits.train.image_shape, splits.train.num_classes) == (TOTAL, (6, 5, 3), 4)
    np.testing.assert_array_equal(splits.train.class_counts(), np.bincount(LABELS))
    written = ImageData.from_arrays(IMAGES[:EACH], LABELS[:EACH], 4).fingerprint()
    assert splits.validation.fingerprint() == splits.test.fingerprint() == written
    images, labels, positions = joined(StreamBatches(splits.train, 8, 0))
    found = places(images)
    np.testing.assert_array_equal(np.sort(found), np.arange(TOTAL))
    np.testing.assert_array_equal(labels, LABELS[found])
    np.testing.assert_array_equal(positions, np.arange(TOTAL))


@pytest.mark.parametrize("form", ["png", "npy"])
def test_put_in_order_a_stream_is_the_data_it_was_written_from(tmp_path, form):
    images, labels, _ = joined(StreamBatches(load_stream(write(tmp_path, form)).train, 8, 0))
    order = np.argsort(places(images))
    images, labels = images[order], labels[order]
    assert ImageData.from_arrays(images, labels, 4).fingerprint() == WHOLE.fingerprint()


def test_without_validation_shards_there_is_nothing_to_choose_on(tmp_path):
    write(tmp_path)
    splits = load(f"stream:{tmp_path}")
    assert isinstance(splits, Splits)
    assert splits.validation is None
    assert load(f"stream:{tmp_path}", validation="test", test_size=3).validation is not None
    for option in ({"validation": 10}, {"train_size": 10}, {"validation_size": 3}):
        with pytest.raises(UsageError, match=r"expected no .*stream|expected no validation_size"):
            load(f"stream:{tmp_path}", **option)


def test_class_names_may_stand_beside_the_shards(tmp_path):
    (write(tmp_path) / "classnames.txt").write_text("ant\nbee\ncat\ndog\neel\n")
    train = load_stream(tmp_path).train
    assert (train.num_classes, train.class_names[4]) == (5, "eel")
    (tmp_path / "classnames.txt").write_text("ant\nbee\ncat\n")
    with pytest.raises(
        DataError, match=r"train-00000\d.tar 0000\d\d.cls: expected a label in \[0, 3\), .* received 3"
    ):
        load_stream(tmp_path)


def test_images_of_many_sizes_are_resized(tmp_path):
    write(tmp_path, parts=["test"])
    odd = [("a.png", encoded(IMAGES[0])), ("a.cls", b"0"), ("b.npy", npy(IMAGES[1, :4])), ("b.cls", b"1")]
    grey = [("c.npy", npy(IMAGES[2, ..., 0])), ("c.cls", b"2")]
    write_tar(tmp_path / "train-000000.tar", odd + grey)
    with pytest.raises(
        DataError, match=r"train-000000.tar b.npy: expected an image of shape \(6, 5, 3\), .* received \(4, 5, 3\)"
    ):
        joined(StreamBatches(load_stream(tmp_path).train, 3, 0))
    splits = load(f"stream:{tmp_path}", image_size=4)
    images, labels, _ = joined(StreamBatches(splits.train, 3, 0))
    assert images.shape == (3, 4, 4, 3)
    (grey,) = images[labels == 2]
    np.testing.assert_array_equal(grey[..., 0], grey[..., 2])
    assert splits.test.image_shape == (4, 4, 3)


def test_info_describes_a_stream(tmp_path):
    said = stcli("data", "info", f"stream:{write(tmp_path)}", "--json")
    found = json.loads(said.out)
    assert list(found) == ["train", "test"]
    assert (found["train"]["images"], found["train"]["class_counts"]) == (TOTAL, np.bincount(LABELS).tolist())
    refused = stcli("data", "convert", f"stream:{tmp_path}", f"npy:{tmp_path / 'map'}")
    assert (refused.code, "received a stream" in refused.err) == (2, True)


def test_a_stream_trains_and_needs_something_to_choose_on(tmp_path):
    pytest.importorskip("torch")
    write(tmp_path / "data")
    command = ["train", "--dataset", f"stream:{tmp_path / 'data'}", "--model", "tiny", "--epochs", 2]
    command += ["--batch-size", 16, "--eval-epsilon", "8/255", "--attacks", "fgsm"]
    refused = stcli(*command, "--out", tmp_path / "none")
    assert (refused.code, "expected validation shards" in refused.err) == (3, True)
    write(tmp_path / "data", parts=["validation"])
    losses = []
    for out, workers in (("one", 0), ("two", 2)):
        said = stcli(*command, "--decode-workers", workers, "--out", tmp_path / out)
        assert said.code == 0, said.err
        rows = [json.loads(row) for row in (tmp_path / out / "metrics.jsonl").read_text().splitlines()]
        losses.append([row["loss"] for row in rows])
    assert len(losses[0]) == 2
    assert losses[0] == losses[1]
    data = json.loads((tmp_path / "one" / "environment.json").read_text())["data"]
    assert data["train"] == {"images": TOTAL, "sha256": load_stream(tmp_path / "data").train.fingerprint()}


# The index


def test_shards_are_read_once_and_then_known(tmp_path, monkeypatch):
    before = load_stream(write(tmp_path)).train.fingerprint()
    assert (tmp_path / INDEX).is_file()
    read = []
    whole = tar.read_labels
    monkeypatch.setattr(
        "stcore.data.streams.index.read_labels", lambda path: read.append(path.name) or whole(path)
    )
    assert load_stream(tmp_path).train.fingerprint() == before
    assert read == []
    changed = write_tar(tmp_path / "train-000003.tar", members(range(4)))
    assert len(load_stream(tmp_path).train) == TOTAL - EACH + 4
    assert read == [changed.name]
    assert load_stream(tmp_path).train.fingerprint() != before


@pytest.mark.parametrize("raw", [b"", b"{}", b"[1]", b"[{}]", b"<html>", b'[{"name": "../x", "labels": []}]'])
def test_a_damaged_index_is_made_again(tmp_path, raw):
    before = load_stream(write(tmp_path)).train.fingerprint()
    good = (tmp_path / INDEX).read_bytes()
    (tmp_path / INDEX).write_bytes(raw)
    assert load_stream(tmp_path).train.fingerprint() == before
    assert (tmp_path / INDEX).read_bytes() == good


def test_a_folder_that_cannot_be_written_is_read_all_the_same(tmp_path, monkeypatch):
    write(tmp_path)
    monkeypatch.setattr(
        "stcore.base.files.os.replace", lambda *_: (_ for _ in ()).throw(PermissionError(13, "denied"))
    )
    assert len(load_stream(tmp_path).train) == TOTAL
    assert not [path for path in tmp_path.iterdir() if path.suffix != ".tar"]


def test_the_fingerprint_is_of_the_content(tmp_path):
    prints = [load_stream(write(tmp_path / name)).train.fingerprint() for name in ("one", "two")]
    assert prints[0] == prints[1]
    content = dict(members(range(EACH)))
    content["000003.png"] = encoded(IMAGES[3] ^ 1)
    write_tar(tmp_path / "two" / "train-000000.tar", content.items())
    assert load_stream(tmp_path / "two").train.fingerprint() != prints[0]


# Epochs


@given(total=st.integers(0, 200), size=st.integers(1, 250), seed=st.integers(0, 99))
def test_a_shuffle_buffer_gives_each_out_once_and_none_before_it_came(total, size, seed):
    order = buffered(total, size, np.random.default_rng(seed))
    np.testing.assert_array_equal(np.sort(order), np.arange(total))
    assert (order < np.arange(total) + size).all()  # at most `size` are held


def test_a_shuffle_buffer_mixes_as_far_as_its_size():
    order = buffered(20_000, 500, np.random.default_rng(0))
    late = np.arange(20_000) - order  # of a buffer of B: geometric with mean about B, less the B it reads ahead
    assert abs(np.abs(late[2_000:-2_000]).mean() / 500 - 0.74) < 0.1  # E|X - 1| = 2/e, X exponential with mean 1


def test_an_order_depends_on_seed_and_epoch_alone(train):
    def order(seed, epoch, **settings):
        return tuple(places(joined(StreamBatches(train, 8, seed, **{"buffer": 6, **settings}), epoch)[0]))

    assert order(1, 0) == order(1, 0)
    assert order(1, 0) == tuple(places(joined(StreamBatches(train, 13, 1, buffer=6))[0]))  # for any batch size
    assert len({order(1, 0), order(1, 1), order(2, 0), order(1, 0, buffer=9)}) == 4
    assert len({order(0, epoch, buffer=1)[0] // EACH for epoch in range(20)}) > 2  # shards too


@pytest.mark.parametrize("augment", AUGMENT)
@pytest.mark.parametrize("buffer", [1, 7, 23, 100])
@pytest.mark.parametrize("batch_size", [7, 8, 50])
def test_an_epoch_resumes_at_a_batch(train, augment, buffer, batch_size):
    batches = StreamBatches(train, batch_size, 3, augment, buffer)
    whole = list(StreamBatches(train, batch_size, 3, augment, buffer, workers=0).epoch(2))
    sizes = [len(batch.labels) for batch in whole]
    assert sizes == [len(batch.labels) for batch in Batches(WHOLE, batch_size, 0).epoch(0)]
    assert (len(batches), batches.examples) == (len(whole), sum(sizes))
    for start in range(len(whole) + 1):
        for ours, theirs in zip(batches.epoch(2, start=start), whole[start:], strict=True):
            for one, other in zip(ours, theirs, strict=True):
                np.testing.assert_array_equal(one, other)


def test_what_was_passed_is_neither_opened_nor_decoded(train, monkeypatch):
    opened, decoded = [], []
    read, decode = tar._opened, tar.decode_one
    monkeypatch.setattr(tar, "_opened", lambda path: opened.append(path) or read(path))
    monkeypatch.setattr(tar, "decode_one", lambda *given: decoded.append(given[0]) or decode(*given))
    batches = StreamBatches(train, 5, 0, buffer=3, workers=0)
    rest = joined(batches, 1, start=8)[0]
    assert len(rest) == len(decoded) == 10
    assert len(set(opened)) < SHARDS  # of 50 the last 10, and with them at most 3 that came before
    decoded.clear()
    first = next(iter(batches.epoch(1)))
    assert len(first.images) == len(decoded) == 5


def test_no_more_is_held_than_the_buffer(train, monkeypatch):
    """Counted as samples that were read and not decoded yet."""
    alive, most = 0, 0
    sample, pixels = tar.Sample, tar.Sample.pixels

    def read(*given):
        nonlocal alive, most
        alive += 1
        most = max(most, alive)
        return sample(*given)

    def decode(self, size):
        nonlocal alive
        alive -= 1
        return pixels(self, size)

    monkeypatch.setattr(tar, "Sample", read)
    monkeypatch.setattr(sample, "pixels", decode)
    joined(StreamBatches(train, 5, 0, buffer=12, workers=0))
    assert 12 <= most <= 12 + 5  # and the batch that is being put together


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"batch_size": 0}, "expected a batch size of at least 1, received 0"),
        ({"augment": "cutmix"}, "expected augment to be one of none, flip, crop-flip, crop-flip-cutout"),
        ({"buffer": 0}, "expected a shuffle buffer of at least 1 image, received 0"),
        ({"workers": -1}, "workers: expected a whole number of at least 0; received -1"),
    ],
)
def test_batches_that_cannot_be_are_refused(train, settings, message):
    with pytest.raises(UsageError, match=message):
        StreamBatches(train, **{"batch_size": 2, "seed": 0, **settings})


# Work ahead


def alive():
    return [thread for thread in threading.enumerate() if thread.name.startswith(NAME)]


@given(
    workers=st.sampled_from([1, 3]),
    batch_size=st.integers(1, TOTAL),
    buffer=st.integers(1, 60),
    epoch=st.integers(0, 9),
    data=st.data(),
)
@settings(max_examples=30)
def test_batches_are_the_same_for_any_number_of_workers(train, workers, batch_size, buffer, epoch, data):
    own = StreamBatches(train, batch_size, 1, "crop-flip", buffer, workers=0)
    start = data.draw(st.integers(0, len(own)))
    ahead = replace(own, workers=workers).epoch(epoch, start=start)
    for ours, theirs in zip(ahead, own.epoch(epoch, start=start), strict=True):
        for one, other in zip(ours, theirs, strict=True):
            np.testing.assert_array_equal(one, other)
    assert not alive()


@pytest.mark.parametrize("workers", [1, 3])
def test_a_batch_for_each_worker_and_one_more_is_decoded_ahead(train, monkeypatch, workers):
    decoded, pixels = [], StreamData.pixels
    monkeypatch.setattr(StreamData, "pixels", lambda *given: decoded.append(1) or pixels(*given))
    with closing(StreamBatches(train, 5, 0, workers=workers).epoch(0)) as batches:
        for given in (5, 10, 15):
            next(batches)
            until = time.monotonic() + 10
            while len(decoded) < given + 5 * (workers + 1) and time.monotonic() < until:
                time.sleep(0.001)
            time.sleep(0.01)
            assert len(decoded) == given + 5 * (workers + 1)


@pytest.mark.parametrize("broken", [0, 7, 23, TOTAL - 1])
def test_a_broken_image_is_reported_when_its_turn_comes(tmp_path, broken):
    """Not when a worker meets it: the batches before its own are given out."""
    sound = StreamBatches(load_stream(write(tmp_path)).train, 4, 0, buffer=9, workers=0)
    place = int(places(joined(sound)[0])[broken])
    shard = place // EACH
    content = dict(members(range(shard * EACH, (shard + 1) * EACH)))
    content[f"{place:06d}.png"] = b"<html>"
    write_tar(tmp_path / f"train-{shard:06d}.tar", content.items())
    for workers in (0, 1, 3):
        batches = replace(sound, workers=workers).epoch(0)
        for _ in range(broken // 4):
            next(batches)
        with pytest.raises(DataError, match=rf"{place:06d}.png: expected an image in one of"):
            next(batches)
        assert not alive()


@pytest.mark.parametrize("workers", [0, 3])
def test_an_epoch_that_is_left_early_leaves_neither_threads_nor_open_files(tmp_path, monkeypatch, workers):
    for part in ("train", "test"):  # one shard: whatever the threads have read ahead, it is open
        write_tar(tmp_path / f"{part}-000000.tar", members(range(TOTAL)))
    train = load_stream(tmp_path).train
    files, opened = [], tar._opened

    @contextmanager
    def counted(path):
        with opened(path) as file:
            files.append(path)
            try:
                yield file
            finally:
                files.remove(path)

    monkeypatch.setattr(tar, "_opened", counted)
    with closing(StreamBatches(train, 3, 0, buffer=4, workers=workers).epoch(0)) as batches:
        next(batches)
        assert (len(alive()), len(files)) == (workers, 1)
    assert (alive(), files) == ([], [])


def test_training_that_is_interrupted_ends_its_workers(tmp_path, monkeypatch):
    pytest.importorskip("torch")
    write(tmp_path / "data", parts=("train", "validation", "test"))
    command = ["train", "--dataset", f"stream:{tmp_path / 'data'}", "--model", "tiny", "--epochs", 1]
    command += ["--batch-size", 8, "--eval-epsilon", "8/255", "--attacks", "fgsm", "--steps", 1]
    kept, placed = [], Trainer._placed

    def interrupted(trainer, part):
        assert len(alive()) == 3  # the third draws the noise
        if trainer._under_way.steps:
            kept.append(KeyboardInterrupt())  # with its traceback, which holds the loop
            raise kept[0]
        return placed(trainer, part)

    monkeypatch.setattr(Trainer, "_placed", interrupted)
    assert stcli(*command, "--decode-workers", 2, "--out", tmp_path / "stopped").code == 130
    assert kept
    assert not alive()


def test_decode_workers_are_for_streams():
    said = stcli("train", "--decode-workers", 2, "--epochs", 1)
    assert said.code == 2
    assert (
        "decode_workers: expected none for digits, whose images are decoded before training; received 2"
        in said.err
    )


@pytest.mark.parametrize(("cores", "ranks", "workers"), [(1, 1, 1), (2, 1, 2), (64, 1, 4), (8, 4, 2), (4, 8, 1)])
def test_there_is_a_decode_worker_for_each_core_of_a_rank(monkeypatch, cores, ranks, workers):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: range(cores), raising=False)
    monkeypatch.setenv("LOCAL_WORLD_SIZE", str(ranks))
    assert default_workers() == workers


# What is refused


def test_missing_shards_are_named(tmp_path):
    with pytest.raises(DataError, match=r"expected a folder of tar files, received .*nowhere'; check the path"):
        load(f"stream:{tmp_path / 'nowhere'}")
    (write(tmp_path) / "train-000002.tar").unlink()
    with pytest.raises(DataError, match="shards of train to be numbered without a gap, received none numbered 2"):
        load_stream(tmp_path)
    (write(tmp_path) / "test-000000.tar").unlink()
    with pytest.raises(DataError, match=r"expected test-\*.tar here or in data/, received stcore|received train"):
        load_stream(tmp_path)
    of = write(tmp_path / "of", named="{}-{:05d}-of-00005.tar")
    (of / "test-00000-of-00005.tar").rename(of / "test-00000-of-00001.tar")
    assert len(load_stream(of).train) == TOTAL
    (of / "train-00004-of-00005.tar").unlink()
    with pytest.raises(DataError, match=r"expected 5 shards of train, received 4: train-00000-of-00005.tar"):
        load_stream(of)


@settings(deadline=None, max_examples=40)  # each writes files
@given(data=st.data())
def test_a_truncated_shard_is_refused(tmp_path_factory, data):
    """Also where a member ends, which tar readers take for the end."""
    folder = write(tmp_path_factory.mktemp("cut"), "npy")
    path = folder / data.draw(st.sampled_from(["train-000003.tar", "test-000000.tar"]))
    whole = path.read_bytes()
    with tarfile.open(path) as tar:
        last = tar.getmembers()[-1]
    end = last.offset_data + 512  # the labels are shorter than a block
    block = data.draw(st.integers(0, end // 512))
    for length in {512 * block, data.draw(st.integers(0, end))}:
        path.write_bytes(whole[:length])
        with pytest.raises(DataError, match=rf"{path.name}.*: expected (a whole|one image and one label)"):
            load_stream(folder)


def test_what_is_no_tar_is_refused(tmp_path):
    path = write(tmp_path) / "train-000001.tar"
    whole = path.read_bytes()
    compressed = io.BytesIO()
    with tarfile.open(fileobj=compressed, mode="w:gz") as tar:
        tar.addfile(tarfile.TarInfo("a.cls"))
    for raw in (b"<!DOCTYPE html><html>" * 100, b"", compressed.getvalue(), pickle.dumps({"a": 1})):
        path.write_bytes(raw)
        with pytest.raises(
            DataError, match=r"train-000001.tar: expected a whole, plain tar file, received: .*; fe"
        ):
            load_stream(tmp_path)
    damaged = bytearray(whole)
    with tarfile.open(fileobj=io.BytesIO(whole)) as tar:
        damaged[tar.getmembers()[6].offset] ^= 255  # a header in the middle, which tar readers take for the end
    path.write_bytes(damaged)
    with pytest.raises(
        DataError, match=r"train-000001.tar: expected a whole tar file, .* breaks off after 000012"
    ):
        load_stream(tmp_path)


def link(name):
    member = tarfile.TarInfo(name)
    member.type, member.linkname = tarfile.SYMTYPE, "/etc/passwd"
    return member


PNG = encoded(IMAGES[0])
GOOD = [("a.png", PNG), ("a.cls", b"0"), ("b.png", PNG), ("b.cls", b"1")]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([*GOOD, ("c.json", b"{}")], "train-000000.tar c.json: expected KEY.cls and KEY.png, .* received this"),
        ([*GOOD, ("c", b"")], "train-000000.tar c: expected KEY.cls and KEY.png"),
        ([*GOOD, (link("c.png"), b""), ("c.cls", b"0")], "train-000000.tar c.png: expected KEY.cls and KEY.png"),
        ([*GOOD, ("c.png", PNG)], "train-000000.tar c.png: expected one image and one label under this key"),
        ([*GOOD, ("c.cls", b"0")], "train-000000.tar c.cls: expected one image and one label under this key"),
        ([("c.png", PNG), *GOOD], "train-000000.tar c.png: expected one image and one label under this key"),
        ([("c.png", PNG), ("c.jpg", PNG)], "train-000000.tar c.jpg: expected one image and one label under"),
        ([("c.png", PNG), ("d/c.cls", b"0")], "train-000000.tar c.png: expected one image and one label under"),
        ([*GOOD, ("c.png", PNG), ("c.cls", b"-1")], "train-000000.tar c.cls: expected a label as a whole .* '-1'"),
        ([*GOOD, ("c.png", PNG), ("c.cls", b"cat")], "c.cls: expected a label as a whole number from 0, .* 'cat'"),
        ([*GOOD, ("c.png", PNG), ("c.cls", b"9" * 9)], "c.cls: expected a label as a whole number from 0"),
        ([*GOOD, ("c.png", PNG), ("c.cls", b"9" * 99)], "c.cls: expected .* received 'more than a number'"),
        ([*GOOD, ("c.png", PNG), ("c.cls", "²".encode())], "c.cls: expected a label as a whole number from 0"),
        ([], "train of .*: expected at least one image, received empty shards"),
        ([("a.png", PNG), ("a.cls", b"0")], None),
    ],
)
def test_samples_that_are_none_are_refused(tmp_path, content, message):
    write(tmp_path, parts=["test"])
    write_tar(tmp_path / "train-000000.tar", content)
    if message is None:
        assert len(load_stream(tmp_path).train) == 1
        return
    with pytest.raises(DataError, match=message):
        load_stream(tmp_path)


@pytest.mark.parametrize("name", ["b.png", "b.npy"])
def test_an_image_that_cannot_be_decoded_is_named_when_its_turn_comes(tmp_path, name):
    write(tmp_path, parts=["test"])
    mark = tmp_path / "was_here"
    objects = io.BytesIO()
    np.save(objects, np.array([Calls(os.system, f"touch {mark}")], object), allow_pickle=True)
    for raw in (PNG[:40], b"<html>", b"", npy(IMAGES[0] / 255), npy(np.zeros(9, np.uint8)), objects.getvalue()):
        write_tar(tmp_path / "train-000000.tar", [*GOOD[:2], (name, raw), ("b.cls", b"1")])
        with pytest.raises(DataError, match=rf"train-000000.tar {name}: expected "):
            joined(StreamBatches(load_stream(tmp_path).train, 2, 0))
    assert not mark.exists()
    objects.seek(0)
    np.load(objects, allow_pickle=True)
    assert mark.exists()  # it would have run


def test_a_shard_that_changes_under_way_is_noticed(tmp_path):
    train = load_stream(write(tmp_path)).train
    write_tar(tmp_path / "train-000002.tar", members(range(4)))
    with pytest.raises(
        DataError, match=r"train-000002.tar: expected 10 samples, as when it was indexed, received 4"
    ):
        joined(StreamBatches(train, 8, 0))
