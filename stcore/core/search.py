"""What every search for examples is told, and what follows from it: its threat model, its noise, its start."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple, Protocol, TypeAlias

from stcore.core.threat import NORMS, Threat
from stcore.protocols import Mode, Network, Ops, Pullback, Tensor


class Search(Protocol):
    """The settings that squeeze training, adversarial training and the attacks share.

    epsilon: radius of the ball, in units of pixels in [0, 1].   step_size: α.   steps: K.
    init: `gaussian` (x + noise_std·N(0, 1)), `uniform` (in the ball) or `natural` (x itself).
    norm: `linf` or `l2`.   bounds: the range of pixels.
    """

    @property
    def epsilon(self) -> float: ...
    @property
    def step_size(self) -> float: ...
    @property
    def steps(self) -> int: ...
    @property
    def init(self) -> str: ...
    @property
    def noise_std(self) -> float: ...
    @property
    def norm(self) -> str: ...
    @property
    def bounds(self) -> tuple[float, float]: ...


def threat_of(search: Search) -> Threat:
    """The ball and the range that bound its examples."""
    return NORMS[search.norm](search.epsilon, search.bounds)


def noise_laws(search: Search, count: int) -> tuple[str, ...]:
    """The laws of the `count` noise arrays it starts from (see `stcore.base.noise`); none from x itself."""
    if search.init == "natural":
        return ()
    law = "normal" if search.init == "gaussian" else "uniform" if search.norm == "linf" else "ball"
    return (law,) * count


def starts(search: Search, x: Tensor, noise: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """x + noise_std·noise (gaussian) or x + ε·noise (uniform) for each noise, not clamped; without noise, x."""
    scale = search.noise_std if search.init == "gaussian" else search.epsilon
    return tuple(x + scale * one for one in noise) or (x,)


class Forward(NamedTuple):
    """Logits, and the way back from them to the pixels."""

    logits: Tensor
    pullback: Pullback


def forward(model: Network, x: Tensor, mode: Mode) -> Forward:
    """Logits that are differentiable with respect to the pixels, and to nothing else."""
    return Forward(*model.ops.vjp(lambda pixels: model.logits(pixels, mode), x))


Loss: TypeAlias = Callable[[Tensor], Tensor]
"""Logits (B, C) → a value per example (B,)."""
Watch: TypeAlias = Callable[..., tuple[Tensor, ...]]
"""An iterate (B, …), its logits (B, C), and each of what was seen before it → what has been seen now."""

_TINY = 1e-30  # beside a norm that is divided by


def ascend(model: Network, x: Tensor, start: Tensor, loss: Loss, search: Search) -> Tensor:
    """The last of `search.steps` iterates from `start` uphill on `loss`, around x, under running statistics."""
    point, _ = ascend_watching(model, x, start, loss, search, lambda point, logits: (), ())
    return point


def ascend_and_tally(
    model: Network, x: Tensor, start: Tensor, loss: Loss, search: Search, tally: Loss
) -> tuple[Tensor, Tensor]:
    """The same, and (B,) the sum of `tally` over the iterates that a step was taken from."""

    def watch(point: Tensor, logits: Tensor, count: Tensor) -> tuple[Tensor]:
        return (count + tally(logits),)

    point, (count,) = ascend_watching(model, x, start, loss, search, watch, (model.ops.sum(x - x),))
    return point, count


def ascend_watching(
    model: Network,
    x: Tensor,
    start: Tensor,
    loss: Loss,
    search: Search,
    watch: Watch,
    seen: tuple[Tensor, ...],
    momentum: float = 0.0,
) -> tuple[Tensor, tuple[Tensor, ...]]:
    """The last iterate, and what `watch` has seen: it is shown each iterate that a step is taken from.

    Those are the start and all others but the last, whose forwards are made in any case.
    momentum: μ of g ← μ·g + ∇/‖∇‖₁, the direction of the steps (Dong et al., 2018); 0: the gradient itself.
    """
    ops, threat = model.ops, threat_of(search)

    def body(point: Tensor, heading: Tensor, *seen: Tensor) -> tuple[Tensor, ...]:
        here = forward(model, point, Mode.EVAL)
        gradient = _gradient(ops, here, loss)
        heading = momentum * heading + _of_length_one(ops, gradient) if momentum else gradient
        ahead = threat.project(ops, threat.step(ops, point, heading, search.step_size), x)
        return ahead, heading, *watch(point, here.logits, *seen)

    point, _, *now = ops.fori_loop(search.steps, body, (start, x - x, *seen))
    return point, tuple(now)


def _gradient(ops: Ops, here: Forward, loss: Loss) -> Tensor:
    value, pullback = ops.vjp(loss, here.logits)
    (cotangent,) = pullback(ops.ones_like(value))  # of the sum over the batch: a sign knows no scale
    (gradient,) = here.pullback(cotangent)
    return gradient


def _of_length_one(ops: Ops, gradient: Tensor) -> Tensor:
    length = ops.clip(ops.sum(ops.abs(gradient)), _TINY, math.inf)
    return gradient / ops.expand_dims_like(length, gradient)
