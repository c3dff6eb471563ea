"""Natural and robust accuracy, each with its confidence interval."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from stcore import attacks as attack_module
from stcore import inspection
from stcore.attacks import Attack
from stcore.data.batches import Batch
from stcore.dispatch import make_classifier
from stcore.errors import DivergedError, UsageError
from stcore.noise import sample
from stcore.protocols import Array, Classifier, Mode, Tensor
from stcore.seeding import Stream


@dataclass(frozen=True)
class Accuracy:
    """How many of `total` images were classified correctly."""

    correct: int
    total: int

    @property
    def value(self) -> float:
        """The share, in [0, 1]."""
        return self.correct / self.total

    def interval(self, confidence: float = 0.95) -> tuple[float, float]:
        """The Clopper–Pearson interval of the share: exact for a binomial count, also near 0 and 1."""
        from scipy.special import betaincinv

        tail, k, n = (1 - confidence) / 2, self.correct, self.total
        low = float(betaincinv(k, n - k + 1, tail)) if k else 0.0
        high = float(betaincinv(k + 1, n - k, 1 - tail)) if k < n else 1.0
        return low, high


@dataclass(frozen=True, eq=False)
class Predictions:
    """The labels (N,) of a data set, and the classes (N,) predicted for it: `natural`, and under each attack."""

    labels: Array
    predicted: Mapping[str, Array]

    @property
    def accuracies(self) -> dict[str, Accuracy]:
        """The accuracy of each."""
        return {
            name: Accuracy(int((classes == self.labels).sum()), len(self.labels))
            for name, classes in self.predicted.items()
        }


class Evaluator:
    """Runs a classifier, and attacks on it, over a data set; what can be compiled is compiled once.

    attacks: name → attack; `natural` (no attack) is always evaluated first. Attacks start from noise of
    `seed` and the example's position, so results do not depend on the batch size beyond rounding.
    own_layout: the batches' images are laid out as the model takes them, rather than (B, H, W, C).
    """

    def __init__(
        self,
        classifier: Classifier,
        attacks: Mapping[str, Attack],
        seed: int = 0,
        *,
        own_layout: bool = False,
    ) -> None:
        self.classifier = classifier
        self._native = classifier.pixels if own_layout else classifier.images
        self.attacks = dict(attacks)
        self.seed = seed
        ops = classifier.ops
        self._logits = classifier.compile(lambda x: ops.unrecorded(lambda: classifier.logits(x, Mode.EVAL)))
        self._find = {name: self._compiled(attack) for name, attack in self.attacks.items()}

    def _compiled(self, attack: Attack) -> Callable[..., Tensor]:
        model = self.classifier
        return model.compile(lambda x, y, noise: model.ops.unrecorded(lambda: attack.find(model, x, y, noise)))

    def predict(self, batch: Batch) -> dict[str, Array]:
        """The class (B,) predicted for the natural images, and for those each attack found."""
        x, y = self._native(batch.images), self.classifier.labels(batch.labels)
        predicted = {"natural": self.classes(x)}
        shape = tuple(n for n in self.classifier.shape(x)[1:] if n is not None)
        for name, attack in self.attacks.items():
            noise = sample(attack.noise_laws, self.seed, Stream.ATTACK, batch.positions, shape)
            predicted[name] = self.classes(self._find[name](x, y, tuple(map(self.classifier.images, noise))))
        return predicted

    def classes(self, x: Tensor) -> Array:
        """The class (B,) predicted for native images; DivergedError where a logit is NaN or +∞."""
        labels: Array = self.logits(x).argmax(axis=1)
        return labels

    def logits(self, x: Tensor) -> Array:
        """The logits (B, C) of native images on the host; DivergedError where one is NaN or +∞."""
        logits: Array = self.classifier.ops.to_numpy(self._logits(x))
        if not (logits < np.inf).all():  # argmax would pass NaN off as a class
            raise DivergedError(
                "the model's logits are not finite: its weights have diverged. Lower the learning rate"
            )
        return logits

    def run(self, batches: Iterable[Batch], advance: Callable[[int], None] = lambda images: None) -> Predictions:
        """What is predicted over all batches; `advance` is told the number of images after each."""
        labels: list[Array] = []
        predicted: dict[str, list[Array]] = {name: [] for name in ("natural", *self.attacks)}
        for batch in batches:
            labels.append(batch.labels)
            for name, classes in self.predict(batch).items():
                predicted[name].append(classes)
            advance(len(batch.labels))
        return Predictions(
            np.concatenate(labels), {name: np.concatenate(parts) for name, parts in predicted.items()}
        )


def evaluate(
    model: Any,
    data: tuple[Any, Any],
    attacks: Sequence[str | Attack] | Mapping[str, Attack] = ("fgsm", "pgd20"),
    *,
    epsilon: float = 8 / 255,
    batch_size: int = 250,
    seed: int = 0,
) -> dict[str, Accuracy]:
    """Natural and robust accuracy of a `torch.nn.Module` or `keras.Model` on `data` = (x, y).

    x: pixels in [0, 1] in the model's own layout, (N, …), numpy or native; y: integer labels (N,).
    attacks: names of `stcore.attacks.PRESETS` (at `epsilon`), attacks, or a mapping of names to attacks.
    Returns {"natural": Accuracy, name: Accuracy, …}. The model comes back as it was.
    Raises DataError for pixels or labels out of range, UsageError for an unknown attack or a batch size below 1.
    """
    classifier = make_classifier(model)
    x, y = (part if isinstance(part, np.ndarray) else np.asarray(classifier.host(part)) for part in data)
    inspection.check_pixels(x)
    if len(x) != len(y):
        raise UsageError(f"data: expected as many labels as images; received {len(y)} and {len(x)}")
    if not isinstance(batch_size, int) or batch_size < 1:
        raise UsageError(f"batch_size: expected a whole number of at least 1; received {batch_size!r}")
    first = classifier.pixels(x[: min(batch_size, len(x))])
    num_classes = inspection.check_model(classifier, first)
    inspection.check_labels(y, num_classes or 0)

    def batches() -> Iterable[Batch]:
        for begin in range(0, len(x), batch_size):
            where = slice(begin, begin + batch_size)
            yield Batch(x[where], y[where], np.arange(len(x))[where])

    return Evaluator(classifier, named(attacks, epsilon), seed, own_layout=True).run(batches()).accuracies


def named(attacks: Sequence[str | Attack] | Mapping[str, Attack], epsilon: float) -> dict[str, Attack]:
    """Attacks by name; a string stands for a preset at this ε."""
    if isinstance(attacks, Mapping):
        return dict(attacks)
    return {
        attack if isinstance(attack, str) else repr(attack): (
            attack_module.preset(attack, epsilon) if isinstance(attack, str) else attack
        )
        for attack in attacks
    }
