"""Evaluation of one classifier under several attacks on one data set, with stop and resume.

First come, batch by batch, the natural images and the attacks that run on whole batches; then corrupted images;
then the cascades. Unions follow from the predictions. The state is a flat dict of host arrays, which a store may
save.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np

from stcore.autoattack.cascade import Cascade, under
from stcore.autoattack.records import NONE, Records
from stcore.autoattack.versions import Stage, Staged
from stcore.base.progress import Progress, stretch
from stcore.data.batches import Batch
from stcore.data.rows import Images
from stcore.evaluation.accuracy import Accuracy
from stcore.evaluation.attack_names import Split
from stcore.evaluation.corruptions import CorruptionResult
from stcore.evaluation.evaluator import Evaluator, Predictions
from stcore.protocols import Array


class EvaluationStore(Protocol):
    """Storage for the state of an assessment."""

    def load(self) -> Mapping[str, Array] | None:
        """The last saved state, or None."""

    def due(self) -> bool:
        """Whether it is time to save again."""

    def save(self, state: Mapping[str, Array], examples: Mapping[str, Mapping[int, Array]]) -> None:
        """Saves the state and the adversarial examples found since the last save, by attack and row."""


class NullStore:
    """A store that saves nothing."""

    def load(self) -> None:
        return None

    def due(self) -> bool:
        return False

    def save(self, state: Mapping[str, Array], examples: Mapping[str, Mapping[int, Array]]) -> None:
        """Does nothing."""


@dataclass(frozen=True)
class StageResult:
    """Result of one stage of a cascade: accuracy after it, and its cost in images × passes and in seconds."""

    name: str
    robust: Accuracy
    forwards: int
    backwards: int
    seconds: float


@dataclass(frozen=True)
class CascadeResult:
    """Result of a cascade: the records of all images, and its stages.

    nearest: whether it looked for the nearest example of each image, as minimum-norm attacks do.
    """

    records: Records
    stages: tuple[StageResult, ...]
    nearest: bool = False


@dataclass(frozen=True)
class AssessmentResult:
    """Result of an assessment: predicted classes under each attack, cascades and unions included; cascade results;
    predicted classes of corrupted images."""

    predictions: Predictions
    cascades: Mapping[str, CascadeResult]
    corruptions: Mapping[str, CorruptionResult] = field(default_factory=dict)

    @property
    def accuracies(self) -> dict[str, Accuracy]:
        """The natural accuracy, and the accuracy under each attack and on corrupted images."""
        corrupted = {name: found.accuracy for name, found in self.corruptions.items()}
        return {**self.predictions.accuracies, **corrupted}


class Assessment:
    """Runs an evaluator, and what of the attacks is not its own, over a data set.

    attacks: those that run batch by batch are the evaluator's.
    images: (N, H, W, C) or flat, on the host.   labels: (N,).   positions: (N,) indices in the whole data set.
    keep_examples: pass adversarial examples to the store.
    """

    def __init__(
        self,
        evaluator: Evaluator,
        attacks: Split,
        images: Images,
        labels: Array,
        *,
        batch_size: int = 250,
        positions: Array | None = None,
        keep_examples: bool = False,
    ) -> None:
        self._evaluator, self._cascades, self._batch_size = evaluator, attacks.cascades, batch_size
        self._unions, self._corruptions = attacks.unions, attacks.corruptions
        self._images, self._labels, self._keeps_examples = images, labels, keep_examples
        self._positions = np.arange(len(images)) if positions is None else positions
        for attack in self._cascades.values():
            attack.check_images(images.shape[1:])
        for corruptions in self._corruptions.values():
            corruptions.check(images, labels, self._positions)
        self._state: dict[str, Array] = {}
        self._examples: dict[str, dict[int, Array]] = {}
        self._running: tuple[str, Cascade] | None = None

    def run(
        self,
        progress: Progress,
        store: EvaluationStore | None = None,
        stop: Callable[[], bool] = lambda: False,
        label: str = "evaluate",
    ) -> AssessmentResult | None:
        """Runs from the start, or from the stored state, to the end; returns None if `stop` returns True.

        `stop` is called after every batch and every step.
        """
        store = store or NullStore()
        self._state = dict(store.load() or {"done": np.array(0)})
        for stage_done in self._work(progress, label):
            stopping = stop()
            if stage_done or stopping or store.due():
                self._save(store)
            if stopping:
                return None
        self._save(store)
        return self._result()

    def _work(self, progress: Progress, label: str) -> Iterator[bool]:
        """Yields after each batch and step, when the state can be saved; True at the end of a stage."""
        if self._cascades or self._evaluator.attacks:
            self._evaluator.fold(self._images)
        yield from self._batches(progress, label)
        for name in self._corruptions:
            yield from self._corrupted(name, progress)
        for name, attack in self._cascades.items():
            cascade = self._start(name, attack)
            self._running = name, cascade
            yield from self._steps(name, cascade, progress)
            self._update_state(name, cascade)
            self._running = None

    def _batches(self, progress: Progress, label: str) -> Iterator[bool]:
        total, done = len(self._images), int(self._state["done"])
        with stretch(progress, label, total):
            progress.advance(done)
            for begin in range(done, total, self._batch_size):
                rows = slice(begin, begin + self._batch_size)
                batch = Batch(self._images[rows], self._labels[rows], self._positions[rows])
                logits, predicted, examples = self._evaluator.evaluate_batch(batch)
                for name, array in {"logits": logits, **_prefixed("predicted", predicted)}.items():
                    self._state.setdefault(name, np.zeros((total, *array.shape[1:]), array.dtype))[rows] = array
                for name, x in examples.items() if self._keeps_examples else ():
                    host = self._evaluator.classifier.host_images(x)
                    self._examples.setdefault(name, {}).update(enumerate(host, begin))
                self._state["done"] = np.array(min(begin + self._batch_size, total))
                progress.advance(len(batch.labels))
                yield False

    def _corrupted(self, name: str, progress: Progress) -> Iterator[bool]:
        """Predicts all versions of a batch, then of the next; `NAME/done` counts the images."""
        evaluator, corruptions, total = self._evaluator, self._corruptions[name], len(self._images)
        cells = corruptions.cells
        predicted = self._state.setdefault(f"{name}/predicted", np.zeros((total, len(cells)), np.int64))
        done = int(self._state.setdefault(f"{name}/done", np.array(0)))
        with stretch(progress, name, total):
            progress.advance(done)
            for begin in range(done, total, self._batch_size):
                rows = slice(begin, begin + self._batch_size)
                images, positions = self._images[rows], self._positions[rows]
                for n, cell in enumerate(cells):
                    versions = corruptions.versions(images, cell, positions, evaluator.seed)
                    predicted[rows, n] = evaluator.classes(evaluator.classifier.images(versions))
                self._state[f"{name}/done"] = np.array(begin + len(positions))
                progress.advance(len(positions))
                yield False

    def _steps(self, name: str, cascade: Cascade, progress: Progress) -> Iterator[bool]:
        while cascade.stage < len(cascade.stages):
            stage = cascade.stage
            label = name if len(cascade.stages) == 1 else f"{name} {cascade.stages[stage].name}"
            remaining = cascade.waiting
            with stretch(progress, label, remaining, "steps"):
                while cascade.stage == stage:
                    cascade.advance()
                    if cascade.stage == stage:
                        before, remaining = remaining, cascade.waiting
                        standing = np.count_nonzero(cascade.records.robust) / len(cascade.records.label)
                        progress.advance(before - remaining, f"robust {100 * standing:.2f} %")
                    yield cascade.stage != stage

    def _start(self, name: str, attack: Staged) -> Cascade:
        """A new cascade, or one resumed from the stored state."""
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
        saved = under(name, self._state)
        if saved:
            cascade.load(saved)
        return cascade

    def _save(self, store: EvaluationStore) -> None:
        if self._running is not None:
            self._update_state(*self._running)
        store.save(self._state, self._examples)
        self._examples = {}

    def _update_state(self, name: str, cascade: Cascade) -> None:
        """Copies a cascade's state into the assessment's."""
        self._state = {key: array for key, array in self._state.items() if not key.startswith(f"{name}/")}
        self._state |= _prefixed(name, cascade.save())
        if self._keeps_examples:
            self._examples.setdefault(name, {}).update(cascade.found)
        cascade.found.clear()

    def _result(self) -> AssessmentResult:
        natural = self._state["logits"].argmax(axis=1)
        predicted = {"natural": natural, **under("predicted", self._state)}
        cascades = {}
        for name, attack in self._cascades.items():
            state = under(name, self._state)
            records = Records.of(under("record", state))
            stages = attack.stages(self._state["logits"].shape[1])
            nearest = any(stage.nearest for stage in stages)
            cascades[name] = CascadeResult(records, _stage_results(stages, state, records), nearest)
            predicted[name] = records.predicted
        for name, union in self._unions.items():
            predicted[name] = union.predicted(predicted, self._labels)
        corrupted = {
            name: CorruptionResult(
                tuple(f"{kind}:{severity}" for kind, severity in corruptions.cells),
                self._state[f"{name}/predicted"],
                self._labels,
            )
            for name, corruptions in self._corruptions.items()
        }
        return AssessmentResult(Predictions(self._labels, predicted), cascades, corrupted)


def _stage_results(
    stages: Sequence[Stage], state: Mapping[str, Array], records: Records
) -> tuple[StageResult, ...]:
    """The result of each stage: an image is robust after a stage if no attack up to it fooled the network."""
    correct = records.natural == records.label
    results = []
    for index, stage in enumerate(stages):
        robust = correct & ((records.attack == NONE) | (records.attack > index))
        costs = (state[name][index].item() for name in ("forwards", "backwards", "seconds"))
        results.append(StageResult(stage.name, Accuracy(int(robust.sum()), len(correct)), *costs))
    return tuple(results)


def _prefixed(prefix: str, arrays: Mapping[str, Array]) -> dict[str, Array]:
    return {f"{prefix}/{name}": array for name, array in arrays.items()}
