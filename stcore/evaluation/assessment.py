"""One classifier under all the attacks of an evaluation, on one data set: it can be stopped and go on.

First batch by batch the images themselves and the attacks that run over whole batches, then the cascades. All that
is known so far is a flat dict of host arrays, which a store may keep.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from stcore.autoattack.attack import AutoAttack
from stcore.autoattack.cascade import Cascade, under
from stcore.autoattack.records import NONE, Records
from stcore.autoattack.versions import Stage
from stcore.base.progress import Progress, stretch
from stcore.data.batches import Batch
from stcore.data.rows import Images
from stcore.evaluation.accuracy import Accuracy
from stcore.evaluation.evaluator import Evaluator, Predictions
from stcore.protocols import Array


class EvaluationStore(Protocol):
    """Who keeps what an assessment knows."""

    def load(self) -> Mapping[str, Array] | None:
        """What was kept last, if anything."""

    def due(self) -> bool:
        """Whether it is time to keep it again."""

    def save(self, state: Mapping[str, Array], examples: Mapping[str, Mapping[int, Array]]) -> None:
        """Keeps the state, and beside it the adversarial examples found since the last time, by attack and row."""


class Nowhere:
    """Keeps nothing."""

    def load(self) -> None:
        return None

    def due(self) -> bool:
        return False

    def save(self, state: Mapping[str, Array], examples: Mapping[str, Mapping[int, Array]]) -> None:
        """Nothing to do."""


@dataclass(frozen=True)
class StageResult:
    """How one stage of a cascade went: accuracy after it, and its cost in images × passes and in seconds."""

    name: str
    robust: Accuracy
    forwards: int
    backwards: int
    seconds: float


@dataclass(frozen=True)
class CascadeResult:
    """Records of all images, and the stages they come from."""

    records: Records
    stages: tuple[StageResult, ...]


@dataclass(frozen=True)
class Assessed:
    """What was found: predicted classes under each attack, cascades included, and each cascade's records."""

    predictions: Predictions
    cascades: Mapping[str, CascadeResult]

    @property
    def accuracies(self) -> dict[str, Accuracy]:
        """The accuracy under no attack, and under each."""
        return self.predictions.accuracies


class Assessment:
    """images: (N, H, W, C) or flat, on the host.   positions: (N,) their places in the whole data set.

    cascades: by name, beside the evaluator's attacks.   keep_examples: hand adversarial examples to the store.
    """

    def __init__(
        self,
        evaluator: Evaluator,
        cascades: Mapping[str, AutoAttack],
        images: Images,
        labels: Array,
        *,
        batch_size: int = 250,
        positions: Array | None = None,
        keep_examples: bool = False,
    ) -> None:
        self._evaluator, self._cascades, self._batch_size = evaluator, dict(cascades), batch_size
        self._images, self._labels, self._keeps_examples = images, labels, keep_examples
        self._positions = np.arange(len(images)) if positions is None else positions
        self._state: dict[str, Array] = {}
        self._examples: dict[str, dict[int, Array]] = {}
        self._running: tuple[str, Cascade] | None = None

    def run(
        self,
        progress: Progress,
        store: EvaluationStore | None = None,
        stop: Callable[[], bool] = lambda: False,
        label: str = "evaluate",
    ) -> Assessed | None:
        """From the start, or from what the store kept last, to the end; None where `stop` said to stop.

        `stop` is asked after every batch and every step.
        """
        store = store or Nowhere()
        self._state = dict(store.load() or {"done": np.array(0)})
        for turns in self._work(progress, label):
            stopping = stop()
            if turns or stopping or store.due():
                self._keep(store)
            if stopping:
                return None
        self._keep(store)
        return self._result()

    def _work(self, progress: Progress, label: str) -> Iterator[bool]:
        """Everything, bit by bit; between two bits all that is known can be kept. True where an attack is over."""
        yield from self._batches(progress, label)
        if self._cascades:
            self._evaluator.fold(self._images)
        for name, attack in self._cascades.items():
            cascade = self._open(name, attack)
            self._running = name, cascade
            yield from self._steps(name, cascade, progress)
            self._note(name, cascade)
            self._running = None

    def _batches(self, progress: Progress, label: str) -> Iterator[bool]:
        total, done = len(self._images), int(self._state["done"])
        with stretch(progress, label, total):
            progress.advance(done)
            for begin in range(done, total, self._batch_size):
                where = slice(begin, begin + self._batch_size)
                batch = Batch(self._images[where], self._labels[where], self._positions[where])
                logits, predicted, examples = self._evaluator.evaluate_batch(batch)
                for name, array in {"logits": logits, **_over("predicted", predicted)}.items():
                    self._state.setdefault(name, np.zeros((total, *array.shape[1:]), array.dtype))[where] = array
                for name, points in examples.items() if self._keeps_examples else ():
                    found = self._evaluator.classifier.host_images(points)
                    self._examples.setdefault(name, {}).update(enumerate(found, begin))
                self._state["done"] = np.array(min(begin + self._batch_size, total))
                progress.advance(len(batch.labels))
                yield False

    def _steps(self, name: str, cascade: Cascade, progress: Progress) -> Iterator[bool]:
        while cascade.stage < len(cascade.stages):
            stage = cascade.stage
            label = name if len(cascade.stages) == 1 else f"{name} {cascade.stages[stage].name}"
            left = cascade.waiting
            with stretch(progress, label, left, "steps"):
                while cascade.stage == stage:
                    cascade.advance()
                    if cascade.stage == stage:
                        before, left = left, cascade.waiting
                        progress.advance(before - left, f"robust {100 * cascade.records.robust.mean():.2f} %")
                    yield cascade.stage != stage

    def _open(self, name: str, attack: AutoAttack) -> Cascade:
        """A cascade at its start, or where it was when it was kept."""
        evaluator, logits = self._evaluator, self._state["logits"]
        cascade = Cascade(
            evaluator.classifier,
            attack.stages(logits.shape[1]),
            self._images,
            self._labels,
            logits,
            lambda points: evaluator.classes(evaluator.classifier.images(points)),
            positions=self._positions,
            seed=evaluator.seed,
            batch_size=self._batch_size,
            lanes=evaluator.lanes,
        )
        kept = under(name, self._state)
        if kept:
            cascade.load(kept)
        return cascade

    def _keep(self, store: EvaluationStore) -> None:
        if self._running is not None:
            self._note(*self._running)
        store.save(self._state, self._examples)
        self._examples = {}

    def _note(self, name: str, cascade: Cascade) -> None:
        """Takes down where a cascade stands."""
        self._state = {key: array for key, array in self._state.items() if not key.startswith(f"{name}/")}
        self._state |= _over(name, cascade.save())
        if self._keeps_examples:
            self._examples.setdefault(name, {}).update(cascade.found)
        cascade.found.clear()

    def _result(self) -> Assessed:
        natural = self._state["logits"].argmax(axis=1)
        predicted = {"natural": natural, **under("predicted", self._state)}
        cascades = {}
        for name, attack in self._cascades.items():
            kept = under(name, self._state)
            records = Records.of(under("record", kept))
            stages = attack.stages(self._state["logits"].shape[1])
            cascades[name] = CascadeResult(records, _stages(stages, kept, records))
            predicted[name] = records.predicted
        return Assessed(Predictions(self._labels, predicted), cascades)


def _stages(stages: Sequence[Stage], kept: Mapping[str, Array], records: Records) -> tuple[StageResult, ...]:
    """Each stage's outcome: an image counts as robust after a stage if no attack up to it fooled the network."""
    right = records.natural == records.label
    results = []
    for place, stage in enumerate(stages):
        stands = right & ((records.attack == NONE) | (records.attack > place))
        costs = (kept[name][place].item() for name in ("forwards", "backwards", "seconds"))
        results.append(StageResult(stage.name, Accuracy(int(stands.sum()), len(right)), *costs))
    return tuple(results)


def _over(prefix: str, arrays: Mapping[str, Array]) -> dict[str, Array]:
    return {f"{prefix}/{name}": array for name, array in arrays.items()}
