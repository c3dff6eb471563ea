"""AutoAttack on one batch: settings and call."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from stcore.autoattack.cascade import Cascade
from stcore.autoattack.lanes import folded, lanes_on
from stcore.autoattack.versions import MEMBERS, Stage, stages
from stcore.base import checks
from stcore.core import validation
from stcore.core.entry import checked_classifier
from stcore.errors import UsageError
from stcore.protocols import Array, Tensor


@dataclass(frozen=True)
class AutoAttack:
    """A cascade of parameter-free attacks, each on the images still robust (Croce and Hein, 2020).

    epsilon: radius of the ball, in units of pixels in [0, 1].   norm: linf, l2 or l1.
    bounds: the range of pixels.
    version: `standard`, `malt` (the same with targets in MALT's order), `plus`, `rand` (for random networks),
        `fast` (two of the attacks of `standard`, in fewer steps, see `stcore.autoattack.versions`) or `custom`,
        with the names of its `attacks`.
    queries: iterations of Square, whose schedule is not rescaled.
    Raises UsageError for a value out of range, or for `attacks` beside another version than custom.
    """

    epsilon: float = 8 / 255
    norm: str = "linf"
    version: str = "standard"
    attacks: tuple[str, ...] = ()
    queries: int = 5000
    bounds: tuple[float, float] = (0.0, 1.0)

    def __post_init__(self) -> None:
        self.stages(10)  # checks the settings

    def stages(self, classes: int) -> tuple[Stage, ...]:
        """Returns the attacks in their order, for a network with this number of classes."""
        return stages(
            self.version,
            self.norm,
            self.epsilon,
            classes,
            attacks=self.attacks,
            bounds=self.bounds,
            queries=self.queries,
        )

    def check_images(self, shape: Sequence[int]) -> None:
        """Raises UsageError if one of its attacks does not take images of this shape, before any of them works."""
        for stage in self.stages(10):
            ranks = getattr(stage.attack, "ranks", None)
            if ranks is not None and len(shape) not in ranks:
                others = "+".join(dict.fromkeys(each.name for each in self.stages(10) if each.name != stage.name))
                raise UsageError(
                    f"attacks: expected images (H, W, C), or flat, for {stage.name}; received images of shape "
                    f"{tuple(shape)}. Leave it out" + (f": {others}" if others else "")
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
        """Returns adversarial examples, shaped like x, of native x (B, …) with labels y (B,).

        Images that stay robust are returned unchanged.   rng: a generator, or a seed; by default fresh entropy.
        batch_size: number of examples under attack at one time.
        Raises as the other attacks do, and UsageError inside a traced graph: which image is attacked depends on
        earlier results.
        """
        checks.whole("batch_size", batch_size, 1)
        classifier = checked_classifier(model, x, y, self)
        labels = classifier.to_numpy(y)
        if labels is None:
            raise UsageError("x: expected tensors with values; AutoAttack cannot be traced. Call it eagerly")
        self.check_images(classifier.host_images(x).shape[1:])
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
    """Returns the attack of a name; None for any other name.

    name: `autoattack`, `autoattack-VERSION`, an attack such as `apgd-ce`, or several such as `apgd-ce+square`.
    """
    if name == "autoattack":
        return AutoAttack(epsilon, norm)
    if name in NAMES:
        return AutoAttack(epsilon, norm, name.removeprefix("autoattack-"))
    members = tuple(name.split("+"))
    return AutoAttack(epsilon, norm, "custom", members) if set(members) <= set(MEMBERS) else None


NAMES = ("autoattack", "autoattack-malt", "autoattack-plus", "autoattack-rand", "autoattack-fast")
