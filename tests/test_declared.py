"""What a file declares is checked before anything is allocated: a few bytes that ask for gigabytes are refused."""

import gzip
import io
import struct
import tarfile
import tracemalloc
import zipfile
import zlib

import numpy as np
import pytest
from harness import load
from hypothesis import given
from hypothesis import strategies as st
from small import stcli

from stcore.base.declared import FREE, RATIO, check_expansion, npy_bytes
from stcore.base.files import read_arrays
from stcore.data.images import ImageData
from stcore.data.readers.cifar import load_cifar10
from stcore.data.readers.npz import load_npz
from stcore.data.readers.parquet import load_parquet
from stcore.data.readers.stream import load_stream
from stcore.data.readers.svhn import load_svhn
from stcore.errors import DataError, UsageError
from stcore.models import describe, torch_files

MUCH = FREE + (1 << 24)
"""Bytes of zeros, which compress to a thousandth."""


@pytest.fixture
def little_memory():
    """Fails a test that allocates more than an eighth of a GiB, as Python and numpy count it."""
    tracemalloc.start()
    yield
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 1 << 27


@given(st.integers(0, 10**13), st.integers(0, 10**9))
def test_a_file_may_hold_what_images_compress_to(declared, stored):
    if declared <= max(FREE, RATIO * stored):
        check_expansion("it", declared, stored)
    else:
        with pytest.raises(DataError, match=f"declares {declared} bytes"):
            check_expansion("it", declared, stored)


@given(st.lists(st.integers(0, 5), max_size=4), st.sampled_from(["u1", "<f8", ">i4", "U3"]), st.booleans())
def test_an_arrays_bytes_are_those_of_its_header(shape, kind, fortran):
    array = np.zeros(shape, kind, order="F" if fortran else "C")
    file = io.BytesIO()
    np.save(file, array)
    file.seek(0)
    assert npy_bytes(file) == array.nbytes == len(file.getvalue()) - file.tell()


# Files


def header(*shape, kind="|u1"):
    """An npy file of this shape without its numbers."""
    file = io.BytesIO()
    np.lib.format.write_array_header_2_0(file, {"descr": kind, "fortran_order": False, "shape": shape})
    return file.getvalue()


def zeros(file, count):
    """Writes an npz file of `count` zeros, in pieces."""
    archive = zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED, compresslevel=1)
    with archive, archive.open("images.npy", "w") as member:
        member.write(header(count // 192, 8, 8, 3))
        for _ in range(count // 192 // 1000 + 1):
            member.write(bytes(192_000))


def npz_of_zeros(folder):
    zeros(folder / "train.npz", MUCH)
    return load_npz


def npz_that_only_declares(folder):
    with zipfile.ZipFile(folder / "train.npz", "w") as archive:
        archive.writestr("images.npy", header(10**10, 8, 8, 3))
        archive.writestr("labels.npy", header(10**10, kind="<i8"))
    return load_npz


def cifar(folder):
    member = tarfile.TarInfo("cifar-10-batches-py/data_batch_1")
    member.size = 10**11
    (folder / "cifar-10-python.tar.gz").write_bytes(gzip.compress(member.tobuf()))
    return load_cifar10


def cifar_behind_a_stranger(folder):
    """The large member is none of the set's; it would be unpacked to be skipped."""
    member = tarfile.TarInfo("more")
    member.size = 10**11
    (folder / "cifar-10-binary.tar.gz").write_bytes(gzip.compress(member.tobuf()))
    return load_cifar10


def svhn(folder):
    """A compressed element of a MATLAB 5 file, of which only the header is there."""

    def element(kind, content):
        return struct.pack("<II", kind, len(content)) + content + bytes(-len(content) % 8)

    flags, shape = struct.pack("<II", 9, 0), struct.pack("<4i", 32, 32, 3, 10**7)  # 9: uint8
    about = element(6, flags) + element(5, shape) + element(1, b"X") + struct.pack("<II", 2, 3072 * 10**7 % 2**32)
    inner = struct.pack("<II", 14, len(about)) + about
    packed = zlib.compress(inner)
    head = b"MATLAB 5.0 MAT-file".ljust(124) + struct.pack("<H", 0x0100) + b"IM"
    for part in ("train", "test"):
        (folder / f"{part}_32x32.mat").write_bytes(head + struct.pack("<II", 15, len(packed)) + packed)
    return load_svhn


def parquet(folder):
    arrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    blob = bytes(1 << 20)
    for part in ("train", "test"):
        rows = [blob + bytes([row % 256, row // 256]) for row in range(MUCH >> 20)]
        table = arrow.table({"img": rows, "label": [0] * len(rows)})
        parquet.write_table(table, folder / f"{part}-0.parquet", compression="zstd", use_dictionary=False)
    return load_parquet


def stream(folder):
    for part in ("train", "test"):
        with tarfile.open(folder / f"{part}-0.tar", "w") as tar:
            for name, content in (("0.cls", b"0"), ("0.npy", header(10**6, 10**6, 3))):
                member = tarfile.TarInfo(name)
                member.size = len(content)
                tar.addfile(member, io.BytesIO(content))
    return load_stream


@pytest.mark.parametrize(
    "made", [npz_of_zeros, npz_that_only_declares, cifar, cifar_behind_a_stranger, svhn, parquet, stream]
)
def test_a_file_that_declares_too_much_is_refused(made, tmp_path, request):
    read = made(tmp_path)
    assert sum(path.stat().st_size for path in tmp_path.iterdir()) < 1 << 24
    request.getfixturevalue("little_memory")
    with pytest.raises(DataError, match=r"declare|breaks off"):
        read(tmp_path)


@pytest.mark.parametrize("made", [zeros, lambda file, count: file.write_bytes(b"PK\x05\x06" + bytes(18))])
def test_a_state_that_is_a_bomb_is_damaged(made, tmp_path, request):
    """The files of a run or an evaluation that one was handed."""
    made(tmp_path / "state.npz", MUCH)
    request.getfixturevalue("little_memory")
    if made is zeros:
        with pytest.raises(DataError, match="declares"):
            read_arrays(tmp_path / "state.npz")
    else:
        assert read_arrays(tmp_path / "state.npz") == {}


@pytest.mark.parametrize("size", [(30_000, 30_000), (2**31 - 1, 1), (9460, 9460)])
def test_a_picture_of_too_many_pixels_is_not_decoded(size, little_memory):
    pytest.importorskip("PIL")
    from stcore.data.decoding import decode_one

    chunk = b"IHDR" + struct.pack(">IIBBBBB", *size, 8, 2, 0, 0, 0)
    png = b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + chunk + struct.pack(">I", zlib.crc32(chunk))
    rows = b"IDAT" + zlib.compress(bytes(1000))
    png += struct.pack(">I", len(rows) - 4) + rows + struct.pack(">I", zlib.crc32(rows))
    with pytest.raises(DataError, match=r"expected an image of at most|bomb"):
        decode_one("it", png)


def test_tensors_of_a_checkpoint_are_the_numbers_that_it_holds(tmp_path, little_memory):
    load("torch")
    import torch

    for tensor, what in (
        (torch.ones(1).expand(2 * 10**9), "an expanded tensor"),
        (torch.ones(3, 1).expand(3, 10**9), "an expanded tensor"),
        (torch.ones(3, device="meta"), "is meta"),
        (torch.eye(3).to_sparse(), "is sparse"),
    ):
        torch.save({"a.weight": tensor}, tmp_path / "it.pt")
        with pytest.raises(UsageError, match=f"a.weight.*{what}"):
            torch_files.read(tmp_path / "it.pt")
    torch.save(
        {"a.weight": torch.arange(6.0).reshape(2, 3).T, "b.weight": torch.arange(9)[2:5]}, tmp_path / "it.pt"
    )
    found = torch_files.read(tmp_path / "it.pt")
    np.testing.assert_array_equal(found["a.weight"], np.arange(6.0).reshape(2, 3).T)
    np.testing.assert_array_equal(found["b.weight"], [2, 3, 4])


# Classes


def arrays(folder, labels):
    for part in ("train", "test"):
        np.savez(folder / f"{part}.npz", images=np.zeros((len(labels), 4, 4, 1), np.uint8), labels=labels)


@pytest.mark.parametrize("label", [10**6, 10**9, 2**40, 2**62])
def test_one_label_far_beyond_the_images_is_a_mistake(label, tmp_path, little_memory):
    labels = np.array([0, 1, label])
    with pytest.raises(DataError, match=rf"expected labels below the number of images .* received {label}"):
        ImageData.from_arrays(np.zeros((3, 4, 4), np.uint8), labels)
    arrays(tmp_path, labels)
    said = stcli("data", "info", f"npz:{tmp_path}")
    assert said.code == 3
    assert f"received {label}" in said.err
    assert said.err.count("\n") == 1


def test_a_table_of_labels_is_looked_at_too(tmp_path, little_memory):
    arrow = pytest.importorskip("pyarrow")
    pytest.importorskip("PIL")
    from PIL import Image
    from pyarrow import parquet

    file = io.BytesIO()
    Image.new("L", (4, 4)).save(file, "png")
    for part in ("train", "test"):
        table = arrow.table({"img": [file.getvalue()] * 3, "label": [0, 1, 2**40]})
        parquet.write_table(table, tmp_path / f"{part}-0.parquet")
    with pytest.raises(DataError, match=f"received {2**40}"):
        load_parquet(tmp_path)


def test_a_number_of_classes_is_bounded_too(little_memory):
    images, labels = np.zeros((3, 4, 4), np.uint8), np.array([0, 1, 2])
    with pytest.raises(DataError, match="there may be 1000000"):
        ImageData.from_arrays(images, labels, 10**9)
    assert ImageData.from_arrays(images, labels, 21_841).num_classes == 21_841
    assert ImageData.from_arrays(images, np.array([0, 1, 999])).num_classes == 1000


@pytest.mark.parametrize(
    "name", ["wrn-1000000-1", "wrn-10-1000000", f"wrn-{'9' * 5000}-1", "wrn-1006-1", "wrn-10-65"]
)
def test_a_name_asks_for_no_network_without_end(name):
    with pytest.raises(UsageError, match="wrn-D-K"):
        describe(name, 10)
    assert describe("wrn-70-16", 10)
