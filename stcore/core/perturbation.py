"""Weight perturbations (AWP, RWP): a step's gradients are taken at nearby weights with a larger loss.

The weights of convolutions and linear layers move so that the training loss increases, by a share of their norm;
biases and batch norms stay. The examples are those of the unperturbed weights. The direction is found under batch
statistics that write nothing. The optimizer steps at the perturbed weights, and the perturbation is then removed.
Neither direction has a learning rate: that of the published proxy cancels in the scale.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from stcore.base import checks
from stcore.core.objective import Losses, OuterLoss, Unwritten
from stcore.core.weights import Tensors, added, norm, present, scaled
from stcore.protocols import Metrics, Tensor

_TINY = 1e-20  # in the denominators, as published


@dataclass(frozen=True)
class AWP:
    """Adversarial weight perturbation (Wu et al., 2020): w + γ·‖w‖·g/‖g‖ for each tensor, g its gradient.

    gamma: γ, the size of the perturbation as a share of each tensor's norm, at least 0.
    warmup: the first epoch (from 1) in which it acts. Raises UsageError for a value out of range.
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
        """Takes one gradient step, scaled tensor by tensor."""
        learner = outer.learner
        ops, weights = learner.ops, learner.matrix_weights()
        gradients = _gradients(outer, weights, lambda losses: losses)
        if all(g is None for g in gradients):  # every weight is frozen, or the loss reaches none
            return list(gradients)
        moving = [w for w, g in zip(weights, gradients, strict=True) if g is not None]
        lengths = self.gamma * ops.norms(moving) / (ops.norms(present(gradients)) + _TINY)
        move = scaled(ops, gradients, lengths)
        learner.shift(move)
        return move


@dataclass(frozen=True)
class RWP:
    """Robust weight perturbation (Yu et al., 2022): AWP in several steps, on examples with a small loss.

    One scale serves all tensors together. Only examples whose loss is below the threshold count.
    gamma, warmup: as in AWP.   steps: at least 1; each is taken at w + γ·‖w‖·Δ/‖Δ‖, Δ the sum of the gradients so
    far. threshold: c_min, in nats, for the loss including its weights; published: 1.7 for CIFAR-10 and SVHN, 4.0
    for CIFAR-100. Raises UsageError for a value out of range.
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
        """Takes `steps` gradient steps; the sum of their gradients is scaled as one vector."""
        learner = outer.learner
        ops, weights = learner.ops, learner.matrix_weights()
        if all(w is None for w in weights):  # every weight is frozen
            return list(weights)
        length = self.gamma * norm(ops, weights)

        def below_threshold(losses: Tensor) -> Tensor:
            return ops.where(losses < self.threshold, losses, 0.0)

        total: Tensors = [None] * len(weights)
        move: list[Tensor | None] = [None] * len(weights)
        for _ in range(self.steps):
            total = added(total, _gradients(outer, weights, below_threshold))
            if all(g is None for g in total):  # the loss reaches no weight
                break
            next_move = scaled(ops, total, length / (norm(ops, total) + _TINY))
            learner.shift(added(next_move, [None if m is None else -m for m in move]))
            move = next_move
        return move


def _gradients(outer: OuterLoss, weights: Tensors, of: Callable[[Tensor], Tensor]) -> Tensors:
    """Returns the gradients of the mean of `of(losses)` for the matrix weights; None for all other weights."""
    learner = outer.learner

    def mean(losses: Losses) -> tuple[Tensor, Metrics]:
        return learner.ops.mean(of(losses(Unwritten(learner)).losses)), {}

    _, gradients = outer.value_and_grad(mean)
    return [None if w is None else g for w, g in zip(weights, gradients, strict=True)]
