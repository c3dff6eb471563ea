"""CIFAR-10 and CIFAR-100 as published, in the python (pickle) and in the binary form."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from stcore.data.images import ImageData, Splits
from stcore.data.readers.members import Layout, Members, read_members
from stcore.data.readers.safe_pickle import load_dict, text
from stcore.data.readers.shards import NOTHING, REQUIRED, Known
from stcore.data.split import Validation, three_parts
from stcore.errors import DataError

SIDE, CHANNELS = 32, 3
PIXELS = CHANNELS * SIDE * SIDE


class _Form(NamedTuple):
    num_classes: int
    python: Layout
    binary: Layout
    labels: str  # their key in a pickle
    names: str  # the key of the class names in the pickle beside it
    lead: int  # the bytes of a binary record before the pixels; the last one is the label


_BATCHES = tuple(f"data_batch_{number}" for number in range(1, 6))

CIFAR10 = _Form(
    10,
    Layout("cifar-10-python.tar.gz", "cifar-10-batches-py", _BATCHES, ("test_batch",), "batches.meta"),
    Layout(
        "cifar-10-binary.tar.gz",
        "cifar-10-batches-bin",
        tuple(f"{name}.bin" for name in _BATCHES),
        ("test_batch.bin",),
        "batches.meta.txt",
    ),
    labels="labels",
    names="label_names",
    lead=1,
)
CIFAR100 = _Form(
    100,
    Layout("cifar-100-python.tar.gz", "cifar-100-python", ("train",), ("test",), "meta"),
    Layout("cifar-100-binary.tar.gz", "cifar-100-binary", ("train.bin",), ("test.bin",), "fine_label_names.txt"),
    labels="fine_labels",
    names="fine_label_names",
    lead=2,  # the coarse label, then the fine one
)


def load_cifar10(path: str | Path, *, validation: Validation = None) -> Splits:
    """CIFAR-10: 50000 train and 10000 test images of 32x32 pixels, 10 classes.

    path: a folder that holds cifar-10-python.tar.gz, cifar-10-binary.tar.gz or what one of them unpacks to
        (cifar-10-batches-py, cifar-10-batches-bin), or that archive or folder itself.
    validation: as `three_parts` takes it; 2 % of train by default.
    DataError, with the file, if something is missing, damaged, or not what the format says.
    """
    return three_parts(read_cifar10(Path(path)), validation=validation)


def load_cifar100(path: str | Path, *, validation: Validation = None) -> Splits:
    """CIFAR-100 with its 100 fine labels; all else is as in `load_cifar10`, with 100 for 10 in the names
    (cifar-100-python and cifar-100-binary are the folders)."""
    return three_parts(read_cifar100(Path(path)), validation=validation)


def read_cifar10(path: Path, parts: Sequence[str] = REQUIRED, known: Known = NOTHING) -> dict[str, ImageData]:
    """Reads these parts alone; see `load_cifar10`."""
    return _parts(CIFAR10, path, parts)


def read_cifar100(path: Path, parts: Sequence[str] = REQUIRED, known: Known = NOTHING) -> dict[str, ImageData]:
    """Reads these parts alone; see `load_cifar100`."""
    return _parts(CIFAR100, path, parts)


def _parts(form: _Form, path: Path, parts: Sequence[str]) -> dict[str, ImageData]:
    members = read_members(path, (form.python, form.binary), parts)
    names = _class_names(form, members)
    return {
        part: ImageData.from_arrays(
            *_read(form, members, members.layout.of(part)), form.num_classes, f"{part} of {members.place}", names
        )
        for part in parts
    }


def _read(
    form: _Form, members: Members, names: Sequence[str]
) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.int64]]:
    read = _of_pickle if members.layout is form.python else _of_records
    read_all = [read(form, members.files[name], f"{members.place}/{name}") for name in names]
    counts = [len(labels) for _, labels in read_all]
    if min(counts) != max(counts):  # a file that was cut between two records
        short = names[counts.index(min(counts))]
        raise DataError(
            f"{members.place}/{short}: expected {max(counts)} images as in the other files, "
            f"received {min(counts)}; fetch the set again"
        )
    images, labels = (np.concatenate(arrays) for arrays in zip(*read_all, strict=True))
    return images, labels


def _of_pickle(form: _Form, content: bytes, where: str) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.int64]]:
    found = load_dict(content, where)
    for key in ("data", form.labels):
        if key not in found:
            raise DataError(
                f"{where}: expected a dict with {key!r}, received {', '.join(found) or 'an empty one'}; "
                "check which set this is"
            )
    rows, labels = found["data"], found[form.labels]
    if not isinstance(rows, np.ndarray) or rows.dtype != np.uint8 or rows.ndim != 2 or rows.shape[1] != PIXELS:
        raise DataError(
            f"{where}: expected 'data' as uint8 of shape (N, {PIXELS}), received {_kind(rows)}; "
            "fetch the set again"
        )
    if not isinstance(labels, list) or not all(_is_small(label) for label in labels):
        raise DataError(
            f"{where}: expected {form.labels!r} as a list of integers, received {_kind(labels)}; "
            "fetch the set again"
        )
    if len(labels) != len(rows):
        raise DataError(
            f"{where}: expected one label per image, received {len(labels)} labels for {len(rows)} images; "
            "fetch the set again"
        )
    return _upright(rows), np.array(labels, np.int64)


def _is_small(label: Any) -> bool:
    """An integer that an array of integers has room for; what the classes leave of it is checked later."""
    return isinstance(label, int | np.integer) and abs(int(label)) < 2**31


def _of_records(form: _Form, content: bytes, where: str) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.int64]]:
    width = form.lead + PIXELS
    if not content or len(content) % width:
        raise DataError(
            f"{where}: expected records of {width} bytes, received {len(content)} bytes, which are "
            f"{len(content) / width:.2f} of them; fetch the set again"
        )
    records = np.frombuffer(content, np.uint8).reshape(-1, width)
    return _upright(records[:, form.lead :]), records[:, form.lead - 1].astype(np.int64)


def _upright(rows: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """(N, 3072), the red, the green and the blue plane of each image -> (N, 32, 32, 3)."""
    planes = rows.reshape(-1, CHANNELS, SIDE, SIDE)
    return np.ascontiguousarray(planes.transpose(0, 2, 3, 1))


def _class_names(form: _Form, members: Members) -> list[str] | None:
    """The names that the set's own file gives the classes, if it is there."""
    content, where = members.files.get(members.layout.class_names), f"{members.place}/{members.layout.class_names}"
    if content is None:
        return None
    if members.layout is form.binary:
        return content.decode("latin1").split()
    names = load_dict(content, where).get(form.names)
    if not isinstance(names, list) or not all(isinstance(name, bytes | str) for name in names):
        raise DataError(
            f"{where}: expected {form.names!r} as a list of text, received {_kind(names)}; fetch the set again"
        )
    return [text(name) for name in names]


def _kind(value: Any) -> str:
    if isinstance(value, np.ndarray):
        return f"{value.dtype} of shape {value.shape}"
    return f"a {type(value).__name__}"
