"""Unit noise drawn on a device: the same random words on every framework and device, keyed by their address.

The generator is Threefry-2x32 with 20 rounds (Salmon et al., 2011): a function of a key and a counter by
additions, rotations and exclusive ors of 32-bit words, here in 64-bit integers. The key is drawn from (seed,
stream, epoch, draw); the counter is an example's position and a number within the example. So an example's noise
depends neither on its batch or rank nor on where a run was resumed. The laws are those of `stcore.base.noise`; the
numbers are not.

Uniforms are multiples of 2^-23, equal bit for bit everywhere; normals and balls to about 1e-6, since logarithms
and cosines differ in the last bit between frameworks, and in some between batch sizes.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Protocol

import numpy as np

from stcore.base.seeding import Stream, generator
from stcore.protocols import Array, Tensor

_WORD = 2**32 - 1
_PARITY = 0x1BD11BDA
_ROTATIONS = 13, 15, 26, 6, 17, 29, 16, 24
_ROUNDS = 20


class Numbers(Protocol):
    """What drawing needs of a framework beside `+ - * / & | ^` and slices; names and meanings are numpy's."""

    right_shift: Callable[[Tensor, int], Tensor]
    log: Callable[[Tensor], Tensor]
    exp: Callable[[Tensor], Tensor]
    sqrt: Callable[[Tensor], Tensor]
    cos: Callable[[Tensor], Tensor]
    sin: Callable[[Tensor], Tensor]
    sum: Callable[..., Tensor]
    concatenate: Callable[..., Tensor]
    reshape: Callable[[Tensor, tuple[int, ...]], Tensor]
    as_float: Callable[[Tensor], Tensor]
    """Integers as float32."""


def keys(count: int, seed: int, stream: Stream, epoch: int) -> Array:
    """The keys of `count` independent draws, (count, 2) words as int64."""
    generators = (generator(seed, stream, epoch=epoch, draw=draw) for draw in range(count))
    bits = np.array([int(each.bit_generator.random_raw()) for each in generators], np.uint64)
    return np.stack([bits >> np.uint64(32), bits & np.uint64(_WORD)], axis=1).astype(np.int64)


def counters(shape: Sequence[int]) -> int:
    """How many counters an example of this shape takes: one for two numbers, and one for the radius of a ball."""
    return (math.prod(shape) + 1) // 2 + 1


def draw(
    xp: Numbers, laws: Sequence[str], keys: Tensor, positions: Tensor, counters: Tensor, shape: Sequence[int]
) -> tuple[Tensor, ...]:
    """Draws an array (B, *shape) in float32 for each law.

    keys: (number of laws, 2) words.   positions: (B,), in [0, 2^32).   counters: 0, 1, … as `counters` says.
    All are int64.
    """
    first, second = threefry(xp, (keys[:, :1, None], keys[:, 1:, None]), counters, positions[:, None])
    flat = (_LAWS[law](xp, first[i], second[i], math.prod(shape)) for i, law in enumerate(laws))
    return tuple(xp.reshape(numbers, (-1, *shape)) for numbers in flat)


def threefry(xp: Numbers, key: tuple[Tensor, Tensor], first: Tensor, second: Tensor) -> tuple[Tensor, Tensor]:
    """Two random words for each counter (first, second), of 32-bit words in int64 that broadcast."""
    schedule = (*key, key[0] ^ key[1] ^ _PARITY)
    first, second = first + schedule[0] & _WORD, second + schedule[1] & _WORD
    for number in range(_ROUNDS):
        by = _ROTATIONS[number % len(_ROTATIONS)]
        first = first + second & _WORD
        second = (second * 2**by | xp.right_shift(second, 32 - by)) & _WORD ^ first
        injection, left = divmod(number + 1, 4)
        if not left:
            first = first + schedule[injection % 3] & _WORD
            second = second + schedule[(injection + 1) % 3] + injection & _WORD
    return first, second


def _unit(xp: Numbers, words: Tensor) -> Tensor:
    """Uniforms in [0, 1), multiples of 2^-24."""
    return xp.as_float(xp.right_shift(words, 8)) * 2.0**-24


def _log(xp: Numbers, words: Tensor) -> Tensor:
    """Logarithms of uniforms in (0, 1]."""
    return xp.log(_unit(xp, words) + 2.0**-24)


def _uniform(xp: Numbers, first: Tensor, second: Tensor, size: int) -> Tensor:
    words = xp.concatenate([first[:, :-1], second[:, :-1]], axis=1)[:, :size]
    return _unit(xp, words) * 2.0 - 1.0


def _normal(xp: Numbers, first: Tensor, second: Tensor, size: int) -> Tensor:
    """Box and Muller (1958)."""
    radius, angle = xp.sqrt(_log(xp, first[:, :-1]) * -2.0), _unit(xp, second[:, :-1]) * (2 * math.pi)
    return xp.concatenate([radius * xp.cos(angle), radius * xp.sin(angle)], axis=1)[:, :size]


def _ball(xp: Numbers, first: Tensor, second: Tensor, size: int) -> Tensor:
    direction = _normal(xp, first, second, size)
    length = xp.sqrt(xp.sum(direction * direction, axis=1))
    radius = xp.exp(_log(xp, first[:, -1]) / size)  # the share of the ball inside radius r is r^d
    return direction * (radius / length)[:, None]


_LAWS = {"normal": _normal, "uniform": _uniform, "ball": _ball}
