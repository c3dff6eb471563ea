"""Search of the single-step methods: from far noise, one step as long as the ball is wide.

Few, long steps are cheap, and the network may learn to defeat them alone: catastrophic overfitting (Wong et al.,
2020). Noise that reaches beyond the ball, and a step that is not projected back, delay it (N-FGSM).
"""

from __future__ import annotations

from typing import Any, Protocol

from stcore.base import checks
from stcore.core.losses import cross_entropy
from stcore.core.search import Ball, forward, threat_of, value_and_input_gradient
from stcore.protocols import Mode, Network, Ops, Tensor


class SingleStepSearch(Ball, Protocol):
    """The settings that the single-step methods share; lengths are in units of ε.

    start_scale: k, the radius of the uniform start; 0 starts at x.
    step_scale: α/ε, the length of a step.   steps: number of steps, 1 as published.
    project: whether each step is projected to the ball.
    search_mode: the batch-norm mode of the search's forwards, `eval`, `batch` or `train`, which moves the running
    statistics.
    """

    @property
    def start_scale(self) -> float: ...
    @property
    def step_scale(self) -> float: ...
    @property
    def steps(self) -> int: ...
    @property
    def project(self) -> bool: ...
    @property
    def search_mode(self) -> str: ...


def check(config: Any) -> None:
    """Checks these settings. Raises UsageError."""
    checks.ball(config)
    checks.number("start_scale", config.start_scale)
    checks.number("step_scale", config.step_scale)
    checks.whole("steps", config.steps, 1)
    checks.choice("search_mode", config.search_mode, [mode.value for mode in Mode])


def noise_laws(search: SingleStepSearch) -> tuple[str, ...]:
    """Returns the law of the start's noise (see `stcore.base.noise`); none if the search starts at x."""
    if not search.start_scale:
        return ()
    return ("uniform" if search.norm == "linf" else "ball",)


def start(ops: Ops, search: SingleStepSearch, x: Tensor, noise: tuple[Tensor, ...]) -> Tensor:
    """Returns x + k·ε·noise in the range of pixels, or x: (B, …)."""
    for unit in noise:
        x = ops.clip(x + search.start_scale * search.epsilon * unit, *search.bounds)
    return x


def ascend(
    model: Network, x: Tensor, y: Tensor, point: Tensor, search: SingleStepSearch, both_ways: bool = False
) -> tuple[Tensor, ...]:
    """Follows the gradient of the cross-entropy from `point` (B, …), and returns the example x'.

    both_ways: the last step is made downhill too, by the same gradient: returns x' and x''.
    """
    ops, threat, mode = model.ops, threat_of(search), Mode(search.search_mode)
    allowed = threat.projection(ops, x) if search.project else lambda moved: ops.clip(moved, *search.bounds)
    size = search.step_scale * search.epsilon
    for _ in range(search.steps):  # no loop of the backend's: a forward may write
        at, before = forward(model, point, mode), point
        _, gradient = value_and_input_gradient(ops, at, lambda logits: cross_entropy(ops, logits, y))
        point = allowed(threat.step(ops, point, gradient, size))
    if not both_ways:
        return (point,)
    return point, allowed(threat.step(ops, before, gradient, -size))
