"""What the checks of an audit share: a network, a few images, and all that is known of them so far."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cache, cached_property

import numpy as np

from stcore.attacks import PGD, Attack
from stcore.base import checks
from stcore.core.threat import NORMS, lengths
from stcore.data.batches import Batch
from stcore.errors import UsageError
from stcore.evaluation.evaluator import Evaluator
from stcore.protocols import Array, Classifier


class Subject:
    """The arguments are those of `stcore.audit.audit`. Arrays are the host's; N images."""

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
        self.transfer = {name: self._inside(name, points) for name, points in transfer.items()}
        self.evaluator = Evaluator(classifier, {}, seed)
        self.classes_under = cache(self._classes_under)
        """The classes (N,) predicted under an attack, which is run once."""

    def batches(self) -> Iterator[Batch]:
        """All images in order."""
        for begin in range(0, len(self.images), self.batch_size):
            where = np.arange(begin, min(begin + self.batch_size, len(self.images)))
            yield Batch(self.images[where], self.labels[where], where)

    def ask(self) -> Array:
        """The logits (N, C) of the images, by forwards made now; DivergedError where one is NaN or +∞."""
        native = (self.classifier.images(batch.images) for batch in self.batches())
        return np.concatenate([self.evaluator.logits(x) for x in native])

    @cached_property
    def logits(self) -> Array:
        """(N, C), of the images themselves."""
        return self.ask()

    @cached_property
    def right(self) -> Array:
        """(N,) booleans: which images are classified correctly."""
        return self.stands(self.logits.argmax(axis=1))

    @cached_property
    def withstands_pgd(self) -> Array:
        """(N,) booleans: which images fall neither to PGD-20 nor to PGD-100."""
        both: Array = self.stands_under_pgd(20) & self.stands_under_pgd(100)
        return both

    @cached_property
    def withstands_gradients(self) -> Array:
        """(N,) booleans: which of those do not fall to C&W-100 either."""
        stands: Array = self.withstands_pgd & self.stands_under_pgd(100, "margin")
        return stands

    def stands_under_pgd(self, steps: int, loss: str = "cross_entropy") -> Array:
        """(N,) booleans: right, and right under the paper's PGD: from a uniform start in steps of ε/4."""
        attack = PGD(self.epsilon, self.epsilon / 4, steps, norm=self.norm, bounds=self.bounds, loss=loss)
        stands: Array = self.right & self.stands(self.classes_under(attack))
        return stands

    def stands(self, classes: Array) -> Array:
        """(N,) booleans: where predicted classes (N,) are the labels."""
        same: Array = classes == self.labels
        return same

    def tolerated(self, share: float = 0.02) -> float:
        """The number of images by which nothing is proved: this share of all, and two at least."""
        return max(2.0, share * len(self.images))

    def classes_of(self, points: Array) -> Array:
        """The classes (N,) predicted for other host images (N, …)."""
        size = self.batch_size
        parts = (self.classifier.images(points[i : i + size]) for i in range(0, len(points), size))
        return np.concatenate([self.evaluator.classes(x) for x in parts])

    def _classes_under(self, attack: Attack) -> Array:
        return Evaluator(self.classifier, {"it": attack}, self.seed).run(self.batches()).predicted["it"]

    def _inside(self, name: str, points: Array) -> Array:
        """The points themselves, once they are seen to be examples of these images in this ball."""
        if points.shape != self.images.shape:
            raise UsageError(
                f"transfer {name}: expected examples for the images, {self.images.shape}; received {points.shape}"
            )
        here, there = (self.classifier.host_pixels(np.asarray(a)) for a in (self.images, points))
        length = float(lengths(there.astype(np.float64) - here, self.norm).max())
        if not length <= self.epsilon * (1 + 1e-6) + 1e-6:
            raise UsageError(
                f"transfer {name}: expected examples within ε = {self.epsilon:.4g} of the images; received one at "
                f"{length:.4g}. Make them with the same ε and norm"
            )
        return points
