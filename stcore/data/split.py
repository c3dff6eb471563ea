"""Train, validation and test parts of a data set, and the stratified hold-out that makes them."""

from collections.abc import Mapping
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt

from stcore.base.seeding import Stream, generator
from stcore.data.images import ImageData, Splits
from stcore.errors import UsageError

VALIDATION = 0.02
"""The default share of train that is held out: 1000 of CIFAR-10's 50000, as in Rice et al. (2020)."""

Validation = int | float | Literal["test"] | None


def three_parts(
    parts: Mapping[str, ImageData], *, validation: Validation = None, size: int | float = VALIDATION
) -> Splits:
    """Puts train, validation and test together.

    parts: train, test and, if the set has its own, validation.
    validation: None takes the set's own validation part, or if it has none holds `size` out of train by the fixed
        stratified rule; a count or a fraction holds out that much instead (see `check_validation`). "test" holds
        out nothing and chooses on the test set, as the paper's released code does.
    Raises UsageError for a size that does not fit.
    """
    train, test = parts["train"], parts["test"]
    if validation == "test":
        return Splits(train, test, test)
    if "validation" in parts:
        return Splits(train, parts["validation"], test)
    return Splits(*hold_out(train, size if validation is None else validation), test)


def check_validation(path: Path, validation: Validation, *, own: bool) -> None:
    """Raises UsageError, before data is read, if a set with its `own` validation files is to hold out a size."""
    if own and validation not in (None, "test"):
        raise UsageError(
            f"{path}: expected no size to hold out, as it has validation files of its own, "
            f"received {validation!r}; leave the option out"
        )


def hold_out(train: ImageData, size: int | float, *, seed: int = 0) -> tuple[ImageData, ImageData]:
    """Splits `train` into (the rest, the held-out part), stratified by class; both keep `train`'s order.

    size: a count in [1, N), or a fraction in (0, 1) of the N examples, rounded to a count of at least 1.
    seed: of the draw within each class. Keep the default so that runs of all seeds share one split.

    Each class gives its proportional share, made whole by the largest remainder (ties to the lower class).
    Raises UsageError if the size does not fit.
    """
    total = len(train)
    count = max(1, round(size * total)) if isinstance(size, float) and 0 < size < 1 else size
    if not isinstance(count, int | np.integer) or not 1 <= count < total:
        raise UsageError(
            f"expected a hold-out of 1 to {total - 1} examples, or a fraction in (0, 1) that leaves some on "
            f"either side, received {size!r} of {train.name}'s {total}; choose another size"
        )
    held = np.zeros(total, bool)
    for label, share in enumerate(_shares(train.class_counts(), int(count))):
        members = np.flatnonzero(train.labels == label)
        held[generator(seed, Stream.SPLIT, position=label).permutation(members)[:share]] = True
    return train.subset(np.flatnonzero(~held)), train.subset(np.flatnonzero(held))


def _shares(counts: npt.NDArray[np.int64], size: int) -> npt.NDArray[np.int64]:
    """`size` divided in proportion to `counts`, in exact integer arithmetic."""
    shares, remainders = np.divmod(counts * size, counts.sum())
    largest = np.argsort(-remainders, kind="stable")
    shares[largest[: size - shares.sum()]] += 1
    return shares
