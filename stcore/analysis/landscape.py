"""The loss around an image: g(a, b) = CE(f(x + a·u + b·v)) (Fig. 3).

u is the perturbation that the search for a collaborative example ends with (Eq. 4); v is drawn at random, made
orthogonal to u (Gram–Schmidt) and as long as u in l2. So a = 1, b = 0 is the collaborative example, and a < 0 the
other way. Points are not clipped to [0, 1]: clipped, they would lie in no plane. Several images are averaged; one
with a perturbation of zero has no u, is left out, and counted.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np

from stcore.analysis.geometry import orthogonal
from stcore.analysis.searches import Search, cross_entropies
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
class Settings(Search):
    """reach: a and b go from −reach to reach.   grid: to how many values of each.   seed: of v.

    The other fields are those of `stcore.analysis.searches.Search`.
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
        """(grid,): the values of a, and of b."""
        return np.linspace(-self.reach, self.reach, self.grid)


@dataclass(frozen=True, eq=False)
class Surface:
    """One model's.

    loss: (grid, grid), at [i, j] the mean cross-entropy at a = axis[i], b = axis[j], in nats.
    images: how many it is the mean of.   undefined: how many were left out.   length: the mean l2 norm of u.
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
        """A row for each model and point."""
        axis = self.settings.axis.tolist()
        return [
            {"model": surface.name, "a": a, "b": b, "loss": float(surface.loss[i, j])}
            for surface in self.surfaces
            for i, a in enumerate(axis)
            for j, b in enumerate(axis)
        ]

    def table(self) -> list[dict[str, Any]]:
        """A row for each model: how high the surface goes."""
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
        told = [
            {**dataclasses.asdict(surface), "loss": surface.loss.tolist(), "model": surface.name}
            for surface in self.surfaces
        ]
        return {
            "settings": dataclasses.asdict(self.settings),
            "axis": self.settings.axis.tolist(),
            "surfaces": told,
        }


def compute(subjects: Iterable[Subject], settings: Settings, *, progress: Progress) -> Result:
    """The surfaces of some models around the same images; DataError where the images are not the same."""
    return Result(settings, [_surface(subject, settings, progress) for subject in on_same_images(subjects)])


def _surface(subject: Subject, settings: Settings, progress: Progress) -> Surface:
    evaluator = Evaluator(subject.classifier, {"collaborative": settings.collaborative})
    loss, lengths = np.zeros((settings.grid, settings.grid)), []
    with stretch(progress, subject.name, len(subject.labels) * settings.grid):
        for batch in subject.batches():
            x, u, v = directions(evaluator, batch, settings.seed)
            length = np.linalg.norm(u.reshape(len(u), -1), axis=1)
            some = length > 0
            lengths.extend(length[some].tolist())
            for i, a in enumerate(settings.axis):
                for j, b in enumerate(settings.axis):
                    points = evaluator.classifier.images(x + a * u + b * v)
                    loss[i, j] += cross_entropies(evaluator.logits(points), batch.labels)[some].sum()
                progress.advance(len(batch.labels))
    if not lengths:
        raise DataError(
            f"{subject.name}: expected an image with a collaborative perturbation; of {len(subject.labels)} none "
            "has any, since the gradient of the loss is zero in this precision. Try --dtype float64"
        )
    count = len(lengths)
    mean = float(np.mean(lengths))
    return Surface(subject.name, subject.method, loss / count, count, len(subject.labels) - count, mean)


def directions(evaluator: Evaluator, batch: Batch, seed: int) -> tuple[Array, Array, Array]:
    """(B, H, W, C) each, in float64: the images x, u and v."""
    model = evaluator.classifier
    x = model.images(batch.images)
    natural = model.host_images(x).astype(np.float64)
    found = evaluator.evaluate_batch(batch)[2]["collaborative"]
    u = model.host_images(found).astype(np.float64) - natural
    (drawn,) = sample(("normal",), seed, Stream.DIRECTION, batch.positions, u.shape[1:], dtype="float64")
    return natural, u, orthogonal(drawn, u)
