"""Training objectives and the training step.

An objective is a method: a frozen dataclass of settings that finds its examples and returns per-example losses. A
step finds the examples, takes the mean loss and its gradients, and updates the weights once.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol, runtime_checkable

from stcore.base.seeding import Stream, generator
from stcore.core.weights import added, clipped
from stcore.protocols import Array, Learner, Metrics, Mode, Network, Ops, Tensor


class PerExample(NamedTuple):
    """Losses (B,), before the mean, so that wrappers can weight or rank them; and metrics, each (B,).

    tally: what a method that remembers counts in an epoch (see `Remembering`), summed over the batch.
    """

    losses: Tensor
    metrics: Metrics
    tally: Tensor | None = None


class Passes(NamedTuple):
    """The cost of one training step, in passes of the batch through the network."""

    forwards: int
    input_backwards: int
    weight_backwards: int

    @property
    def units(self) -> int:
        """The cost in forwards: a backward pass to the pixels counts as one, one to the weights as two."""
        return self.forwards + self.input_backwards + 2 * self.weight_backwards

    @property
    def outer_units(self) -> int:
        """The share of the outer loss and its gradient, which a weight perturbation repeats."""
        return 3 * self.weight_backwards


class Objective(Protocol):
    """A training method. `find` and `losses` are pure tensor code; the int `phase` says what the epoch changes."""

    @property
    def noise_laws(self) -> tuple[str, ...]:
        """The laws of its start noises, each an array shaped like x (see `stcore.base.noise`)."""

    @property
    def passes(self) -> Passes:
        """The cost of one step, in its most expensive phase."""

    def phase(self, epoch: int) -> int:
        """Returns the variant of an epoch (from 1), such as a warm-up or late weights. Each may be traced once."""

    def find(self, model: Network, x: Tensor, y: Tensor, noise: tuple[Tensor, ...], /, phase: int = 0) -> Any:
        """Finds the examples of a batch x (B, …) with labels y, integers (B,) or soft (B, C) (see
        `stcore.core.losses`); differentiates with respect to inputs only.
        """

    def losses(self, model: Network, x: Tensor, y: Tensor, examples: Any, /, phase: int = 0) -> PerExample:
        """Makes the outer forwards, with dropout on, and returns their losses and metrics."""


@runtime_checkable
class Remembering(Protocol):
    """An objective with numbers that change over the epochs: inputs of its step, so that none is traced anew.

    What it remembers, an array, is kept with the run's state, resumed, and equal on all ranks.
    """

    def numbers(self, epoch: int, remembered: Array | None) -> tuple[Array, ...]:
        """Returns the numbers of an epoch (from 1); remembered: None before the first tally."""

    def told(self, numbers: tuple[Tensor, ...]) -> Objective:
        """Returns the method with these numbers, as tensors."""

    def remember(self, remembered: Array | None, tally: Array) -> Array | None:
        """Returns what is remembered after an epoch whose steps' tallies sum to `tally`."""


@runtime_checkable
class Drawing(Protocol):
    """An objective that draws the phase of each step; `phase` then names one of them."""

    def drawn(self, epoch: int, remembered: Array | None, chance: float) -> int:
        """Returns the phase of a step of an epoch (from 1), given what a `Remembering` method remembers.

        chance: uniform in [0, 1).
        """


def drawn_phase(objective: Objective, epoch: int, remembered: Array | None, chance: float) -> int:
    """The phase of a step; of most methods that of the epoch."""
    if isinstance(objective, Drawing):
        return objective.drawn(epoch, remembered, chance)
    return objective.phase(epoch)


def draws(objective: Objective) -> bool:
    """Whether the phases of an epoch's steps differ."""
    almost_one = 1.0 - 2.0**-53
    return drawn_phase(objective, 1, None, 0.0) != drawn_phase(objective, 1, None, almost_one)


def phase_of_step(objective: Objective, seed: int, epoch: int, step: int, remembered: Array | None) -> int:
    """The phase of a step (from 0) of an epoch (from 1) of a run with this seed, on every rank."""
    if not isinstance(objective, Drawing):
        return objective.phase(epoch)
    chance = generator(seed, Stream.PHASE, epoch=epoch, position=step).random()
    return objective.drawn(epoch, remembered, chance)


def numbers_of(objective: Objective, epoch: int, remembered: Array | None) -> tuple[Array, ...]:
    """The numbers of an epoch (from 1); most methods have none."""
    return objective.numbers(epoch, remembered) if isinstance(objective, Remembering) else ()


def remember(objective: Objective, remembered: Array | None, tally: Array) -> Array | None:
    """What is remembered after an epoch; of most methods nothing."""
    return objective.remember(remembered, tally) if isinstance(objective, Remembering) else None


def told(objective: Objective, numbers: tuple[Tensor, ...]) -> Objective:
    """The method with its numbers of the epoch."""
    return objective.told(numbers) if numbers and isinstance(objective, Remembering) else objective


class WeightPerturbation(Protocol):
    """A change of the weights before a step takes their gradients (see `stcore.core.perturbation`)."""

    @property
    def ascents(self) -> int:
        """How often it computes the gradient of the outer loss."""

    def active(self, epoch: int) -> bool:
        """Returns whether it acts in an epoch (from 1)."""

    def perturb(self, outer: OuterLoss) -> list[Tensor | None]:
        """Shifts the learner's weights so that the loss increases; returns the shifts, None for no shift."""


UNIT = (0.0, 1.0)
"""The range of pixels where nothing says another."""


def bounds_of(objective: Any) -> tuple[float, float]:
    """The range of pixels that an objective is for; a method need not have the setting."""
    bounds: tuple[float, float] = getattr(unwrapped(objective), "bounds", UNIT)
    return bounds


def unwrapped(objective: Any) -> Any:
    """The method within its wrappers: each of them is a dataclass that has it as its field `objective`."""
    while hasattr(objective, "objective"):
        objective = objective.objective
    return objective


def stage(objective: Objective, perturbation: WeightPerturbation | None, epoch: int) -> tuple[int, bool]:
    """Returns the objective's phase in an epoch (from 1), and whether the perturbation acts."""
    return objective.phase(epoch), perturbation is not None and perturbation.active(epoch)


class Losses(Protocol):
    """The losses (B,) of examples already found, at the network's current weights."""

    def __call__(self, model: Network, /) -> PerExample: ...


class StepResult(NamedTuple):
    """The mean loss and mean metrics of one step, as native scalars; and the method's tally, if it has one."""

    loss: Tensor
    metrics: Metrics
    tally: Tensor | None = None


_TALLY = "tally"
"""Among the metrics of a step's parts: it is summed over them, where metrics are averaged."""


class Part(NamedTuple):
    """A part of a step's batch, forwarded together.

    x: pixels (B, …).   y: labels, integers (B,) or soft (B, C).   noise: tensors shaped like x.
    share: this part's share of the step's batch; the shares sum to one.   weights: factors (B,) of the losses.
    """

    x: Tensor
    y: Tensor
    noise: tuple[Tensor, ...]
    share: Tensor | float = 1.0
    weights: Tensor | None = None


@dataclass(frozen=True)
class OuterLoss:
    """The loss of a step's batch at the learner's current weights, its examples already found.

    parts: the losses of each part, and its share of the batch.
    """

    learner: Learner
    parts: Sequence[tuple[Losses, Tensor | float]]

    def value_and_grad(
        self, mean: Callable[[Losses], tuple[Tensor, Metrics]]
    ) -> tuple[tuple[Tensor, Metrics], Sequence[Tensor | None]]:
        """Returns the batch mean and its gradients, given `mean` over one part.

        They are accumulated part by part, and then summed over the ranks once.
        """
        first, *others = self.parts
        (loss, metrics), gradients = self._scaled(first, mean)
        for part in others:
            (part_loss, part_metrics), part_gradients = self._scaled(part, mean)
            loss, metrics = loss + part_loss, {n: metrics[n] + value for n, value in part_metrics.items()}
            gradients = added(gradients, part_gradients)
        return (loss, metrics), self.learner.summed(gradients)

    def _scaled(
        self, part: tuple[Losses, Tensor | float], mean: Callable[[Losses], tuple[Tensor, Metrics]]
    ) -> tuple[tuple[Tensor, Metrics], Sequence[Tensor | None]]:
        losses, share = part
        (loss, metrics), gradients = self.learner.value_and_grad(lambda: mean(losses))
        if len(self.parts) == 1:
            return (loss, metrics), gradients
        scaled = [None if g is None else share * g for g in gradients]
        parts = {name: value if name == _TALLY else share * value for name, value in metrics.items()}
        return (share * loss, parts), scaled


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
    """Makes one update on a batch that is forwarded as a whole (see `accumulated_step`).

    weights: factors (B,) of the examples' losses.
    """
    return accumulated_step(learner, objective, [Part(x, y, noise, weights=weights)], phase, perturbation)


def accumulated_step(
    learner: Learner,
    objective: Objective,
    parts: Sequence[Part],
    phase: int = 0,
    perturbation: WeightPerturbation | None = None,
    clip_norm: float | None = None,
) -> StepResult:
    """Makes one update: finds the examples, takes the mean of the losses, steps the optimizer.

    Each part has its own batch statistics, and a method's batch means are over the part. With a perturbation,
    gradient and update are taken at the perturbed weights, and the perturbation is then removed; the examples are
    those of the unperturbed weights.
    clip_norm: a longer gradient, of all weights together, is scaled to this length.
    """
    model = learner.searching()

    def losses_of(part: Part) -> tuple[Losses, Tensor | float]:
        examples = learner.ops.unrecorded(lambda: objective.find(model, part.x, part.y, part.noise, phase))

        def losses(model: Network) -> PerExample:
            with learner.same_draws():
                result = objective.losses(model, part.x, part.y, examples, phase)
            return result if part.weights is None else result._replace(losses=part.weights * result.losses)

        return losses, part.share

    outer = OuterLoss(learner, [losses_of(part) for part in parts])
    shifts = perturbation.perturb(outer) if perturbation is not None else None
    with nullcontext() if shifts is None else learner.perturbed():
        (loss, metrics), gradients = outer.value_and_grad(lambda losses: mean_loss(learner, losses))
    learner.apply_gradients(gradients if clip_norm is None else clipped(learner.ops, gradients, clip_norm))
    if shifts is not None:
        learner.shift(shifts, -1.0)
    means = dict(metrics)
    return StepResult(loss, means, means.pop(_TALLY, None))


def mean_loss(learner: Learner, losses: Losses) -> tuple[Tensor, Metrics]:
    """Returns the mean loss, plus the model's own regularization loss; and the mean metrics, beside the tally."""
    per_example, ops = losses(learner), learner.ops
    regularization = learner.regularization_loss()
    loss = ops.mean(per_example.losses)
    loss = loss if regularization is None else loss + regularization
    metrics, tally = per_example.metrics, per_example.tally
    means = dict(zip(metrics, ops.means([ops.stop_gradient(m) for m in metrics.values()]), strict=True))
    return loss, means if tally is None else means | {_TALLY: ops.stop_gradient(tally)}


class Noted:
    """A network that notes its forwards: the logits of each image batch, by the very tensor that was given."""

    def __init__(self, model: Network) -> None:
        self._model = model
        self.ops: Ops = model.ops
        self._forwards: list[tuple[Tensor, Tensor]] = []

    def logits(self, x: Tensor, mode: Mode, *, dropout: bool = False) -> Tensor:
        logits = self._model.logits(x, mode, dropout=dropout)
        self._forwards.append((x, logits))
        return logits

    def logits_of(self, x: Tensor) -> Tensor | None:
        """The logits of the first forward of x; None if there was none."""
        return next((logits for given, logits in self._forwards if given is x), None)


class Unwritten:
    """A network whose TRAIN forwards become BATCH: its running statistics are never written."""

    def __init__(self, model: Network) -> None:
        self._model = model
        self.ops: Ops = model.ops

    def logits(self, x: Tensor, mode: Mode, *, dropout: bool = False) -> Tensor:
        return self._model.logits(x, Mode.BATCH if mode is Mode.TRAIN else mode, dropout=dropout)
