"""Subject of an audit: a network, a few images, and cached predictions that the checks share."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cache, cached_property

import numpy as np

from stcore.attacks import PGD, Attack
from stcore.autoattack.lanes import folded
from stcore.base import checks
from stcore.core.threat import NORMS, lengths
from stcore.data.batches import Batch
from stcore.errors import UsageError
from stcore.evaluation.evaluator import Evaluator
from stcore.protocols import Array, Classifier

REPEATS = 4
"""Forwards that are compared with the first."""
_TOLERANCE = 1e-6  # of the largest logit: changes from rounding between two runs


class Subject:
    """A network with N images. Arguments as in `stcore.audit.audit`; all arrays are on the host."""

    def __init__(
        self,
        classifier: Classifier,
        images: Array,
        labels: Array,
        *,
        epsilon: float,
        norm: str,
        bounds: tuple[float, float],
        seed: int,
        batch_size: int,
        queries: int,
        transfer: Mapping[str, Array],
    ) -> None:
        checks.choice("norm", norm, NORMS)
        self.classifier, self.images, self.labels = classifier, images, labels
        self.epsilon, self.norm, self.bounds = epsilon, norm, bounds
        self.seed, self.batch_size, self.queries = seed, batch_size, queries
        self.transfer = {name: self._checked(name, examples) for name, examples in transfer.items()}
        self.evaluator = Evaluator(classifier, {}, seed)
        self.classes_under = cache(self._classes_under)
        """The predicted classes (N,) under an attack, which runs once."""

    def batches(self) -> Iterator[Batch]:
        """Yields all images in order."""
        for begin in range(0, len(self.images), self.batch_size):
            rows = np.arange(begin, min(begin + self.batch_size, len(self.images)))
            yield Batch(self.images[rows], self.labels[rows], rows)

    def forward(self) -> Array:
        """The logits (N, C) of the images by new forwards. Raises DivergedError if one is NaN or +∞."""
        native = (self.classifier.images(batch.images) for batch in self.batches())
        return np.concatenate([self.evaluator.logits(x) for x in native])

    @cached_property
    def logits(self) -> Array:
        """The logits (N, C) of the natural images."""
        return self.forward()

    @cached_property
    def changes(self) -> Array:
        """Which images have other logits in one of `REPEATS` more forwards, (N,) booleans."""
        changed = np.zeros(len(self.images), bool)
        for _ in range(REPEATS):
            changed |= self.changed(self.forward(), _TOLERANCE)
        return changed

    def changed(self, logits: Array, tolerance: float) -> Array:
        """Which images' logits are others than at first, by more than this share of the largest, (N,) booleans."""
        first = self.logits
        largest = np.abs(first[np.isfinite(first)]).max(initial=0.0)
        change = np.abs(np.subtract(logits, first, where=logits != first, out=np.zeros_like(first)))
        moved: Array = (change > tolerance * largest).any(axis=1)
        return moved

    def among_others(self) -> Array:
        """The logits (N, C) of the images in batches of half the size, of every second image."""
        logits, size = np.empty_like(self.logits), max(2, self.batch_size // 2)
        for half in (np.arange(0, len(self.images), 2), np.arange(1, len(self.images), 2)):
            for rows in (half[begin : begin + size] for begin in range(0, len(half), size)):
                logits[rows] = self.evaluator.logits(self.classifier.images(self.images[rows]))
        return logits

    @cached_property
    def correct(self) -> Array:
        """Which natural images are classified correctly, (N,) booleans."""
        return self.is_correct(self.logits.argmax(axis=1))

    @cached_property
    def withstands_pgd(self) -> Array:
        """Which images withstand both PGD-20 and PGD-100, (N,) booleans."""
        robust: Array = self.robust_under_pgd(20) & self.robust_under_pgd(100)
        return robust

    @cached_property
    def withstands_gradients(self) -> Array:
        """Which of those also withstand C&W-100, (N,) booleans."""
        robust: Array = self.withstands_pgd & self.robust_under_pgd(100, "margin")
        return robust

    def robust_under_pgd(self, steps: int, loss: str = "cross_entropy") -> Array:
        """Which images the paper's PGD (uniform start, steps of ε/4) leaves correctly classified, (N,) bool."""
        attack = PGD(self.epsilon, self.epsilon / 4, steps, norm=self.norm, bounds=self.bounds, loss=loss)
        robust: Array = self.correct & self.is_correct(self.classes_under(attack))
        return robust

    def is_correct(self, classes: Array) -> Array:
        """Which predicted classes (N,) equal the labels, (N,) booleans."""
        same: Array = classes == self.labels
        return same

    def tolerance(self, share: float = 0.02) -> float:
        """The number of images that may deviate by chance: this share of all, but at least two."""
        return max(2.0, share * len(self.images))

    def classes_of(self, images: Array) -> Array:
        """The predicted classes (N,) of other host images (N, …)."""
        size = self.batch_size
        parts = (self.classifier.images(images[i : i + size]) for i in range(0, len(images), size))
        return np.concatenate([self.evaluator.classes(x) for x in parts])

    @cached_property
    def target(self) -> Classifier:
        """The network that attacks see, folded. Logits, gradients and verdicts are the classifier's own."""
        return folded(self.classifier, self.images)

    def _classes_under(self, attack: Attack) -> Array:
        evaluator = Evaluator(self.classifier, {"attack": attack}, self.seed, self.target)
        return evaluator.run(self.batches()).predicted["attack"]

    def _checked(self, name: str, examples: Array) -> Array:
        """The examples, once they have the images' shape and lie in the ball."""
        if examples.shape != self.images.shape:
            raise UsageError(
                f"transfer {name}: expected examples for the images, {self.images.shape}; received "
                f"{examples.shape}. Make them of the same images"
            )
        natural, moved = (self.classifier.host_pixels(np.asarray(a)) for a in (self.images, examples))
        length = float(lengths(moved.astype(np.float64) - natural, self.norm).max())
        if not length <= self.epsilon * (1 + 1e-6) + 1e-6:
            raise UsageError(
                f"transfer {name}: expected examples within ε = {self.epsilon:.4g} of the images; received one at "
                f"{length:.4g}. Make them with the same ε and norm"
            )
        return examples
