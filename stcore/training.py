"""The training loop: epochs of steps, an evaluation after each, and the choice of the best."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Protocol

from stcore.data import Batches, ImageData, in_order
from stcore.errors import DivergedError
from stcore.evaluation import Evaluator, Predictions
from stcore.interrupt import Interrupt
from stcore.noise import sample
from stcore.objective import Objective, training_step
from stcore.protocols import Learner, Metrics, Ops
from stcore.schedules import Schedule
from stcore.seeding import Stream

CHECK_EVERY = 10  # steps between two looks at the loss: each look waits for the device


class Progress(Protocol):
    """Who is told how the work goes on."""

    def begin(self, label: str, total: int) -> None:
        """A stretch of work of `total` images starts."""

    def advance(self, images: int) -> None:
        """So many images more are done."""

    def end(self) -> None:
        """The stretch is over."""


class Store(Protocol):
    """Who keeps what a run leaves."""

    def save(self, name: str, epoch: str) -> None:
        """Keeps the learner's weights as `best` or `last`."""

    def log(self, row: Mapping[str, Any]) -> None:
        """Keeps an epoch's metrics."""


@dataclass(frozen=True)
class Schedules:
    """What changes with the epoch, and how many there are."""

    epochs: int
    learning_rate: float
    schedule: Schedule

    def rate(self, epoch: int) -> float:
        return self.learning_rate * self.schedule(epoch, self.epochs)


@dataclass
class Trainer:
    """Trains `learner` by `objective` on `batches`; after each epoch evaluates on `selection`.

    The epoch with the highest accuracy under `select_by` (the later of equals, as released) is kept as best.
    Raises DivergedError at a loss or a prediction that is not finite; what was saved before stays. Ctrl-C ends
    the run after the step, or the evaluation, under way, with the weights saved as `last`; `interrupted` is
    then true.
    """

    learner: Learner
    objective: Objective
    batches: Batches
    selection: ImageData
    evaluator: Evaluator
    select_by: str
    schedules: Schedules
    seed: int
    store: Store
    progress: Progress
    eval_batch_size: int = 250
    interrupted: bool = False
    best: tuple[float, int] = (-1.0, 0)
    history: list[dict[str, Any]] = field(default_factory=list)

    def run(self) -> None:
        steps: dict[int, Any] = {}  # a step for each phase of the method, compiled once
        with Interrupt() as interrupt:
            for epoch in range(1, self.schedules.epochs + 1):
                phase = self.objective.phase(epoch)
                if phase not in steps:
                    step = partial(training_step, self.learner, self.objective, phase=phase)
                    steps[phase] = self.learner.compile(step)
                row = self._epoch(epoch, steps[phase], interrupt)
                self.store.save("last", f"{epoch} (partial)" if interrupt.came() else str(epoch))
                if interrupt.came():
                    self.interrupted = True
                    return
                row |= self._evaluate(epoch)
                self.history.append(row)
                self.store.log(row)
                if interrupt.came():
                    self.interrupted = True
                    return

    def _epoch(self, epoch: int, step: Any, interrupt: Interrupt) -> dict[str, Any]:
        learner, begun, images = self.learner, time.perf_counter(), 0
        rate = self.schedules.rate(epoch)
        learner.set_learning_rate(rate)
        totals = RunningMeans(learner.ops)
        with stretch(self.progress, f"epoch {epoch}/{self.schedules.epochs}", len(self.batches.data)):
            for number, batch in enumerate(self.batches.epoch(epoch)):
                noise = sample(
                    self.objective.noise_laws,
                    self.seed,
                    Stream.NOISE,
                    batch.positions,
                    batch.images.shape[1:],
                    epoch=epoch,
                )
                x = learner.images(batch.images)
                result = step(x, learner.labels(batch.labels), tuple(learner.images(array) for array in noise))
                totals.add({"loss": result.loss, **result.metrics}, len(batch.labels))
                images += len(batch.labels)
                if (number + 1) % CHECK_EVERY == 0:
                    totals.check(epoch)
                self.progress.advance(len(batch.labels))
                if interrupt.came():
                    break
        totals.check(epoch)
        seconds = time.perf_counter() - begun
        self.evaluator.classes(x)  # what the last update did shows in no loss yet: look before it is saved
        return {
            "epoch": epoch,
            "learning_rate": rate,
            **totals.means(),
            "seconds": round(seconds, 3),
            "images_per_second": round(images / seconds, 1),
        }

    def _evaluate(self, epoch: int) -> dict[str, Any]:
        scores = score(self.evaluator, self.selection, self.eval_batch_size, self.progress, "evaluate").accuracies
        selected = scores[self.select_by].value
        if selected >= self.best[0]:
            self.best = (selected, epoch)
            self.store.save("best", str(epoch))
        return {f"{name}_accuracy": accuracy.value for name, accuracy in scores.items()} | {
            "best_epoch": self.best[1]
        }


class RunningMeans:
    """Means over examples of per-batch means; the tensors come to the host only when asked for."""

    def __init__(self, ops: Ops) -> None:
        self._ops = ops
        self._pending: list[tuple[Metrics, int]] = []
        self._sums: dict[str, float] = {}
        self._count = 0

    def add(self, means: Metrics, examples: int) -> None:
        self._pending.append((means, examples))

    def check(self, epoch: int) -> None:
        """DivergedError if a loss since the last check is not a finite number."""
        for means, examples in self._pending:
            for name, tensor in means.items():
                value = float(self._ops.to_numpy(tensor))
                if not math.isfinite(value):
                    kept = (
                        "the checkpoints of the epochs before are kept" if epoch > 1 else "no epoch was finished"
                    )
                    raise DivergedError(
                        f"the {name} became {value} in epoch {epoch}: training stopped, {kept}. "
                        "Lower the learning rate, or β, or ε"
                    )
                self._sums[name] = self._sums.get(name, 0.0) + value * examples
            self._count += examples
        self._pending.clear()

    def means(self) -> dict[str, float]:
        return {name: total / self._count for name, total in self._sums.items()}


def score(evaluator: Evaluator, data: ImageData, batch_size: int, progress: Progress, label: str) -> Predictions:
    """What the evaluator's model predicts over a data set, with progress."""
    with stretch(progress, label, len(data)):
        return evaluator.run(in_order(data, batch_size), progress.advance)


@contextmanager
def stretch(progress: Progress, label: str, total: int) -> Iterator[None]:
    """A stretch of work that is over whatever happens: no bar stays on the terminal."""
    progress.begin(label, total)
    try:
        yield
    finally:
        progress.end()
