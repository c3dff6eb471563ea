"""The training loop: epochs of steps, an evaluation after each, the choice of the best."""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass, field
from functools import partial
from typing import Any, NamedTuple, TypeVar, cast

import numpy as np

from stcore.base.ahead import ordered_ahead
from stcore.base.interrupts import Interrupt
from stcore.base.progress import Progress, stretch
from stcore.base.ranks import Alone, Ranks, pieces, shares, split
from stcore.base.snapshots import part
from stcore.core.objective import (
    Objective,
    Part,
    StepResult,
    WeightPerturbation,
    accumulated_step,
    phase_of_step,
    stage,
    told,
)
from stcore.data import ImageData, in_order
from stcore.data.batches import Batch, Epochs
from stcore.data.on_device import OnDevice
from stcore.errors import DivergedError
from stcore.evaluation.accuracy import Accuracy, merge_accuracies
from stcore.evaluation.evaluator import Evaluator
from stcore.methods.curriculum import active
from stcore.protocols import Classifier, Learner, Tensor
from stcore.training.collapse import CollapseWatch
from stcore.training.diagnosis import COLLAPSE, Trouble
from stcore.training.memory import Memory
from stcore.training.metrics import EpochSoFar, RunningMeans
from stcore.training.noise import DeviceNoise, HostNoise
from stcore.training.recovery import Abandoned, FailurePolicy
from stcore.training.schedules import Schedule
from stcore.training.state import State, TrainingStore

_T = TypeVar("_T")
AHEAD = 2  # batches that are drawn before their step
CHECK_EVERY = 10  # steps between two checks of the loss: each waits for the device
LOOK_EVERY = 25  # steps between two looks of the watch


class _Drawn(NamedTuple):
    """A batch of `examples` examples, drawn on the host; whole: it is too small to be shared by the ranks."""

    parts: list[Part]
    examples: int
    whole: bool


@dataclass(frozen=True)
class Schedules:
    """The number of epochs and the learning rate of each.

    by_step: the rate changes with each step.   warmup: epochs over which it rises linearly from 0 at first.
    """

    epochs: int
    learning_rate: float
    schedule: Schedule
    by_step: bool = False
    warmup: float = 0.0

    def rate(self, epoch: int, done: float = 0.0) -> float:
        """The learning rate in this epoch, of which the share `done` is done."""
        now = epoch + done if self.by_step else epoch
        risen = min(1.0, (now - 1) / self.warmup) if self.warmup else 1.0
        return self.learning_rate * risen * self.schedule(now, self.epochs)


@dataclass
class Average:
    """The exponential moving average of the weights, which a run keeps beside the trained ones."""

    evaluator: Evaluator
    decay: float
    best: tuple[float, int] = (-1.0, 0)


@dataclass
class Trainer:
    """Trains `learner` by `objective` on `batches`; after each epoch evaluates on `selection`.

    The epoch with the highest accuracy under `select_by` (the later of equals, as released) is kept as best; the
    best epoch of averaged weights is chosen separately.
    The state is kept at each epoch's end, before the evaluation, and when the store says that it is due. A trainer
    with the same settings that restores it continues bit for bit.
    Ctrl-C ends the run after the current step or evaluation, with the weights saved as `last` and the state kept;
    `interrupted` is then true. SIGTERM and `until`, a time limit by `time.monotonic`, do the same.
    accumulate: the number of parts of a batch that go through the network one after another before an update.
    clip_norm: the greatest norm of an update's gradient, of all weights together.
    failure_policy: what to do about trouble; by default nothing but the DivergedError.
    on_step: called every few steps, when metrics come to the host anyway, with the number of steps so far and the
        means of the epoch so far.   ahead: draw batches in a thread while the device computes.
    watch: looks for a collapse every few steps.   capture: wraps the method whose step is compiled.
    ranks: each of several takes its share of every batch and of the evaluation; all get the same numbers.
    Raises DivergedError at a non-finite loss or prediction; what was saved before stays.
    """

    learner: Learner
    objective: Objective
    batches: Epochs
    selection: ImageData
    evaluator: Evaluator
    select_by: str
    schedules: Schedules
    seed: int
    store: TrainingStore
    progress: Progress
    eval_batch_size: int = 250
    perturbation: WeightPerturbation | None = None
    average: Average | None = None
    until: float | None = None
    accumulate: int = 1
    clip_norm: float | None = None
    noise: str = "host"
    ranks: Ranks = field(default_factory=Alone)
    failure_policy: FailurePolicy = field(default_factory=FailurePolicy)
    watch: CollapseWatch | None = None
    capture: Callable[[Objective], Objective] = lambda objective: objective
    on_step: Callable[[int, Mapping[str, float]], None] = lambda step, metrics: None
    ahead: bool = True
    interrupted: bool = False
    best: tuple[float, int] = (-1.0, 0)
    history: list[dict[str, Any]] = field(default_factory=list)
    _steps: dict[tuple[int, ...], Any] = field(default_factory=dict)
    _wrapped: dict[int, Objective] = field(default_factory=dict)
    _under_way: EpochSoFar = field(default_factory=lambda: EpochSoFar(1))

    def __post_init__(self) -> None:
        self._memory = Memory(self.learner, self.ranks)

    @property
    def _noise(self) -> HostNoise:
        kind = DeviceNoise if self.noise == "device" else HostNoise
        return kind(self.learner, self.method.noise_laws, self.seed, self.selection.image_shape)

    def state(self) -> State:
        """The complete state of training, for `restore`."""
        arrays = {f"learner/{name}": array for name, array in self.learner.snapshot().items()}
        progress = {"best": self.best, "history": list(self.history), "under_way": asdict(self._under_way)}
        progress["remedies"] = self.failure_policy.progress()
        arrays |= {f"memory/{name}": array for name, array in self._memory.state().items()}
        if self.average is not None:
            averaged = self.average.evaluator.classifier.snapshot()
            arrays |= {f"average/{name}": array for name, array in averaged.items()}
            progress["best_ema"] = self.average.best
        return State(arrays, progress)

    def keep(self, put: Callable[[State], None]) -> None:
        """Gives the state to a method of the store. Rank 0 alone builds it; the others send what is their own."""
        if self.ranks.rank:
            self.ranks.attend()
            self._memory.state()
        else:
            put(self.state())

    def restore(self, state: State) -> None:
        """Restores the state of a trainer with the same settings."""
        self.learner.restore(part(state.arrays, "learner/"))
        self.best = tuple(state.progress["best"])
        self.history = list(state.progress["history"])
        self._under_way = EpochSoFar(**copy.deepcopy(state.progress["under_way"]))  # a state may be restored twice
        self.failure_policy.restore(state.progress["remedies"])
        self._memory.restore(part(state.arrays, "memory/"))
        if self.average is not None:
            self.average.evaluator.classifier.restore(part(state.arrays, "average/"))
            self.average.best = tuple(state.progress["best_ema"])

    @property
    def method(self) -> Objective:
        """The objective, with the remedies of the rollbacks so far."""
        return self.failure_policy.remedied(self.objective)

    def _captured(self) -> Objective:
        """The method in `capture`, once for each number of rollbacks."""
        number = len(self.failure_policy.rollbacks)
        if number not in self._wrapped:
            self._wrapped = {number: self.capture(self.method)}
        return self._wrapped[number]

    @property
    def at_start(self) -> bool:
        """Whether nothing has been trained yet."""
        return self._under_way == EpochSoFar(1)

    def go_back(self, state: State) -> None:
        """Restores an earlier state of this run; a best chosen since then is replaced by that state's weights."""
        contestants: dict[str, Trainer | Average] = {"best": self}
        if self.average is not None:
            contestants["best-ema"] = self.average
        chosen = {name: contestant.best for name, contestant in contestants.items()}
        self.restore(state)
        for name, contestant in contestants.items():
            if self.history and contestant.best != chosen[name]:
                row, prefix = self.history[-1], "ema_" if name.endswith("-ema") else ""
                contestant.best = row[f"{prefix}{self.select_by}_accuracy"], row["epoch"]
                self.store.save(name, str(row["epoch"]))

    def run(self) -> None:
        """Trains to the last epoch, or until it is interrupted or stopped."""
        with Interrupt(self.until, self.ranks) as interrupt:
            self.failure_policy.begin(self)
            while not (self.interrupted or self.failure_policy.stopped):
                if (epoch := self._under_way.epoch) > self.schedules.epochs:
                    return
                try:
                    self._whole_epoch(epoch, interrupt)
                except DivergedError as error:
                    self.failure_policy.diverged(self, error, epoch)
                except Abandoned as abandoned:
                    self.failure_policy.abandoned(self, abandoned.trouble, epoch)

    def _whole_epoch(self, epoch: int, interrupt: Interrupt) -> None:
        row = self._epoch(epoch, interrupt)
        self.keep(self.store.keep)  # before the evaluation, which may take long
        stopping = self._agreed(interrupt)
        for name in ("last",) if self.average is None else ("last", "last-ema"):
            self.store.save(name, f"{epoch} (partial)" if stopping else str(epoch))
        if stopping:
            self.interrupted = True
            return
        row |= self._evaluate(epoch)
        self.history.append(row)
        seen = self._under_way.trouble
        self.failure_policy.mark(self.history, seen)
        self.store.log(row)
        self._under_way = EpochSoFar(epoch + 1)
        self._memory.turn(self.method)
        self.failure_policy.act(self, seen)
        if self._agreed(interrupt):
            self.keep(self.store.keep)
            self.interrupted = True

    def _agreed(self, interrupt: Interrupt) -> bool:
        """Whether it is time to stop, for all ranks."""
        return self.ranks.any(interrupt.came())[0]

    def _compiled(self, phase: int, perturbing: bool, parts: int) -> Any:
        """The step of a phase for this number of parts, compiled once."""
        kind = phase, perturbing, parts, len(self.failure_policy.rollbacks)
        if kind not in self._steps:
            self._steps[kind] = self.learner.compile(partial(self._step, phase, perturbing))
        return self._steps[kind]

    def _step(
        self, phase: int, perturbing: bool, numbers: tuple[Tensor, ...], *parts: Sequence[Any]
    ) -> StepResult:
        perturbation, objective = self.perturbation if perturbing else None, told(self._captured(), numbers)
        given = [Part(*part) for part in parts]
        result = accumulated_step(self.learner, objective, given, phase, perturbation, self.clip_norm)
        if self.average is not None:
            follow(self.average.evaluator.classifier, self.learner, self.average.decay)
        return result

    def _ahead(self, epoch: int, start: int) -> Generator[_Drawn, None, None]:
        """What the steps of an epoch take, from step `start`, drawn ahead if that is wanted."""
        batches = self.batches.epoch(epoch, start=start)
        return ordered_ahead(partial(self._drawn, epoch), batches, workers=int(self.ahead), bound=AHEAD)

    def _drawn(self, epoch: int, batch: Batch) -> _Drawn:
        """The parts of this rank's share of a batch, each with its noise, ready to go to the device."""
        staged, places = self.learner.staged, pieces(len(batch.labels), self.ranks.count, self.accumulate)
        parts = []
        for where, share in zip(places[self.ranks.rank], shares(places), strict=True):
            noise = self._noise.ahead(epoch, batch.positions[where])
            chosen = batch.images[where]
            x = chosen if isinstance(chosen, OnDevice) else staged(chosen)
            parts.append(Part(x, batch.labels[where], noise, share))
        whole = sum(len(part.y) for part in parts) == len(batch.labels)
        return _Drawn(parts, len(batch.labels), whole)

    def _placed(self, part: Part) -> tuple[Any, ...]:
        """A part on the device; without its share if it is all of the batch."""
        images, learner = self.learner.images, self.learner
        x = part.x.tensor() if isinstance(part.x, OnDevice) else images(part.x)
        placed = x, learner.labels(part.y), self._noise.placed(part.noise)
        return placed if part.share == 1.0 else (*placed, learner.pixels(np.array(part.share)))

    def _epoch(self, epoch: int, interrupt: Interrupt) -> dict[str, Any]:
        learner, so_far, x = self.learner, self._under_way, None
        begun = time.perf_counter() - so_far.seconds
        method, (_, perturbing) = self.method, stage(self.method, self.perturbation, epoch)
        rate, numbers = self._set_rate(epoch), self._memory.numbers(method, epoch)
        totals = RunningMeans(learner.ops, so_far)
        with (
            stretch(self.progress, f"epoch {epoch}/{self.schedules.epochs}", self.batches.examples),
            closing(self._ahead(epoch, so_far.steps)) as batches,
        ):
            self.progress.advance(so_far.examples)
            for batch in batches:
                parts = [self._placed(part) for part in batch.parts]
                rate = self._set_rate(epoch) if self.schedules.by_step else rate
                phase = phase_of_step(method, self.seed, epoch, so_far.steps, self._memory.remembered)
                result, x = self._compiled(phase, perturbing, len(parts))(numbers, *parts), parts[-1][0]
                if not (self.ranks.rank and batch.whole):  # which rank 0 tallies
                    self._memory.add(result.tally)
                totals.add({"loss": result.loss, **result.metrics}, batch.examples)
                so_far.steps += 1
                steps = (epoch - 1) * len(self.batches) + so_far.steps
                if so_far.steps % CHECK_EVERY == 0:
                    totals.check()
                    self.on_step(steps, so_far.means())
                if steps % LOOK_EVERY == 0:
                    self._look(phase)
                self.progress.advance(batch.examples)
                stopping, due = self.ranks.any(interrupt.came(), self.store.due())
                if stopping:
                    break
                if due:
                    totals.check()
                    self._check_prediction(x)
                    so_far.seconds = time.perf_counter() - begun
                    self.keep(self.store.keep)
        totals.check()
        so_far.seconds = time.perf_counter() - begun
        if x is not None:  # the last update shows in no loss yet: check before it is saved
            self._check_prediction(x)
        return {
            "epoch": epoch,
            "learning_rate": rate,
            **so_far.means(),
            "seconds": round(so_far.seconds, 3),
            "images_per_second": round(so_far.examples / so_far.seconds, 1),
        }

    def _look(self, phase: int) -> None:
        """Asks the watch whether something went wrong; Abandoned if the policy gives the epoch up."""
        if self.watch is None:
            return
        so_far, said = self._under_way, self.watch(active(self.method, phase))
        if (found := next(filter(None, self.ranks.gather(said)), None)) is None:
            return
        trouble = Trouble(COLLAPSE, f"epoch {so_far.epoch}, step {so_far.steps}: {found}")
        self.failure_policy.seen(self.history, so_far.trouble, trouble)
        if self.failure_policy.gives_up(self):
            raise Abandoned(trouble)

    def _set_rate(self, epoch: int) -> float:
        """Sets the learner's learning rate to that of the next step, and returns it."""
        step = min(self._under_way.steps, len(self.batches) - 1)  # a resumed epoch may lack its evaluation alone
        done = (step + 0.5) / len(self.batches)  # the middle of the step: no step has rate 0
        rate = self.schedules.rate(epoch, done) * self.failure_policy.factor
        self.learner.set_learning_rate(rate)
        return rate

    def _evaluate(self, epoch: int) -> dict[str, Any]:
        row = self._select(self, "best", epoch) | {"best_epoch": self.best[1]}
        if self.average is not None:
            averaged = self._select(self.average, "best-ema", epoch) | {"best_epoch": self.average.best[1]}
            row |= {f"ema_{name}": value for name, value in averaged.items()}
        return row

    def _select(self, contestant: Trainer | Average, name: str, epoch: int) -> dict[str, Any]:
        scores = self._score(contestant.evaluator)
        selected = scores[self.select_by].value
        if selected >= contestant.best[0]:
            contestant.best = (selected, epoch)
            self.store.promote(name)
        return {f"{attack}_accuracy": accuracy.value for attack, accuracy in scores.items()}

    def _check_prediction(self, x: Any) -> None:
        """DivergedError, on all ranks, if one of them predicts a non-finite number."""
        self._all_or_none(lambda: self.evaluator.classes(x))

    def _all_or_none(self, work: Callable[[], _T]) -> _T:
        """The result of the work; if it raises DivergedError on one rank, all raise it, and none waits."""
        result, refusal = None, None
        try:
            result = work()
        except DivergedError as error:
            refusal = error
        if self.ranks.any(refusal is not None)[0]:
            raise refusal or DivergedError("a prediction became non-finite on another rank: training stopped")
        return cast(_T, result)

    def _score(self, evaluator: Evaluator) -> dict[str, Accuracy]:
        """The accuracies on the selection; each rank evaluates its share."""
        rows = split(slice(0, len(self.selection)), self.ranks.count)[self.ranks.rank]
        batches = in_order(self.selection, self.eval_batch_size, rows)
        with stretch(self.progress, "evaluate", rows.stop - rows.start):
            own = self._all_or_none(lambda: evaluator.run(batches, self.progress.advance))
        return merge_accuracies(self.ranks.gather(own.accuracies))


def follow(average: Classifier, model: Classifier, decay: float) -> None:
    """average ← decay·average + (1 − decay)·model, weights and running statistics alike."""
    average.blend(model.state(), 1.0 - decay)
