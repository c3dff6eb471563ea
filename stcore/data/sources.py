"""A data set by name."""

from stcore.data.cifar import load_cifar10, load_cifar100
from stcore.data.digits import load_digits
from stcore.data.images import ImageData, Splits
from stcore.data.npz import load_npz
from stcore.data.parquet import Columns, load_parquet
from stcore.data.parts import Validation
from stcore.data.registry import PUBLISHED
from stcore.data.split import hold_out
from stcore.data.stored import fetched
from stcore.data.svhn import load_svhn
from stcore.errors import UsageError

KNOWN = "digits, parquet:DIR, cifar10:PATH, cifar100:PATH, svhn:DIR, npz:PATH"
READERS = {"cifar10": load_cifar10, "cifar100": load_cifar100, "svhn": load_svhn, "npz": load_npz}


def load(
    spec: str,
    *,
    validation: Validation = None,
    columns: Columns | None = None,
    train_size: int | None = None,
    validation_size: int | None = None,
    test_size: int | None = None,
) -> Splits:
    """Load `digits`, `parquet:DIR`, `cifar10:PATH`, `cifar100:PATH`, `svhn:DIR` or `npz:PATH`; see `load_digits`,
    `load_parquet` and so on for what each reads. `cifar10`, `cifar100` or `svhn` alone is the copy that `fetch`
    brought into the data folder.

    validation: as all but `load_digits` take it.
    columns: as `load_parquet` takes them; no other set has any.
    train_size: train on this many examples, in the classes' proportions, chosen by a fixed rule after
        validation was held out: a smaller train set never changes what it is validated on.
    validation_size, test_size: keep the first so many, in the set's own order (in a set that is sorted by
        class, these are not of all classes).
    DataError for a set that was not fetched; UsageError for another spec, an option the set lacks, or a size that
    the set does not have.
    """
    kind, _, place = spec.partition(":")
    if spec in PUBLISHED:
        place = str(fetched(spec))
    if kind == "parquet" and place:
        splits = load_parquet(place, validation=validation, columns=columns)
    elif kind in READERS and place:
        if columns is not None:
            raise UsageError(
                f"expected no columns for {kind}, whose format names its own, received {columns!r}; leave them out"
            )
        splits = READERS[kind](place, validation=validation)
    elif spec == "digits":
        if validation not in (None, "test") or columns is not None:
            raise UsageError(
                f"expected no validation and no columns for digits, whose split is fixed, "
                f"received {validation!r} and {columns!r}; leave them out"
            )
        splits = load_digits(validation="test" if validation == "test" else None)
    else:
        raise UsageError(
            f"expected a data set of the form {KNOWN}, received {spec!r}; choose one of them, or "
            f"{', '.join(PUBLISHED)} alone for a fetched copy"
        )
    train = _limited(splits.train, train_size, "train_size")
    return Splits(
        hold_out(splits.train, train)[1] if train < len(splits.train) else splits.train,
        splits.validation.head(_limited(splits.validation, validation_size, "validation_size")),
        splits.test.head(_limited(splits.test, test_size, "test_size")),
    )


def _limited(data: ImageData, limit: int | None, option: str) -> int:
    if limit is None:
        return len(data)
    if not 1 <= limit <= len(data):
        raise UsageError(
            f"expected {option} in 1..{len(data)}, the size of {data.name}, received {limit}; ask for fewer"
        )
    return limit
