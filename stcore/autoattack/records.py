"""What is known of each image after a cascade of attacks: whether it withstood, and what it fell to."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields

import numpy as np

from stcore.protocols import Array

NONE = -1


@dataclass
class Records:
    """One row per image, as arrays (N,).

    label, natural: the true class, and the one predicted for the image itself.
    predicted: the class predicted for the adversarial example; without one, `natural`.
    attack: the place of the attack that fooled the network in the list of names, or −1.
    target, restart, iteration: of that run; the target is a class, or −1.
    distance: of the adversarial example from the image, in the threat model's norm; NaN without one.
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
        """Before any attack."""
        none = np.full(len(label), NONE)
        found = {name: none.copy() for name in ("attack", "target", "restart", "iteration")}
        return cls(label, natural, natural.copy(), **found, distance=np.full(len(label), np.nan))

    @property
    def robust(self) -> Array:
        """(N,) booleans: classified right, and not fooled."""
        stands: Array = (self.natural == self.label) & (self.attack == NONE)
        return stands

    def arrays(self) -> dict[str, Array]:
        return {field.name: getattr(self, field.name) for field in fields(self)}

    @classmethod
    def of(cls, arrays: Mapping[str, Array]) -> Records:
        return cls(**{field.name: np.array(arrays[field.name]) for field in fields(cls)})
