"""Loss landscape around an image: g(a, b) = CE(f(x + a·u + b·v)) (Fig. 3).

u is the perturbation of the collaborative example (Eq. 4); v is random, orthogonal to u (Gram–Schmidt), and as
long as u in l2. The collaborative example is at a = 1, b = 0; a < 0 is the opposite direction. Points are not
clipped to [0, 1], since clipped points would not lie in a plane. The result is the mean over the images. An image
whose perturbation is zero has no u; it is left out and counted.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np

from stcore.analysis.searches import SearchSettings, cross_entropies
from stcore.analysis.subject import Subject, on_same_images
from stcore.base import checks
from stcore.base.noise import sample
from stcore.base.progress import Progress, stretch
from stcore.base.seeding import Stream
from stcore.data.batches import Batch
from stcore.errors import DataError
from stcore.evaluation.evaluator import Evaluator
from stcore.protocols import Array


@dataclass(frozen=True)
class Settings(SearchSettings):
    """reach: a and b range from −reach to reach.   grid: number of values of each.   seed: of v.

    The other fields are those of `stcore.analysis.searches.SearchSettings`.
    """

    reach: float = 2.0
    grid: int = 21
    seed: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        checks.number("reach", self.reach)
        checks.whole("grid", self.grid, 2)
        checks.whole("seed", self.seed)

    @property
    def axis(self) -> Array:
        """(grid,): the values of a and b."""
        return np.linspace(-self.reach, self.reach, self.grid)


@dataclass(frozen=True, eq=False)
class Surface:
    """One model's loss surface.

    loss: (grid, grid), at [i, j] the mean cross-entropy at a = axis[i], b = axis[j], in nats.
    images: number of images in the mean.   undefined: number of images left out.   length: the mean l2 norm of u.
    """

    name: str
    method: str | None
    loss: Array
    images: int
    undefined: int
    length: float


@dataclass(frozen=True, eq=False)
class Result:
    """The surface of each model."""

    settings: Settings
    surfaces: list[Surface]

    def rows(self) -> list[dict[str, Any]]:
        """A row per model and point."""
        axis = self.settings.axis.tolist()
        return [
            {"model": surface.name, "a": a, "b": b, "loss": float(surface.loss[i, j])}
            for surface in self.surfaces
            for i, a in enumerate(axis)
            for j, b in enumerate(axis)
        ]

    def table(self) -> list[dict[str, Any]]:
        """A row per model with the surface's lowest and highest point."""
        return [
            {
                "model": surface.name,
                "images": surface.images,
                "undefined": surface.undefined,
                "length_of_u": surface.length,
                "lowest": float(surface.loss.min()),
                "highest": float(surface.loss.max()),
            }
            for surface in self.surfaces
        ]

    def content(self) -> dict[str, Any]:
        return {
            "settings": dataclasses.asdict(self.settings),
            "axis": self.settings.axis.tolist(),
            "surfaces": [
                {**dataclasses.asdict(surface), "loss": surface.loss.tolist(), "model": surface.name}
                for surface in self.surfaces
            ],
        }


def compute(subjects: Iterable[Subject], settings: Settings, *, progress: Progress) -> Result:
    """The surface of each model. Raises DataError if the models have different images, or no image has a u."""
    return Result(settings, [_surface(subject, settings, progress) for subject in on_same_images(subjects)])


def _surface(subject: Subject, settings: Settings, progress: Progress) -> Surface:
    evaluator = Evaluator(subject.classifier, {"collaborative": settings.collaborative})
    loss, lengths = np.zeros((settings.grid, settings.grid)), []
    with stretch(progress, subject.name, len(subject.labels) * settings.grid):
        for batch in subject.batches():
            x, u, v = directions(evaluator, batch, settings.seed)
            length = np.linalg.norm(u.reshape(len(u), -1), axis=1)
            defined = length > 0
            lengths.extend(length[defined].tolist())
            for i, a in enumerate(settings.axis):
                for j, b in enumerate(settings.axis):
                    points = evaluator.classifier.images(x + a * u + b * v)
                    loss[i, j] += cross_entropies(evaluator.logits(points), batch.labels)[defined].sum()
                progress.advance(len(batch.labels))
    if not lengths:
        raise DataError(
            f"{subject.name}: expected an image with a collaborative perturbation; none of {len(subject.labels)} "
            "has one, since the gradient of the loss is zero in this precision. Try --dtype float64"
        )
    count = len(lengths)
    mean = float(np.mean(lengths))
    return Surface(subject.name, subject.method, loss / count, count, len(subject.labels) - count, mean)


def directions(evaluator: Evaluator, batch: Batch, seed: int) -> tuple[Array, Array, Array]:
    """The images x and the directions u and v, (B, H, W, C) each, in float64."""
    model = evaluator.classifier
    x = model.images(batch.images)
    natural = model.host_images(x).astype(np.float64)
    found = evaluator.evaluate_batch(batch)[2]["collaborative"]
    u = model.host_images(found).astype(np.float64) - natural
    (drawn,) = sample(("normal",), seed, Stream.DIRECTION, batch.positions, u.shape[1:], dtype="float64")
    return natural, u, orthogonal(drawn, u)


def orthogonal(drawn: Array, u: Array) -> Array:
    """The component of each row of `drawn` (B, …) that is orthogonal to u's row, scaled to its length.

    Zero if the row of u is zero.
    """
    rows, along = drawn.reshape(len(drawn), -1), u.reshape(len(u), -1)
    length = np.linalg.norm(along, axis=1, keepdims=True)
    unit = along / np.where(length > 0, length, 1.0)
    for _ in range(2):  # the second pass removes the first one's rounding error
        rows = rows - (rows * unit).sum(axis=1, keepdims=True) * unit
    made: Array = rows / np.linalg.norm(rows, axis=1, keepdims=True) * length
    return made.reshape(u.shape)
