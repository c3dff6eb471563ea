"""Lanes of the Square attack in l∞ whose images stay on the device.

In go the windows of many queries at once, and which proposals are kept; out come the logits. Proposals are those
that Square makes on the host, bit for bit. Not measured on a GPU.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from stcore.attacks.counter_random import Keys
from stcore.attacks.square import RUN, Square
from stcore.attacks.stepped import State, either
from stcore.core import validation
from stcore.protocols import Array, Classifier, Mode, Tensor

_NATIVE = ("x", "adversarial")


class WindowedLanes:
    """See `stcore.autoattack.lanes.Lanes`; images are native, the rest of a state is on the host."""

    forwards, backwards = 1, 0

    def __init__(self, attack: Square, classifier: Classifier) -> None:
        self._attack, self._classifier = attack, classifier
        self._propose = classifier.compile(
            lambda *args: classifier.ops.unrecorded(self._asked, *args), rowwise=True
        )
        self._keep = classifier.compile(
            lambda kept, one, other: either(classifier.ops, kept, (one,), (other,))[0], rowwise=True
        )
        self._shape: tuple[int, ...] = ()
        self._axes: tuple[Tensor, ...] = ()
        self._run: tuple[Any, list[tuple[Tensor, ...]]] = (None, [])

    def fresh(self, x: Array, y: Array, target: Array, keys: Keys) -> State:
        images, started = self._classifier.images, self._attack.start(x, keys)
        self._take_shape(x)
        begun = {name: started[name] for name in ("margin", "success")}
        return {"x": images(x), "y": y, "adversarial": images(started["adversarial"]), **begun}

    def step(self, body: State, number: Array, keys: Keys) -> State:
        points, logits = self._propose(body["x"], body["adversarial"], *self._windows(number, keys))
        on_host = validation.check_finite(self._classifier.ops.to_numpy(logits))
        kept, margin = self._attack.kept(body["margin"], on_host, body["y"])
        best = body["adversarial"]
        if kept.any():
            best = self._keep(self._classifier.pixels(kept.astype(float)), points, best)
        return {**body, "adversarial": best, "margin": margin, "success": margin <= 0}

    def take(self, body: State, rows: Sequence[int]) -> State:
        take = self._classifier.ops.take
        return {name: take(a, rows) if name in _NATIVE else a[list(rows)] for name, a in body.items()}

    def concat(self, first: State, second: State) -> State:
        concat = self._classifier.ops.concat
        return {
            name: (concat if name in _NATIVE else np.concatenate)((a, second[name])) for name, a in first.items()
        }

    def adversarial(self, body: State, rows: Sequence[int]) -> Array:
        return self._classifier.host_images(self._classifier.ops.take(body["adversarial"], rows))

    def success(self, body: State) -> Array:
        flags: Array = body["success"] > 0.5
        return flags

    def save(self, body: State) -> dict[str, Array]:
        """As lanes on the host save theirs: either continues from the other's state."""
        host = {name: self._classifier.host_images(a) if name in _NATIVE else a for name, a in body.items()}
        return {**host, "points": host["adversarial"]}

    def load(self, arrays: Mapping[str, Array]) -> State:
        self._take_shape(arrays["x"])
        return {
            name: self._classifier.images(a) if name in _NATIVE else np.array(a)
            for name, a in arrays.items()
            if name != "points"
        }

    def _asked(self, x: Tensor, best: Tensor, *windows: Tensor) -> tuple[Tensor, Tensor]:
        """The next points and their logits.   windows: as `Square.tabulated`, each broadcast over images."""
        ops, (top, left, bottom, right, signs), (row, column) = self._classifier.ops, windows, self._axes
        inside = [row > top - 0.5, row < bottom - 0.5, column > left - 0.5, column < right - 0.5]
        one, *others = (ops.flag(condition, x) for condition in inside)
        for other in others:
            one = one * other
        points = ops.where(one > 0.5, ops.clip(x + self._attack.epsilon * signs, *self._attack.bounds), best)
        return points, self._classifier.logits(points, Mode.EVAL)

    def _take_shape(self, x: Array) -> None:
        """Notes the images' shape, and keeps the row and the column of each pixel on the device."""
        if self._shape == x.shape[1:]:
            return
        self._shape = x.shape[1:]
        height, width, channels = self._size()
        axes = np.indices((height, width, channels))[:2].reshape(2, 1, *self._shape)
        self._axes = tuple(self._classifier.images(axis.astype(float)) for axis in axes)

    def _size(self) -> tuple[int, int, int]:
        height, width, channels = self._shape if len(self._shape) == 3 else (*self._shape, 1, 1)
        return height, width, channels

    def _windows(self, number: Array, keys: Keys) -> tuple[Tensor, ...]:
        """This step's windows; those of `RUN` steps go to the device together."""
        since = int(number[0]) % RUN
        of = (number - since).tobytes(), keys.tobytes()
        if self._run[0] != of:
            steps = number - since + np.arange(RUN)[:, None]
            columns = self._attack.tabulated(steps, keys, self._size())
            ones = [1] * (len(self._shape) - 1)
            parts = (
                self._classifier.ops.split(self._classifier.images(c.reshape(-1, *ones, c.shape[-1])), RUN)
                for c in columns
            )
            self._run = of, list(zip(*parts, strict=True))
        return self._run[1][since]
