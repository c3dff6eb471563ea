"""Explicit randomness: each number is a function of (seed, stream, epoch, position, draw).

There is no state, global or other. A counter-based generator (Philox 4x64) is opened at an address: the key
holds (seed, stream), the counter (draw, position, epoch) in its upper words; the lowest one counts within
the sequence, 2^64 blocks long, so no two addresses overlap. An example's numbers never depend on the batch
size, on the rank, or on where a run was resumed.

numpy draws for every backend. It guarantees Philox's bits; how they become normals or permutations may change in a
new release, so a run's record should name numpy's version.
"""

import math
import operator
from collections.abc import Iterator, Sequence
from enum import IntEnum
from typing import Any, SupportsIndex

import numpy as np
import numpy.typing as npt

from stcore.errors import UsageError

_WORD = 2**64


class Stream(IntEnum):
    """The purpose of the numbers. The values enter the key: never renumber them, only add."""

    ORDER = 0
    AUGMENT = 1
    NOISE = 2
    ATTACK = 3
    SPLIT = 4
    WEIGHTS = 5
    EXTRA = 6
    DIRECTION = 7
    SAMPLE = 8
    LOADER = 9
    MIX = 10
    SMOOTH = 11
    CORRUPTION = 12
    PHASE = 13


def generator(
    seed: int, stream: Stream, *, epoch: int = 0, position: int = 0, draw: int = 0
) -> np.random.Generator:
    """Returns the generator at an address. Raises UsageError unless each number is an integer in [0, 2^64)."""
    counter = (0, _word("draw", draw), _word("position", position), _word("epoch", epoch))
    return np.random.Generator(np.random.Philox(counter=np.array(counter, np.uint64), key=_key(seed, stream)))


def sample_normal(
    seed: int,
    stream: Stream,
    positions: npt.ArrayLike,
    shape: Sequence[int],
    *,
    epoch: int = 0,
    draw: int = 0,
    dtype: npt.DTypeLike = np.float32,
) -> npt.NDArray[Any]:
    """Draws standard normals (B, *shape), row i from the generator of `positions[i]`.

    positions: (B,) integers >= 0, an example's place in the whole epoch (or test set), not in its batch.
    draw: number of the array among an example's independent ones: a squeeze pair's two starts, restarts, steps.
    dtype: float32 or float64. The numbers are drawn in float32; float64 holds the same ones exactly.
    Raises UsageError for positions or a dtype not of this form.
    """
    rows = _rows(positions, shape)
    for row, rng in zip(rows, _each(seed, stream, positions, epoch, draw), strict=True):
        rng.standard_normal(out=row, dtype=np.float32)
    return _finish(rows, shape, dtype)


def sample_uniform(
    seed: int,
    stream: Stream,
    positions: npt.ArrayLike,
    shape: Sequence[int],
    *,
    epoch: int = 0,
    draw: int = 0,
    dtype: npt.DTypeLike = np.float32,
) -> npt.NDArray[Any]:
    """Draws uniforms in [-1, 1), of shape (B, *shape); the arguments are those of `sample_normal`."""
    rows = _rows(positions, shape)
    for row, rng in zip(rows, _each(seed, stream, positions, epoch, draw), strict=True):
        rng.random(out=row, dtype=np.float32)
    rows *= 2  # a float32 uniform is k / 2^24, so this and the next line are exact: 1 is never reached
    rows -= 1
    return _finish(rows, shape, dtype)


def sample_ball(
    seed: int,
    stream: Stream,
    positions: npt.ArrayLike,
    shape: Sequence[int],
    *,
    epoch: int = 0,
    draw: int = 0,
    dtype: npt.DTypeLike = np.float32,
) -> npt.NDArray[Any]:
    """Draws uniform points of the unit l2 ball, (B, *shape): each row's norm is <= 1 up to float32 rounding.

    The arguments are those of `sample_normal`.
    """
    rows = _rows(positions, shape)
    for row, rng in zip(rows, _each(seed, stream, positions, epoch, draw), strict=True):
        direction = rng.standard_normal(row.size)
        # The share of the ball inside radius r is r^d.
        row[:] = direction * (rng.random() ** (1 / row.size) / np.linalg.norm(direction))
    return _finish(rows, shape, dtype)


def _each(
    seed: int, stream: Stream, positions: npt.ArrayLike, epoch: int, draw: int
) -> Iterator[np.random.Generator]:
    """Yields `generator(seed, stream, epoch=epoch, position=p, draw=draw)` for each p; valid until the next one.

    One object moves from address to address: 15 times faster than building one for each.
    """
    places = np.asarray(positions)
    bits = np.random.Philox(key=_key(seed, stream))
    rng = np.random.Generator(bits)
    fresh = bits.state
    counter = fresh["state"]["counter"]
    counter[:] = (0, _word("draw", draw), 0, _word("epoch", epoch))
    for place in places.tolist():
        counter[2] = place
        bits.state = fresh
        yield rng


def _rows(positions: npt.ArrayLike, shape: Sequence[int]) -> npt.NDArray[np.float32]:
    places = np.asarray(positions)
    if places.ndim != 1 or places.dtype.kind not in "iu" or (places.size and places.min() < 0):
        raise UsageError(
            "expected positions as a one-dimensional array of integers >= 0, "
            f"received {places.dtype} of shape {places.shape}; give np.arange(first, first + batch)"
        )
    return np.empty((len(places), math.prod(shape)), np.float32)


def _finish(rows: npt.NDArray[np.float32], shape: Sequence[int], dtype: npt.DTypeLike) -> npt.NDArray[Any]:
    if np.dtype(dtype) not in (np.float32, np.float64):
        raise UsageError(f"expected dtype float32 or float64, received {np.dtype(dtype)}; cast the result")
    return rows.reshape(len(rows), *shape).astype(dtype, copy=False)


def _key(seed: int, stream: Stream) -> npt.NDArray[np.uint64]:
    return np.array((_word("seed", seed), _word("stream", stream)), np.uint64)


def _word(name: str, value: SupportsIndex) -> int:
    try:
        word = operator.index(value)
    except TypeError:
        word = -1
    if not 0 <= word < _WORD:
        raise UsageError(f"expected {name} as an integer in [0, 2^64), received {value!r}; choose another")
    return word
