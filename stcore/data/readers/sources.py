"""A data set by name."""

from collections.abc import Callable
from functools import partial

from stcore.base.checks import did_you_mean
from stcore.data.download.registry import PUBLISHED
from stcore.data.download.stored import fetched
from stcore.data.images import ImageData, Splits
from stcore.data.readers.cifar import load_cifar10, load_cifar100
from stcore.data.readers.decoded import Columns
from stcore.data.readers.digits import load_digits
from stcore.data.readers.folder import load_folder
from stcore.data.readers.hub import load_hub
from stcore.data.readers.npy import load_npy
from stcore.data.readers.npz import load_npz
from stcore.data.readers.parquet import load_parquet
from stcore.data.readers.safetensors import load_safetensors
from stcore.data.readers.stream import load_stream
from stcore.data.readers.svhn import load_svhn
from stcore.data.split import Validation, hold_out
from stcore.data.streams.dataset import StreamData
from stcore.errors import UsageError

KNOWN = (
    "digits, parquet:DIR, cifar10:PATH, cifar100:PATH, svhn:DIR, folder:DIR, hub:OWNER/NAME, npy:DIR, stream:DIR, "
    "safetensors:PATH, npz:PATH"
)
READERS: dict[str, Callable[..., Splits]] = {
    "parquet": load_parquet,
    "cifar10": load_cifar10,
    "cifar100": load_cifar100,
    "svhn": load_svhn,
    "folder": load_folder,
    "hub": load_hub,
    "npy": load_npy,
    "stream": load_stream,
    "safetensors": load_safetensors,
    "npz": load_npz,
}
OPTIONS = {"columns": ("parquet", "hub"), "image_size": ("parquet", "hub", "folder", "stream")}
"""What only some sets have: those whose format does not name its columns, and those of encoded images."""


def load(
    spec: str,
    *,
    validation: Validation = None,
    columns: Columns | None = None,
    image_size: int | None = None,
    train_size: int | None = None,
    validation_size: int | None = None,
    test_size: int | None = None,
) -> Splits:
    """Load `digits`, or KIND:PLACE for the KINDs of `READERS`; see `load_digits`, `load_parquet` and so on for
    what each reads. `cifar10`, `cifar100` or `svhn` alone is the copy that `fetch` brought into the data folder.

    validation: as all but `load_digits` take it.
    columns, image_size: as `load_parquet` takes them; sets that are not in `OPTIONS` have none.
    train_size: train on this many examples, in the classes' proportions, chosen by a fixed rule after
        validation was held out: a smaller train set never changes what it is validated on. Not of a stream.
    validation_size, test_size: keep the first so many, in the set's own order (in a set that is sorted by
        class, these are not of all classes).
    DataError for a set that was not fetched; UsageError for another spec, an option the set lacks, or a size that
    the set does not have.
    """
    kind, _, place = spec.partition(":")
    if spec in PUBLISHED:
        place = str(fetched(spec))
    if spec != "digits" and not (kind in READERS and place):
        raise UsageError(
            f"expected a data set of the form {KNOWN}, received {spec!r}; choose one of them, or "
            f"{', '.join(PUBLISHED)} alone for a fetched copy{did_you_mean(kind, ('digits', *READERS))}"
        )
    if spec == "digits" and not (validation in (None, "test") and columns is None):
        raise UsageError(
            f"expected no validation and no columns for digits, whose split is fixed, "
            f"received {validation!r} and {columns!r}; leave them out"
        )
    given = {"columns": columns, "image_size": image_size}
    options = {name: value for name, value in given.items() if value is not None}
    for name, value in options.items():
        if kind not in OPTIONS[name]:
            raise UsageError(
                f"expected no {name} for {kind}, whose format needs none, received {value!r}; leave them out"
            )
    reader: Callable[..., Splits] = load_digits if spec == "digits" else partial(READERS[kind], place)
    splits = reader(validation=validation, **options)
    return Splits(
        _smaller(splits.train, train_size),
        _chosen_on(splits, validation_size),
        _head(splits.test, test_size, "test_size"),
    )


def _smaller(train: ImageData | StreamData, size: int | None) -> ImageData | StreamData:
    if size is None:
        return train
    if isinstance(train, StreamData):
        raise UsageError(
            f"expected no train_size for {train.name}, a stream, received {size}; leave it out, or give it fewer "
            "shards"
        )
    return hold_out(train, _limited(train, size, "train_size"))[1] if size != len(train) else train


def _chosen_on(splits: Splits, size: int | None) -> ImageData | None:
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
