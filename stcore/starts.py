"""Where a search starts: beside the image, by noise that is handed in or drawn from an explicit seed.

A *law* names the unit noise a start needs: `normal` (standard normal), `uniform` (in [−1, 1], the l∞ ball)
or `ball` (uniform in the l2 ball of each example). Everything is drawn in numpy, so that every framework
sees the same numbers.
"""

from __future__ import annotations

from stcore.protocols import Array, Tensor
from stcore.seeding import Stream, sample_ball, sample_normal, sample_uniform


def laws(init: str, norm: str, count: int) -> tuple[str, ...]:
    """The laws of the `count` noise arrays that a search with this start needs; none for `natural`."""
    if init == "natural":
        return ()
    law = "normal" if init == "gaussian" else "uniform" if norm == "linf" else "ball"
    return (law,) * count


def start(x: Tensor, noise: Tensor, init: str, epsilon: float, noise_std: float = 1e-3) -> Tensor:
    """x + noise_std·noise (gaussian) or x + ε·noise (uniform); not clamped."""
    return x + (noise_std if init == "gaussian" else epsilon) * noise


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
    """An array (B, *shape) of unit noise for each law; each example's numbers depend on its position alone."""
    return tuple(
        _SAMPLERS[law](seed, stream, positions, shape, epoch=epoch, draw=draw, dtype=dtype)
        for draw, law in enumerate(laws)
    )


_SAMPLERS = {"normal": sample_normal, "uniform": sample_uniform, "ball": sample_ball}
