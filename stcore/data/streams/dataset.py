"""Training sets in shards, which are read in sequence and never held in memory."""

import hashlib
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from stcore.data.rows import Pixels
from stcore.data.streams.index import Shard
from stcore.data.streams.tar import Sample
from stcore.errors import DataError


@dataclass(frozen=True, eq=False)
class StreamData:
    """Labelled images in shards; `load_stream` makes it and `StreamBatches` reads it.

    image_shape: (H, W, C) of the first image, which all must have.   image_size: side in pixels that images are
    resized to, or None.   num_classes: labels are in [0, num_classes).
    """

    shards: tuple[Shard, ...]
    image_shape: tuple[int, int, int]
    num_classes: int
    name: str
    class_names: tuple[str, ...] | None = None
    image_size: int | None = None

    def __len__(self) -> int:
        return sum(shard.samples for shard in self.shards)

    def class_counts(self) -> npt.NDArray[np.int64]:
        """The number of images of each class, int64 (num_classes,)."""
        counts = np.zeros(self.num_classes, np.int64)
        for shard in self.shards:
            for label, count in shard.labels.items():
                counts[label] += count
        return counts

    def fingerprint(self) -> str:
        """SHA-256 (hexadecimal) of the files and of the image shape; `ImageData` hashes pixels instead."""
        digest = hashlib.sha256(f"{(len(self), *self.image_shape)} {self.num_classes}".encode())
        for shard in self.shards:
            digest.update(bytes.fromhex(shard.sha256))
        return digest.hexdigest()

    def pixels(self, sample: Sample) -> Pixels:
        """The image as uint8 of `image_shape`; repeats a grey image over the channels of a coloured set.

        Raises DataError, with file and member, if the shape differs.
        """
        image = sample.pixels(self.image_size)
        if image.shape[:2] != self.image_shape[:2] or image.shape[2] not in (1, self.image_shape[2]):
            raise DataError(
                f"{sample.where}: expected an image of shape {self.image_shape}, as the first of {self.name}, "
                f"received {image.shape}; write all images in one shape, or give --image-size"
            )
        return np.broadcast_to(image, self.image_shape)
