"""Batches of images that are kept on the device: selected and augmented there, bit for bit as on the host."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from stcore.data.augment import CropFlip

Fetch = Callable[[Any, CropFlip | None], Any]
"""(indices (b,), their draws or None) → the augmented images as the model's tensor."""


@dataclass(frozen=True, eq=False)
class OnDevice:
    """A batch's images on the device; `tensor` selects and augments them."""

    fetch: Fetch
    indices: Any  # int64 (b,), into the resident images
    draws: CropFlip | None

    def __getitem__(self, rows: slice) -> OnDevice:
        """A share of the batch."""
        return OnDevice(self.fetch, self.indices[rows], None if self.draws is None else self.draws.at(rows))

    def tensor(self) -> Any:
        """The same tensor that the learner's `images` returns for these images on the host."""
        return self.fetch(self.indices, self.draws)
