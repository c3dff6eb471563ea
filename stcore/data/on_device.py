"""A batch whose images live on the device: chosen and augmented there, bit for bit as on the host."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from stcore.data.augment import CropFlip

Fetch = Callable[[Any, CropFlip | None], Any]
"""(places (b,), draws of these or None) → the images there, augmented, as the model's tensor."""


@dataclass(frozen=True, eq=False)
class OnDevice:
    """A batch's images, which are on the device: nothing is chosen and augmented before `tensor` is asked for."""

    fetch: Fetch
    places: Any  # int64 (b,)
    draws: CropFlip | None

    def __getitem__(self, where: slice) -> OnDevice:
        """A share of the batch."""
        return OnDevice(self.fetch, self.places[where], None if self.draws is None else self.draws.at(where))

    def tensor(self) -> Any:
        """What the learner's `images` would make of the same images on the host."""
        return self.fetch(self.places, self.draws)
