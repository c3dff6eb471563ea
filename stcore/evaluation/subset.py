"""Subsets of a data set to evaluate: a range of its images, and every n-th of these."""

from __future__ import annotations

import numpy as np

from stcore.errors import UsageError
from stcore.protocols import Array


def select_indices(total: int, subset: str | None, shard: str | None) -> Array:
    """The indices of the images in a subset `N` or `A:B` of `total`, and in its shard `i/n` (i from 1).

    Raises UsageError if these are not numbers or select nothing.
    """
    indices = np.arange(total)
    if subset is not None:
        begin, end = _pair("subset", "N or A:B", subset, ":") if ":" in subset else (0, _whole(subset))
        if end is None or begin is None or not 0 <= begin < end <= total:
            raise UsageError(f"subset: expected N or A:B within the {total} test images; received {subset!r}")
        indices = indices[begin:end]
    if shard is not None:
        part, parts = _pair("shard", "i/n", shard, "/")
        if part is None or parts is None or not 1 <= part <= parts <= len(indices):
            raise UsageError(
                f"shard: expected i/n with 1 <= i <= n <= {len(indices)}, the number of images; received {shard!r}"
            )
        indices = indices[part - 1 :: parts]
    return indices


def _pair(name: str, form: str, text: str, separator: str) -> tuple[int | None, int | None]:
    halves = text.split(separator)
    if len(halves) != 2:
        raise UsageError(f"{name}: expected {form}; received {text!r}")
    return _whole(halves[0]), _whole(halves[1])


def _whole(text: str) -> int | None:
    return int(text) if text.isdecimal() else None
