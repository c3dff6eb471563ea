"""Batches of a user's own loader, such as a torch DataLoader or a tf.data pipeline, drawn anew in each epoch."""

from __future__ import annotations

import random
import sys
from collections.abc import Generator, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from stcore.base.seeding import Stream, generator
from stcore.data.batches import Batch
from stcore.data.images import LoaderData
from stcore.data.pixels import check_images, to_targets
from stcore.errors import DataError

Array = npt.NDArray[Any]


def to_host(images: Any, labels: Any, name: str) -> tuple[Array, Array]:
    """Images (N, H, W, C), uint8 or floats in [0, 1], and labels, int64 (N,) or soft (N, C), of any framework.

    A torch.Tensor holds its images channels first, (N, C, H, W); anything else channels last.
    Raises DataError if shapes, types, ranges or counts do not fit; name: of the data, for the errors.
    """
    torch = sys.modules.get("torch")

    def host(part: Any) -> Array:
        is_torch = torch is not None and isinstance(part, torch.Tensor)
        return part.detach().cpu().numpy() if is_torch else np.asarray(part)

    pixels = host(images)
    if torch is not None and isinstance(images, torch.Tensor) and pixels.ndim == 4:
        if pixels.shape[1] not in (1, 3) and pixels.shape[-1] in (1, 3):
            raise DataError(
                f"{name}: expected a torch.Tensor of images to be channels first, (N, C, H, W); received "
                f"{pixels.shape}. Give images.permute(0, 3, 1, 2), or images.numpy()"
            )
        pixels = pixels.transpose(0, 2, 3, 1)
    checked = check_images(pixels, name)
    return checked, to_targets(host(labels), len(checked), name)


def pairs(loader: Iterable[Any], name: str) -> Iterator[tuple[Array, Array]]:
    """The batches of one pass over a loader, as `to_host` gives them."""
    for batch in loader:
        yield _pair(batch, name)


def _pair(batch: Any, name: str) -> tuple[Array, Array]:
    if not (isinstance(batch, tuple | list) and len(batch) == 2):
        raise DataError(f"{name}: expected batches (images, labels); received a {type(batch).__qualname__}")
    return to_host(batch[0], batch[1], name)


@dataclass(frozen=True, eq=False)
class LoaderBatches:
    """A loader's own batches, in its own order, read once per epoch.

    The global random generators of Python, numpy and torch are seeded by (seed, epoch, batch) while a batch is
    drawn, and restored: an order or an augmentation that draws from them is the same in each run, and in a resumed
    one. What draws elsewhere, such as `tf.data` or a generator of the loader's own, is left alone.
    Raises DataError, when it is drawn, for a batch that does not fit `data`, or has one image only.
    """

    loader: Any
    data: LoaderData
    seed: int

    def __len__(self) -> int:
        """Batches per epoch."""
        return count_batches(self.loader, self.data.name)

    @property
    def examples(self) -> int:
        """Examples per epoch, as far as they are known."""
        return self.data.examples

    def epoch(self, epoch: int, *, start: int = 0) -> Generator[Batch, None, None]:
        """Yields the batches of one epoch; those before `start` are drawn and passed over."""
        number = first = 0
        for number, (images, labels) in enumerate(self._drawn(epoch), 1):
            self._check(images, labels)
            if number > start:
                yield Batch(np.ascontiguousarray(images), labels, np.arange(first, first + len(labels)))
            first += len(labels)
        if number != len(self):
            raise DataError(
                f"{self.data.name}: expected {len(self)} batches in each epoch, the length of the loader; epoch "
                f"{epoch} had {number}"
            )

    def _drawn(self, epoch: int) -> Iterator[tuple[Array, Array]]:
        source, number = None, 0
        while True:
            with _seeded(self.seed, epoch, number):
                source = iter(self.loader) if source is None else source
                try:
                    batch = next(source)
                except StopIteration:
                    return
            yield _pair(batch, self.data.name)
            number += 1

    def _check(self, images: Array, labels: Array) -> None:
        data = self.data
        if images.shape[1:] != data.image_shape:
            raise DataError(
                f"{data.name}: expected images {data.image_shape} as in the first batch; received "
                f"{images.shape[1:]}"
            )
        if len(labels) < 2:
            raise DataError(
                f"{data.name}: expected batches of at least 2 images, since one has no batch statistics; received "
                "one. Leave a short last batch out by drop_last (torch) or drop_remainder (tf.data)"
            )
        if labels.ndim == 2 and labels.shape[1] != data.num_classes:
            raise DataError(
                f"{data.name}: expected labels of shape (B,) or (B, {data.num_classes}), the classes of the "
                f"validation or test images; received {labels.shape}"
            )
        if labels.ndim == 1 and not 0 <= labels.min() <= labels.max() < data.num_classes:
            raise DataError(
                f"{data.name}: expected labels in [0, {data.num_classes}), the classes of the validation or "
                f"test images; received {labels.min()} to {labels.max()}"
            )


def count_batches(loader: Any, name: str) -> int:
    """The batches of a loader. Raises DataError if it has no length."""
    try:
        return len(loader)
    except TypeError as error:
        raise DataError(
            f"{name}: expected a loader with a length, the number of its batches; received none ({error}). Of a "
            "tf.data pipeline, declare it by tf.data.experimental.assert_cardinality"
        ) from error


@contextmanager
def _seeded(seed: int, epoch: int, batch: int) -> Iterator[None]:
    """Seeds the global random generators of the host, and restores them."""
    number = int(generator(seed, Stream.LOADER, epoch=epoch, position=batch).integers(2**32))
    python_state, numpy_state, torch = random.getstate(), np.random.get_state(), sys.modules.get("torch")
    with ExitStack() as restoring:
        restoring.callback(random.setstate, python_state)
        restoring.callback(np.random.set_state, numpy_state)
        random.seed(number)
        np.random.seed(number)
        if torch is not None:
            restoring.enter_context(torch.random.fork_rng(devices=[]))
            torch.default_generator.manual_seed(number)  # not torch.manual_seed, which also seeds the accelerators
        yield


def first_batch(loader: Any, name: str) -> tuple[Array, Array]:
    """A loader's first batch, for the shape of its images. Raises DataError if there is none."""
    with _seeded(0, 0, 0):
        batch = next(iter(loader), None)
    if batch is None:
        raise DataError(f"{name}: expected at least one batch; received none")
    return _pair(batch, name)
