"""Batches of images that are kept on the device: selected and augmented there, bit for bit as on the host."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from stcore.data.crop_flip import CropFlip

Select = Callable[[slice], Any]
"""Places in the order of an epoch → the augmented images as the model's tensor."""
Fetch = Callable[[Any, CropFlip | None], Select]
"""The order of an epoch, (N,) rows of the resident images, and its draws or None: they go to the device once."""


@dataclass(frozen=True, eq=False)
class OnDevice:
    """A batch's images on the device; `tensor` selects and augments them."""

    select: Select
    rows: slice  # places in the order of the epoch

    def __getitem__(self, rows: slice) -> OnDevice:
        """A share of the batch."""
        first = self.rows.start
        return OnDevice(self.select, slice(first + rows.start, first + rows.stop))

    def tensor(self) -> Any:
        """The same tensor that the learner's `images` returns for these images on the host."""
        return self.select(self.rows)
