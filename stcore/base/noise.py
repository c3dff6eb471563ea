"""Unit noise, drawn in numpy from an explicit seed: the same numbers on every framework.

A *law* names the distribution: `normal` (standard normal), `uniform` (in [−1, 1), the l∞ ball) or `ball` (uniform
in the l2 ball of each example).
"""

from __future__ import annotations

from stcore.base.seeding import Stream, sample_ball, sample_normal, sample_uniform
from stcore.protocols import Array

_SAMPLERS = {"normal": sample_normal, "uniform": sample_uniform, "ball": sample_ball}


def sample(
    laws: tuple[str, ...],
    seed: int,
    stream: Stream,
    positions: Array,
    shape: tuple[int, ...],
    *,
    epoch: int = 0,
    dtype: str = "float32",
) -> tuple[Array, ...]:
    """Draws an array (B, *shape) for each law.

    positions: (B,) integers ≥ 0, each example's place in the epoch or data set. An example's noise depends on its
    position only, not on its batch. The other arguments are those of `stcore.base.seeding.generator`.
    """
    return tuple(
        _SAMPLERS[law](seed, stream, positions, shape, epoch=epoch, draw=draw, dtype=dtype)
        for draw, law in enumerate(laws)
    )
