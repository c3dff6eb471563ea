"""What every training method is: a frozen dataclass of settings that finds its examples and returns losses."""

from __future__ import annotations

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
        """The unit noise it needs for a batch, an array shaped like x for each law (see `stcore.noise`)."""

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
    """What a step does to the weights before it takes their gradients (see `stcore.perturbation`)."""

    @property
    def ascents(self) -> int:
        """How often it takes the gradient of the outer loss."""

    def active(self, epoch: int) -> bool:
        """Whether it acts in this epoch (from 1)."""

    def perturb(self, learner: Learner, losses: Losses) -> list[Tensor | None]:
        """Moves the weights uphill on the losses; returns by how much."""


class Losses(Protocol):
    """The losses (B,) of the batch at hand, its examples found, by the network's present weights."""

    def __call__(self, model: Network, /) -> PerExample: ...


class StepResult(NamedTuple):
    """The mean loss and the mean metrics of one step, as native scalars."""

    loss: Tensor
    metrics: Metrics


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
    """One update: find the examples, take the mean of the losses, step the optimizer.

    weights: (B,) factors of the examples' losses. With a perturbation, gradient and step are taken at the
    perturbed weights, which then move back; the examples stay those of the unperturbed ones.
    """
    examples = learner.ops.unrecorded(lambda: objective.find(learner, x, y, noise, phase))

    def losses(model: Network) -> PerExample:
        per_example = objective.losses(model, x, y, examples, phase)
        return per_example if weights is None else per_example._replace(losses=weights * per_example.losses)

    moved = perturbation.perturb(learner, losses) if perturbation is not None else None
    (loss, metrics), gradients = learner.value_and_grad(lambda: mean_loss(learner, losses))
    learner.apply_gradients(gradients)
    if moved is not None:
        learner.shift([None if amount is None else -amount for amount in moved])
    return StepResult(loss, metrics)


def mean_loss(learner: Learner, losses: Losses) -> tuple[Tensor, Metrics]:
    """The batch's mean loss, with what the model itself adds, and its mean metrics."""
    per_example, mean = losses(learner), learner.ops.mean
    penalty = learner.penalty()
    loss = mean(per_example.losses) if penalty is None else mean(per_example.losses) + penalty
    return loss, {name: mean(values) for name, values in per_example.metrics.items()}


class Unwritten:
    """A network whose training forwards leave its running statistics alone."""

    def __init__(self, model: Network) -> None:
        self._model = model
        self.ops: Ops = model.ops

    def logits(self, x: Tensor, mode: Mode, *, dropout: bool = False) -> Tensor:
        return self._model.logits(x, Mode.BATCH if mode is Mode.TRAIN else mode, dropout=dropout)
