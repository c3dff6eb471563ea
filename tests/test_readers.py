"""Published file formats, written small: what is read, what is refused, and that nothing in a file is run."""

import io
import os
import pickle
import struct
import tarfile

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stcore.data import load, load_cifar10, load_cifar100, load_npz, load_svhn
from stcore.data.readers.safe_pickle import load_dict
from stcore.errors import DataError, UsageError


class Python2Pickler(pickle._Pickler):
    """Writes text as Python 2 did, in its opcode for `str`, which Python 3 no longer writes."""

    dispatch = pickle._Pickler.dispatch.copy()

    def save_text(self, value):
        raw = value.encode("latin1") if isinstance(value, str) else value
        self.write(b"T" + struct.pack("<i", len(raw)) + raw)
        self.memoize(value)

    dispatch[bytes] = dispatch[str] = save_text


def python2(value):
    """The bytes that cPickle of 2009 would have written, protocol 2, with numpy's old module names."""
    stream = io.BytesIO()
    Python2Pickler(stream, 2).dump(value)
    return stream.getvalue().replace(b"numpy._core", b"numpy.core")


def pictures(count, seed):
    return np.random.default_rng(seed).integers(0, 256, (count, 32, 32, 3), np.uint8)


def planes(images):
    return images.transpose(0, 3, 1, 2).reshape(len(images), -1)


EACH = 20  # images per file
NAMES = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]


def content(classes):
    """{name of the file without .bin: (images, labels)} of a small set, five train files or one."""
    files = [f"data_batch_{n}" for n in range(1, 6)] + ["test_batch"] if classes == 10 else ["train", "test"]
    return {
        name: (pictures(EACH, seed), (np.arange(EACH) * 7 + seed) % classes) for seed, name in enumerate(files)
    }


def cifar_files(classes, form):
    """{file name: bytes}, as the archive of this form has it."""
    files = {"readme.html": b"<html>"}
    for name, (images, labels) in content(classes).items():
        if form == "python":
            label = {"labels": labels.tolist()} if classes == 10 else {"fine_labels": labels.tolist()}
            files[name] = python2(
                {"batch_label": name, "data": planes(images), "filenames": ["a_0.png"] * EACH, **label}
                | ({} if classes == 10 else {"coarse_labels": [3] * EACH})
            )
        else:
            head = labels[:, None] if classes == 10 else np.stack([np.full(EACH, 3), labels], 1)
            files[f"{name}.bin"] = np.concatenate([head.astype(np.uint8), planes(images)], 1).tobytes()
    names = NAMES if classes == 10 else [f"fine {n}".replace(" ", "_") for n in range(100)]
    if form == "binary":
        files["batches.meta.txt" if classes == 10 else "fine_label_names.txt"] = "\n".join([*names, ""]).encode()
    elif classes == 10:
        files["batches.meta"] = python2({"num_cases_per_batch": EACH, "label_names": names, "num_vis": 3072})
    else:
        files["meta"] = python2({"fine_label_names": names, "coarse_label_names": ["thing"] * 20})
    return files


FOLDERS = {
    (10, "python"): "cifar-10-batches-py",
    (10, "binary"): "cifar-10-batches-bin",
    (100, "python"): "cifar-100-python",
    (100, "binary"): "cifar-100-binary",
}


def write_folder(parent, classes, form, files=None):
    folder = parent / FOLDERS[classes, form]
    folder.mkdir(parents=True)
    for name, raw in (files or cifar_files(classes, form)).items():
        (folder / name).write_bytes(raw)
    return folder


def write_archive(parent, classes, form, files=None, links=()):
    path = parent / f"cifar-{classes}-{form}.tar.gz"
    parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w:gz") as tar:
        for name, raw in (files or cifar_files(classes, form)).items():
            member = tarfile.TarInfo(f"{FOLDERS[classes, form]}/{name}")
            member.size = len(raw)
            tar.addfile(member, io.BytesIO(raw))
        for name, target in links:
            member = tarfile.TarInfo(f"{FOLDERS[classes, form]}/{name}")
            member.type, member.linkname = tarfile.SYMTYPE, target
            tar.addfile(member)
    return path


# CIFAR


@pytest.mark.parametrize("direct", [True, False], ids=["itself", "its parent"])
@pytest.mark.parametrize("write", [write_folder, write_archive])
@pytest.mark.parametrize("form", ["python", "binary"])
@pytest.mark.parametrize("classes", [10, 100])
def test_cifar_is_read_in_every_published_form(tmp_path, classes, form, write, direct):
    place = write(tmp_path, classes, form)
    splits = load(f"cifar{classes}:{place if direct else tmp_path}", validation="test")
    *train, test = content(classes).values()
    np.testing.assert_array_equal(splits.train.images, np.concatenate([images for images, _ in train]))
    np.testing.assert_array_equal(splits.train.labels, np.concatenate([labels for _, labels in train]))
    np.testing.assert_array_equal(splits.test.images, test[0])
    np.testing.assert_array_equal(splits.test.labels, test[1])
    assert splits.validation.fingerprint() == splits.test.fingerprint()
    assert splits.train.num_classes == classes
    assert splits.train.class_names[3] == ("cat" if classes == 10 else "fine_3")
    assert splits.train.images.flags.c_contiguous
    assert splits.train.name == f"train of {place}"


def test_both_forms_are_the_same_data(tmp_path):
    prints = {load_cifar10(write_folder(tmp_path, 10, form)).train.fingerprint() for form in ("python", "binary")}
    assert len(prints) == 1


def test_a_new_pickle_of_the_same_data_is_read_too(tmp_path):
    files = cifar_files(10, "python")
    for protocol, name in zip(
        (0, 2, 4, 5), ("data_batch_1", "data_batch_2", "data_batch_3", "test_batch"), strict=True
    ):
        images, labels = content(10)[name]
        rows = np.asfortranarray(planes(images)) if protocol == 4 else planes(images)
        files[name] = pickle.dumps({"data": rows, "labels": list(labels)}, protocol)  # labels are numpy scalars
    splits = load_cifar10(write_folder(tmp_path, 10, "python", files), validation="test")
    expected = load_cifar10(write_folder(tmp_path / "old", 10, "python"), validation="test")
    assert splits.train.fingerprint() == expected.train.fingerprint()
    assert splits.test.fingerprint() == expected.test.fingerprint()


def test_class_names_are_optional(tmp_path):
    for form, names in (("python", "batches.meta"), ("binary", "batches.meta.txt")):
        files = cifar_files(10, form)
        del files[names]
        assert load_cifar10(write_archive(tmp_path / form, 10, form, files)).train.class_names is None


@pytest.mark.parametrize(
    ("validation", "size"), [(None, 2), (10, 10), (0.3, 30)], ids=["2 %", "a count", "a fraction"]
)
def test_cifar_holds_out(tmp_path, validation, size):
    write_archive(tmp_path, 10, "binary")
    splits = load(f"cifar10:{tmp_path}", validation=validation)
    assert [len(part) for part in (splits.train, splits.validation, splits.test)] == [100 - size, size, 20]
    again = load(f"cifar10:{tmp_path}", validation=validation)
    assert splits.validation.fingerprint() == again.validation.fingerprint()


def test_a_set_that_is_not_there_is_refused(tmp_path):
    with pytest.raises(
        DataError, match=r"expected cifar-10-python.tar.gz or .* received .*nowhere'; check the path"
    ):
        load_cifar10(tmp_path / "nowhere")
    (tmp_path / "notes.txt").touch()
    with pytest.raises(
        DataError, match=r"expected cifar-100-python.tar.gz .* received notes.txt; name the folder"
    ):
        load_cifar100(tmp_path)
    ten = write_archive(tmp_path, 10, "python")
    with pytest.raises(DataError, match=r"cifar-10-python.tar.gz: expected the files train, test, received none"):
        load_cifar100(ten)
    with pytest.raises(DataError, match=r"notes.txt: expected a whole tar archive that can be read, received: "):
        load_cifar10(tmp_path / "notes.txt")


@pytest.mark.parametrize("write", [write_folder, write_archive])
def test_a_missing_file_is_named(tmp_path, write):
    files = cifar_files(10, "binary")
    del files["data_batch_4.bin"]
    with pytest.raises(DataError, match=r"received none named data_batch_4.bin; fetch the whole set again"):
        load_cifar10(write(tmp_path, 10, "binary", files))


@pytest.mark.parametrize("form", ["python", "binary"])
@pytest.mark.parametrize("share", [0.0, 0.01, 0.5, 0.999])
def test_a_truncated_archive_is_refused(tmp_path, form, share):
    path = write_archive(tmp_path, 10, form)
    whole = path.read_bytes()
    path.write_bytes(whole[: int(share * len(whole))])
    with pytest.raises(
        DataError, match=rf"cifar-10-{form}.tar.gz: expected a whole tar archive|received none named"
    ):
        load_cifar10(tmp_path)


@pytest.mark.parametrize(("classes", "size"), [(10, 3073), (100, 3074)])
def test_a_truncated_file_is_refused(tmp_path, classes, size):
    name = "data_batch_2" if classes == 10 else "train"
    binary = cifar_files(classes, "binary")
    for kept in (0, size - 1, size * EACH - 5):
        files = binary | {f"{name}.bin": binary[f"{name}.bin"][:kept]}
        with pytest.raises(
            DataError, match=rf"{name}.bin: expected records of {size} bytes, received {kept} bytes"
        ):
            load(f"cifar{classes}:{write_folder(tmp_path / str(kept), classes, 'binary', files)}")
    python = cifar_files(classes, "python")
    files = python | {name: python[name][:-2000]}
    with pytest.raises(DataError, match=rf"{name}: expected a whole pickle, received one that cannot be read"):
        load(f"cifar{classes}:{write_folder(tmp_path, classes, 'python', files)}")


def test_a_file_that_was_cut_between_two_records_is_refused(tmp_path):
    files = cifar_files(10, "binary")
    files["data_batch_5.bin"] = files["data_batch_5.bin"][: 3073 * 4]
    with pytest.raises(DataError, match=r"data_batch_5.bin: expected 20 images as in the other files, received 4"):
        load_cifar10(write_folder(tmp_path, 10, "binary", files))


ROWS = planes(pictures(EACH, 0))


@pytest.mark.parametrize(
    ("batch", "message"),
    [
        ([1, 2], "expected a pickled dict of numbers and text alone, received a list"),
        ({"data": ROWS}, "expected a dict with 'labels', received data; check which set this is"),
        ({"data": ROWS, "labels": 3}, "expected 'labels' as a list of integers, received a int"),
        ({"data": ROWS, "labels": [[0], [1]]}, "expected 'labels' as a list of integers, received a list"),
        ({"data": ROWS, "labels": [0.5] * EACH}, "expected 'labels' as a list of integers"),
        ({"data": ROWS, "labels": [0] * 19}, "expected one label per image, received 19 labels for 20 images"),
        ({"data": ROWS, "labels": [0] * 19 + [10]}, r"train of .*: expected labels in \[0, 10\), received 10"),
        ({"data": ROWS[:, 1:], "labels": [0] * EACH}, r"as uint8 of shape \(N, 3072\), .* \(20, 3071\)"),
        ({"data": ROWS.astype(int), "labels": [0] * EACH}, r"expected 'data' as uint8 .* received int64"),
        ({"data": ROWS.tolist(), "labels": [0] * EACH}, r"expected 'data' as uint8 .* received a list"),
    ],
)
def test_pickles_that_hold_something_else_are_refused(tmp_path, batch, message):
    files = cifar_files(10, "python") | {"data_batch_1": python2(batch)}
    with pytest.raises(DataError, match=message):
        load_cifar10(write_folder(tmp_path, 10, "python", files))


def test_labels_and_names_of_a_binary_set_are_checked(tmp_path):
    files = cifar_files(10, "binary")
    files["test_batch.bin"] = b"\x0a" + files["test_batch.bin"][1:]
    with pytest.raises(DataError, match=r"test of .*: expected labels in \[0, 10\), received 10 at position 0"):
        load_cifar10(write_folder(tmp_path, 10, "binary", files))
    files = cifar_files(10, "binary") | {"batches.meta.txt": b"cat\ndog\n"}
    with pytest.raises(DataError, match="expected 10 class names, received 2"):
        load_cifar10(write_folder(tmp_path / "names", 10, "binary", files))
    files = cifar_files(10, "python") | {"batches.meta": python2({"label_names": [1, 2]})}
    with pytest.raises(
        DataError, match=r"batches.meta: expected 'label_names' as a list of text, received a list"
    ):
        load_cifar10(write_folder(tmp_path, 10, "python", files))


def test_an_archive_whose_checksum_is_wrong_is_refused(tmp_path):
    path = write_archive(tmp_path, 10, "binary")
    raw = bytearray(path.read_bytes())
    raw[-8] ^= 1  # of gzip's checksum
    path.write_bytes(raw)
    with pytest.raises(DataError, match="expected a whole tar archive"):
        load_cifar10(path)


def test_a_damaged_archive_of_another_kind_is_refused(tmp_path):
    path = tmp_path / "cifar.tar.xz"
    with tarfile.open(path, "w:xz") as tar:
        for name, content in cifar_files(10, "binary").items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    raw = bytearray(path.read_bytes())
    raw[len(raw) // 2] ^= 255
    path.write_bytes(raw)
    with pytest.raises(DataError):
        load_cifar10(path)


def test_labels_too_large_for_any_array_are_refused(tmp_path):
    batch = python2({"data": planes(pictures(EACH, 0)), "labels": [2**70] * EACH})
    write_folder(tmp_path, 10, "python", {**cifar_files(10, "python"), "data_batch_1": batch})
    with pytest.raises(DataError, match="expected 'labels' as a list of integers"):
        load_cifar10(tmp_path)


def test_links_in_an_archive_are_not_followed(tmp_path):
    files = cifar_files(10, "binary")
    secret = tmp_path / "secret"
    secret.write_bytes(files.pop("test_batch.bin"))
    path = write_archive(tmp_path, 10, "binary", files, links=[("test_batch.bin", str(secret))])
    with pytest.raises(DataError, match=r"received none named test_batch.bin"):
        load_cifar10(path)
    assert sorted(each.name for each in tmp_path.iterdir()) == [path.name, "secret"]  # nothing was unpacked


# Pickles


class Calls:
    def __init__(self, function, *arguments):
        self.asked = function, arguments

    def __reduce__(self):
        return self.asked


def marks(path):
    """Pickles that would leave a file at `path`, or are the start of something of the kind."""
    command = f"touch {path}"
    return {
        "os.system": pickle.dumps({"data": Calls(os.system, command)}, 2),
        "a nested one": pickle.dumps({"data": [np.zeros(3), {"x": Calls(os.system, command)}]}, 5),
        "eval": pickle.dumps(Calls(eval, f"open({str(path)!r}, 'w')"), 0),
        "a class": b"\x80\x02" + b"(S'" + command.encode() + b"'\nios\nsystem\n.",
        "numpy's own": pickle.dumps(Calls(np.fromfile, str(path)), 4),
        "numpy's tester": b"\x80\x02cnumpy.testing._private.utils\nrunstring\n(U\x011}tR.",
        "getattr": pickle.dumps(Calls(getattr, np.ndarray, "tofile"), 4),
        "a codec": pickle.dumps(Calls(__import__("_codecs").encode, "a", "rot13"), 2),
        "objects": pickle.dumps({"data": np.array([{}, Calls(os.system, command)], object)}, 2),
        "object dtype": pickle.dumps({"data": np.zeros(2, object)}, 2),
        "records": pickle.dumps({"data": np.zeros(2, [("a", "u1")])}, 2),
        "an extension": b"\x80\x02\x82\x01.",
        "a persistent id": b"\x80\x02U\x01aQ.",
    }


@pytest.mark.parametrize("kind", marks(""))
def test_a_pickle_that_wants_more_than_numbers_is_refused_and_not_run(tmp_path, kind):
    mark = tmp_path / "was_here"
    raw = marks(mark)[kind]
    with pytest.raises(DataError, match=r"batch_7: expected a "):
        load_dict(raw, "batch_7")
    files = cifar_files(10, "python") | {"data_batch_3": raw}
    with pytest.raises(DataError, match=r"data_batch_3: expected a "):
        load_cifar10(write_archive(tmp_path, 10, "python", files))
    assert not mark.exists()


@pytest.mark.parametrize(
    "greedy",
    [
        b"}r\xff\xff\xff\x0f.",  # a place in the memo that would take 4 GB
        b"\x80\x04\x8e" + (2**40).to_bytes(8, "little") + b"x.",  # a terabyte of bytes
        b"\x80\x02X\xff\xff\xff\x7fx.",
    ],
)
def test_a_pickle_that_asks_for_more_room_than_it_fills_is_refused(greedy):
    with pytest.raises(DataError, match="here: expected"):
        load_dict(greedy, "here")


def test_a_refusal_says_what_was_asked_for():
    with pytest.raises(
        DataError, match=r"wants to run (posix|nt|os)\.system, which was refused and not run; download"
    ):
        load_dict(pickle.dumps(Calls(os.system, "true")), "file")
    with pytest.raises(DataError, match=r"received an array of type 'O8' \(O is of Python objects\)"):
        load_dict(pickle.dumps({"data": np.zeros(2, object)}), "file")


@pytest.mark.parametrize(
    "name", ["numpy\nndarray", "numpy\ndtype", "_codecs\nencode", "numpy.core.multiarray\nscalar"]
)
@pytest.mark.parametrize("state", [b"}U\x08__call__K\x01s", b"N}U\x08__call__K\x01s\x86"])
def test_a_pickle_changes_nothing_of_ours(name, state):
    with pytest.raises(DataError, match="expected a whole pickle"):
        load_dict(b"\x80\x02c" + name.encode() + b"\n" + state + b"b.", "file")
    expected = np.arange(6, dtype=">i4").reshape(2, 3)
    np.testing.assert_array_equal(load_dict(python2({"x": expected}), "file")["x"], expected)


@pytest.mark.parametrize("protocol", range(6))
@given(
    kind=st.sampled_from(["u1", "<i8", ">i8", "<f4", ">f8", "?", "S5", "<U3", ">U3"]),
    shape=st.lists(st.integers(1, 4), max_size=3),
    order=st.sampled_from("CF"),
    seed=st.integers(0, 99),
)
def test_arrays_of_numbers_and_text_come_back(protocol, kind, shape, order, seed):
    numbers = np.random.default_rng(seed).integers(0, 100, shape)
    array = np.asarray(numbers, order=order).astype(kind)
    for raw in (pickle.dumps({"x": array, "n": 3}, protocol), python2({"x": array, "n": 3})):
        found = load_dict(raw, "file")
        assert list(found) == ["x", "n"]
        assert found["n"] == 3
        np.testing.assert_array_equal(found["x"], array)
        assert found["x"].dtype == array.dtype


@given(data=st.data())
def test_a_cut_pickle_is_refused(data):
    raw = python2({"data": np.arange(40).reshape(4, 10), "labels": [1, 2, 3], "filenames": ["a", "b"]})
    with pytest.raises(DataError, match="file: expected a whole pickle"):
        load_dict(raw[: data.draw(st.integers(0, len(raw) - 1))], "file")


# SVHN


def write_svhn(folder, **change):
    from scipy.io import savemat

    folder.mkdir(exist_ok=True)
    for seed, part in enumerate(("train", "test")):
        images = pictures(EACH, seed)
        labels = (np.arange(EACH) % 10 + 1).astype(np.uint8)[:, None]
        arrays = {"X": images.transpose(1, 2, 3, 0), "y": labels}
        if part == "test":
            arrays = {name: array for name, array in (arrays | change).items() if array is not None}
        savemat(folder / f"{part}_32x32.mat", arrays, do_compression=True)
    return folder


def test_svhn_is_read_and_its_tens_are_zeros(tmp_path):
    splits = load(f"svhn:{write_svhn(tmp_path)}", validation="test")
    np.testing.assert_array_equal(splits.train.images, pictures(EACH, 0))
    np.testing.assert_array_equal(splits.test.images, pictures(EACH, 1))
    np.testing.assert_array_equal(splits.train.labels, [1, 2, 3, 4, 5, 6, 7, 8, 9, 0] * 2)
    assert (splits.train.num_classes, splits.train.class_names[0]) == (10, "0")
    assert splits.train.images.flags.c_contiguous
    held = load(f"svhn:{tmp_path}", validation=0.5)
    assert [len(part) for part in (held.train, held.validation, held.test)] == [10, 10, 20]


def test_svhn_labels_may_be_doubles(tmp_path):
    splits = load_svhn(write_svhn(tmp_path, y=np.full((EACH, 1), 10.0)), validation="test")
    np.testing.assert_array_equal(splits.test.labels, np.zeros(EACH))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"X": None}, "test_32x32.mat: expected X and y, received no X"),
        ({"y": None}, "test_32x32.mat: expected X and y, received no y"),
        (
            {"X": np.zeros((EACH, 32, 32, 3), np.uint8)},
            r"of shape \(32, 32, 3, N\), received uint8 of shape \(20, ",
        ),
        ({"X": np.zeros((32, 32, 3, EACH))}, "expected X as uint8 .* received float64"),
        ({"X": np.array([[{"a": 1}]], object)}, "expected X as uint8 .* received object"),
        ({"y": np.ones((EACH - 1, 1))}, r"expected y as numbers of shape \(20, 1\), .* shape \(19, 1\)"),
        (
            {"y": np.zeros((EACH, 1))},
            "expected labels 1 to 10, where 10 is the digit 0, received 0.0 at position 0",
        ),
        ({"y": np.full((EACH, 1), 11)}, r"expected labels 1 to 10, .* received 11 at position 0 \(20 in all\)"),
        ({"y": np.full((EACH, 1), 1.5)}, "expected labels 1 to 10, .* received 1.5 at position 0"),
    ],
)
def test_svhn_that_does_not_fit_is_refused(tmp_path, change, message):
    with pytest.raises(DataError, match=message):
        load_svhn(write_svhn(tmp_path, **change))


@pytest.mark.parametrize("share", [0.0, 0.001, 0.5, 0.999])
def test_truncated_svhn_is_refused(tmp_path, share):
    path = write_svhn(tmp_path) / "train_32x32.mat"
    whole = path.read_bytes()
    path.write_bytes(whole[: int(share * len(whole))])
    with pytest.raises(DataError, match=r"train_32x32.mat: expected "):
        load_svhn(tmp_path)


def test_missing_svhn_is_refused(tmp_path):
    with pytest.raises(DataError, match=r"with train_32x32.mat and test_32x32.mat, received .*nowhere'; check"):
        load_svhn(tmp_path / "nowhere")
    (write_svhn(tmp_path) / "test_32x32.mat").unlink()
    with pytest.raises(DataError, match=r"expected test_32x32.mat, received train_32x32.mat; name the folder"):
        load_svhn(tmp_path)


# npz


def write_npz(folder, parts=("train", "test"), **more):
    for seed, part in enumerate(parts):
        np.savez(folder / f"{part}.npz", images=pictures(EACH, seed), labels=np.arange(EACH) % 4, **more)
    return folder


def test_npz_folders_are_read(tmp_path):
    splits = load(f"npz:{write_npz(tmp_path)}", validation=4)
    assert [len(part) for part in (splits.train, splits.validation, splits.test)] == [16, 4, 20]
    np.testing.assert_array_equal(splits.test.images, pictures(EACH, 1))
    assert (splits.train.num_classes, splits.train.class_names) == (4, None)
    write_npz(tmp_path, ("train", "test", "validation"))
    own = load_npz(tmp_path)
    np.testing.assert_array_equal(own.validation.images, pictures(EACH, 2))
    assert len(own.train) == EACH
    assert load_npz(tmp_path, validation="test").validation.fingerprint() == own.test.fingerprint()
    with pytest.raises(UsageError, match="validation files of its own, received 3"):
        load_npz(tmp_path, validation=3)


@pytest.mark.parametrize("image", ["images", "image", "x", "data"])
@pytest.mark.parametrize("label", ["labels", "label", "y"])
def test_npz_names(tmp_path, image, label):
    images = pictures(EACH, 0)
    for part in ("train", "test"):
        np.savez(tmp_path / f"{part}.npz", **{image: images / 255, label: np.arange(EACH, dtype=np.uint8)})
    splits = load_npz(tmp_path, validation="test")
    np.testing.assert_array_equal(splits.train.images, images)
    assert splits.train.num_classes == EACH


@pytest.mark.parametrize("form", ["x_{}", "{}_images"])
def test_one_npz_with_all_parts_is_read(tmp_path, form):
    path = tmp_path / "all.npz"
    label = form.replace("x", "y").replace("images", "labels")
    arrays = {form.format(part): pictures(EACH, n)[..., 0] for n, part in enumerate(("train", "test"))}
    np.savez(path, **arrays, **{label.format(part): np.arange(EACH) % 3 for part in ("train", "test")})
    splits = load(f"npz:{path}", validation="test")
    assert splits.train.image_shape == (32, 32, 1)
    np.testing.assert_array_equal(splits.test.images, pictures(EACH, 1)[..., :1])
    with pytest.raises(
        DataError, match=r"train.npz: expected x_train, received images, labels; add it, or rename it"
    ):
        load_npz(write_npz(tmp_path) / "train.npz")


def test_npz_may_name_and_count_its_classes(tmp_path):
    assert load_npz(write_npz(tmp_path, num_classes=7), validation=1).test.num_classes == 7
    splits = load_npz(write_npz(tmp_path, class_names=np.array(["a", "b", "c", "d", "e"])), validation=1)
    assert (splits.test.num_classes, splits.test.class_names) == (5, ("a", "b", "c", "d", "e"))
    write_npz(tmp_path, ("test",))  # said once is enough
    assert load_npz(tmp_path, validation=1).test.num_classes == 5
    write_npz(tmp_path, ("test",), class_names=np.array(["A", "B", "C", "D", "E"]))
    with pytest.raises(DataError, match="expected one num_classes and one class_names, received different ones"):
        load_npz(tmp_path)


def test_classes_of_npz_are_counted_over_all_parts(tmp_path):
    write_npz(tmp_path)
    np.savez(tmp_path / "train.npz", images=pictures(2, 0), labels=[0, 1])
    assert load_npz(tmp_path, validation="test").train.num_classes == 4


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"labels": [0, 1]}, "expected an array of images named images or image or x or data, received labels"),
        ({"images": pictures(2, 0)}, "train of .*: expected an array of labels named labels or label or y"),
        ({"images": pictures(2, 0), "labels": [0, 1, 1]}, "received 3 labels for 2 images"),
        ({"images": pictures(2, 0), "labels": [0.5, 1]}, "expected integer labels, received float64"),
        (
            {"images": pictures(2, 0), "labels": np.array([0, {}])},
            "train.npz: .* received: an array of Python objects",
        ),
        ({"images": pictures(2, 0), "labels": [0, -1]}, r"expected labels in \[0, 4\), received -1"),
        ({"images": pictures(2, 0).transpose(0, 3, 1, 2), "labels": [0, 1]}, "expected channels last"),
        ({"images": pictures(2, 0), "labels": [0, 1], "num_classes": 2.5}, "num_classes as one integer"),
        (
            {"images": pictures(2, 0), "labels": [0, 1], "class_names": [1, 2]},
            r"class_names as text of shape \(K,\)",
        ),
    ],
)
def test_npz_that_does_not_fit_is_refused(tmp_path, arrays, message):
    write_npz(tmp_path)
    np.savez(tmp_path / "train.npz", **arrays)
    with pytest.raises(DataError, match=message):
        load_npz(tmp_path)


def test_broken_npz_is_refused(tmp_path):
    whole = (write_npz(tmp_path) / "train.npz").read_bytes()
    np.save(tmp_path / "lone.npy", pictures(2, 0))
    lone = (tmp_path / "lone.npy").read_bytes()
    mark = tmp_path / "was_here"
    broken = (b"", whole[:100], whole[:-30], whole[:500] + bytes(500) + whole[1000:], lone, b"text")
    for raw in (*broken, pickle.dumps(Calls(os.system, f"touch {mark}"))):
        (tmp_path / "train.npz").write_bytes(raw)
        with pytest.raises(
            DataError, match=r"train.npz: expected a whole npz file of numbers and text, received: "
        ):
            load_npz(tmp_path)
    assert not mark.exists()


def test_missing_npz_is_refused(tmp_path):
    with pytest.raises(
        DataError, match=r"with train.npz and test.npz, or one npz file, received .*nowhere'; check"
    ):
        load_npz(tmp_path / "nowhere")
    write_npz(tmp_path, ("train",))
    with pytest.raises(DataError, match=r"expected test.npz, received train.npz; add it, or rename it"):
        load_npz(tmp_path)


@pytest.mark.parametrize("kind", ["cifar10", "cifar100", "svhn", "npz"])
def test_columns_are_parquets_alone(kind):
    with pytest.raises(UsageError, match=f"expected no columns for {kind}, .* leave them out"):
        load(f"{kind}:DIR", columns=("img", "label"))
