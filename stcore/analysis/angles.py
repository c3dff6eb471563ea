"""Angles between adversarial and collaborative perturbations, step by step (Fig. 7).

Both searches start from the natural image x (Eqs. 1 and 4). Their first gradients are opposite, so after one step
the angle is 180°, unless clipping to [0, 1] cuts one of the two steps off at a pixel near 0 or 1, which makes it
smaller. The result therefore also gives the median over the images without such a pixel. Later gradients are taken
at different points, and any angle is possible. If a perturbation is zero, the angle is undefined.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np

from stcore.analysis.searches import SearchSettings
from stcore.analysis.subject import Subject, on_same_images
from stcore.attacks.ascent_losses import ASCENT_LOSSES
from stcore.base import checks
from stcore.base.progress import Progress, stretch
from stcore.core.search import ascend
from stcore.protocols import Array, Classifier, Tensor

BINS = np.arange(0.0, 181.0, 5.0)
"""Edges of the histograms, in degrees."""


@dataclass(frozen=True)
class Settings(SearchSettings):
    """The settings of both searches; the paper does not give its own."""

    steps: int = 20

    def __post_init__(self) -> None:
        super().__post_init__()
        checks.whole("steps", self.steps, 1)


@dataclass(frozen=True, eq=False)
class Angles:
    """The angles of one model.

    degrees: (N, steps), in [0, 180], after each step; NaN if undefined.
    border: (N,), whether the image has a pixel closer to 0 or 1 than one step.
    """

    name: str
    method: str | None
    degrees: Array
    border: Array

    def at(self, step: int) -> Array:
        """The defined angles after this step, counted from 1."""
        here = self.degrees[:, step - 1]
        return np.asarray(here[~np.isnan(here)])

    def median_off_border(self, step: int) -> float | None:
        """The median over the images without a pixel at the border; None if there is no such image."""
        here = self.degrees[~self.border, step - 1]
        return float(np.nanmedian(here)) if (~np.isnan(here)).any() else None

    def histogram(self, step: int) -> Array:
        """The number of angles in each bin of `BINS`."""
        return np.asarray(np.histogram(self.at(step), BINS)[0])


@dataclass(frozen=True, eq=False)
class Result:
    """The angles of each model."""

    settings: Settings
    models: list[Angles]

    def rows(self) -> list[dict[str, Any]]:
        """A row per model and step: the distribution of the angles over the images, in degrees."""
        return [
            {
                "model": model.name,
                "step": step,
                **_summary(model.at(step)),
                "median_off_border": model.median_off_border(step),
                "undefined": int(np.isnan(model.degrees[:, step - 1]).sum()),
            }
            for model in self.models
            for step in range(1, self.settings.steps + 1)
        ]

    def table(self) -> list[dict[str, Any]]:
        """The rows of the shown steps, abridged."""
        return [
            {
                "model": row["model"],
                "step": row["step"],
                "images": row["images"],
                "mean ± deviation": _together(row, "mean", "deviation"),
                "median [quartiles]": _together(row, "median", "quartile1", "quartile3"),
                "median_off_border": row["median_off_border"],
                "undefined": row["undefined"],
            }
            for row in self.rows()
            if row["step"] in self.shown
        ]

    @property
    def shown(self) -> list[int]:
        """The first step, the last, and two in between, in geometric progression."""
        last = self.settings.steps
        return sorted({round(last ** (part / 3)) for part in range(4)})

    def content(self) -> dict[str, Any]:
        steps = range(1, self.settings.steps + 1)
        return {
            "settings": dataclasses.asdict(self.settings),
            "rows": self.rows(),
            "images_with_a_pixel_at_the_border": {model.name: int(model.border.sum()) for model in self.models},
            "bins": BINS.tolist(),
            "histograms": {m.name: [m.histogram(step).tolist() for step in steps] for m in self.models},
        }


def _together(row: dict[str, Any], *names: str) -> tuple[float, ...] | None:
    return tuple(row[name] for name in names) if row["images"] else None


def _summary(angles: Array) -> dict[str, Any]:
    if not len(angles):
        return {"images": 0, "mean": None, "deviation": None, "quartile1": None, "median": None, "quartile3": None}
    low, middle, high = np.quantile(angles, (0.25, 0.5, 0.75)).tolist()
    return {
        "images": len(angles),
        "mean": float(angles.mean()),
        "deviation": float(angles.std()),
        "quartile1": low,
        "median": middle,
        "quartile3": high,
    }


def compute(subjects: Iterable[Subject], settings: Settings, *, progress: Progress) -> Result:
    """The angles of each model. Raises DataError if the models have different images."""
    return Result(settings, [_angles(subject, settings, progress) for subject in on_same_images(subjects)])


def _angles(subject: Subject, settings: Settings, progress: Progress) -> Angles:
    model = subject.classifier
    move = _step_of_both(model, settings)
    degrees: list[Array] = []
    border: list[Array] = []
    with stretch(progress, subject.name, len(subject.labels)):
        for batch in subject.batches():
            x, y = model.images(batch.images), model.labels(batch.labels)
            natural = _rows(model, x)
            near = np.minimum(natural, 1 - natural) < settings.step_size
            border.append(near.any(axis=1))
            up, down = x, x
            after = []
            for _ in range(settings.steps):
                up, down = move(x, y, up, down)
                after.append(angle(_rows(model, up) - natural, _rows(model, down) - natural))
            degrees.append(np.stack(after, axis=1))
            progress.advance(len(batch.labels))
    return Angles(subject.name, subject.method, np.concatenate(degrees), np.concatenate(border))


def angle(one: Array, other: Array) -> Array:
    """The angle between the rows of two arrays (B, D), in degrees, (B,); NaN if one of the rows is zero.

    Kahan's formula, 2·atan2(‖a − b‖, ‖a + b‖) of unit vectors, is accurate near 0° and 180°, where the arc cosine
    loses half of the digits.
    """
    with np.errstate(invalid="ignore"):  # 0 / 0 gives the promised NaN
        a, b = (v / np.linalg.norm(v, axis=1, keepdims=True) for v in (one, other))
    half: Array = np.arctan2(np.linalg.norm(a - b, axis=1), np.linalg.norm(a + b, axis=1))
    return np.asarray(np.degrees(2 * half))


def _step_of_both(model: Classifier, settings: Settings) -> Any:
    """One step of each search."""
    one = dataclasses.replace(settings, steps=1)

    def move(x: Tensor, y: Tensor, up: Tensor, down: Tensor) -> tuple[Tensor, Tensor]:
        uphill, downhill = ASCENT_LOSSES["cross_entropy"](model, x, y), ASCENT_LOSSES["collaborative"](model, x, y)
        return (
            ascend(model, x, up, uphill, one.adversarial),
            ascend(model, x, down, downhill, one.collaborative),
        )

    return model.compile(lambda *tensors: model.ops.unrecorded(move, *tensors), rowwise=True)


def _rows(model: Classifier, x: Tensor) -> Array:
    pixels = model.host_images(x).astype(np.float64)
    return pixels.reshape(len(pixels), -1)
