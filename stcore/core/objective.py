"""What every training method is: a frozen dataclass of settings that finds its examples and returns losses."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

from stcore.protocols import Learner, Metrics, Mode, Network, Ops, Tensor


class PerExample(NamedTuple):
    """Losses (B,) before the mean is taken, so that wrappers can weigh or rank them, and metrics, each (B,)."""

    losses: Tensor
    metrics: Metrics


class Passes(NamedTuple):
    """What one training step costs, in passes of the batch through the network."""

    forwards: int
    input_backwards: int
    weight_backwards: int

    @property
    def units(self) -> int:
        """In forwards: a way back to the pixels costs about one, one to pixels and weights about two."""
        return self.forwards + self.input_backwards + 2 * self.weight_backwards

    @property
    def outer_units(self) -> int:
        """Of these, what the gradient of the outer loss costs, which a weight perturbation repeats."""
        return 3 * self.weight_backwards


class Objective(Protocol):
    """A method. `find` and `losses` are pure tensor code; what changes with the epoch is the int `phase`."""

    @property
    def noise_laws(self) -> tuple[str, ...]:
        """The unit noise it needs for a batch, an array shaped like x for each law (see `stcore.base.noise`)."""

    @property
    def passes(self) -> Passes:
        """What one step costs, in its dearest phase."""

    def phase(self, epoch: int) -> int:
        """The variant in force in this epoch (from 1): a warm-up, late weights. Each is traced once."""

    def find(self, model: Network, x: Tensor, y: Tensor, noise: tuple[Tensor, ...], /, phase: int = 0) -> Any:
        """The examples of this batch; differentiates inputs only."""

    def losses(self, model: Network, x: Tensor, y: Tensor, examples: Any, /, phase: int = 0) -> PerExample:
        """The outer forwards, with dropout, and what they cost."""


class WeightPerturbation(Protocol):
    """What a step does to the weights before it takes their gradients (see `stcore.core.perturbation`)."""

    @property
    def ascents(self) -> int:
        """How often it takes the gradient of the outer loss."""

    def active(self, epoch: int) -> bool:
        """Whether it acts in this epoch (from 1)."""

    def perturb(self, outer: OuterLoss) -> list[Tensor | None]:
        """Moves the learner's weights uphill on the loss; returns by how much."""


def stage(objective: Objective, perturbation: WeightPerturbation | None, epoch: int) -> tuple[int, bool]:
    """What is in force in this epoch (from 1): the objective's phase, and whether the perturbation acts."""
    return objective.phase(epoch), perturbation is not None and perturbation.active(epoch)


class Losses(Protocol):
    """The losses (B,) of the examples at hand, by the network's present weights."""

    def __call__(self, model: Network, /) -> PerExample: ...


class StepResult(NamedTuple):
    """The mean loss and the mean metrics of one step, as native scalars."""

    loss: Tensor
    metrics: Metrics


class Part(NamedTuple):
    """Examples that go through the network together.

    share: of the step's batch, a scalar; the parts' add up to one.   weights: (B,) factors of the losses.
    """

    x: Tensor
    y: Tensor
    noise: tuple[Tensor, ...]
    share: Tensor | float = 1.0
    weights: Tensor | None = None


@dataclass(frozen=True)
class OuterLoss:
    """The loss of a step's batch, its examples found, by the learner's present weights.

    parts: of each its losses, and its share of the batch.
    """

    learner: Learner
    parts: Sequence[tuple[Losses, Tensor | float]]

    def value_and_grad(
        self, mean: Callable[[Losses], tuple[Tensor, Metrics]]
    ) -> tuple[tuple[Tensor, Metrics], Sequence[Tensor | None]]:
        """A mean over a part, and its gradients, as the mean over all parts: added up one after another."""
        first, *others = self.parts
        (loss, metrics), gradients = self._of(first, mean)
        for part in others:
            (more, also), theirs = self._of(part, mean)
            loss, metrics = loss + more, {name: metrics[name] + value for name, value in also.items()}
            gradients = added(gradients, theirs)
        return (loss, metrics), gradients

    def _of(
        self, part: tuple[Losses, Tensor | float], mean: Callable[[Losses], tuple[Tensor, Metrics]]
    ) -> tuple[tuple[Tensor, Metrics], Sequence[Tensor | None]]:
        losses, share = part
        (loss, metrics), gradients = self.learner.value_and_grad(lambda: mean(losses))
        if len(self.parts) == 1:
            return (loss, metrics), gradients
        scaled = [None if one is None else share * one for one in gradients]
        return (share * loss, {name: share * value for name, value in metrics.items()}), scaled


def training_step(
    learner: Learner,
    objective: Objective,
    x: Tensor,
    y: Tensor,
    noise: tuple[Tensor, ...],
    phase: int = 0,
    perturbation: WeightPerturbation | None = None,
    weights: Tensor | None = None,
) -> StepResult:
    """One update on a batch that goes through the network as a whole (see `accumulated_step`).

    weights: (B,) factors of the examples' losses.
    """
    return accumulated_step(learner, objective, [Part(x, y, noise, weights=weights)], phase, perturbation)


def accumulated_step(
    learner: Learner,
    objective: Objective,
    parts: Sequence[Part],
    phase: int = 0,
    perturbation: WeightPerturbation | None = None,
) -> StepResult:
    """One update: find the examples, take the mean of the losses, step the optimizer.

    Of several parts, each has batch statistics of its own, and what a method takes the mean of over a batch is
    its own. With a perturbation, gradient and step are taken at the perturbed weights, which then move back; the
    examples stay those of the unperturbed ones.
    """
    model = learner.searching()

    def found(part: Part) -> tuple[Losses, Tensor | float]:
        examples = learner.ops.unrecorded(lambda: objective.find(model, part.x, part.y, part.noise, phase))

        def losses(model: Network) -> PerExample:
            each = objective.losses(model, part.x, part.y, examples, phase)
            return each if part.weights is None else each._replace(losses=part.weights * each.losses)

        return losses, part.share

    outer = OuterLoss(learner, [found(part) for part in parts])
    moved = perturbation.perturb(outer) if perturbation is not None else None
    (loss, metrics), gradients = outer.value_and_grad(lambda losses: mean_loss(learner, losses))
    learner.apply_gradients(gradients)
    if moved is not None:
        learner.shift([None if amount is None else -amount for amount in moved])
    return StepResult(loss, metrics)


def mean_loss(learner: Learner, losses: Losses) -> tuple[Tensor, Metrics]:
    """The mean loss, with what the model itself adds, and the mean metrics."""
    per_example, mean = losses(learner), learner.ops.mean
    penalty = learner.regularization_loss()
    loss = mean(per_example.losses) if penalty is None else mean(per_example.losses) + penalty
    return loss, {name: mean(values) for name, values in per_example.metrics.items()}


def added(one: Sequence[Tensor | None], other: Sequence[Tensor | None]) -> list[Tensor | None]:
    """The sums of two rows of tensors, where None adds nothing."""
    return [b if a is None else a if b is None else a + b for a, b in zip(one, other, strict=True)]


class Unwritten:
    """A network whose training forwards leave its running statistics alone."""

    def __init__(self, model: Network) -> None:
        self._model = model
        self.ops: Ops = model.ops

    def logits(self, x: Tensor, mode: Mode, *, dropout: bool = False) -> Tensor:
        return self._model.logits(x, Mode.BATCH if mode is Mode.TRAIN else mode, dropout=dropout)
