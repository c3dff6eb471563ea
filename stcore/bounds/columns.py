"""Columns of coefficients, (n, R), dense or sparse: an output of a convolution depends on few of its inputs."""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np

from stcore.protocols import Array

Columns: TypeAlias = Any
"""A numpy array or `scipy.sparse.csr_array` (n, R). Both have @, +, * (elementwise) and abs."""
FULL = 0.15
"""The share of entries from which a dense array is quicker."""


def selected(count: int, entries: Array, signs: Array) -> Columns:
    """A column for each entry of a vector of `count`: its sign there, 0 elsewhere."""
    from scipy.sparse import csr_array

    places = (entries, np.arange(len(entries)))
    return csr_array((signs.astype(float), places), shape=(count, len(entries)))


def scaled(a: Columns, positive: Array | float, negative: Array | float) -> Columns:
    """Positive coefficients times `positive`, the others times `negative`: numbers, or (n,) for each row.

    Of dense columns they may also be (n, R).
    """
    if isinstance(a, np.ndarray):
        positive, negative = (
            each[:, None] if isinstance(each, np.ndarray) and each.ndim == 1 else each
            for each in (positive, negative)
        )
        return a * np.where(a > 0, positive, negative)
    rows = np.repeat(np.arange(a.shape[0]), np.diff(a.indptr))
    positive, negative = (each[rows] if isinstance(each, np.ndarray) else each for each in (positive, negative))
    changed = a.copy()
    changed.data = a.data * np.where(a.data > 0, positive, negative)
    return changed


def product(matrix: Any, a: Columns) -> Columns:
    """matrix @ a, dense once it is no longer sparse."""
    found = matrix @ a
    return dense(found) if not isinstance(found, np.ndarray) and found.nnz > FULL * np.prod(found.shape) else found


def dense(a: Columns) -> Array:
    """The columns as a numpy array."""
    array: Array = a if isinstance(a, np.ndarray) else a.toarray()
    return array
