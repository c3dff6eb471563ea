"""Gradient search for examples: settings, starts, forwards, and the PGD loop (Eqs. 1 and 4).

Squeeze training, adversarial training and the attacks share these parts. A loop around an image x keeps its
iterates in the ball of radius ε and in the range of pixels (`stcore.core.threat`).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple, Protocol, TypeAlias

from stcore.core.threat import NORMS, Threat
from stcore.protocols import Mode, Network, Ops, Pullback, Tensor


class Ball(Protocol):
    """The settings of a threat model.

    epsilon: radius of the ball, in units of pixels in [0, 1].   norm: `linf` or `l2`.   bounds: range of pixels.
    """

    @property
    def epsilon(self) -> float: ...
    @property
    def norm(self) -> str: ...
    @property
    def bounds(self) -> tuple[float, float]: ...


class Search(Ball, Protocol):
    """The settings that every search in small steps has.

    step_size: α.   steps: K.   init: `gaussian` (x + noise_std·N(0, 1)), `uniform` (in the ball) or `natural` (x).
    """

    @property
    def step_size(self) -> float: ...
    @property
    def steps(self) -> int: ...
    @property
    def init(self) -> str: ...
    @property
    def noise_std(self) -> float: ...


def threat_of(search: Ball) -> Threat:
    """Returns the threat model of a search: its ball and range of pixels."""
    return NORMS[search.norm](search.epsilon, search.bounds)


def noise_laws(search: Search, count: int) -> tuple[str, ...]:
    """Returns the laws of `count` start noises (see `stcore.base.noise`); none if the search starts at x."""
    if search.init == "natural":
        return ()
    law = "normal" if search.init == "gaussian" else "uniform" if search.norm == "linf" else "ball"
    return (law,) * count


def starts(search: Search, x: Tensor, noise: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """Returns x + noise_std·noise (gaussian) or x + ε·noise (uniform) for each noise, not clamped; else x."""
    scale = search.noise_std if search.init == "gaussian" else search.epsilon
    return tuple(x + scale * unit for unit in noise) or (x,)


Loss: TypeAlias = Callable[[Tensor], Tensor]
"""Logits (B, C) → a value per example (B,)."""
Watch: TypeAlias = Callable[..., tuple[Tensor, ...]]
"""An iterate (B, …), the logits (B, C) of each of its forwards, and the values accumulated so far → the next."""


def ascend(model: Network, x: Tensor, start: Tensor, loss: Loss, search: Search) -> Tensor:
    """Maximises `loss` around x by `search.steps` projected steps in EVAL mode; returns the last iterate."""
    point, _ = ascend_watching(model, x, start, loss, search, lambda point, logits: (), ())
    return point


def ascend_and_tally(
    model: Network, x: Tensor, start: Tensor, loss: Loss, search: Search, tally: Loss
) -> tuple[Tensor, Tensor]:
    """Like `ascend`; also returns the sum (B,) of `tally` over the start and all iterates but the last."""

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
    samples: int = 1,
) -> tuple[Tensor, tuple[Tensor, ...]]:
    """Like `ascend`; also returns what `watch` accumulates from `seen` over the iterates.

    `watch` sees the start and all iterates but the last: those whose forwards are made anyway.
    momentum: μ of g ← μ·g + ∇/‖∇‖₁, the direction of the steps (Dong et al., 2018); 0: the plain gradient.
    samples: forwards of an iterate, whose gradients are averaged; `watch` is given the logits of each.
    """
    ops, threat = model.ops, threat_of(search)
    project = threat.projection(ops, x)

    def body(point: Tensor, direction: Tensor, *seen: Tensor) -> tuple[Tensor, ...]:
        _, gradient, logits = averaged(model, point, loss, samples)
        direction = momentum * direction + _l1_normalised(ops, gradient) if momentum else gradient
        moved = project(threat.step(ops, point, direction, search.step_size))
        return moved, direction, *watch(point, *logits, *seen)

    last, _, *seen_last = ops.fori_loop(search.steps, body, (start, x - x, *seen))
    return last, tuple(seen_last)


class Forward(NamedTuple):
    """Logits (B, C), and the pullback from them to the pixels."""

    logits: Tensor
    pullback: Pullback


def forward(model: Network, x: Tensor, mode: Mode) -> Forward:
    """Computes logits that are differentiable with respect to the pixels x only."""
    return Forward(*model.ops.vjp(lambda pixels: model.logits(pixels, mode), x))


def value_and_input_gradient(ops: Ops, at: Forward, loss: Loss) -> tuple[Tensor, Tensor]:
    """Returns the loss (B,) of a forward's logits, and its gradient (B, …) with respect to the pixels.

    One backward pass, of the sum over the batch: an example's gradient does not depend on the batch size.
    """
    value, pullback = ops.vjp(loss, at.logits)
    (cotangent,) = pullback(ops.ones_like(value))
    (gradient,) = at.pullback(cotangent)
    return value, gradient


def averaged(model: Network, point: Tensor, loss: Loss, samples: int) -> tuple[Tensor, Tensor, tuple[Tensor, ...]]:
    """Returns the loss (B,) at `point` (B, …), its gradient (B, …), and the logits of each of the EVAL forwards.

    Over several forwards the gradient is their mean (expectation over transformation; Athalye et al., 2018), and
    the loss that of the last.
    """
    ops = model.ops

    def once() -> tuple[Tensor, Tensor, Tensor]:
        at_point = forward(model, point, Mode.EVAL)
        return *value_and_input_gradient(ops, at_point, loss), at_point.logits

    value, gradients, first = once()
    logits = [first]
    for _ in range(samples - 1):
        value, gradient, more = once()
        gradients = gradients + gradient
        logits.append(more)
    return value, gradients if samples == 1 else gradients / samples, tuple(logits)


_TINY = 1e-30  # keeps a division by a zero norm finite


def _l1_normalised(ops: Ops, gradient: Tensor) -> Tensor:
    length = ops.clip(ops.sum(ops.abs(gradient)), _TINY, math.inf)
    return gradient / ops.expand_dims_like(length, gradient)
