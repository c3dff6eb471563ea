"""Guidance by a teacher: a second network gives any method its labels, or one more term of its loss.

The teacher is the run's own average of the weights, or a network from a file. Its forwards use running statistics
and are constants. t are the labels that search and loss then take, p = softmax(z_T(x)/τ), y the true labels:

    adr           t = λ·p + (1 − λ)·y, with λ ← clip(λ − (max p − p_y), 0, 1) for each image; λ rises and τ
                  falls by half a cosine (annealing self-distillation rectification: Wu et al., 2024)
    distillation  t = λ·p + (1 − λ)·y; with λ = 1 around AT it is the robust part of RSLAD (Zi et al., 2021)
    rebat         + w·KL(p_T(x')‖p(x')), from a late epoch on (Wang et al., 2023)
    logits        + w·mean over the classes of (z_T(x) − z(x'))²: how LBGAT guides its boundary (Cui et al., 2021),
                  which trains its teacher at the same time; here it is frozen
"""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeAlias

import numpy as np

from stcore.base import checks
from stcore.core.divergences import kl
from stcore.core.losses import as_soft, expected_at_label
from stcore.core.objective import (
    Noted,
    Objective,
    Passes,
    PerExample,
    drawn_phase,
    numbers_of,
    remember,
    told,
)
from stcore.errors import UsageError
from stcore.protocols import Array, Mode, Network, Ops, Tensor

AVERAGE = "average"
"""The teacher that is the run's own average of the weights."""


DECAY = 0.995
"""The published decay of that average, per step."""


@dataclass(frozen=True)
class Targets:
    """Labels mixed with the teacher's natural prediction, as `adr` and `distillation` do.

    share: λ in [0, 1] in the first and the last epoch.   temperature: τ > 0, in the same two.
    rectified: λ of an image falls by how much the teacher prefers another class to the true one.
    Raises UsageError for a value out of range.
    """

    share: tuple[float, float] = (0.7, 0.95)
    temperature: tuple[float, float] = (2.5, 2.0)
    rectified: bool = True
    begin = 1

    def __post_init__(self) -> None:
        for name in ("share", "temperature"):
            _check_pair(f"teacher_{name}", getattr(self, name))
        for share in self.share:
            checks.number("teacher_share", share, high=1.0)
        for temperature in self.temperature:
            checks.number("teacher_temperature", temperature, low=1e-3)

    def numbers(self, done: float) -> tuple[float, ...]:
        """Returns λ and τ when the share `done` of the epochs, in [0, 1], is done."""
        left = 0.5 * (1 + math.cos(math.pi * done))
        return tuple(last + (first - last) * left for first, last in (self.share, self.temperature))

    def labels(self, ops: Ops, teacher: Tensor, y: Tensor, numbers: tuple[Any, ...]) -> Tensor:
        """Returns the labels (B, C) from the teacher's logits (B, C), the true labels, λ and τ."""
        share, temperature = numbers
        p = ops.exp(ops.log_softmax(teacher / temperature))
        if self.rectified:
            share = ops.clip(share - (ops.max(p) - expected_at_label(ops, p, y)), 0.0, 1.0)
            share = ops.expand_dims_like(share, p)
        return share * p + (1.0 - share) * as_soft(ops, y, p)


@dataclass(frozen=True)
class Agreement:
    """A term that draws the network's answer for x' to the teacher's, as `rebat` and `logits` do.

    weight: w.   begin: the first epoch with the term.   of_logits: whether the logits for x, rather than the
    prediction for x', are the teacher's answer. Raises UsageError for a value out of range.
    """

    weight: float = 1.0
    begin: int = 1
    of_logits: bool = False

    def __post_init__(self) -> None:
        checks.number("teacher_weight", self.weight)
        checks.whole("teacher_begin", self.begin, 1)

    def numbers(self, done: float) -> tuple[float, ...]:
        """Returns none."""
        return ()

    def term(self, ops: Ops, teacher: Tensor, logits: Tensor) -> Tensor:
        """Returns what it adds to the loss, (B,), from the teacher's logits and those for x', (B, C) each."""
        if self.of_logits:
            gap = teacher - logits
            return self.weight * (ops.sum(gap * gap) / ops.sum(ops.ones_like(gap)))
        return self.weight * kl(ops, ops.log_softmax(teacher), ops.log_softmax(logits))


Guidance: TypeAlias = Targets | Agreement
"""What a teacher says. `begin` is the first epoch (from 1) in which it is asked."""


def _check_pair(name: str, pair: tuple[float, ...]) -> None:
    if len(pair) != 2:
        raise UsageError(f"{name}: expected two numbers, of the first and the last epoch; received {pair}")


GUIDANCE = ("adr", "distillation", "rebat", "logits")
"""The names of what a teacher says."""
SETTINGS = {
    "adr": ("teacher_share", "teacher_temperature"),
    "distillation": ("teacher_share", "teacher_temperature"),
    "rebat": ("teacher_weight", "teacher_begin"),
    "logits": ("teacher_weight", "teacher_begin"),
}
"""The settings of each."""


def make_guidance(name: str, **settings: Any) -> Guidance:
    """Guidance by name, with its own settings. Raises UsageError for a value out of range."""
    own = {setting.removeprefix("teacher_"): value for setting, value in settings.items()}
    if name in ("adr", "distillation"):
        return Targets(**own, rectified=name == "adr")
    return Agreement(**own, of_logits=name == "logits")


def published(name: str, epochs: int) -> dict[str, Any]:
    """The settings as published: ADR's for a ResNet-18 on CIFAR-10; ReBAT's term begins at epoch 105 of 200."""
    settings: dict[str, dict[str, Any]] = {
        "adr": {"teacher_share": (0.7, 0.95), "teacher_temperature": (2.5, 2.0)},
        "distillation": {"teacher_share": (1.0, 1.0), "teacher_temperature": (1.0, 1.0)},
        "rebat": {"teacher_weight": 1.0, "teacher_begin": max(1, math.ceil(epochs * 105 / 200))},
        "logits": {"teacher_weight": 1.0, "teacher_begin": 1},
    }
    return settings[name]


class Taught(NamedTuple):
    """What a guided method finds: its examples, the labels, and for a term the teacher's logits (B, C)."""

    examples: Any
    labels: Tensor
    teacher: Tensor | None


@dataclass(frozen=True)
class Guided:
    """A method with a teacher.

    epochs: of the training, over which the guidance's numbers change.   teacher: None until it is known.
    x' is the first of the method's examples. Before the guidance begins the method is itself. In a loop of
    one's own its numbers are those of the first epoch, unless it is `told` others.
    """

    objective: Objective
    guidance: Guidance
    epochs: int
    teacher: Network | None = None
    _numbers: tuple[Tensor, ...] = ()

    def __post_init__(self) -> None:
        if isinstance(self.guidance, Agreement) and not self.objective.passes.input_backwards:
            raise UsageError("guidance: expected a method that finds adversarial examples; received one without")

    @property
    def noise_laws(self) -> tuple[str, ...]:
        return self.objective.noise_laws

    @property
    def passes(self) -> Passes:
        passes = self.objective.passes
        return passes._replace(forwards=passes.forwards + 1)

    def phase(self, epoch: int) -> int:
        return 2 * self.objective.phase(epoch) + (epoch < self.guidance.begin)

    def drawn(self, epoch: int, remembered: Array | None, chance: float) -> int:
        return 2 * drawn_phase(self.objective, epoch, remembered, chance) + (epoch < self.guidance.begin)

    def active(self, phase: int) -> tuple[Objective, int]:
        """The method of a phase, and its own phase."""
        return self.objective, phase // 2

    def numbers(self, epoch: int, remembered: Array | None) -> tuple[Array, ...]:
        own = self.guidance.numbers((epoch - 1) / max(1, self.epochs - 1))
        return (*map(np.array, own), *numbers_of(self.objective, epoch, remembered))

    def told(self, numbers: tuple[Tensor, ...]) -> Guided:
        count = len(self.guidance.numbers(0.0))
        method = told(self.objective, numbers[count:])
        return dataclasses.replace(self, objective=method, _numbers=numbers[:count])

    def remember(self, remembered: Array | None, tally: Array) -> Array | None:
        return remember(self.objective, remembered, tally)

    def find(self, model: Network, x: Tensor, y: Tensor, noise: tuple[Tensor, ...], phase: int = 0) -> Taught:
        """Asks the teacher, and finds the method's examples for its labels."""
        (method, inner), guidance, early = self.active(phase), self.guidance, phase % 2
        if isinstance(guidance, Targets) and not early:
            numbers = self._numbers or guidance.numbers(0.0)
            y = guidance.labels(model.ops, self._ask(x), y, numbers)
        examples = method.find(model, x, y, noise, inner)
        if isinstance(guidance, Targets) or early:
            return Taught(examples, y, None)
        return Taught(examples, y, self._ask(x if guidance.of_logits else _first(examples)))

    def losses(self, model: Network, x: Tensor, y: Tensor, found: Taught, phase: int = 0) -> PerExample:
        """Returns the method's losses for these labels, plus the guidance's term, which makes no forward."""
        (method, inner), noted = self.active(phase), Noted(model)
        result = method.losses(noted, x, found.labels, found.examples, inner)
        if found.teacher is None or isinstance(self.guidance, Targets):  # nothing is added
            return result
        logits = noted.logits_of(_first(found.examples))
        if logits is None:
            raise UsageError(f"guidance: expected a method whose loss forwards x' as it is; received {method}")
        term = self.guidance.term(model.ops, found.teacher, logits)
        return result._replace(losses=result.losses + term, metrics={**result.metrics, "guidance": term})

    def _ask(self, x: Tensor) -> Tensor:
        if self.teacher is None:
            raise UsageError(
                "teacher: expected a network; received none. In one's own loop give "
                "dataclasses.replace(objective, teacher=stcore.make_classifier(network))"
            )
        return self.teacher.logits(x, Mode.EVAL)


def _first(examples: Any) -> Tensor:
    """x', the first of a method's examples."""
    return examples[0] if isinstance(examples, tuple) else examples
