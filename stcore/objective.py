"""What every training method is: a frozen dataclass of settings that finds its examples and returns losses."""

from __future__ import annotations

from typing import Any, NamedTuple, Protocol

from stcore.protocols import Classifier, Learner, Metrics, Tensor


class PerExample(NamedTuple):
    """Losses (B,) before the mean is taken, so that wrappers can weigh or rank them, and metrics, each (B,)."""

    losses: Tensor
    metrics: Metrics


class Objective(Protocol):
    """A method. Both calls are pure tensor code; what changes with the epoch is the Python value `phase`."""

    @property
    def noise_laws(self) -> tuple[str, ...]:
        """The unit noise it needs for a batch, an array shaped like x for each law (see `stcore.noise`)."""

    def phase(self, epoch: int) -> int:
        """The variant in force in this epoch (from 1): a warm-up, late weights. Each is traced once."""

    def find(self, model: Classifier, x: Tensor, y: Tensor, noise: tuple[Tensor, ...], /, phase: int = 0) -> Any:
        """The examples of this batch; differentiates inputs only."""

    def losses(self, model: Classifier, x: Tensor, y: Tensor, examples: Any, /, phase: int = 0) -> PerExample:
        """The outer forwards, with dropout, and what they cost."""


class StepResult(NamedTuple):
    """The mean loss and the mean metrics of one step, as native scalars."""

    loss: Tensor
    metrics: Metrics


def training_step(
    learner: Learner, objective: Objective, x: Tensor, y: Tensor, noise: tuple[Tensor, ...], phase: int = 0
) -> StepResult:
    """One update: find the examples, take the mean of the losses, step the optimizer."""
    examples = learner.ops.unrecorded(lambda: objective.find(learner, x, y, noise, phase))

    def mean_loss() -> tuple[Tensor, Metrics]:
        per_example = objective.losses(learner, x, y, examples, phase)
        means = {name: learner.ops.mean(values) for name, values in per_example.metrics.items()}
        return learner.ops.mean(per_example.losses), means

    (loss, metrics), gradients = learner.value_and_grad(mean_loss)
    learner.apply_gradients(gradients)
    return StepResult(loss, metrics)
