"""Curriculum: a method whose settings change over the epochs, by fewer inner steps at first or by a ramp."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any, TypeVar

from stcore.base import checks
from stcore.core.objective import Objective, Passes, PerExample, drawn_phase, numbers_of, remember, told
from stcore.errors import UsageError
from stcore.protocols import Array, Network, Tensor

_T = TypeVar("_T", int, str)
RAMPED = ("epsilon", "beta", "consistency", "start_scale")
"""The settings that may rise from zero."""


@dataclass(frozen=True)
class Curriculum:
    """An objective for each stage of the training.

    stages: each stage's first epoch, increasing from 1, and its objective; all of one method, with the same noise.
    The phase encodes the active stage and its objective's own phase.
    """

    stages: tuple[tuple[int, Objective], ...]

    @property
    def noise_laws(self) -> tuple[str, ...]:
        return self.stages[0][1].noise_laws

    @property
    def passes(self) -> Passes:
        """The cost of its most expensive stage."""
        return max((objective.passes for _, objective in self.stages), key=lambda passes: passes.units)

    def phase(self, epoch: int) -> int:
        number = self._number(epoch)
        return number + len(self.stages) * self.stages[number][1].phase(epoch)

    def drawn(self, epoch: int, remembered: Array | None, chance: float) -> int:
        number = self._number(epoch)
        return number + len(self.stages) * drawn_phase(self.stages[number][1], epoch, remembered, chance)

    def find(self, model: Network, x: Tensor, y: Tensor, noise: tuple[Tensor, ...], phase: int = 0) -> Any:
        objective, inner_phase = self.active(phase)
        return objective.find(model, x, y, noise, inner_phase)

    def losses(self, model: Network, x: Tensor, y: Tensor, examples: Any, phase: int = 0) -> PerExample:
        objective, inner_phase = self.active(phase)
        return objective.losses(model, x, y, examples, inner_phase)

    def numbers(self, epoch: int, remembered: Array | None) -> tuple[Array, ...]:
        return numbers_of(self.active(self.phase(epoch))[0], epoch, remembered)

    def told(self, numbers: tuple[Tensor, ...]) -> Curriculum:
        return Curriculum(tuple((first, told(stage, numbers)) for first, stage in self.stages))

    def remember(self, remembered: Array | None, tally: Array) -> Array | None:
        return remember(self.stages[-1][1], remembered, tally)

    def _number(self, epoch: int) -> int:
        return sum(first <= epoch for first, _ in self.stages) - 1

    def active(self, phase: int) -> tuple[Objective, int]:
        """The objective of a phase, and its own phase."""
        inner_phase, number = divmod(phase, len(self.stages))
        return self.stages[number][1], inner_phase


def active(objective: Objective, phase: int) -> Objective:
    """The settings that are in force in a phase: those of a curriculum's stage, of a guided method, or its own."""
    while hasattr(objective, "active"):
        objective, phase = objective.active(phase)
    return objective


def with_curriculum(objective: Any, early_steps: Sequence[str], ramp: Sequence[str], epochs: int) -> Objective:
    """Returns a method whose settings change over the epochs; the method itself if nothing is asked for.

    early_steps: such as `("3@0.3", "5@0.6")`: 3 steps for the first 30 % of the epochs, 5 until 60 %, then the
    method's own number. A stage shorter than half an epoch is left out.
    ramp: such as `("epsilon@0.3", "beta@1")`: the setting rises linearly over the first 30 % of the epochs, in
    equal steps, one an epoch, the last of which is the method's own value. A step size rises with its ε.
    epochs: length of the training.
    Raises UsageError for an entry that is not of this form or names no such setting of the method, for shares
    that do not increase within (0, 1], and for `early_steps` of a method that does not search.
    """
    changes = [*_fewer_steps(objective, early_steps, epochs), *_ramps(objective, ramp, epochs)]
    if not changes:
        return objective  # type: ignore[no-any-return]

    def at(epoch: int) -> Any:
        settings = objective
        for change in changes:
            settings = change(settings, epoch)
        return settings

    kinds = groupby(range(1, epochs + 1), key=at)
    return Curriculum(tuple((next(members), settings) for settings, members in kinds))


_Change = Callable[[Any, int], Any]
"""The settings of a method, an epoch from 1 → those of that epoch."""


def _fewer_steps(objective: Any, early_steps: Sequence[str], epochs: int) -> list[_Change]:
    if not early_steps:
        return []
    if not hasattr(objective, "steps"):
        raise UsageError("early_steps: expected a method that searches; this one takes no inner steps")
    stages, shares = [], [0.0]
    for word in early_steps:
        steps, share = _read("early_steps", word, int, "STEPS@SHARE, such as 5@0.5 for five until half")
        checks.whole("early_steps", steps)
        if share <= shares[-1]:
            raise UsageError(f"early_steps: expected shares of the epochs that rise; received {word!r}")
        shares.append(share)
        stages.append((math.floor(share * epochs + 0.5), steps))

    def change(settings: Any, epoch: int) -> Any:
        steps = next((steps for until, steps in stages if epoch <= until), settings.steps)
        return dataclasses.replace(settings, steps=steps)

    return [change]


def _ramps(objective: Any, ramp: Sequence[str], epochs: int) -> list[_Change]:
    form = "SETTING@SHARE, such as epsilon@0.5 for a rise until half"
    return [_ramp(objective, *_read("ramp", word, str, form), epochs) for word in ramp]


def _ramp(objective: Any, name: str, share: float, epochs: int) -> _Change:
    own = [each for each in RAMPED if hasattr(objective, each)]
    if name not in own:
        available = ", ".join(own) or "none"
        raise UsageError(f"ramp: expected a setting of the method that may rise, {available}; received {name!r}")
    until = max(1, math.floor(share * epochs + 0.5))
    names = [name, "step_size"] if name == "epsilon" and hasattr(objective, "step_size") else [name]

    def change(settings: Any, epoch: int) -> Any:
        factor = min(1.0, epoch / until)
        return dataclasses.replace(settings, **{each: factor * getattr(objective, each) for each in names})

    return change


def _read(option: str, word: str, kind: type[_T], form: str) -> tuple[_T, float]:
    first, _, last = str(word).partition("@")
    try:
        value, share = kind(first), float(last)
    except ValueError:
        raise UsageError(f"{option}: expected {form} of the epochs; received {word!r}") from None
    if not 0 < share <= 1:
        raise UsageError(f"{option}: expected a share of the epochs in (0, 1]; received {word!r}")
    return value, share
