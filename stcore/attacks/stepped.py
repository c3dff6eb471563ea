"""Stepped attacks: all examples advance one evaluation of the network at a time.

An example under attack is a *lane*: an image with its label and, if the attack needs one, a target class. A lane
is done when a misclassified point is found or its steps are used up, that of a minimum-norm attack only then;
another takes its place. A step therefore does not depend on the other lanes, and a lane's memory is its state: one
tensor per name with the lanes along axis 0, which can be selected, concatenated, saved and loaded.

Each step evaluates the network at the lane's current point, then moves the point.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol, TypeAlias

from stcore.attacks.counter_random import Keys
from stcore.protocols import Array, Network, Ops, Tensor

State: TypeAlias = "dict[str, Any]"
"""Native tensors (or host arrays, see `HostAttack`) with the lanes along axis 0.

Two are always present: `adversarial` (B, …), the point to verify, and `success` (B,), above 0.5 if the lane has
found one in this step.
"""


def claims(ops: Ops, margin: Tensor) -> Tensor:
    """Returns flags (B,) of the lanes that may be misclassified: the margin (B,) is not below zero.

    A tie or a non-finite margin is left to the verification.
    """
    return 1.0 - ops.flag(margin < 0.0, margin)


def either(ops: Ops, chosen: Tensor, ones: Sequence[Tensor], others: Sequence[Tensor]) -> tuple[Tensor, ...]:
    """Selects per lane: images (B, …) of `ones` if the flag (B,) in `chosen` is set, else of `others`."""
    return tuple(ops.where(ops.expand_dims_like(chosen, a) > 0.5, a, b) for a, b in zip(ones, others, strict=True))


class SteppedAttack(Protocol):
    """A gradient attack, on native tensors in the model's own layout."""

    @property
    def epsilon(self) -> float: ...
    @property
    def norm(self) -> str: ...
    @property
    def bounds(self) -> tuple[float, float]: ...

    @property
    def evaluations(self) -> int:
        """The number of steps of a lane that does not leave early."""

    @property
    def forwards(self) -> int:
        """The number of forwards per image and step."""

    @property
    def backwards(self) -> int:
        """The number of backward passes to the pixels per image and step."""

    def noise(self, keys: Keys, shape: tuple[int, ...]) -> tuple[Array, ...]:
        """Draws the host noise (B, *shape), channels last, for starts of lanes with these keys; () for none."""

    def start(self, ops: Ops, x: Tensor, y: Tensor, target: Tensor, noise: tuple[Tensor, ...]) -> State:
        """Returns the state of new lanes, without evaluating the network.

        x: natural images (B, …).   y: labels (B,), integers.   target: classes (B,), integers; the label if the
        attack has no targets.   noise: as `noise` returned it, in the model's layout.
        """

    def pace(self, step: Array) -> Mapping[str, Array]:
        """Returns schedule values by name, host numbers (B,), for each lane's step number `step` (B,), from 0."""

    def step(
        self, model: Network, x: Tensor, y: Tensor, target: Tensor, state: State, pace: Mapping[str, Tensor]
    ) -> State:
        """Makes one evaluation in EVAL mode, moves the points, and returns the next state.

        pace: the values of `pace`, as tensors (B,).
        """


class HostAttack(Protocol):
    """A black-box attack: numpy around a forward, on host images (B, H, W, C) or flat.

    Its state holds host arrays.
    """

    @property
    def epsilon(self) -> float: ...
    @property
    def norm(self) -> str: ...
    @property
    def bounds(self) -> tuple[float, float]: ...
    @property
    def evaluations(self) -> int: ...

    def start(self, x: Array, keys: Keys) -> State:
        """Returns the state of new lanes, for natural images x (B, …)."""

    def propose(self, x: Array, state: State, step: Array, keys: Keys) -> Array:
        """Returns the points (B, …) to evaluate at each lane's step number `step` (B,), from 0."""

    def judge(self, state: State, points: Array, logits: Array, y: Array) -> State:
        """Returns the next state, given the logits (B, C) of the proposed points and the labels y (B,)."""
