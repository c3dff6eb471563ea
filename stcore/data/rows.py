"""Rows of images that stay where they are, on the disk."""

from typing import Any

import numpy as np
import numpy.typing as npt

Pixels = npt.NDArray[np.uint8]


class Rows:
    """Some images of a memory map, in some order; what is indexed is read then, and nothing before.

    It is used as the array (N, H, W, C) would be: `len`, `shape`, `dtype`, and an index of the first axis (a
    number, a slice, an array of places), which gives an array of its own memory. `numpy.asarray` reads all of it.
    """

    def __init__(self, images: Pixels, places: npt.NDArray[np.int64] | None = None) -> None:
        self._images = np.asarray(images)  # of a map no copy, and what is taken from it is a plain array
        self._places = np.arange(len(images)) if places is None else places

    def __len__(self) -> int:
        return len(self._places)

    @property
    def shape(self) -> tuple[int, ...]:
        """(N, H, W, C)."""
        return len(self), *self._images.shape[1:]

    @property
    def ndim(self) -> int:
        """4."""
        return self._images.ndim

    @property
    def dtype(self) -> np.dtype[np.uint8]:
        """uint8."""
        return self._images.dtype

    def __getitem__(self, where: Any) -> Pixels:
        rows: Pixels = self._images[self._places[where]]
        return rows

    def take(self, where: Any) -> "Rows":
        """The rows at these places, or of this slice, as another view: nothing is read."""
        return Rows(self._images, self._places[where])

    def __array__(self, dtype: npt.DTypeLike | None = None, copy: bool | None = None) -> npt.NDArray[Any]:
        """All of them in memory."""
        if copy is False:
            raise ValueError("expected a copy to be allowed: rows of a memory map are read into memory")
        return self[:].astype(dtype or np.uint8, copy=False)


Images = npt.NDArray[Any] | Rows
"""Images on the host, of which no more is looked at than what is indexed: an array, or rows of a memory map."""
