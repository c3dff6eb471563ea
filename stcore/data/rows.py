"""Images that stay on disk, read by index from a memory map."""

import math
from typing import Any

import numpy as np
import numpy.typing as npt

Pixels = npt.NDArray[np.uint8]


class Rows:
    """Selected images of a memory map, in a given order; indexing reads them.

    Behaves like the uint8 array (N, H, W, C): `len`, `shape`, `dtype`, and an index of the first axis (an integer,
    a slice, an array of integers), which returns a copy in memory. `numpy.asarray` reads all images.

    images: uint8 (M, H, W, C), usually a numpy.memmap.   indices: int64 (N,) into `images`; None selects all.
    """

    def __init__(self, images: Pixels, indices: npt.NDArray[np.int64] | None = None) -> None:
        self._images = np.asarray(images)  # does not copy a map; indexing it returns a plain array
        self._indices = np.arange(len(images)) if indices is None else indices

    def __len__(self) -> int:
        return len(self._indices)

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

    @property
    def nbytes(self) -> int:
        """The bytes of these rows in memory."""
        return math.prod(self.shape)

    def __getitem__(self, index: Any) -> Pixels:
        images: Pixels = self._images[self._indices[index]]
        return images

    def take(self, index: Any) -> "Rows":
        """A view of the rows at these integers or this slice; reads nothing."""
        return Rows(self._images, self._indices[index])

    def __array__(self, dtype: npt.DTypeLike | None = None, copy: bool | None = None) -> npt.NDArray[Any]:
        """Reads all images into memory. Raises ValueError for copy=False."""
        if copy is False:
            raise ValueError("expected a copy to be allowed: rows of a memory map are read into memory")
        return self[:].astype(dtype or np.uint8, copy=False)


Images = npt.NDArray[Any] | Rows
"""Images on the host: an array, or rows of a memory map that are read when indexed."""
