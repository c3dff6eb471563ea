"""Results of a cascade per image: robust, or fooled by which attack."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields

import numpy as np

from stcore.protocols import Array

NONE = -1


@dataclass
class Records:
    """One row per image, as arrays (N,).

    label, natural: the true class, and the class predicted for the natural image.
    predicted: the class predicted for the adversarial example; without one, `natural`.
    attack: the index of the stage that fooled the network, or −1.
    target, restart, iteration: of that run, or −1; the target is a class, −1 for an untargeted attack.
    distance: of the adversarial example from the image, in the threat model's norm, in float64; NaN without one.
        Of a minimum-norm attack the nearest example's, which may lie beyond ε: then the fields above are those of
        an image without one.
    """

    label: Array
    natural: Array
    predicted: Array
    attack: Array
    target: Array
    restart: Array
    iteration: Array
    distance: Array

    @classmethod
    def untouched(cls, label: Array, natural: Array) -> Records:
        """Returns the records before any attack."""
        none = np.full(len(label), NONE)
        run = {name: none.copy() for name in ("attack", "target", "restart", "iteration")}
        return cls(label, natural, natural.copy(), **run, distance=np.full(len(label), np.nan))

    @property
    def robust(self) -> Array:
        """Booleans (N,): classified correctly and not fooled."""
        robust: Array = (self.natural == self.label) & (self.attack == NONE)
        return robust

    @property
    def minimum_norm(self) -> Array:
        """The smallest norm (N,) known to fool the network: 0 if the image does, infinite without an example."""
        known = np.where(np.isnan(self.distance), np.inf, self.distance)
        return np.where(self.natural == self.label, known, 0.0)

    def arrays(self) -> dict[str, Array]:
        """Returns the fields by name."""
        return {field.name: getattr(self, field.name) for field in fields(self)}

    @classmethod
    def of(cls, arrays: Mapping[str, Array]) -> Records:
        """Returns records with copies of the fields that `arrays` returned."""
        return cls(**{field.name: np.array(arrays[field.name]) for field in fields(cls)})
