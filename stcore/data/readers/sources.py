"""Data sets by name: `load("cifar10:PATH")` finds the reader."""

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from stcore.base.registry import GIVEN, Registry, call, is_import_path
from stcore.data.download.registry import PUBLISHED
from stcore.data.download.stored import fetched
from stcore.data.images import ImageData, Splits, TrainingImages
from stcore.data.readers.cifar import load_cifar10, load_cifar100, read_cifar10, read_cifar100
from stcore.data.readers.decoded import Columns
from stcore.data.readers.digits import load_digits
from stcore.data.readers.folder import load_folder, read_folder
from stcore.data.readers.hub import load_hub, read_hub
from stcore.data.readers.named import read_parts
from stcore.data.readers.npy import NPY, load_npy
from stcore.data.readers.npz import NPZ, load_npz
from stcore.data.readers.parquet import load_parquet, read_parquet
from stcore.data.readers.safetensors import SAFETENSORS, load_safetensors
from stcore.data.readers.shards import Known
from stcore.data.readers.stream import load_stream, read_stream
from stcore.data.readers.svhn import load_svhn, read_svhn
from stcore.data.split import Validation, hold_out, three_parts
from stcore.errors import UsageError


class Reader(NamedTuple):
    """How a format is read.

    load: reads all parts as `Splits`.   read: reads the named parts alone.   place: what follows KIND: in the data
    set's name.   options: those of columns and image_size that the format takes.
    """

    load: Callable[..., Splits]
    read: Callable[..., Mapping[str, ImageData]]
    place: str = "DIR"
    options: tuple[str, ...] = ()


READERS = {
    "parquet": Reader(load_parquet, read_parquet, options=("columns", "image_size", "skip_broken")),
    "cifar10": Reader(load_cifar10, read_cifar10, "PATH"),
    "cifar100": Reader(load_cifar100, read_cifar100, "PATH"),
    "svhn": Reader(load_svhn, read_svhn),
    "folder": Reader(load_folder, read_folder, options=("image_size", "skip_broken")),
    "hub": Reader(load_hub, read_hub, "OWNER/NAME", ("columns", "image_size", "skip_broken")),
    "npy": Reader(load_npy, partial(read_parts, format=NPY)),
    "stream": Reader(load_stream, read_stream, options=("image_size",)),
    "safetensors": Reader(load_safetensors, partial(read_parts, format=SAFETENSORS), "PATH"),
    "npz": Reader(load_npz, partial(read_parts, format=NPZ), "PATH"),
}
FORMS = ("digits", *(f"{kind}:{reader.place}" for kind, reader in READERS.items()))
"""What a data set's name looks like."""


def _accepted(part: Any, name: str) -> Callable[..., Splits]:
    if not callable(part):
        raise UsageError(
            f"dataset: expected {name} to be a function that returns its parts; received {part!r:.100}"
        )

    def loaded(*, validation: Validation = None, **options: Any) -> Splits:
        parts = call("dataset", name, part, validation=validation, **options)
        if isinstance(parts, Splits):
            return parts
        whole = isinstance(parts, Mapping) and {"train", "test"} <= parts.keys() <= {"train", "validation", "test"}
        if not whole or not all(isinstance(one, ImageData) for one in parts.values()):
            raise UsageError(
                f"dataset: expected {name} to return train and test, and validation if it has it, as a dict of "
                f"stcore.data.ImageData, or stcore.data.Splits; received {parts!r:.100}"
            )
        return three_parts(parts, validation=validation)

    return loaded


DATASETS: Registry[Callable[..., Splits]] = Registry(
    "dataset",
    "stcore.datasets",
    {"digits": load_digits, **{kind: reader.load for kind, reader in READERS.items()}},
    _accepted,
    f"KIND:PLACE such as {', '.join(FORMS[1:])}, or package.module:load",
)
"""By the name or the KIND. A plug-in's function takes the place that follows its name, and the options of `load`,
as far as its signature accepts them."""


def is_plug_in(spec: str) -> bool:
    """Whether the data set is one of a plug-in: NAME or NAME:PLACE of a package, or package.module:load."""
    kind = spec.partition(":")[0]
    return DATASETS.is_plug_in(kind) or (kind not in (*DATASETS, GIVEN) and is_import_path(spec))


def has_place(spec: str) -> bool:
    """Whether what follows KIND: is a path."""
    kind = spec.partition(":")[0]
    return kind in READERS and kind != "hub"


def load(
    spec: str,
    *,
    validation: Validation = None,
    columns: Columns | None = None,
    image_size: int | None = None,
    skip_broken: bool = False,
    train_size: int | None = None,
    validation_size: int | None = None,
    test_size: int | None = None,
) -> Splits:
    """Loads a data set by name: `digits`, or KIND:PATH such as `npz:data/`, `folder:DIR` or `hub:OWNER/NAME`.

    The KINDs are those of `READERS`; `load_digits`, `load_parquet` and so on describe what each reads. `cifar10`,
    `cifar100` or `svhn` without a path is the copy that `fetch` downloaded into the data folder.

    validation: None uses the set's validation part, or else holds out 2 % of train; a count or a fraction holds
        out that much; "test" selects on the test set. `digits` takes None or "test".
    columns, image_size, skip_broken: as in `load_parquet`, for the kinds whose `Reader` has them.
    train_size: keep this many training examples, stratified by a fixed rule after validation is held out, so that
        it does not change the validation part. Not for a stream.
    validation_size, test_size: keep the first n examples in the set's own order (in a set sorted by class, these
        lack some classes).
    Raises DataError for a set that was not fetched or is invalid; UsageError for another spec, an option that the
    set lacks, or a size that it does not have.
    """
    if spec == "digits" and not (validation in (None, "test") and columns is None):
        raise UsageError(
            f"expected no validation and no columns for digits, whose split is fixed, "
            f"received {validation!r} and {columns!r}; leave them out"
        )
    if is_plug_in(spec):
        splits = _of_plug_in(spec, validation, columns, image_size, skip_broken)
    else:
        kind, place, options = _parsed(spec, columns, image_size, skip_broken)
        reader: Callable[..., Splits] = load_digits if spec == "digits" else partial(READERS[kind].load, place)
        splits = reader(validation=validation, **options)
    return Splits(
        _smaller_train(splits.train, train_size),
        _smaller_validation(splits, validation_size),
        _head(splits.test, test_size, "test_size"),
    )


def load_test(
    spec: str,
    known: Known,
    *,
    columns: Columns | None = None,
    image_size: int | None = None,
    skip_broken: bool = False,
    test_size: int | None = None,
) -> ImageData:
    """Loads the test part alone, equal to that of `load`; the files of the other parts may be missing.

    known: the whole set's number of classes and channels, which the test part alone may lack.
    Other arguments and errors: see `load`.
    """
    if is_plug_in(spec):
        return _head(_of_plug_in(spec, None, columns, image_size, skip_broken).test, test_size, "test_size")
    kind, place, options = _parsed(spec, columns, image_size, skip_broken)
    if spec == "digits":
        test = load_digits().test
    else:
        test = READERS[kind].read(place if kind == "hub" else Path(place), ("test",), known, **options)["test"]
    return _head(test, test_size, "test_size")


def side_of(spec: str, shape: tuple[int, int, int] | None) -> int | None:
    """The side to which a set's pictures are brought for a network of images (H, W, C); None if its format asks
    for none, or the images are no squares."""
    reader = READERS.get(spec.partition(":")[0])
    square = shape is not None and shape[0] == shape[1]
    return shape[0] if shape is not None and square and reader and "image_size" in reader.options else None


def _parsed(
    spec: str, columns: Columns | None, image_size: int | None, skip_broken: bool
) -> tuple[str, str, dict[str, Any]]:
    """The kind and the place of a data set, and the options of its reader."""
    kind, _, place = spec.partition(":")
    if kind == GIVEN:
        raise UsageError(
            f"dataset: {place} were handed to stcore.train as objects, which no name brings back; hand them over "
            "again in Python, or name a data set with --dataset"
        )
    if spec in PUBLISHED:
        place = str(fetched(spec))
    if spec != "digits" and not (kind in READERS and place):
        raise DATASETS.unknown(spec)
    given = {"columns": columns, "image_size": image_size, "skip_broken": skip_broken or None}
    options = {name: value for name, value in given.items() if value is not None}
    for name, value in options.items():
        if kind == "digits" or name not in READERS[kind].options:
            raise UsageError(
                f"expected no {name} for {kind}, whose format needs none, received {value!r}; leave them out"
            )
    return kind, place, options


def _of_plug_in(
    spec: str, validation: Validation, columns: Columns | None, image_size: int | None, skip_broken: bool
) -> Splits:
    kind, _, place = spec.partition(":")
    name, place = (kind, place) if DATASETS.is_plug_in(kind) else (spec, "")
    given = {"place": place or None, "columns": columns, "image_size": image_size, "skip_broken": skip_broken}
    options = {option: value for option, value in given.items() if value not in (None, False)}
    return DATASETS.find(name)(validation=validation, **options)


def _smaller_train(train: TrainingImages, size: int | None) -> TrainingImages:
    if size is None:
        return train
    if not isinstance(train, ImageData):
        raise UsageError(
            f"expected no train_size for {train.name}, a stream, received {size}; leave it out, or give it fewer "
            "shards"
        )
    return hold_out(train, _limited(train, size, "train_size"))[1] if size != len(train) else train


def _smaller_validation(splits: Splits, size: int | None) -> ImageData | None:
    if splits.validation is not None:
        return _head(splits.validation, size, "validation_size")
    if size is not None:
        raise UsageError(
            f"expected no validation_size for {splits.train.name}, which has no validation part, received {size}; "
            "leave it out, or give it validation-*.tar"
        )
    return None


def _head(data: ImageData, size: int | None, option: str) -> ImageData:
    return data if size is None else data.head(_limited(data, size, option))


def _limited(data: ImageData, limit: int, option: str) -> int:
    if not 1 <= limit <= len(data):
        raise UsageError(
            f"expected {option} in 1..{len(data)}, the size of {data.name}, received {limit}; ask for fewer"
        )
    return limit
