"""AutoAttack as an attack: its settings, and its examples for one batch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from stcore.autoattack.cascade import Cascade
from stcore.autoattack.lanes import folded, lanes_on
from stcore.autoattack.versions import IDS, Stage, stages
from stcore.base import checks
from stcore.core import validation
from stcore.core.entry import checked_classifier
from stcore.errors import UsageError
from stcore.protocols import Array, Tensor


@dataclass(frozen=True)
class AutoAttack:
    """A cascade of parameter-free attacks, each on the images that withstood those before (Croce and Hein, 2020).

    version: `standard`, `plus`, `rand` (for networks that answer at random), `fast` (the verdict of `standard` for
        a fraction of its passes, see `stcore.autoattack.versions`) or `custom`, with the names of its `attacks`.
    norm: linf, l2 or l1.   queries: of Square, whose schedule is not rescaled.
    """

    epsilon: float = 8 / 255
    norm: str = "linf"
    version: str = "standard"
    attacks: tuple[str, ...] = ()
    queries: int = 5000
    bounds: tuple[float, float] = (0.0, 1.0)

    def __post_init__(self) -> None:
        self.stages(10)  # which checks the settings

    def stages(self, classes: int) -> tuple[Stage, ...]:
        """The attacks in their order, for a network of so many classes."""
        return stages(
            self.version,
            self.norm,
            self.epsilon,
            classes,
            attacks=self.attacks,
            bounds=self.bounds,
            queries=self.queries,
        )

    def __call__(
        self,
        model: Any,
        x: Tensor,
        y: Tensor,
        *,
        rng: np.random.Generator | int | None = None,
        batch_size: int = 250,
    ) -> Tensor:
        """Adversarial examples of native x (B, …), labels y (B,); images that withstand come back as they are.

        rng: a generator, or a seed; by default fresh entropy.   Raises as the other attacks do, and UsageError
        inside a traced graph, since what is attacked when depends on what is found.
        """
        checks.whole("batch_size", batch_size, 1)
        classifier = checked_classifier(model, x, y, self)
        labels = classifier.to_numpy(y)
        if labels is None:
            raise UsageError("x: expected tensors with values; AutoAttack cannot be traced. Call it eagerly")
        images, seed = classifier.host_images(x), int(np.random.default_rng(rng).integers(2**63))

        def logits(points: Array) -> Array:
            return validation.check_finite(np.asarray(classifier.eval_logits(classifier.images(points))))

        natural = np.concatenate([logits(images[i : i + batch_size]) for i in range(0, len(images), batch_size)])
        cascade = Cascade(
            classifier,
            self.stages(natural.shape[1]),
            images,
            labels,
            natural,
            lambda points: logits(points).argmax(axis=1),
            seed=seed,
            batch_size=batch_size,
            lanes=lanes_on(folded(classifier, images)),
        )
        while cascade.advance():
            pass
        adversarial = images.copy()
        for row, point in cascade.found.items():
            adversarial[row] = point
        return classifier.images(adversarial)


def by_name(name: str, epsilon: float, norm: str = "linf") -> AutoAttack | None:
    """`autoattack`, `autoattack-VERSION`, one of its members such as `apgd-ce`, or several as `apgd-ce+square`.

    None for any other name.
    """
    if name == "autoattack":
        return AutoAttack(epsilon, norm)
    if name in NAMES:
        return AutoAttack(epsilon, norm, name.removeprefix("autoattack-"))
    members = tuple(name.split("+"))
    return AutoAttack(epsilon, norm, "custom", members) if set(members) <= set(IDS) else None


NAMES = ("autoattack", "autoattack-plus", "autoattack-rand", "autoattack-fast")
