"""A watch for catastrophic overfitting within an epoch: the network defeats a single step, and no other attack.

Wong et al. (2020) and Andriushchenko and Flammarion (2020) describe it: within a few dozen steps of a training
whose search takes one or two long steps, the accuracy under many steps falls to nothing, while that under one step
rises. The two are compared on the same few images, and on more of them before anything is said.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from stcore.attacks.pgd import PGD
from stcore.data import ImageData, in_order
from stcore.evaluation.accuracy import Accuracy
from stcore.evaluation.evaluator import Evaluator
from stcore.methods.remedies import is_short
from stcore.protocols import Classifier

LOOKS = ((32, 5, 0.6), (32, 10, 0.4), (256, 10, 0.25))
"""Images, steps of PGD, and a share of the accuracy under one step: no more than it asks for the next, closer
look, and after the last one is a collapse."""


@dataclass
class CollapseWatch:
    """Compares FGSM with PGD on the first images of the selection, in the ball of a search.

    classifier: the network in training.   chance: the accuracy of a constant answer.   seed: of the noise.
    """

    classifier: Classifier
    selection: ImageData
    chance: float
    seed: int
    batch_size: int = 256
    _evaluators: dict[tuple[Any, ...], Evaluator] = field(default_factory=dict)

    def __call__(self, search: Any) -> str | None:
        """What is wrong, with its remedy, or None.   search: the settings of the method's search in this epoch."""
        if not is_short(search) or not getattr(search, "epsilon", 0):  # or one in several balls
            return None
        for images, steps, share in LOOKS:
            one, many = self._accuracies(search, images, steps)
            if one.value <= self.chance or many.correct > share * one.correct:
                return None
        (low, _), (_, high) = one.interval(), many.interval()
        if high >= low or low <= self.chance:
            return None
        return (
            f"collapse (catastrophic overfitting). Of {one.total} images {one.value:.1%} withstand one step and "
            f"{many.value:.1%} withstand {steps}: the network has learnt to defeat the search, not the "
            "attack. Take more steps, a start from wider noise, a smaller epsilon, or a lower learning rate"
        )

    def _accuracies(self, search: Any, images: int, steps: int) -> tuple[Accuracy, Accuracy]:
        """Under one step, and under as many."""
        key = search.epsilon, search.norm, search.bounds, steps
        if key not in self._evaluators:
            ball = {"epsilon": search.epsilon, "norm": search.norm, "bounds": search.bounds}
            attacks = {
                "one": PGD(step_size=1.25 * search.epsilon, steps=1, **ball),
                "many": PGD(step_size=max(2 / steps, 0.25) * search.epsilon, steps=steps, **ball),
            }
            self._evaluators[key] = Evaluator(self.classifier, attacks, self.seed)
        few = slice(0, min(images, len(self.selection)))
        found = self._evaluators[key].run(in_order(self.selection, self.batch_size, few)).accuracies
        return found["one"], found["many"]
