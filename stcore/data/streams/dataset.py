"""A training set that is read from its shards one after the other, and never is in memory."""

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
    """Labelled images in shards. `load_stream` makes it; `StreamBatches` reads it.

    image_shape: (H, W, C), of all images; the first one's.   image_size: as `decode` takes it.
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
        """(num_classes,): images of each class."""
        counts = np.zeros(self.num_classes, np.int64)
        for shard in self.shards:
            for label, count in shard.labels.items():
                counts[label] += count
        return counts

    def fingerprint(self) -> str:
        """SHA-256 (hexadecimal) of the files and of the shape they are brought to: not of pixels, as in memory."""
        digest = hashlib.sha256(f"{(len(self), *self.image_shape)} {self.num_classes}".encode())
        for shard in self.shards:
            digest.update(bytes.fromhex(shard.sha256))
        return digest.hexdigest()

    def pixels(self, sample: Sample) -> Pixels:
        """uint8 of `image_shape`, grey among colours repeated; DataError, with file and member, if it differs."""
        image = sample.pixels(self.image_size)
        if image.shape[:2] != self.image_shape[:2] or image.shape[2] not in (1, self.image_shape[2]):
            raise DataError(
                f"{sample.where}: expected an image of shape {self.image_shape}, as the first of {self.name}, "
                f"received {image.shape}; write all shards alike, or have the images resized (--image-size)"
            )
        return np.broadcast_to(image, self.image_shape)
