"""Description of an exported network: its classes, and how a picture becomes its input."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from stcore.base.files import read_json, write_file
from stcore.base.version import __version__
from stcore.data.decoding import MODES, RESIZE
from stcore.errors import DataError
from stcore.models import normalization
from stcore.protocols import Array

FILE = "preprocessing.json"
"""Stands beside every artefact."""
INSIDE, BESIDE = "inside", "beside"
PREPROCESSING = (INSIDE, BESIDE)
"""Where pixels are scaled and normalised: in the artefact, which takes bytes, or by its user."""


class Network(Protocol):
    """A trained network, as `stcore.load` returns it."""

    @property
    def model(self) -> Any:
        """A `torch.nn.Module` or `keras.Model`."""

    @property
    def metadata(self) -> Mapping[str, str]:
        """Of its weights."""

    @property
    def config(self) -> Mapping[str, Any]:
        """The settings of its run; empty if unknown."""

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """Height, width and channels of its images."""

    @property
    def class_names(self) -> tuple[str, ...] | None:
        """One name per class, or None if unknown."""

    def logits(self, images: Any) -> Array:
        """The logits (N, classes) of uint8 images (N, H, W, C)."""

    def reloaded(self, folder: Path) -> Network:
        """The network of a folder in the hub's layout."""

    def model_card(self, place: str) -> str:
        """Its card in the hub's format, for a network that is loaded from `place`."""

    def evaluation_files(self) -> Mapping[str, Path]:
        """The records of its evaluations, by their paths in a folder of the hub."""


@dataclass(frozen=True)
class Description:
    """What an artefact takes and returns.

    image_shape: (H, W, C).   mean, std: per channel, for pixels in [0, 1]; zeros and ones without a normalisation.
    preprocessing: `inside`: it takes uint8 (N, H, W, C) as a picture has them; `beside`: floats of `layout`,
        (pixels / 255 − mean) / std.
    layout: NHWC or NCHW.   dtype: of its input.   class_names: one per class, or None if unknown.
    """

    model: str
    num_classes: int
    image_shape: tuple[int, int, int]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    preprocessing: str
    layout: str
    dtype: str
    class_names: tuple[str, ...] | None = None

    @classmethod
    def of(cls, network: Network, preprocessing: str, layout: str, dtype: str) -> Description:
        """That of a network whose own pixels have this layout and dtype."""
        layer = normalization.parse(network.metadata.get("normalize", normalization.NONE))
        mean, std = ((0.0,), (1.0,)) if layer is None else (layer.mean, layer.std)
        channels = network.image_shape[-1]
        return cls(
            network.metadata["model"],
            int(network.metadata["num_classes"]),
            network.image_shape,
            mean if len(mean) == channels else mean * channels,
            std if len(std) == channels else std * channels,
            preprocessing,
            "NHWC" if preprocessing == INSIDE else layout,
            "uint8" if preprocessing == INSIDE else dtype,
            network.class_names,
        )

    def as_json(self) -> dict[str, Any]:
        """Plain values by name."""
        height, width, channels = self.image_shape
        return {
            "stcore": __version__,
            "model": self.model,
            "num_classes": self.num_classes,
            "class_names": self.class_names,
            "size": [height, width],
            "channels": channels,
            "mode": MODES.get(channels),
            "orientation": "exif",
            "resize": RESIZE,
            "mean": self.mean,
            "std": self.std,
            "preprocessing": self.preprocessing,
            "layout": self.layout,
            "dtype": self.dtype,
            "output": "logits",
        }

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> Description:
        """The description that `as_json` made. Raises DataError if something is missing."""
        try:
            names = content["class_names"]
            return cls(
                content["model"],
                content["num_classes"],
                (*content["size"], content["channels"]),
                tuple(content["mean"]),
                tuple(content["std"]),
                content["preprocessing"],
                content["layout"],
                content["dtype"],
                None if names is None else tuple(names),
            )
        except (KeyError, TypeError) as error:
            raise DataError(
                f"expected the description of an exported network; received none ({error!r})"
            ) from error

    def text(self) -> str:
        """JSON."""
        return json.dumps(self.as_json(), indent=2, ensure_ascii=False) + "\n"

    def texts(self) -> dict[str, str]:
        """JSON of each value by name, for metadata that are texts."""
        return {name: json.dumps(value, ensure_ascii=False) for name, value in self.as_json().items()}

    @classmethod
    def read(cls, folder: Path) -> Description:
        """That of the artefact in a folder. Raises DataError if it is missing or damaged."""
        return cls.from_json(read_json(folder / FILE))

    def write(self, folder: Path) -> None:
        """Writes `FILE` in the folder."""
        write_file(folder / FILE, self.text())

    def prepare(self, images: Array) -> Array:
        """uint8 images (N, H, W, C) as the artefact's input."""
        if self.preprocessing == INSIDE:
            return images
        pixels = (images / np.float64(255) - np.array(self.mean)) / np.array(self.std)
        return np.ascontiguousarray(pixels if self.layout == "NHWC" else pixels.transpose(0, 3, 1, 2), self.dtype)
