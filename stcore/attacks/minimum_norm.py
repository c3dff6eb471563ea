"""Minimum-norm attacks: searches for the nearest misclassified point, in no ball.

Each step evaluates the network at a point and moves on: from a misclassified point towards the image, from any
other away from it. A lane claims every misclassified point and continues until its steps are used up: near a
boundary a fresh forward may refuse the nearest one, and the nearest that it confirms counts.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import ClassVar, NamedTuple

import numpy as np

from stcore.attacks.counter_random import Keys
from stcore.attacks.hyperplane import length
from stcore.attacks.on_batch import OnBatch
from stcore.attacks.stepped import State, claims, either
from stcore.base import checks
from stcore.core.losses import margin
from stcore.core.search import forward, value_and_input_gradient
from stcore.protocols import Array, Mode, Network, Ops, Tensor

TINY = 1e-12  # lower limit of a gradient's norm, as published
NEARER = 1 - 1e-12
"""A point is nearer than another if its norm is below this share of the other's: by more than a rounding."""


class Evaluated(NamedTuple):
    """What a step knows of its point."""

    offset: Tensor
    """(B, …): the point minus the image, δ."""
    size: Tensor
    """(B,): ‖δ‖ in the attack's norm."""
    wrong: Tensor
    """(B,): 1 if the point is misclassified, else 0."""
    nearest: Tensor
    """(B,): the norm of the nearest misclassified point so far; infinite before the first."""
    loss: Tensor
    """(B,): the attack's loss at the point."""
    gradient: Tensor
    """(B, …): its gradient."""


@dataclass(frozen=True)
class MinimumNorm(OnBatch, ABC):
    """What minimum-norm attacks share: an `Attack` and a `SteppedAttack` that evaluates `steps` points.

    epsilon: the radius up to which an evaluation counts an example against the network. The search does not depend
        on it. Infinite: the evaluation's own.
    norm: among the attack's `NORMS`.   bounds: the range of pixels.
    steps: evaluations of the network, a forward and a backward pass each; the first is at the image itself.
    Raises UsageError for a value out of range.
    """

    epsilon: float = math.inf
    norm: str = "l2"
    bounds: tuple[float, float] = (0.0, 1.0)
    steps: int = 100

    NAME: ClassVar[str]
    """What evaluations call it."""
    NORMS: ClassVar[tuple[str, ...]]
    """The norms that it can minimise."""
    noise_laws: ClassVar[tuple[str, ...]] = ()
    forwards: ClassVar[int] = 1
    backwards: ClassVar[int] = 1

    def __post_init__(self) -> None:
        if self.epsilon == math.inf:
            replace(self, epsilon=0.0)  # checks the rest
            return
        checks.ball(self, self.NORMS)
        checks.whole("steps", self.steps, 1)

    @property
    def evaluations(self) -> int:
        return self.steps

    def noise(self, keys: Keys, shape: tuple[int, ...]) -> tuple[Array, ...]:
        """Draws nothing: the search starts at the image."""
        return ()

    @abstractmethod
    def pace(self, step: Array) -> Mapping[str, Array]:
        """Returns schedule values by name; see `SteppedAttack`."""

    @abstractmethod
    def begin(self, ops: Ops, x: Tensor) -> State:
        """Returns what the attack remembers beside the points, at the start."""

    @abstractmethod
    def loss(self, ops: Ops, logits: Tensor, y: Tensor) -> Tensor:
        """Returns the loss whose gradient a step uses: logits (B, C) → (B,)."""

    @abstractmethod
    def move(self, ops: Ops, x: Tensor, at: Evaluated, state: State, pace: Mapping[str, Tensor]) -> State:
        """Returns the next `point`, in the range of pixels, and what `begin` returned, updated."""

    def start(self, ops: Ops, x: Tensor, y: Tensor, target: Tensor, noise: tuple[Tensor, ...]) -> State:
        zero = ops.sum(x - x)
        none = zero + math.inf
        kept = {"point": x, "adversarial": x, "size": none, "nearest": none, "success": zero}
        return {**kept, **self.begin(ops, x)}

    def step(
        self, model: Network, x: Tensor, y: Tensor, target: Tensor, state: State, pace: Mapping[str, Tensor]
    ) -> State:
        ops, point = model.ops, state["point"]
        at_point = forward(model, point, Mode.EVAL)
        loss, gradient = value_and_input_gradient(ops, at_point, lambda z: self.loss(ops, z, y))
        above = margin(ops, at_point.logits, y)
        offset, wrong = point - x, ops.flag(above > 0.0, above)
        size = length(ops, self.norm, offset)
        adversarial_size = ops.where(wrong > 0.5, size, math.inf)
        nearest = smaller(ops, adversarial_size, state["nearest"])
        at = Evaluated(offset, size, wrong, nearest, loss, gradient)
        kept = {"adversarial": point, "size": adversarial_size, "nearest": nearest, "success": claims(ops, above)}
        return {**kept, **self.move(ops, x, at, state, pace)}

    def find(self, model: Network, x: Tensor, y: Tensor, noise: tuple[Tensor, ...], /) -> Tensor:
        """Returns the nearest misclassified points found around x (B, …) with labels y (B,); uses no noise.

        They are not projected to a ball. An image without one is returned unchanged.
        """
        ops, found = model.ops, x
        state = self.start(ops, x, y, y, ())
        zero = state["success"]
        for number in range(self.steps):
            pace = {name: zero + float(value[0]) for name, value in self.pace(np.array([number])).items()}
            before, state = state, self.step(model, x, y, y, state, pace)
            nearer = ops.flag(state["size"] < NEARER * before["nearest"], zero)
            (found,) = either(ops, nearer, (state["adversarial"],), (found,))
        return found


def cosine(first: float, last: float, step: Array, steps: int) -> Array:
    """Anneals a value from `first` to `last` over the steps (B,), by half a cosine."""
    value: Array = last + (first - last) * (1 + np.cos(math.pi * step / steps)) / 2
    return value


def normalised(ops: Ops, gradient: Tensor, norm: str = "l2") -> Tensor:
    """The gradient (B, …) over its norm; zero for a zero gradient."""
    return gradient / ops.expand_dims_like(ops.clip(length(ops, norm, gradient), TINY, math.inf), gradient)


def farthest(ops: Ops, norm: str, x: Tensor, bounds: tuple[float, float]) -> Tensor:
    """The largest norm (B,) of an offset from x (B, …) within the range of pixels."""
    down, up = x - bounds[0], bounds[1] - x
    return length(ops, norm, ops.where(down > up, down, up))


def smaller(ops: Ops, a: Tensor, b: Tensor) -> Tensor:
    """Elementwise minimum."""
    return ops.where(a < b, a, b)
