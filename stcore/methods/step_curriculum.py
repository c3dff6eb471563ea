"""Step curriculum: fewer inner steps in the first epochs, for any method that searches."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from stcore.base import checks
from stcore.core.objective import Objective, Passes, PerExample
from stcore.errors import UsageError
from stcore.protocols import Network, Tensor


@dataclass(frozen=True)
class StepCurriculum:
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
        number = sum(first <= epoch for first, _ in self.stages) - 1
        return number + len(self.stages) * self.stages[number][1].phase(epoch)

    def find(self, model: Network, x: Tensor, y: Tensor, noise: tuple[Tensor, ...], phase: int = 0) -> Any:
        objective, inner_phase = self._active(phase)
        return objective.find(model, x, y, noise, inner_phase)

    def losses(self, model: Network, x: Tensor, y: Tensor, examples: Any, phase: int = 0) -> PerExample:
        objective, inner_phase = self._active(phase)
        return objective.losses(model, x, y, examples, inner_phase)

    def _active(self, phase: int) -> tuple[Objective, int]:
        inner_phase, number = divmod(phase, len(self.stages))
        return self.stages[number][1], inner_phase


def with_step_curriculum(objective: Any, early_steps: Sequence[str], epochs: int) -> Objective:
    """Returns a method whose first epochs take fewer inner steps; the method itself if `early_steps` is empty.

    early_steps: such as `("3@0.3", "5@0.6")`: 3 steps for the first 30 % of the epochs, 5 until 60 %, then the
    method's own number. A stage shorter than half an epoch is left out.   epochs: length of the training.
    Raises UsageError if an entry is not of this form, the shares do not increase within (0, 1], or the method has
    no search.
    """
    if not early_steps:
        return objective  # type: ignore[no-any-return]
    if not hasattr(objective, "steps"):
        raise UsageError("early_steps: expected a method that searches; this one takes no inner steps")
    first_epoch, stages = 1, []
    shares = [0.0]
    for word in early_steps:
        steps, share = _read(word)
        if not shares[-1] < share <= 1.0:
            raise UsageError(f"early_steps: expected shares of the epochs that rise, up to 1; received {word!r}")
        shares.append(share)
        until = math.floor(share * epochs + 0.5)
        if until >= first_epoch:
            stages.append((first_epoch, dataclasses.replace(objective, steps=steps)))
            first_epoch = until + 1
    if first_epoch <= epochs:
        stages.append((first_epoch, objective))
    return StepCurriculum(tuple(stages))


def _read(word: str) -> tuple[int, float]:
    steps, _, share = str(word).partition("@")
    try:
        number, until = int(steps), float(share)
    except ValueError:
        raise UsageError(
            f"early_steps: expected STEPS@SHARE, such as 5@0.5 for five until half of the epochs are over; "
            f"received {word!r}"
        ) from None
    checks.whole("early_steps", number)
    return number, until
