"""Evaluator: predictions of a classifier on natural images and under attacks."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np

from stcore.attacks import Attack
from stcore.autoattack.lanes import folded, lanes_on
from stcore.base.noise import sample
from stcore.base.seeding import Stream
from stcore.core import validation
from stcore.data.batches import Batch
from stcore.data.rows import Images
from stcore.evaluation.accuracy import Accuracy
from stcore.evaluation.unions import Union
from stcore.protocols import Array, Classifier, Mode, Tensor


@dataclass(frozen=True, eq=False)
class Predictions:
    """Labels (N,) of a data set and predicted classes (N,): for `natural` images, and under each attack."""

    labels: Array
    predicted: Mapping[str, Array]

    @property
    def accuracies(self) -> dict[str, Accuracy]:
        """The accuracy of each set of predictions."""
        return {
            name: Accuracy(int((classes == self.labels).sum()), len(self.labels))
            for name, classes in self.predicted.items()
        }


class Evaluator:
    """Runs a classifier and attacks on it over a data set; compiles each function once.

    attacks: name → attack; `natural` (no attack) is always evaluated first. Attacks start from noise of
    `seed` and the example's position, so results do not depend on the batch size up to rounding.
    target: the network that attacks see: the classifier, or a folded copy. Their examples are the classifier's to
    judge in either case.
    unions: unions of these attacks, which `run` adds.
    """

    def __init__(
        self,
        classifier: Classifier,
        attacks: Mapping[str, Attack],
        seed: int = 0,
        target: Classifier | None = None,
        unions: Mapping[str, Union] = MappingProxyType({}),
    ) -> None:
        self.classifier = classifier
        self.unions = unions
        self.attacks = dict(attacks)
        self.seed = seed
        ops = classifier.ops
        self._logits = classifier.compile(
            lambda x: ops.unrecorded(lambda: classifier.logits(x, Mode.EVAL)), rowwise=True
        )
        self._set_target(target or classifier)

    def _set_target(self, target: Classifier) -> None:
        self._target = target
        self._find = {name: self._compiled(attack) for name, attack in self.attacks.items()}
        self.lanes = lanes_on(target)
        """The lanes of a stepped attack on the target, compiled once."""

    def fold(self, images: Images) -> None:
        """Makes all attacks see a folded copy of the classifier with its current weights.

        Not for the evaluations of training, whose weights change from one to the next.
        """
        target = folded(self.classifier, images)
        if target is not self._target:
            self._set_target(target)

    def _compiled(self, attack: Attack) -> Callable[..., Tensor]:
        model = self._target
        return model.compile(
            lambda x, y, noise: model.ops.unrecorded(lambda: attack.find(model, x, y, noise)), rowwise=True
        )

    def evaluate_batch(self, batch: Batch) -> tuple[Array, dict[str, Array], dict[str, Tensor]]:
        """The logits (B, C) of the natural images, and by attack the predicted classes (B,) and the examples."""
        x, y = self.classifier.images(batch.images), self.classifier.labels(batch.labels)
        logits, predicted, examples = self.logits(x), {}, {}
        shape = tuple(n for n in self.classifier.shape(x)[1:] if n is not None)
        for name, attack in self.attacks.items():
            noise = sample(attack.noise_laws, self.seed, Stream.ATTACK, batch.positions, shape)
            examples[name] = self._find[name](x, y, tuple(map(self.classifier.images, noise)))
            predicted[name] = self.classes(examples[name])
        return logits, predicted, examples

    def predict(self, batch: Batch) -> dict[str, Array]:
        """The predicted classes (B,) of the natural images and of each attack's examples."""
        logits, predicted, _ = self.evaluate_batch(batch)
        return {"natural": logits.argmax(axis=1), **predicted}

    def classes(self, x: Tensor) -> Array:
        """The predicted classes (B,) of native images. Raises DivergedError if a logit is NaN or +∞."""
        labels: Array = self.logits(x).argmax(axis=1)
        return labels

    def logits(self, x: Tensor) -> Array:
        """The logits (B, C) of native images on the host. Raises DivergedError if one is NaN or +∞."""
        return validation.check_finite(self.classifier.ops.to_numpy(self._logits(x)))

    def run(self, batches: Iterable[Batch], advance: Callable[[int], None] = lambda images: None) -> Predictions:
        """The predictions over all batches; calls `advance` with the number of images after each of them."""
        none = np.zeros(0, np.int64)  # a rank may have no images
        labels: list[Array] = [none]
        predicted: dict[str, list[Array]] = {name: [none] for name in ("natural", *self.attacks)}
        for batch in batches:
            labels.append(batch.labels)
            for name, classes in self.predict(batch).items():
                predicted[name].append(classes)
            advance(len(batch.labels))
        every = np.concatenate(labels)
        found = {name: np.concatenate(parts) for name, parts in predicted.items()}
        joined = {name: union.predicted(found, every) for name, union in self.unions.items()}
        return Predictions(every, found | joined)
