"""Evaluation on corrupted images: which corruptions at which severities, and the accuracy on each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from stcore.base import checks
from stcore.data.corruptions import CORRUPTIONS, SEVERITIES, corrupt
from stcore.data.corruptions.published import Published
from stcore.data.rows import Images
from stcore.errors import UsageError
from stcore.evaluation.accuracy import Accuracy, MeanAccuracy
from stcore.protocols import Array

NAME = "corruptions"


@dataclass(frozen=True, repr=False)
class Corruptions:
    """Corrupted versions of each image (Hendrycks and Dietterich, 2019): by default fifteen at five severities.

    names: among `stcore.data.CORRUPTIONS`.   severities: among 1 to 5.
    folder: of published files such as CIFAR-10-C's; by default the versions are made from the images.
    Raises UsageError for an unknown name or severity, or one named twice, DataError for a folder of others.
    """

    names: Sequence[str] = tuple(CORRUPTIONS)
    severities: Sequence[int] = SEVERITIES
    folder: str | Path | None = None

    def __post_init__(self) -> None:
        for what, chosen, known in (
            ("corruptions", self.names, tuple(CORRUPTIONS)),
            ("severities", self.severities, SEVERITIES),
        ):
            for one in chosen:
                checks.choice(what, str(one), map(str, known))
            if not chosen or len(set(chosen)) < len(chosen):
                received = ", ".join(map(str, chosen)) or "none"
                raise UsageError(f"{what}: expected each once, and at least one; received {received}")
        _ = self.published  # checks its files

    def __repr__(self) -> str:
        files = "" if self.published is None else f", {self.published}"
        return f"Corruptions({'+'.join(self.names)}, {'+'.join(map(str, self.severities))}{files})"

    @cached_property
    def published(self) -> Published | None:
        """The published files, if any."""
        return None if self.folder is None else Published(self.folder, self.names)

    @property
    def cells(self) -> tuple[tuple[str, int], ...]:
        """Each corruption at each severity."""
        return tuple((name, severity) for name in self.names for severity in self.severities)

    def check(self, images: Images, labels: Array, positions: Array) -> None:
        """Raises UsageError for images that are not (N, H, W, C), DataError if published files are of others."""
        if len(images.shape) != 4:
            raise UsageError(
                f"attacks: expected images (H, W, C) for {NAME}; received images of shape {images.shape[1:]}. "
                "Leave it out"
            )
        if self.published is not None:
            self.published.check(positions, labels, images.shape[1:])

    def versions(self, images: Array, cell: tuple[str, int], positions: Array, seed: int) -> Array:
        """The corrupted versions, uint8 (B, H, W, C), of images, uint8 or floats in [0, 1], at these positions."""
        name, severity = cell
        if self.published is not None:
            return self.published.images(name, severity, positions)
        pixels = images if images.dtype == np.uint8 else np.rint(images * 255).astype(np.uint8)
        return corrupt(pixels, name, severity, positions, seed)


@dataclass(frozen=True, eq=False)
class CorruptionResult:
    """Predicted classes (N, n) of the n corrupted versions of N images with `labels` (N,).

    cells: the name of each version, NAME:SEVERITY.
    """

    cells: tuple[str, ...]
    predicted: Array
    labels: Array

    @property
    def accuracy(self) -> MeanAccuracy:
        """The mean over all versions, with the accuracy on each."""
        correct = (self.predicted == self.labels[:, None]).sum(axis=0).tolist()
        table: dict[str, dict[int, Accuracy]] = {}
        for cell, count in zip(self.cells, correct, strict=True):
            name, _, severity = cell.partition(":")
            table.setdefault(name, {})[int(severity)] = Accuracy(count, len(self.labels))
        return MeanAccuracy.of(table)


def by_name(name: str) -> Corruptions | None:
    """The corruptions of a name; None for any other name.

    name: `corruptions`, or with some of them, some severities or both: `corruptions:fog+snow:1+3+5`.
    Raises UsageError for an unknown corruption or severity.
    """
    kind, *parts = name.split(":")
    if kind != NAME:
        return None
    words = [part.split("+") for part in parts]
    severities = words.pop() if words and all(word.isdecimal() for word in words[-1]) else None
    if len(words) > 1:
        raise UsageError(
            f"attacks: expected {NAME}, or {NAME}:NAME+NAME:SEVERITY+SEVERITY such as {NAME}:fog+snow:1+3+5; "
            f"received {name!r}"
        )
    return Corruptions(
        tuple(words[0]) if words else tuple(CORRUPTIONS),
        SEVERITIES if severities is None else tuple(map(int, severities)),
    )
