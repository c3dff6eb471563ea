"""The cache of decoded images: what is decoded again, and when; what is shared, limited and removed."""

import json
import multiprocessing
import os
import shutil
import time
import warnings

import numpy as np
import pytest
from small import stcli, words
from test_data import encoded, write
from test_more_readers import PARTS, folder_of, parquet_of, write_folder

from stcore.base.weights_file import load_weights
from stcore.data import cache, decoding, load
from stcore.data.readers.shards import Known
from stcore.data.readers.sources import load_test
from stcore.data.rows import Rows
from stcore.errors import BrokenImageWarning, CacheWarning, DataError, UsageError

pytest.importorskip("pyarrow")


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """An empty cache of its own."""
    monkeypatch.setenv(cache.FOLDER, str(tmp_path / "cache"))
    monkeypatch.delenv(cache.LIMIT, raising=False)
    return tmp_path / "cache"


@pytest.fixture
def decoded(monkeypatch):
    """The origins of the images that are decoded."""
    origins, decode_one = [], decoding.decode_one
    monkeypatch.setattr(
        decoding, "decode_one", lambda where, *rest: origins.append(where) or decode_one(where, *rest)
    )
    return origins


def new(path):
    path.mkdir()
    return path


def counted(decoded, *args, **options):
    """A data set, and how many of its images were decoded."""
    decoded.clear()
    return load(*args, **options), len(decoded)


def assert_same_splits(one, other):
    for part in ("train", "validation", "test"):
        a, b = getattr(one, part), getattr(other, part)
        assert a.fingerprint() == b.fingerprint()
        assert (a.class_names, a.num_classes, a.name) == (b.class_names, b.num_classes, b.name)


@pytest.mark.parametrize("made", [folder_of, parquet_of])
def test_a_set_is_decoded_once(made, tmp_path, folder, decoded, monkeypatch):
    spec = made(new(tmp_path / "set"), ())
    first, count = counted(decoded, spec)
    assert count == 18
    second, count = counted(decoded, spec)
    assert count == 0
    shutil.copytree(tmp_path / "set", tmp_path / "moved")
    _, count = counted(decoded, spec.replace(f"{tmp_path}/set", f"{tmp_path}/moved"))
    assert count == 0  # the same bytes elsewhere
    monkeypatch.setenv(cache.FOLDER, "off")
    without, count = counted(decoded, spec)
    assert count == 18
    assert_same_splits(first, second)
    assert_same_splits(first, without)
    for splits in (first, second, without):  # one kind of images, whatever the cache has
        assert isinstance(splits.train.images, Rows)
        np.testing.assert_array_equal(splits.test.images, without.test.images)


def test_the_hub_s_rows_are_decoded_once(tmp_path, folder, decoded):
    pytest.importorskip("datasets")
    import datasets

    for part, (images, labels) in PARTS.items():
        rows = {"image": [encoded(image) for image in images], "label": labels.tolist()}
        features = datasets.Features(
            {"image": datasets.Image(), "label": datasets.ClassLabel(names=["a", "b", "c"])}
        )
        (tmp_path / "hub").mkdir(exist_ok=True)
        rows["image"] = [{"bytes": raw, "path": None} for raw in rows["image"]]
        made = datasets.Dataset.from_dict(rows, features=features)
        made.to_parquet(tmp_path / "hub" / f"{part}-00000-of-00001.parquet")
    first, count = counted(decoded, f"hub:{tmp_path / 'hub'}")
    second, again = counted(decoded, f"hub:{tmp_path / 'hub'}")
    assert (count, again) == (18, 0)
    assert_same_splits(first, second)


def test_what_changes_the_pixels_is_decoded_again(tmp_path, folder, decoded, monkeypatch):
    spec = parquet_of(tmp_path, ())
    load(spec)
    assert counted(decoded, spec, image_size=4)[1] == 18
    assert counted(decoded, spec, image_size=4)[1] == 0
    assert counted(decoded, spec, skip_broken=True)[1] == 18
    assert counted(decoded, spec, columns=("img", "label"))[1] == 18
    assert counted(decoded, spec)[1] == 0
    monkeypatch.setattr(decoding, "RULE", decoding.RULE + 1)
    assert counted(decoded, spec)[1] == 18
    monkeypatch.setattr("PIL.features.version", lambda name: "0.0")
    assert counted(decoded, spec)[1] == 18


def test_a_changed_source_is_decoded_again(tmp_path, folder, decoded):
    """Also one of the same size and time."""
    spec = folder_of(tmp_path / "set", ())
    before = load(spec).train
    one, other = sorted((tmp_path / "set" / "train" / "cat").iterdir())[:2]
    kept, stat = one.read_bytes(), one.stat()
    one.write_bytes(other.read_bytes())
    os.utime(one, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    after, count = counted(decoded, spec)
    assert count == 12
    assert after.train.fingerprint() != before.fingerprint()
    one.write_bytes(kept)
    assert counted(decoded, spec)[1] == 0
    one.rename(tmp_path / "set" / "train" / "eel" / "z.png")  # of another class
    assert counted(decoded, spec)[1] == 12


def flip(path, at):
    raw = bytearray(path.read_bytes())
    raw[at] ^= 1
    path.write_bytes(raw)


DAMAGES = {
    "a pixel": lambda entry: flip(entry / "images.npy", -5),
    "a label": lambda entry: flip(entry / "labels.npy", -8),
    "a header": lambda entry: flip(entry / "images.npy", 20),
    "cut off": lambda entry: os.truncate(entry / "images.npy", 200),
    "empty": lambda entry: os.truncate(entry / "images.npy", 0),
    "no labels": lambda entry: (entry / "labels.npy").unlink(),
    "another checksum": lambda entry: flip(entry / "entry.json", 30),
    "another version's": lambda entry: (entry / "entry.json").write_text("{}"),
    "not JSON": lambda entry: (entry / "entry.json").write_text("<"),
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_a_damaged_entry_is_made_again(damage, tmp_path, folder, decoded):
    spec = parquet_of(tmp_path, ())
    before = load(spec, validation="test")
    assert before.train.fingerprint() != before.test.fingerprint()  # known from now on: their file is damaged
    for entry in folder.iterdir():
        damage(entry)
    with pytest.warns(CacheWarning, match=r"the decoded images of .* are damaged \(.*\): they are decoded again"):
        after, count = counted(decoded, spec, validation="test")
    assert count == 18
    assert_same_splits(before, after)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert counted(decoded, spec)[1] == 0


def test_broken_images_are_said_again_where_the_set_is_now(tmp_path, folder, decoded):
    spec = folder_of(tmp_path / "set", (1, 3, 4, 5))
    with pytest.warns(BrokenImageWarning) as first:
        before = load(spec, skip_broken=True)
    with pytest.warns(BrokenImageWarning) as second:
        after, count = counted(decoded, spec, skip_broken=True)
    assert count == 0
    assert str(first[0].message) == str(second[0].message)
    assert_same_splits(before, after)
    (tmp_path / "set").rename(tmp_path / "moved")
    moved = f"folder:{tmp_path / 'moved'}"
    with pytest.warns(BrokenImageWarning) as third:
        load(moved, skip_broken=True)
    assert str(third[0].message) == str(first[0].message).replace(f"{tmp_path}/set", f"{tmp_path}/moved")
    with pytest.raises(DataError):
        load(moved)
    assert len(list(folder.iterdir())) == 2  # nothing of the set that could not be read


def test_the_test_part_alone_is_shared_with_the_whole_set(tmp_path, folder, decoded):
    spec = parquet_of(tmp_path, ())
    alone = load_test(spec, Known(3, 3))
    assert len(decoded) == 6
    whole, count = counted(decoded, spec)
    assert count == 12
    assert whole.test.fingerprint() == alone.fingerprint()


def test_a_grey_part_beside_a_coloured_one(tmp_path, folder, decoded):
    spec = parquet_of(tmp_path, ())
    write(tmp_path / "test-0.parquet", [encoded(image[..., 0]) for image in PARTS["test"][0]], [0, 1, 2] * 2)
    first, second = load(spec), counted(decoded, spec)
    assert second[1] == 0
    assert first.test.image_shape == (6, 5, 3)
    assert_same_splits(first, second[0])


# Limits


def test_the_least_recently_used_go_first(tmp_path, folder, decoded, monkeypatch):
    spec = parquet_of(tmp_path, ())
    for number, side in enumerate((4, 5, 6)):
        load(spec, image_size=side)
        for entry in cache.entries(folder):
            if entry.shape[0] == side:
                os.utime(folder / entry.name / "entry.json", (number, number))
    load(spec, image_size=4)  # used again
    most = sum(entry.bytes for entry in cache.entries(folder))
    monkeypatch.setenv(cache.LIMIT, repr(most / 2**30))
    load(spec, image_size=7)
    kept = cache.entries(folder)
    sides = [entry.shape[0] for entry in kept]
    assert (sides.count(7), sides.count(4)) == (2, 2)
    assert sides.count(5) < 2
    assert sides.count(5) <= sides.count(6)
    assert sum(entry.bytes for entry in kept) <= most
    assert counted(decoded, spec, image_size=7)[1] == 0


def test_a_set_beyond_the_limit_is_not_kept(tmp_path, folder, monkeypatch):
    spec = parquet_of(tmp_path, ())
    monkeypatch.setenv(cache.LIMIT, "0.0000001")
    with pytest.warns(CacheWarning, match="takes .* GiB, more than STCLI_DATA_CACHE_GB"):
        load(spec)
    assert list(folder.iterdir()) == []
    monkeypatch.setenv(cache.LIMIT, "much")
    with pytest.raises(
        UsageError, match="STCLI_DATA_CACHE_GB: expected a number of GiB, such as 8; received 'much'"
    ):
        load(spec)


def test_what_a_killed_process_left_goes_and_nothing_else(tmp_path, folder):
    left, foreign = folder / ("0" * 64), folder / "photos"
    for path in (left, foreign):
        path.mkdir(parents=True)
        (path / ".images.npy.99999999.part").write_bytes(b"half")
    spec = parquet_of(tmp_path, ())
    load(spec)
    assert left.exists()  # somebody may be writing it
    for path in (left, foreign):
        os.utime(path, (0, 0))
    load(spec, image_size=4)
    assert not left.exists()
    assert len(list(foreign.iterdir())) == 1
    assert len(cache.entries(folder)) == 4


def test_a_mapped_entry_may_be_removed(tmp_path, folder):
    splits = load(parquet_of(tmp_path, ()), validation="test")
    for entry in cache.entries(folder):
        cache.remove(folder, entry.name)
    assert list(folder.iterdir()) == []
    np.testing.assert_array_equal(splits.train.images, PARTS["train"][0])


# Several processes, and none


def _read(spec, barrier, results):
    origins, decode_one = [], decoding.decode_one

    def slow(where, *rest):
        origins.append(where)
        time.sleep(0.005)
        return decode_one(where, *rest)

    decoding.decode_one = slow
    barrier.wait()
    results.put((load(spec).train.fingerprint(), len(origins)))


def together(work, spec, count):
    """What each of several processes finds, which begin at once."""
    context = multiprocessing.get_context("fork")
    barrier, results = context.Barrier(count), context.SimpleQueue()
    children = [context.Process(target=work, args=(spec, barrier, results)) for _ in range(count)]
    for child in children:
        child.start()
    for child in children:
        child.join(20)
    assert [child.exitcode for child in children] == [0] * count
    return [results.get() for _ in children]


def test_processes_that_begin_together_decode_once(tmp_path, folder):
    found = together(_read, parquet_of(tmp_path, ()), 3)
    assert len({digest for digest, _ in found}) == 1
    assert sum(count for _, count in found) == 18


def _write(spec, barrier, results):
    write_json = cache.write_json
    cache.write_json = lambda *given: barrier.wait(5) * 0 or write_json(*given)
    results.put(load(spec).train.fingerprint())


def test_without_locks_both_write_and_neither_breaks_the_other(tmp_path, folder, monkeypatch, decoded):
    """As on a file system that has none."""
    import fcntl

    def none(*given):
        raise OSError("no locks")

    monkeypatch.setattr(fcntl, "flock", none)
    spec = parquet_of(tmp_path, ())
    digests = together(_write, spec, 2)
    assert counted(decoded, spec)[1] == 0
    assert set(digests) == {load(spec).train.fingerprint()}


def test_a_cache_that_cannot_be_written_is_said_and_done_without(tmp_path, decoded, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setenv(cache.FOLDER, str(tmp_path / "file" / "cache"))
    spec = parquet_of(tmp_path, ())
    for _ in range(2):
        with pytest.warns(
            CacheWarning, match="not kept for the next run: .* cannot be written .* switch the cache off"
        ):
            _, count = counted(decoded, spec)
        assert count == 18


def test_a_full_disk_is_said_and_leaves_nothing(tmp_path, folder, monkeypatch):
    def full(*given):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(np, "save", full)
    with pytest.warns(CacheWarning, match=r"images.npy cannot be written \(No space left on device\)"):
        splits = load(parquet_of(tmp_path, ()), validation="test")
    np.testing.assert_array_equal(splits.train.images, PARTS["train"][0])
    assert cache.entries(folder) == []
    assert not any(folder.rglob("*.part"))


def test_a_cache_that_may_only_be_read_is_read(tmp_path, folder, decoded, monkeypatch):
    spec = parquet_of(tmp_path, ())
    load(spec)

    def refuse(*given, **more):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(os, "utime", refuse)
    monkeypatch.setattr(os, "mkdir", refuse)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert counted(decoded, spec)[1] == 0


def test_a_run_with_it_is_the_run_without(tmp_path, folder, monkeypatch):
    pytest.importorskip("torch")
    write_folder(tmp_path / "set")
    spec = f"folder:{tmp_path / 'set'}"
    load(spec, image_size=8)
    settings = {"dataset": spec, "model": "tiny", "epochs": 1, "batch_size": 4, "steps": 1, "attacks": "fgsm"}
    settings |= {"image_size": 8, "augment": "crop-flip"}
    found = []
    for out, place in (("with", folder), ("without", "off")):
        monkeypatch.setenv(cache.FOLDER, str(place))
        said = stcli("train", *words(settings), "--out", tmp_path / out)
        assert said.code == 0, said.err
        data = json.loads((tmp_path / out / "environment.json").read_text())["data"]
        found.append((load_weights(tmp_path / out / "last.safetensors")[0], data))
    (weights, data), (others, other) = found
    assert data == other
    for name, array in weights.items():
        np.testing.assert_array_equal(array, others[name])


# stcli data cache


def test_the_command_lists_and_clears(tmp_path, folder):
    said = stcli("data", "cache")
    assert (said.code, "empty" in said.out) == (0, True)
    load(parquet_of(new(tmp_path / "set"), ()))
    said = stcli("data", "cache", "--json")
    listed = json.loads(said.out)
    assert [(one["images"], one["shape"], one["source"]) for one in listed["entries"]] == [
        (6, [6, 5, 3], str(tmp_path / "set")),
        (12, [6, 5, 3], str(tmp_path / "set")),
    ]
    assert listed["folder"] == str(folder)
    name = listed["entries"][0]["name"]
    said = stcli("data", "cache")
    assert said.code == 0
    assert name[:12] in said.out
    assert "6x5x3" in said.out
    said = stcli("data", "cache", "--clear", name[:12])
    assert said.code == 0, said.err
    assert [entry.images for entry in cache.entries(folder)] == [12]
    said = stcli("data", "cache", "--clear", "xyz")
    assert said.code == 2
    assert "clear: expected all, or the beginning of one name" in said.err
    assert stcli("data", "cache", "--clear", "all").code == 0
    assert cache.entries(folder) == []


def test_the_command_limits(tmp_path, folder):
    load(parquet_of(tmp_path, ()))
    assert stcli("data", "cache", "--limit", "1").code == 0
    assert len(cache.entries(folder)) == 2
    said = stcli("data", "cache", "--limit", "0")
    assert "2 entries" in said.out
    assert cache.entries(folder) == []
    assert stcli("data", "cache", "--limit", "-1").code == 2


def test_the_command_says_that_the_cache_is_off(monkeypatch):
    monkeypatch.setenv(cache.FOLDER, "off")
    said = stcli("data", "cache")
    assert (said.code, "off" in said.out) == (0, True)


def test_the_folder_is_the_user_s(monkeypatch, tmp_path):
    monkeypatch.delenv(cache.FOLDER)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache.cache_folder() == tmp_path / "stcore" / "decoded"


def test_a_note_of_the_cache_is_one_line(tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setenv(cache.FOLDER, str(tmp_path / "file"))
    said = stcli("data", "info", folder_of(tmp_path / "set", ()))
    assert said.code == 0
    assert said.err.startswith("note: decoded images are not kept for the next run: ")
    assert said.err.count("\n") == 1
