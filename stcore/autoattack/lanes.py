"""Lanes: the examples under attack at one time, stepped together and replaced one by one."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cache, partial
from typing import Any, Protocol, cast

import numpy as np

from stcore.attacks.counter_random import Keys
from stcore.attacks.square import Square
from stcore.attacks.stepped import HostAttack, State, SteppedAttack
from stcore.autoattack.windowed import WindowedLanes
from stcore.core import validation
from stcore.data.rows import Images
from stcore.protocols import Array, Classifier, Mode

Body = State
"""A state together with the constants of the lanes: images `x`, labels `y`, target classes `target`."""


class Lanes(Protocol):
    """The lanes of one attack. Arrays in and out are on the host, images (B, H, W, C) or flat."""

    forwards: int
    """The number of forwards per image and step."""
    backwards: int
    """The number of backward passes to the pixels per image and step."""

    def fresh(self, x: Array, y: Array, target: Array, keys: Keys) -> Body:
        """Returns new lanes at their starts."""

    def step(self, body: Body, number: Array, keys: Keys) -> Body:
        """Returns the lanes after one step; number: (B,), each lane's step number, from 0."""

    def take(self, body: Body, rows: Sequence[int]) -> Body:
        """Selects lanes by row."""

    def concat(self, first: Body, second: Body) -> Body:
        """Concatenates two groups of lanes."""

    def adversarial(self, body: Body, rows: Sequence[int]) -> Array:
        """Returns the points that these lanes claim as adversarial."""

    def success(self, body: Body) -> Array:
        """Returns booleans (B,): which lanes claim success."""

    def save(self, body: Body) -> dict[str, Array]:
        """Returns the lanes as host arrays."""

    def load(self, arrays: Mapping[str, Array]) -> Body:
        """Returns the lanes that `save` saved, bit for bit."""


def lanes_of(attack: SteppedAttack | HostAttack, classifier: Classifier) -> Lanes:
    """Returns the lanes of either kind of attack."""
    if isinstance(attack, Square) and attack.norm == "linf" and not _on_host(classifier):
        return WindowedLanes(attack, classifier)
    if hasattr(attack, "propose"):
        return _HostLanes(cast(HostAttack, attack), classifier)
    return _NativeLanes(attack, classifier)


def _on_host(classifier: Classifier) -> bool:
    return classifier.on_host(classifier.labels(np.zeros(1, int)))


def lanes_on(classifier: Classifier) -> Callable[[SteppedAttack | HostAttack], Lanes]:
    """Returns a function that makes the lanes of an attack on one classifier; each attack compiles once."""
    cached = cache(partial(lanes_of, classifier=classifier))  # attacks are frozen dataclasses: hashable
    return cast("Callable[[SteppedAttack | HostAttack], Lanes]", cached)


def folded(classifier: Classifier, images: Images) -> Classifier:
    """Returns the classifier, folded if equal on the first few host images: the network that lanes attack."""
    return classifier.folded(classifier.images(images[:4]))


class _NativeLanes:
    """Lanes on the device: one compiled step for any number of lanes."""

    def __init__(self, attack: SteppedAttack, classifier: Classifier) -> None:
        self._attack, self._classifier = attack, classifier
        ops = classifier.ops
        self.forwards, self.backwards = attack.forwards, attack.backwards

        def start(x: Any, y: Any, target: Any, noise: tuple[Any, ...]) -> State:
            return attack.start(ops, x, y, target, noise)

        def step(body: Body, pace: Mapping[str, Any]) -> State:
            state = {name: value for name, value in body.items() if name not in ("x", "y", "target")}
            return attack.step(classifier, body["x"], body["y"], body["target"], state, pace)

        self._start = classifier.compile(lambda *args: ops.unrecorded(lambda: start(*args)), rowwise=True)
        self._step = classifier.compile(lambda *args: ops.unrecorded(lambda: step(*args)), rowwise=True)

    def fresh(self, x: Array, y: Array, target: Array, keys: Keys) -> Body:
        classifier = self._classifier
        noise = self._attack.noise(keys, x.shape[1:])
        constant = {"x": classifier.images(x), "y": classifier.labels(y), "target": classifier.labels(target)}
        state = self._start(*constant.values(), tuple(classifier.images(n) for n in noise))
        return {**constant, **state}

    def step(self, body: Body, number: Array, keys: Keys) -> Body:
        pace: dict[str, Any] = dict(self._attack.pace(number))
        if pace:  # in one transfer
            values = self._classifier.pixels(np.concatenate(tuple(pace.values())))
            pace = dict(zip(pace, self._classifier.ops.split(values, len(pace)), strict=True))
        return {**{name: body[name] for name in ("x", "y", "target")}, **self._step(body, pace)}

    def take(self, body: Body, rows: Sequence[int]) -> Body:
        return {name: self._classifier.ops.take(value, rows) for name, value in body.items()}

    def concat(self, first: Body, second: Body) -> Body:
        return {name: self._classifier.ops.concat((value, second[name])) for name, value in first.items()}

    def adversarial(self, body: Body, rows: Sequence[int]) -> Array:
        return self._classifier.host_images(self._classifier.ops.take(body["adversarial"], rows))

    def success(self, body: Body) -> Array:
        flags: Array = self._classifier.ops.to_numpy(body["success"]) > 0.5
        return flags

    def save(self, body: Body) -> dict[str, Array]:
        return {name: self._classifier.ops.to_numpy(value) for name, value in body.items()}

    def load(self, arrays: Mapping[str, Array]) -> Body:
        classifier = self._classifier
        whole = ("y", "target")
        return {n: (classifier.labels if n in whole else classifier.pixels)(a) for n, a in arrays.items()}


class _HostLanes:
    """Lanes in numpy around a compiled forward."""

    forwards, backwards = 1, 0

    def __init__(self, attack: HostAttack, classifier: Classifier) -> None:
        self._attack, self._classifier = attack, classifier
        ops = classifier.ops
        self._logits = classifier.compile(
            lambda x: ops.unrecorded(lambda: classifier.logits(x, Mode.EVAL)), rowwise=True
        )

    def fresh(self, x: Array, y: Array, target: Array, keys: Keys) -> Body:
        return {"x": x, "y": y, **self._attack.start(x, keys)}

    def step(self, body: Body, number: Array, keys: Keys) -> Body:
        x, y = body["x"], body["y"]
        state = {name: value for name, value in body.items() if name not in ("x", "y")}
        points = self._attack.propose(x, state, number, keys)
        logits = self._classifier.ops.to_numpy(self._logits(self._classifier.images(points)))
        return {"x": x, "y": y, **self._attack.judge(state, points, validation.check_finite(logits), y)}

    def take(self, body: Body, rows: Sequence[int]) -> Body:
        return {name: value[list(rows)] for name, value in body.items()}

    def concat(self, first: Body, second: Body) -> Body:
        return {name: np.concatenate((value, second[name])) for name, value in first.items()}

    def adversarial(self, body: Body, rows: Sequence[int]) -> Array:
        found: Array = body["adversarial"][list(rows)]
        return found

    def success(self, body: Body) -> Array:
        flags: Array = body["success"] > 0.5
        return flags

    def save(self, body: Body) -> dict[str, Array]:
        return dict(body)

    def load(self, arrays: Mapping[str, Array]) -> Body:
        return {name: np.array(array) for name, array in arrays.items()}  # Square writes in place
