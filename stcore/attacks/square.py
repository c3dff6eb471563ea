"""The Square attack (Andriushchenko et al., 2020): random search by windows, without a gradient.

A point is kept where it lowers the margin, z_y − max over j ≠ y of z_j. Windows shrink as the search goes on.
Every lane draws its own windows and signs from its key and step; published code shares them within the batch.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from stcore.attacks import counter_random
from stcore.attacks.counter_random import Keys
from stcore.attacks.square_l2 import LAWS, moved, tiles
from stcore.attacks.stepped import State
from stcore.attacks.windows import Windows, place
from stcore.base import checks
from stcore.protocols import Array

_HALVED_AFTER = (10, 50, 200, 500, 1000, 2000, 4000, 6000, 8000)  # iterations, of 10 000 (as published)


@dataclass(frozen=True)
class Square:
    """A `HostAttack` in l∞, l2 or l1. Step 0 asks for the start, step i for the proposal of iteration i − 1.

    queries: iterations of a lane that finds nothing.
    p_init: share of the image that the first windows cover; halved after 10, 50, 200, 500, 1000, … iterations.
    rescale_schedule: those numbers are of 10 000, and scaled to `queries`; AutoAttack leaves them as they are.

    A window is min(s, H) × min(s, W) pixels, s² being that share of H · W: a square where one fits, as published,
    and else cut off at the image's edges. Flat inputs (B, d) are images of d × 1 × 1.

    `propose` and `judge` write into the state's arrays; the points are the state's own until the next proposal.
    """

    epsilon: float = 8 / 255
    norm: str = "linf"
    bounds: tuple[float, float] = (0.0, 1.0)
    queries: int = 5000
    p_init: float = 0.8
    rescale_schedule: bool = False

    def __post_init__(self) -> None:
        checks.ball(self, ("linf", *LAWS))
        checks.whole("queries", self.queries, 1)
        checks.number("p_init", self.p_init, high=1.0)

    @property
    def evaluations(self) -> int:
        return self.queries + 1

    def sides(self, step: Array, height: int, width: int) -> Array:
        """(B,) steps ≥ 1 → (B,) whole numbers: the windows' side s in pixels; odd and at least 3 in l2 and l1."""
        iteration = step - 1
        if self.rescale_schedule:
            iteration = (iteration / self.queries * 10_000).astype(int)
        share = self.p_init / 2.0 ** np.searchsorted(_HALVED_AFTER, iteration)
        side: Array = np.rint(np.sqrt(share * height * width)).astype(int)
        return side.clip(1) if self.norm == "linf" else side.clip(3) // 2 * 2 + 1

    def start(self, x: Array, keys: Keys) -> State:
        """Vertical stripes of ±ε per channel (l∞), or tiles of bumps (l2, l1)."""
        images, key = _as_images(x), counter_random.keys(keys, 0)
        if self.norm == "linf":
            stripes = counter_random.signs(key, (1, *images.shape[2:])).astype(x.dtype)
            points = np.clip(images + self.epsilon * stripes, *self.bounds)
        else:
            points = tiles(LAWS[self.norm](self.epsilon, self.bounds), images, key)
        points = points.reshape(x.shape)
        unjudged = {"success": np.zeros(len(x), bool), "margin": np.full(len(x), np.inf)}
        return {"adversarial": points, "points": points.copy(), **unjudged}

    def propose(self, x: Array, state: State, step: Array, keys: Keys) -> Array:
        images, points, best = (_as_images(a) for a in (x, state["points"], state["adversarial"]))
        if self.norm == "linf":
            for windows, _ in self._windows(
                images, np.maximum(step - 1, 0), keys
            ):  # undone, where they were turned down
                windows.write(points, windows.read(best))
            for windows, signs in self._windows(images, step, keys):
                corner = windows.read(images) + self.epsilon * signs
                windows.write(points, np.clip(corner, *self.bounds))
        else:
            law, key = LAWS[self.norm](self.epsilon, self.bounds), counter_random.keys(keys, step)
            for lanes, side in self._alike(images, step):
                points[lanes] = moved(law, images[lanes], best[lanes], side, key[lanes])
        proposed: Array = state["points"]
        return proposed

    def judge(self, state: State, points: Array, logits: Array, y: Array) -> State:
        """Kept where the margin is lower, or stays at zero; at zero or below the network may err."""
        margin, best = _margins(logits, y), state["margin"]
        kept = (margin < best) | ((margin == 0) & (best == 0))
        state["adversarial"][kept] = points[kept]
        best = np.where(kept, margin, best)
        return state | {"margin": best, "success": best <= 0}

    def _windows(self, images: Array, step: Array, keys: Keys) -> Iterator[tuple[Windows, Array]]:
        """The windows that lanes past their start write at this step, with their signs (n, 1, 1, C)."""
        channels = images.shape[3]
        chance = counter_random.uniforms(counter_random.keys(keys, step), (2 + channels,))
        signs = np.where(chance[:, None, None, 2:] < 0.5, -1, 1).astype(images.dtype)
        for lanes, side in self._alike(images, step):
            yield place(chance[lanes, :2], lanes, side, images), signs[lanes]

    def _alike(self, images: Array, step: Array) -> Iterator[tuple[Array, int]]:
        """Lanes past their start, those with windows of one side together."""
        sides = np.where(step > 0, self.sides(step, *images.shape[1:3]), 0)
        for side in np.unique(sides[sides > 0]):
            yield np.flatnonzero(sides == side), int(side)


def _as_images(x: Array) -> Array:
    """(B, H, W, C), or flat (B, d) → (B, d, 1, 1), the same memory."""
    return x if x.ndim == 4 else x[:, :, None, None]


def _margins(logits: Array, y: Array) -> Array:
    """z_y − max over j ≠ y of z_j, (B,)."""
    others, lanes = logits.astype(np.float64), np.arange(len(y))
    own = others[lanes, y]
    others[lanes, y] = -np.inf
    margin: Array = own - others.max(axis=1)
    return margin
