"""Timing of a run's parts: steps of its trainer on its data, its evaluations, its savings."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from tempfile import TemporaryDirectory

from stcore.base.interrupts import Interrupt
from stcore.base.progress import Silent
from stcore.core.objective import stage
from stcore.costs.measured import Phase
from stcore.costs.stopwatch import Pace, Spent, Stopwatch
from stcore.data import Batch, ImageData, in_order
from stcore.data.batches import Epochs
from stcore.evaluation.attack_names import attacks_by_name, split
from stcore.evaluation.evaluator import Evaluator
from stcore.protocols import Learner
from stcore.runs.folder import RunFolder
from stcore.runs.preparation import Setup, monitor
from stcore.runs.states import RunStates
from stcore.runs.store import NullStore, RunStore, weights_metadata
from stcore.training.metrics import EpochSoFar
from stcore.training.state import State
from stcore.training.trainer import Average

PASSES = 42  # of an image through PGD-20: 20 forwards and backwards, one forward of the image, one of the example


class _Enough(Exception):
    """Ends the trainer after the timed steps; no error."""


@dataclass
class _Steps(NullStore):
    """A trainer's batches under a stopwatch, and the store that ends the trainer after them."""

    batches: Epochs
    watch: Stopwatch = field(init=False)

    def __len__(self) -> int:
        return len(self.batches)

    @property
    def examples(self) -> int:
        return self.batches.examples

    def epoch(self, epoch: int, *, start: int = 0) -> Generator[Batch, None, None]:
        return self.watch.over(lambda: self.batches.epoch(epoch))

    def keep(self, state: State) -> None:
        if self.watch.pace is not None:  # otherwise Ctrl-C came, and the trainer ends by itself
            raise _Enough


@dataclass
class Bench:
    """A run's parts, ready to be timed."""

    setup: Setup
    batches: Epochs
    learner: Learner
    average: Average | None
    interrupt: Interrupt

    def __post_init__(self) -> None:
        self._steps = steps = _Steps(self.batches)
        self.plan = self.setup.plan
        self._trainer = self.setup.trainer(
            self.learner, self.average, self.setup.teacher(), steps, steps, Silent()
        )

    def phases(self, seconds: float) -> Iterator[Phase]:
        """Times each phase in its first epoch."""
        objective, perturbation = self.plan.objective, self.plan.method.perturbation
        epochs: dict[tuple[int, bool], list[int]] = {}
        for epoch in range(1, self.plan.optimisation.epochs + 1):
            epochs.setdefault(stage(objective, perturbation, epoch), []).append(epoch)
        for (_, perturbed), those in epochs.items():
            watch = self._watch(seconds / len(epochs), len(those) * self.batches.examples)
            yield Phase(those[0], len(those), perturbed, self._trained(those[0], watch))

    def _trained(self, epoch: int, watch: Stopwatch) -> Pace:
        self._steps.watch, trainer = watch, self._trainer
        arrays, place = trainer.state()
        trainer.restore(State(arrays, {**place, "under_way": asdict(EpochSoFar(epoch))}))
        with suppress(_Enough):
            trainer.run()
        if watch.pace is None:
            raise KeyboardInterrupt
        return watch.pace

    def evaluations(self, seconds: float) -> tuple[tuple[Pace, ...], Pace, Pace | None]:
        """Times the evaluations after an epoch, of the trained and of averaged weights; the final one; a pass."""
        plan, test = self.plan, self.setup.test
        by_batch, cascades, _, corruptions = split(
            attacks_by_name(plan.evaluation.attacks, plan.evaluation.epsilon, plan.norm)
        )
        passes = bool(cascades or corruptions)
        judged = [self.learner] if self.average is None else [self.learner, self.average.evaluator.classifier]
        share = seconds / (len(judged) + 1 + passes)
        choosing = [
            self._evaluated(monitor(model, plan), self.setup.selection, plan.optimisation.epochs, share)
            for model in judged
        ]
        final = self._evaluated(Evaluator(self.learner, by_batch, plan.seed), test, 2 * len(judged), share)
        if not passes:
            return tuple(choosing), final, None
        pgd = split(attacks_by_name(("pgd20",), plan.evaluation.epsilon, plan.norm)).by_batch
        pace = self._evaluated(Evaluator(self.learner, pgd, plan.seed), test, 1, share)
        return tuple(choosing), final, replace(pace, image=1 / PASSES * pace.image)

    def _evaluated(self, evaluator: Evaluator, images: ImageData, times: int, seconds: float) -> Pace:
        watch = self._watch(seconds, times * len(images))
        for batch in watch.over(lambda: in_order(images, self.plan.evaluation.batch_size)):
            evaluator.predict(batch)
        if watch.pace is None or self.interrupt.came():
            raise KeyboardInterrupt
        return watch.pace

    def saving(self) -> Spent:
        """Times the writing of the state, and of the weights as last and as best, into a temporary folder."""
        kinds = ("",) if self.average is None else ("", "-ema")
        with TemporaryDirectory(prefix="stcli-plan-") as name:
            folder = Path(name)
            store = RunStore(
                RunFolder(folder),
                RunStates(folder, 0.0, {}),
                self.learner,
                self.average,
                weights_metadata(self.plan, self.setup.splits.train),
                lambda row: None,
            )
            begun = Spent.now()
            store.keep(self._trainer.state())
            for kind in kinds:
                store.save(f"last{kind}", "1")
                store.promote(f"best{kind}")
            return Spent.now() - begun

    def _watch(self, seconds: float, images: int) -> Stopwatch:
        ops = self.learner.ops
        return Stopwatch(seconds, images, lambda: ops.to_numpy(self.learner.state()[0]), self.interrupt.came)
