"""The progress of an epoch, and the means of its metrics."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from stcore.errors import DivergedError
from stcore.methods.metrics import readable
from stcore.protocols import Metrics, Ops
from stcore.training.diagnosis import why_diverged


@dataclass
class EpochSoFar:
    """The progress of an epoch: steps and examples done, sums of metrics, seconds, trouble by kind."""

    epoch: int
    steps: int = 0
    examples: int = 0
    sums: dict[str, float] = field(default_factory=dict)
    seconds: float = 0.0
    trouble: dict[str, str] = field(default_factory=dict)

    def means(self) -> dict[str, float]:
        """The means of the metrics over the examples so far, and the deviations of the losses."""
        return readable({name: total / self.examples for name, total in self.sums.items()})


class RunningMeans:
    """Sums over examples of per-batch means; `check` brings the tensors to the host."""

    def __init__(self, ops: Ops, into: EpochSoFar) -> None:
        self._ops = ops
        self._pending: list[tuple[Metrics, int]] = []
        self._into = into

    def add(self, means: Metrics, examples: int) -> None:
        self._pending.append((means, examples))

    def check(self) -> None:
        """DivergedError if a loss since the last check is not finite."""
        sums, epoch = self._into.sums, self._into.epoch
        if not self._pending:
            return
        fetched = iter(self._ops.fetch([tensor for means, _ in self._pending for tensor in means.values()]))
        for means, examples in self._pending:
            values = {name: float(next(fetched)) for name in means}
            for name, value in values.items():
                if not math.isfinite(value):
                    raise DivergedError(
                        f"the {name} became {value} in epoch {epoch}. {why_diverged(values, epoch)}"
                    )
                sums[name] = sums.get(name, 0.0) + value * examples
            self._into.examples += examples
        self._pending.clear()
