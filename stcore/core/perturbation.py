"""Training at perturbed weights: a step's gradients are taken where its loss is worse nearby (AWP, RWP).

The weights of convolutions and linear layers move uphill on the training loss, relative to their own norm; biases
and batch norms stay. The examples are those of the unperturbed weights, the direction is found under batch
statistics that write nothing, the optimizer steps at the perturbed weights, and the move is taken back.
Both directions are free of a learning rate: the published proxy's cancels in the scale.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from stcore.base import checks
from stcore.core.objective import Losses, OuterLoss, Unwritten, added
from stcore.protocols import Metrics, Ops, Tensor

Tensors = Sequence[Tensor | None]
_TINY = 1e-20  # in the published denominators


@dataclass(frozen=True)
class AWP:
    """Adversarial weight perturbation (Wu et al., 2020): w + γ·‖w‖·g/‖g‖ for each tensor, g its gradient.

    gamma: the size of the move, as a share of each tensor's norm.   warmup: acts from this epoch on (from 1).
    """

    gamma: float = 0.005
    warmup: int = 0

    def __post_init__(self) -> None:
        checks.number("gamma", self.gamma)
        checks.whole("warmup", self.warmup)

    @property
    def ascents(self) -> int:
        return 1

    def active(self, epoch: int) -> bool:
        return epoch >= self.warmup

    def perturb(self, outer: OuterLoss) -> list[Tensor | None]:
        """One step uphill, scaled tensor by tensor."""
        learner = outer.learner
        ops, kernels = learner.ops, learner.matrix_weights()
        uphill = _gradients(outer, kernels, lambda losses: losses)
        move = [
            None if w is None or g is None else g * (self.gamma * _norm(ops, [w]) / (_norm(ops, [g]) + _TINY))
            for w, g in zip(kernels, uphill, strict=True)
        ]
        learner.shift(move)
        return move


@dataclass(frozen=True)
class RWP:
    """Robust weight perturbation (Yu et al., 2022): AWP in several steps, one scale for all tensors together,
    and uphill on those examples alone whose loss is still below a threshold.

    gamma, warmup: as in AWP.   steps: each starts anew from w + γ·‖w‖·Δ/‖Δ‖, Δ the sum of the gradients so far.
    threshold: c_min, in nats, of the loss as the step takes it, weights included; 1.7 for CIFAR-10 and SVHN, 4.0
    for CIFAR-100 as published.
    """

    gamma: float = 0.005
    warmup: int = 0
    steps: int = 10
    threshold: float = 1.7

    def __post_init__(self) -> None:
        checks.number("gamma", self.gamma)
        checks.whole("warmup", self.warmup)
        checks.whole("steps", self.steps, 1)
        checks.number("threshold", self.threshold)

    @property
    def ascents(self) -> int:
        return self.steps

    def active(self, epoch: int) -> bool:
        return epoch >= self.warmup

    def perturb(self, outer: OuterLoss) -> list[Tensor | None]:
        """So many steps uphill, their gradients added up and scaled as one."""
        learner = outer.learner
        ops, kernels = learner.ops, learner.matrix_weights()
        if all(w is None for w in kernels):  # all are frozen
            return list(kernels)
        length = self.gamma * _norm(ops, kernels)

        def below_threshold(losses: Tensor) -> Tensor:
            return ops.where(losses < self.threshold, losses, 0.0)

        path: Tensors = [None] * len(kernels)
        move: list[Tensor | None] = [None] * len(kernels)
        for _ in range(self.steps):
            path = added(path, _gradients(outer, kernels, below_threshold))
            if all(g is None for g in path):  # the loss reaches none
                break
            scale = length / (_norm(ops, path) + _TINY)
            target = [None if one is None else one * scale for one in path]
            learner.shift(added(target, [None if one is None else -one for one in move]))
            move = target
        return move


def _gradients(outer: OuterLoss, kernels: Tensors, of: Callable[[Tensor], Tensor]) -> Tensors:
    """The gradients, with respect to the kernels, of the mean of a function of the losses; None where none is."""
    learner = outer.learner

    def mean(losses: Losses) -> tuple[Tensor, Metrics]:
        return learner.ops.mean(of(losses(Unwritten(learner)).losses)), {}

    _, gradients = outer.value_and_grad(mean)
    return [g if w is not None else None for w, g in zip(kernels, gradients, strict=True)]


def _norm(ops: Ops, tensors: Tensors) -> Tensor:
    """The Euclidean norm of all of them together, a scalar; there is at least one."""
    squares = [ops.sum_all(one * one) for one in tensors if one is not None]
    return ops.sqrt(sum(squares[1:], squares[0]))
