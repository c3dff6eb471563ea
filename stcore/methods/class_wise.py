"""Class-wise weights of the generalized KL (Cui et al., 2025): mean predictions of whole classes, epoch by epoch.

The weights of an image of class y are w_y, the mean of softmax(z/T) over the training images of class y in the
epoch before, T = 4, z their natural logits in that epoch's steps; in the first epoch 1/C. A soft label t weighs by
its expectation Σ_y t_y·w_y, and adds its share t_y to the mean of each class y.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

import numpy as np

from stcore.core.divergences import DIVERGENCES, Divergence, GeneralizedKL
from stcore.core.losses import as_soft
from stcore.core.objective import Noted, Objective, Passes, PerExample
from stcore.errors import UsageError
from stcore.methods.curriculum import Curriculum
from stcore.protocols import Array, Network, Ops, Tensor

TEMPERATURE = 4.0
_DIVERGENCES = ("divergence", "inner_divergence")


@dataclass(frozen=True)
class ClassWise:
    """A method whose divergence is `gkl`, with the weights of each example's class: `Remembering`.

    objective: such as `TradesConfig(divergence="gkl", beta=20)`.
    classes: C, if it is known: the first epoch then has numbers as later ones have, so that a step is traced once.
    means: w (C, C), row y the weights of class y; None: every class weighs the same.

    `stcore.train`, `stcli train` and `SqueezeModel.fit` wrap such a method by themselves. In a loop of one's
    own, each epoch has the method `told` its `numbers`, and the tallies of its `stcore.train_step`s
    are summed for `remember`. Without that, all classes weigh the same.
    Raises UsageError for a method without this divergence.
    """

    objective: Any
    classes: int | None = None
    means: Tensor | None = dataclasses.field(default=None, compare=False)

    def __post_init__(self) -> None:
        if not _generalized(self.objective):
            raise UsageError(
                f"objective: expected a method with divergence = gkl, whose weights these are; received "
                f"{self.objective!r:.200}"
            )

    @property
    def noise_laws(self) -> tuple[str, ...]:
        laws: tuple[str, ...] = self.objective.noise_laws
        return laws

    @property
    def passes(self) -> Passes:
        passes: Passes = self.objective.passes
        return passes

    def phase(self, epoch: int) -> int:
        phase: int = self.objective.phase(epoch)
        return phase

    def active(self, phase: int) -> tuple[Any, int]:
        """The method of a phase, and its own phase."""
        return self.objective, phase

    def numbers(self, epoch: int, remembered: Array | None) -> tuple[Array, ...]:
        """Returns the means (C, C); none in the first epoch if the number of classes is not known."""
        if remembered is None and self.classes is not None:
            remembered = np.full((self.classes, self.classes), 1 / self.classes)
        return () if remembered is None else (remembered,)

    def told(self, numbers: tuple[Tensor, ...]) -> ClassWise:
        return dataclasses.replace(self, means=numbers[0])

    def remember(self, remembered: Array | None, tally: Array) -> Array:
        """Returns the means of the epoch; a class without an image keeps its earlier ones."""
        counts = tally.sum(1, keepdims=True)  # each image adds a row of probabilities, of sum one
        earlier = np.full_like(tally, 1 / len(tally)) if remembered is None else remembered
        return np.where(counts > 0, tally / np.where(counts > 0, counts, 1), earlier)

    def find(self, model: Network, x: Tensor, y: Tensor, noise: tuple[Tensor, ...], phase: int = 0) -> Any:
        return self._weighted(model.ops, y).find(model, x, y, noise, phase)

    def losses(self, model: Network, x: Tensor, y: Tensor, examples: Any, phase: int = 0) -> PerExample:
        """Returns the losses; the tally (C, C) is Σ softmax(z/T) over each class's natural images."""
        noted = Noted(model)
        result: PerExample = self._weighted(model.ops, y).losses(noted, x, y, examples, phase)
        natural_of = getattr(self.objective, "natural_of", lambda x, examples: x)
        natural = noted.logits_of(natural_of(x, examples))
        if natural is None:
            raise UsageError(
                "divergence: expected a method whose loss forwards the natural images, of which gkl takes class "
                f"means; received {type(self.objective).__name__}. Take improved_kl, or give the method a "
                "natural_of(x, examples) that returns those it forwards in their place"
            )
        return result._replace(tally=_sums(model.ops, natural, y))

    def _weighted(self, ops: Ops, y: Tensor) -> Any:
        """The method, its divergence with the weights (B, C) of these labels."""
        if self.means is None:
            return self.objective
        weights = ops.matmul(as_soft(ops, y, self.means), self.means)
        changes = {
            name: dataclasses.replace(gap, weights=weights) for name, gap in _generalized(self.objective).items()
        }
        return dataclasses.replace(self.objective, **changes)


def class_wise(objective: Objective, classes: int | None = None) -> Objective:
    """The method in `ClassWise` if its divergence is `gkl`, or so each stage of its curriculum; else itself."""
    if isinstance(objective, Curriculum):
        return Curriculum(tuple((first, class_wise(stage, classes)) for first, stage in objective.stages))
    if isinstance(objective, ClassWise) and objective.means is None:
        return dataclasses.replace(objective, classes=classes)
    return ClassWise(objective, classes) if _generalized(objective) else objective


def _generalized(objective: Any) -> dict[str, GeneralizedKL]:
    """The settings of a method that are a generalized KL without weights of its own."""
    found = {name: _divergence(getattr(objective, name, None)) for name in _DIVERGENCES}
    return {name: it for name, it in found.items() if isinstance(it, GeneralizedKL) and it.weights is None}


def _divergence(setting: Any) -> Divergence | None:
    """The divergence of a setting; None if it has none, or if a method of one's own means something else by it."""
    try:
        return None if setting is None else DIVERGENCES.find(setting)
    except UsageError:
        return None


def _sums(ops: Ops, logits: Tensor, y: Tensor) -> Tensor:
    """Σ softmax(z/T) over the images of each class: logits (B, C), labels → (C, C), row y of class y."""
    predictions = ops.stop_gradient(ops.exp(ops.log_softmax(logits / TEMPERATURE)))
    return ops.matmul(as_soft(ops, y, logits), predictions, True)
