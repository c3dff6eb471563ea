"""The three parts of a data set that is published in two."""

from pathlib import Path
from typing import Literal

from stcore.data.images import ImageData, Splits
from stcore.data.split import hold_out
from stcore.errors import UsageError

# 1000 of CIFAR-10's 50000, as Rice et al. (2020) hold out to choose the epoch.
VALIDATION = 0.02

Validation = int | float | Literal["test"] | None


def check_validation(place: Path, validation: Validation, *, own: bool) -> None:
    """UsageError if a size to hold out is asked of a set with validation files of its own; before it is read."""
    if own and validation not in (None, "test"):
        raise UsageError(
            f"{place}: expected no size to hold out, as it has validation files of its own, "
            f"received {validation!r}; leave the option out"
        )


def three_parts(
    train: ImageData,
    test: ImageData,
    *,
    validation: Validation = None,
    own: ImageData | None = None,
    size: int | float = VALIDATION,
) -> Splits:
    """Train, validation and test.

    validation: None takes the set's `own` validation part, or where it has none holds `size` out of train by
        the fixed stratified rule; a count or a fraction holds out so much instead (see `check_validation`).
        "test" holds out nothing and chooses on the test set, as the paper's released code does.
    UsageError for a size that does not fit.
    """
    if validation == "test":
        return Splits(train, test, test)
    if own is not None:
        return Splits(train, own, test)
    return Splits(*hold_out(train, size if validation is None else validation), test)
