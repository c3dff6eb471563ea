"""Square attack (Andriushchenko et al., 2020): random search over square windows, without gradients.

A point is kept if it lowers the margin, z_y − max_{j≠y} z_j. Windows shrink during the search. Every lane draws
its own windows and signs from its key and step; the published code shares them within a batch.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, ClassVar

import numpy as np

from stcore.attacks import counter_random
from stcore.attacks.counter_random import Keys
from stcore.attacks.square_l2 import LAWS, moved, tiles
from stcore.attacks.stepped import State
from stcore.attacks.windows import Windows, place
from stcore.base import checks
from stcore.protocols import Array

RUN = 32  # steps whose random numbers are drawn at once
_HALVED_AFTER = (10, 50, 200, 500, 1000, 2000, 4000, 6000, 8000)  # iterations out of 10 000, as published


@dataclass(frozen=True)
class Square:
    """Square attack in l∞, l2 or l1. A `HostAttack`: evaluates the start (step 0), then a proposal per step.

    epsilon: radius of the ball, in units of pixels in [0, 1].   queries: iterations of a lane that finds nothing.
    p_init: share of the image that the first windows cover, in [0, 1]; halved after 10, 50, 200, 500, 1000, …
    iterations. rescale_schedule: scales these numbers from 10 000 to `queries`; AutoAttack does not.

    Raises UsageError for a value out of range.

    A window is min(s, H) × min(s, W) pixels, with s² that share of H · W: a square if one fits, as published,
    otherwise cut off at the image's edges. Flat inputs (B, d) are images of d × 1 × 1.

    `propose` and `judge` write into the state's arrays; the points belong to the state until the next proposal.
    """

    epsilon: float = 8 / 255
    norm: str = "linf"
    bounds: tuple[float, float] = (0.0, 1.0)
    queries: int = 5000
    p_init: float = 0.8
    rescale_schedule: bool = False

    ranks: ClassVar[tuple[int, ...]] = (1, 3)
    """The ranks of images that it takes: flat (d,), or (H, W, C)."""

    def __post_init__(self) -> None:
        checks.ball(self, ("linf", *LAWS))
        checks.whole("queries", self.queries, 1)
        checks.number("p_init", self.p_init, high=1.0)

    @property
    def evaluations(self) -> int:
        return self.queries + 1

    def sides(self, step: Array, height: int, width: int) -> Array:
        """Returns the windows' side s in pixels, odd and ≥ 3 in l2 and l1: steps (B,) ≥ 1 → integers (B,)."""
        iteration = step - 1
        if self.rescale_schedule:
            iteration = (iteration / self.queries * 10_000).astype(int)
        share = self.p_init / 2.0 ** np.searchsorted(_HALVED_AFTER, iteration)
        side: Array = np.rint(np.sqrt(share * height * width)).astype(int)
        return side.clip(1) if self.norm == "linf" else side.clip(3) // 2 * 2 + 1

    def start(self, x: Array, keys: Keys) -> State:
        """Starts from vertical stripes of ±ε per channel (l∞), or from tiles of bumps (l2, l1)."""
        images, key = _as_images(x), counter_random.keys(keys, 0)
        if self.norm == "linf":
            stripes = counter_random.signs(key, (1, *images.shape[2:])).astype(x.dtype)
            points = np.clip(images + self.epsilon * stripes, *self.bounds)
        else:
            points = tiles(LAWS[self.norm](self.epsilon, self.bounds), images, key)
        points = points.reshape(x.shape)
        unevaluated = {"success": np.zeros(len(x), bool), "margin": np.full(len(x), np.inf)}
        return {"adversarial": points, "points": points.copy(), **unevaluated}

    def propose(self, x: Array, state: State, step: Array, keys: Keys) -> Array:
        """Returns the start at step 0, and later the best point with new windows."""
        images, points, best = (_as_images(a) for a in (x, state["points"], state["adversarial"]))
        if self.norm == "linf":
            # Restores the best point in the windows of the step before, whose proposal may have been rejected.
            before, now = _windows(self, step, keys, images.shape[1:], images.dtype)
            for windows, _ in before:
                windows.write(points, windows.read(best))
            for windows, signs in now:
                pixels = windows.read(images) + self.epsilon * signs
                windows.write(points, np.clip(pixels, *self.bounds))
        else:
            law, key = LAWS[self.norm](self.epsilon, self.bounds), counter_random.keys(keys, step)
            for lanes, side in self._by_side(step, *images.shape[1:3]):
                points[lanes] = moved(law, images[lanes], best[lanes], side, key[lanes])
        proposed: Array = state["points"]
        return proposed

    def judge(self, state: State, points: Array, logits: Array, y: Array) -> State:
        """Keeps points whose margin is lower, or still zero; at zero or below the network may be wrong."""
        kept, best = self.kept(state["margin"], logits, y)
        (rows,) = kept.nonzero()
        if len(rows):
            state["adversarial"][rows] = points[rows]
        return state | {"margin": best, "success": best <= 0}

    def kept(self, best: Array, logits: Array, y: Array) -> tuple[Array, Array]:
        """Returns which proposals are kept, booleans (B,), and the margins (B,) then; best: those so far."""
        margin = _margins(logits, y)
        kept = (margin < best) | ((margin == 0) & (best == 0))
        return kept, np.where(kept, margin, best)

    def draw(
        self, steps: Array, keys: Keys, shape: tuple[int, int, int], dtype: Any
    ) -> list[list[tuple[Windows, Array]]]:
        """Returns for each row of `steps` (T, B) the windows that lanes past their start write, with their signs.

        Windows of one size are one entry, with signs (n, 1, 1, C), which are −1 or 1.
        shape: (H, W, C) of the images.   dtype: of the signs.
        """
        (count, lanes), (height, width, channels) = steps.shape, shape
        drawn: list[list[tuple[Windows, Array]]] = [[] for _ in range(count)]
        chance = counter_random.uniforms(counter_random.keys(np.tile(keys, count), steps.ravel()), (2 + channels,))
        signs = np.where(chance[:, None, None, 2:] < 0.5, -1, 1).astype(dtype)
        for which, side in self._by_side(steps.ravel(), height, width):
            windows, own = place(chance[which, :2], which % lanes, side, (height, width)), signs[which]
            ends = np.searchsorted(which, lanes * np.arange(count + 1)).tolist()
            for entries, begin, end in zip(drawn, ends, ends[1:], strict=False):
                if begin < end:
                    entries.append((windows.part(begin, end), own[begin:end]))
        return drawn

    def tabulated(self, steps: Array, keys: Keys, shape: tuple[int, int, int]) -> tuple[Array, ...]:
        """Returns `draw` as five arrays, zero for a lane at its start.

        (T, B, 1): each window's first row and column, and the row and column after its end; (T, B, C): the signs.
        """
        columns = *(np.zeros((*steps.shape, 1)) for _ in range(4)), np.zeros((*steps.shape, shape[2]))
        for step, entries in enumerate(self.draw(steps.clip(0, self.queries), keys, shape, float)):
            for windows, signs in entries:
                top, left = windows.top, windows.left
                ends = top, left, top + windows.height, left + windows.width
                for column, values in zip(columns, (*(end[:, None] for end in ends), signs[:, 0, 0]), strict=True):
                    column[step, windows.lanes] = values
        return columns

    def _by_side(self, step: Array, height: int, width: int) -> Iterator[tuple[Array, int]]:
        """Yields the lanes past their start, grouped by the side of their windows."""
        sides = _sides(self, height, width)[step]
        for side in sorted({*sides.tolist()} - {0}):
            yield np.flatnonzero(sides == side), side


@lru_cache(maxsize=8)
def _sides(attack: Square, height: int, width: int) -> Array:
    """The windows' side at each step; 0 at the start, which has none."""
    return np.append(0, attack.sides(np.arange(1, attack.evaluations), height, width))


def _windows(
    attack: Square, step: Array, keys: Keys, shape: tuple[int, int, int], dtype: Any
) -> list[list[tuple[Windows, Array]]]:
    """`Square.draw` for the steps (B,) before these and for these, out of a run of steps drawn at once."""
    since = int(step[0]) % RUN
    return _drawn(attack, (step - since).tobytes(), keys.tobytes(), shape, dtype)[since : since + 2]


@lru_cache(maxsize=1)  # drawn again where lanes have come or gone
def _drawn(
    attack: Square, step: bytes, keys: bytes, shape: tuple[int, int, int], dtype: Any
) -> list[list[tuple[Windows, Array]]]:
    """`Square.draw` for a run of steps, from the one before `step`; arrays as bytes."""
    steps = np.frombuffer(step, int) + np.arange(-1, RUN)[:, None]
    return attack.draw(steps.clip(0, attack.queries), np.frombuffer(keys, np.uint64), shape, dtype)


def _as_images(x: Array) -> Array:
    """Returns images (B, H, W, C); flat (B, d) as (B, d, 1, 1). Shares the memory."""
    return x if x.ndim == 4 else x[:, :, None, None]


def _margins(logits: Array, y: Array) -> Array:
    """Returns z_y − max_{j≠y} z_j, (B,), in float64."""
    others, lanes = logits.astype(np.float64), np.arange(len(y))
    own = others[lanes, y]
    others[lanes, y] = -np.inf
    margin: Array = own - others.max(axis=1)
    return margin
