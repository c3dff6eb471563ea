"""Robust accuracy after an epoch, where Keras' own callbacks find it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from stcore.attacks import Attack
from stcore.backends.keras.fit import SqueezeModel
from stcore.backends.keras.learner import KerasClassifier
from stcore.base import checks
from stcore.core import validation
from stcore.data.batches import Batch
from stcore.errors import DataError, UsageError
from stcore.evaluation.attack_names import apart, named
from stcore.evaluation.evaluator import Evaluator
from stcore.protocols import Array


class RobustEvaluation(keras.callbacks.Callback):  # type: ignore[misc]
    """Adds `val_natural`, `val_pgd20` and the like, accuracies in [0, 1], to the logs at an epoch's end.

    data: (x, y), arrays of pixels in [0, 1] and of integer labels, or batches (x, y) that can be gone through anew
    for each epoch, such as a `tf.data.Dataset`.   attacks, epsilon, seed: as in `stcore.evaluate`; attacks by
    preset, attack, or a mapping of names to attacks.   batch_size: of arrays.   prefix: of the names in the logs.
    every: epochs from one evaluation to the next. The others' logs lack these names, and a callback that monitors
    them then warns: give `ModelCheckpoint` and `EarlyStopping` every epoch, and this the place before them:

        callbacks=[RobustEvaluation((x, y)), keras.callbacks.EarlyStopping("val_pgd20", mode="max", patience=5)]

    The attacks are on the inner network of a `SqueezeModel`, or on any model that returns logits; they are traced
    once. Raises DataError for pixels or labels out of range, UsageError for an unknown attack, before training;
    of a data set's batches, all but the first are checked as they come.
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
        self._attacks, cascades = apart(named(attacks, epsilon))
        if cascades:
            raise UsageError(
                f"attacks: expected attacks that run batch by batch, to watch the training by; received "
                f"{', '.join(cascades)}. Run stcore.evaluate on the trained network"
            )
        self._data = _Arrays(*data, batch_size) if isinstance(data, tuple) and len(data) == 2 else data
        self._evaluator: Evaluator | None = None

    def on_train_begin(self, logs: Any = None) -> None:
        model = self.model.net if isinstance(self.model, SqueezeModel) else self.model
        if self._evaluator is None or self._evaluator.classifier.model is not model:  # type: ignore[attr-defined]
            self._evaluator = Evaluator(KerasClassifier(model), self._attacks, self.seed)
        classifier = self._evaluator.classifier
        first = next(iter(self._data), None)
        if first is None:
            raise DataError("data: expected batches of images and labels; received none")
        images, labels = _array(first[0]), _array(first[1])
        validation.check_pixels(images)
        self._classes = validation.check_model(classifier, classifier.pixels(images)) or 0
        validation.check_labels(self._data.y if isinstance(self._data, _Arrays) else labels, self._classes)

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        if logs is None or self._evaluator is None or (epoch + 1) % self.every:
            return
        accuracies = self._evaluator.run(self._batches()).accuracies
        logs.update({f"{self.prefix}{name}": accuracy.value for name, accuracy in accuracies.items()})

    def _batches(self) -> Iterator[Batch]:
        """The data, checked, with each example's place in it."""
        done = 0
        for x, y in self._data:
            images, labels = _array(x), _array(y)
            validation.check_pixels(images)
            validation.check_labels(labels, self._classes, len(images))
            yield Batch(images, labels, np.arange(done, done + len(images)))
            done += len(images)
        if not done:
            raise DataError(
                "data: expected batches at each epoch; received none. Give a tf.data.Dataset, or arrays"
            )


class _Arrays:
    """Two arrays, gone through in batches."""

    def __init__(self, x: Any, y: Any, batch_size: int) -> None:
        self.x, self.y, self._batch_size = _array(x), _array(y), batch_size
        validation.check_pixels(self.x)
        if len(self.x) != len(self.y):
            raise UsageError(f"data: expected as many labels as images; received {len(self.y)} and {len(self.x)}")

    def __iter__(self) -> Iterator[tuple[Array, Array]]:
        for begin in range(0, len(self.x), self._batch_size):
            where = slice(begin, begin + self._batch_size)
            yield self.x[where], self.y[where]


def _array(x: Any) -> Array:
    array: Array = x if isinstance(x, np.ndarray) else ops.convert_to_numpy(x)
    return array
