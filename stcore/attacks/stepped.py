"""What an attack is that advances all examples one evaluation of the network at a time.

An example under attack is a *lane*: an image with its label and, where the attack wants one, a target class. A
lane is done when a misclassified point is found or its steps are over; others then take its place. So a step
knows nothing of its neighbours, and everything a lane remembers lies in its state, one tensor per name with the
lanes along axis 0: what can be cut out, put together, saved and read back.

Each step is one evaluation: it looks at the network where the lane stands, and moves on.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol, TypeAlias

from stcore.attacks.counter_random import Keys
from stcore.protocols import Array, Network, Ops, Tensor

State: TypeAlias = "dict[str, Any]"
"""Native tensors (or host arrays, see `HostAttack`) with the lanes along axis 0.

Always among them: `adversarial` (B, …), the point to be verified, and `success` (B,), above 0.5 where the lane
has found one and is done.
"""


def flag(ops: Ops, condition: Tensor, like: Tensor) -> Tensor:
    """(B,) booleans as 1 or 0 in the dtype of `like` (B,): what can be kept in a state and reckoned with."""
    one = ops.ones_like(like)
    return ops.where(condition, one, one - one)


def claims(ops: Ops, margin: Tensor) -> Tensor:
    """(B,) flags of the lanes that may be misclassified: the margin is not below zero.

    Of a tie the predicted class decides, and of what is no number nobody can: both are left to the verification.
    """
    return 1.0 - flag(ops, margin < 0.0, margin)


def either(ops: Ops, chosen: Tensor, ones: Sequence[Tensor], others: Sequence[Tensor]) -> tuple[Tensor, ...]:
    """Of images (B, …) by pairs, those of `ones` for the lanes whose flag (B,) is set, else those of `others`."""
    return tuple(
        ops.where(ops.expand_dims_like(chosen, one) > 0.5, one, other)
        for one, other in zip(ones, others, strict=True)
    )


class SteppedAttack(Protocol):
    """An attack by gradients. Everything is native and in the model's own layout, as in `stcore.attacks.pgd`."""

    @property
    def epsilon(self) -> float: ...
    @property
    def norm(self) -> str: ...
    @property
    def bounds(self) -> tuple[float, float]: ...

    @property
    def evaluations(self) -> int:
        """Steps of a lane that finds nothing."""

    @property
    def forwards(self) -> int:
        """Forwards of an image in a step."""

    @property
    def backwards(self) -> int:
        """Ways back to an image's pixels in a step."""

    def noise(self, keys: Keys, shape: tuple[int, ...]) -> tuple[Array, ...]:
        """Host noise (B, *shape), channels last, that `start` needs for lanes of these keys; () for none."""

    def start(self, ops: Ops, x: Tensor, y: Tensor, target: Tensor, noise: tuple[Tensor, ...]) -> State:
        """The state of fresh lanes; the network is not asked.

        x: natural images (B, …).   y: labels (B,), integers.   target: classes (B,), integers; the label itself
        where the attack has no targets.
        """

    def pace(self, step: Array) -> Mapping[str, Array]:
        """What step number `step` (B,), counted from 0, is told per lane: host numbers (B,) by name."""

    def step(
        self, model: Network, x: Tensor, y: Tensor, target: Tensor, state: State, pace: Mapping[str, Tensor]
    ) -> State:
        """One evaluation under running statistics, and the move that follows from it."""


class HostAttack(Protocol):
    """An attack that sees the network's logits only: numpy around a forward, images (B, H, W, C) or flat.

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
        """The state of fresh lanes."""

    def propose(self, x: Array, state: State, step: Array, keys: Keys) -> Array:
        """The points (B, …) whose logits step number `step` (B,) asks for."""

    def judge(self, state: State, points: Array, logits: Array, y: Array) -> State:
        """The state after the network has answered."""
