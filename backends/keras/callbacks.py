"""Keras callback that adds robust accuracy to the logs of each epoch."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from stcore.attacks import Attack
from stcore.backends.keras.fit import SqueezeModel
from stcore.backends.keras.learner import KerasClassifier, build, check_range
from stcore.base import checks
from stcore.core import validation
from stcore.core.objective import UNIT, bounds_of
from stcore.data.batches import Batch
from stcore.errors import DataError, UsageError
from stcore.evaluation.attack_names import attacks_by_name, split
from stcore.evaluation.evaluator import Evaluator
from stcore.protocols import Array


class RobustEvaluation(keras.callbacks.Callback):  # type: ignore[misc]
    """Adds `val_natural`, `val_pgd20` and so on, accuracies in [0, 1], to the logs at the end of an epoch.

    data: arrays (x, y), or an iterable of batches (x, y) that can be iterated once per epoch, such as a
        `tf.data.Dataset`. x: pixels (N, …) in [0, 1]; y: labels, integers (N,) or
        (N, 1), or one-hot or soft (N, C), of which the likeliest class counts.
    attacks, epsilon, seed: as in `stcore.evaluate`, without cascades; epsilon in units of pixels in [0, 1].
    batch_size: images per batch of arrays.   prefix: of the names in the logs.
    every: epochs between two evaluations. Logs of the epochs between lack these names, and a callback that
        monitors
        them warns: with `ModelCheckpoint` or `EarlyStopping` evaluate every epoch, and list this callback first:

        callbacks=[RobustEvaluation((x, y)), keras.callbacks.EarlyStopping("val_pgd20", mode="max", patience=5)]

    Attacks the inner network of a `SqueezeModel`, or any model that returns logits; each attack is traced once.
    Pixels are scaled for the network of a `SqueezeModel` whose objective has other bounds than [0, 1].
    Raises UsageError for an unknown attack or a setting out of range, DataError for pixels or labels out of range,
    both before training; batches after the first are checked during the evaluation.
    """

    def __init__(
        self,
        data: Any,
        attacks: Sequence[str | Attack] | Mapping[str, Attack] = ("pgd20",),
        *,
        epsilon: float = 8 / 255,
        every: int = 1,
        batch_size: int = 250,
        seed: int = 0,
        prefix: str = "val_",
    ) -> None:
        super().__init__()
        checks.whole("every", every, 1)
        checks.whole("batch_size", batch_size, 1)
        checks.whole("seed", seed)
        self.every, self.seed, self.prefix = every, seed, prefix
        why = "during training; others are for stcore.evaluate on the trained network"
        self._attacks = split(attacks_by_name(attacks, epsilon)).check_by_batch("attacks", why)
        self._data = _ArrayBatches(*data, batch_size) if isinstance(data, tuple) and len(data) == 2 else data
        self._evaluated: Any = None
        self._evaluator: Evaluator | None = None

    def on_train_begin(self, logs: Any = None) -> None:
        inner = isinstance(self.model, SqueezeModel)
        model = self.model.net if inner else self.model
        bounds = bounds_of(self.model.objective) if inner else UNIT
        first = next(iter(self._data), None)
        if first is None:
            raise DataError("data: expected batches of images and labels; received none")
        images, labels = _array(first[0]), _array(first[1])
        validation.check_pixels(images)
        build(model, images.shape[1:])
        check_range(model, bounds)
        if self._evaluator is None or self._evaluated is not model:
            scaled = KerasClassifier(_of_unit_pixels(model, bounds, images.shape[1:]))
            self._evaluated, self._evaluator = model, Evaluator(scaled, self._attacks, self.seed)
        classifier = self._evaluator.classifier
        self._classes = validation.check_model(classifier, classifier.pixels(images)) or 0
        whole = isinstance(self._data, _ArrayBatches)
        validation.hard_labels(self._data.y if whole else labels, self._classes)

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        if logs is None or self._evaluator is None or (epoch + 1) % self.every:
            return
        accuracies = self._evaluator.run(self._batches()).accuracies
        logs.update({f"{self.prefix}{name}": accuracy.value for name, accuracy in accuracies.items()})

    def _batches(self) -> Iterator[Batch]:
        """Checked batches of the data, with each example's position in it."""
        done = 0
        for x, y in self._data:
            images = _array(x)
            validation.check_pixels(images)
            labels = validation.hard_labels(_array(y), self._classes, len(images))
            yield Batch(images, labels, np.arange(done, done + len(images)))
            done += len(images)
        if not done:
            raise DataError(
                "data: expected batches at each epoch; received none. Give a tf.data.Dataset, or arrays"
            )


def _of_unit_pixels(model: Any, bounds: tuple[float, float], shape: tuple[int, ...]) -> Any:
    """A network of pixels (B, *shape) in [0, 1] with the weights of this one, whose pixels are in the bounds."""
    if bounds == UNIT:
        return model
    low, high = bounds
    given = keras.Input(shape, dtype=model.variable_dtype)
    return keras.Model(given, model(keras.layers.Rescaling(high - low, low, dtype=model.variable_dtype)(given)))


class _ArrayBatches:
    """Batches of two arrays."""

    def __init__(self, x: Any, y: Any, batch_size: int) -> None:
        self.x, self.y, self._batch_size = _array(x), _array(y), batch_size
        validation.check_pixels(self.x)
        if len(self.x) != len(self.y):
            raise UsageError(f"data: expected as many labels as images; received {len(self.y)} and {len(self.x)}")

    def __iter__(self) -> Iterator[tuple[Array, Array]]:
        for begin in range(0, len(self.x), self._batch_size):
            rows = slice(begin, begin + self._batch_size)
            yield self.x[rows], self.y[rows]


def _array(x: Any) -> Array:
    array: Array = x if isinstance(x, np.ndarray) else ops.convert_to_numpy(x)
    return array
