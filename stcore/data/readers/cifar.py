"""CIFAR-10 and CIFAR-100 as published, in the python (pickle) and the binary form."""

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
    lead: int  # bytes before the pixels of a binary record; the last of them is the label


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
    """Reads CIFAR-10 (Krizhevsky, 2009): 50000 train and 10000 test images, uint8 (N, 32, 32, 3), 10 classes.

    path: a folder with cifar-10-python.tar.gz, cifar-10-binary.tar.gz or their unpacked folders
        (cifar-10-batches-py, cifar-10-batches-bin), or one of those archives or folders itself.
    validation: None holds out 2 % of train; a count or a fraction holds out that much; "test" selects on the test
        set, as the paper's released code does.
    Raises DataError, with the file, if one is missing, damaged, or not in the published format.
    """
    return three_parts(read_cifar10(Path(path)), validation=validation)


def load_cifar100(path: str | Path, *, validation: Validation = None) -> Splits:
    """Reads CIFAR-100 (Krizhevsky, 2009) with its 100 fine labels; otherwise like `load_cifar10`.

    The archives are cifar-100-python.tar.gz and cifar-100-binary.tar.gz, their folders cifar-100-python and
    cifar-100-binary.
    """
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
    parse = _parse_pickle if members.layout is form.python else _parse_records
    parsed = [parse(form, members.files[name], f"{members.place}/{name}") for name in names]
    counts = [len(labels) for _, labels in parsed]
    if min(counts) != max(counts):  # a file truncated between two records
        short = names[counts.index(min(counts))]
        raise DataError(
            f"{members.place}/{short}: expected {max(counts)} images as in the other files, "
            f"received {min(counts)}; fetch the set again"
        )
    images, labels = (np.concatenate(arrays) for arrays in zip(*parsed, strict=True))
    return images, labels


def _parse_pickle(form: _Form, content: bytes, origin: str) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.int64]]:
    entries = load_dict(content, origin)
    for key in ("data", form.labels):
        if key not in entries:
            raise DataError(
                f"{origin}: expected a dict with {key!r}, received {', '.join(entries) or 'an empty one'}; "
                "check which set this is"
            )
    rows, labels = entries["data"], entries[form.labels]
    if not isinstance(rows, np.ndarray) or rows.dtype != np.uint8 or rows.ndim != 2 or rows.shape[1] != PIXELS:
        raise DataError(
            f"{origin}: expected 'data' as uint8 of shape (N, {PIXELS}), received {_kind(rows)}; "
            "fetch the set again"
        )
    if not isinstance(labels, list) or not all(_fits_int32(label) for label in labels):
        raise DataError(
            f"{origin}: expected {form.labels!r} as a list of integers, received {_kind(labels)}; "
            "fetch the set again"
        )
    if len(labels) != len(rows):
        raise DataError(
            f"{origin}: expected one label per image, received {len(labels)} labels for {len(rows)} images; "
            "fetch the set again"
        )
    return _to_nhwc(rows), np.array(labels, np.int64)


def _fits_int32(label: Any) -> bool:
    """Whether a label is an integer that fits an array; its range is checked later."""
    return isinstance(label, int | np.integer) and abs(int(label)) < 2**31


def _parse_records(
    form: _Form, content: bytes, origin: str
) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.int64]]:
    width = form.lead + PIXELS
    if not content or len(content) % width:
        raise DataError(
            f"{origin}: expected records of {width} bytes, received {len(content)} bytes, which are "
            f"{len(content) / width:.2f} of them; fetch the set again"
        )
    records = np.frombuffer(content, np.uint8).reshape(-1, width)
    return _to_nhwc(records[:, form.lead :]), records[:, form.lead - 1].astype(np.int64)


def _to_nhwc(rows: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """Converts (N, 3072), the red, green and blue plane of each image, to (N, 32, 32, 3)."""
    planes = rows.reshape(-1, CHANNELS, SIDE, SIDE)
    return np.ascontiguousarray(planes.transpose(0, 2, 3, 1))


def _class_names(form: _Form, members: Members) -> list[str] | None:
    """The class names from the set's own file, if present."""
    content = members.files.get(members.layout.class_names)
    if content is None:
        return None
    if members.layout is form.binary:
        return content.decode("latin1").split()
    origin = f"{members.place}/{members.layout.class_names}"
    names = load_dict(content, origin).get(form.names)
    if not isinstance(names, list) or not all(isinstance(name, bytes | str) for name in names):
        raise DataError(
            f"{origin}: expected {form.names!r} as a list of text, received {_kind(names)}; fetch the set again"
        )
    return [text(name) for name in names]


def _kind(value: Any) -> str:
    if isinstance(value, np.ndarray):
        return f"{value.dtype} of shape {value.shape}"
    return f"a {type(value).__name__}"
