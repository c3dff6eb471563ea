"""Counter-based random numbers for many examples at once: hashes of their addresses.

A *key* is a hash of words such as (seed, attack, restart, target, example); the numbers of a key are hashes of the
key and a counter. Both use SplitMix64 (Steele, Lea and Flood, 2014), over whole arrays. There is no state, so an
example's numbers depend neither on its batch nor on earlier draws.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from stcore.core.threat import lengths

Keys = npt.NDArray[np.uint64]

_GAMMA = np.uint64(0x9E3779B97F4A7C15)


def keys(*words: npt.ArrayLike) -> Keys:
    """Returns keys (B,), one for each row of the words: integers ≥ 0, or arrays (B,) of them."""
    key = np.zeros(1, np.uint64)
    for word in words:
        key = _mix(key ^ _mix(np.atleast_1d(np.asarray(word)).astype(np.uint64) + _GAMMA))
    return key


def integers(key: Keys, count: int, first: int = 0) -> npt.NDArray[np.uint64]:
    """Draws 64-bit words, from the counter `first`: keys (B,) → (B, count)."""
    counters = np.arange(first + 1, first + count + 1, dtype=np.uint64)
    return _mix(key[:, None] + counters * _GAMMA)


def uniforms(key: Keys, shape: Sequence[int] = (), first: int = 0) -> npt.NDArray[np.float64]:
    """Draws uniforms in [0, 1), multiples of 2^−53: keys (B,) → (B, *shape)."""
    bits = integers(key, math.prod(shape), first) >> np.uint64(11)
    drawn: npt.NDArray[np.float64] = bits * np.float64(2.0**-53)
    return drawn.reshape(len(key), *shape)


def normals(key: Keys, shape: Sequence[int] = ()) -> npt.NDArray[np.float64]:
    """Draws standard normals (Box and Muller, 1958): keys (B,) → (B, *shape)."""
    count = math.prod(shape)
    half = (count + 1) // 2
    radius = np.sqrt(-2 * np.log1p(-uniforms(key, (half,))))
    angle = 2 * math.pi * uniforms(key, (half,), first=half)
    pairs = np.stack((radius * np.cos(angle), radius * np.sin(angle)), axis=2)
    return pairs.reshape(len(key), -1)[:, :count].reshape(len(key), *shape)


def signs(key: Keys, shape: Sequence[int] = ()) -> npt.NDArray[np.float64]:
    """Draws −1 or 1 with equal chances: keys (B,) → (B, *shape)."""
    return np.where(uniforms(key, shape) < 0.5, -1.0, 1.0)


def surface(key: Keys, shape: Sequence[int], norm: str) -> npt.NDArray[np.float64]:
    """Draws points of norm 1, uniform (l∞) or normal (l2, l1) noise over its norm: keys (B,) → (B, *shape)."""
    drawn = 2 * uniforms(key, shape) - 1 if norm == "linf" else normals(key, shape)
    normalised: npt.NDArray[np.float64] = drawn / lengths(drawn, norm).reshape(-1, *[1] * len(shape))
    return normalised


def ball(key: Keys, shape: Sequence[int], norm: str) -> npt.NDArray[np.float64]:
    """Draws points uniform in the unit ball, l∞ or l2: keys (B,) → (B, *shape)."""
    if norm == "linf":
        return 2 * uniforms(key, shape) - 1
    radius = uniforms(key, first=2 * math.prod(shape) + 2) ** (1 / math.prod(shape))  # a counter of its own
    drawn: npt.NDArray[np.float64] = surface(key, shape, norm) * radius.reshape(-1, *[1] * len(shape))
    return drawn


def _mix(z: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
    """SplitMix64's finaliser, a bijection of 64-bit words."""
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))
