"""Adversarial and collaborative examples as pictures, of the same images on each model (Figs. 2 and 11)."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np

from stcore.analysis.searches import PAPER_EPSILON, SearchSettings, cross_entropies
from stcore.analysis.subject import Subject, on_same_images
from stcore.base import checks
from stcore.base.progress import Progress, stretch
from stcore.base.seeding import Stream, generator
from stcore.evaluation.evaluator import Evaluator
from stcore.protocols import Array

KINDS = ("natural", "adversarial", "collaborative")


@dataclass(frozen=True)
class Settings(SearchSettings):
    """The settings of both searches, at twice the usual ε so that perturbations are visible.

    The paper does not give its own ε.
    """

    epsilon: float = 2 * PAPER_EPSILON


@dataclass(frozen=True, eq=False)
class Pictures:
    """One model's examples of N images, by kind: `natural`, `adversarial`, `collaborative`.

    images: (N, H, W, C) in [0, 1].   losses: (N,) cross-entropies in nats.   predicted: (N,) classes.
    """

    name: str
    method: str | None
    images: dict[str, Array]
    losses: dict[str, Array]
    predicted: dict[str, Array]

    def perturbation(self, kind: str) -> Array:
        """(N, H, W, C): the example minus the natural image."""
        return np.asarray(self.images[kind] - self.images["natural"])


@dataclass(frozen=True, eq=False)
class Result:
    """The pictures of each model.

    positions: (N,), indices of the images in their data set.   labels: (N,).   classes: each class's name.
    """

    settings: Settings
    models: list[Pictures]
    positions: Array
    labels: Array
    classes: dict[int, str]

    @property
    def amplification(self) -> float:
        """The factor for showing perturbations: it scales the largest of all to ±0.5 around mid grey."""
        largest = max(np.abs(model.perturbation(kind)).max() for model in self.models for kind in KINDS)
        return float(0.5 / largest) if largest > 0 else 1.0

    def rows(self) -> list[dict[str, Any]]:
        """A row per image, model and kind."""
        return [
            {
                "image": int(position),
                "label": self.classes[int(label)],
                "model": model.name,
                "kind": kind,
                "loss": float(model.losses[kind][n]),
                "predicted": self.classes[int(model.predicted[kind][n])],
                "largest_change": float(np.abs(model.perturbation(kind)[n]).max()),
            }
            for n, (position, label) in enumerate(zip(self.positions, self.labels, strict=True))
            for model in self.models
            for kind in KINDS
        ]

    def table(self) -> list[dict[str, Any]]:
        return self.rows()

    def content(self) -> dict[str, Any]:
        return {
            "settings": dataclasses.asdict(self.settings),
            "amplification": self.amplification,
            "rows": self.rows(),
        }


def compute(subjects: Iterable[Subject], settings: Settings, *, progress: Progress) -> Result:
    """The examples of all images on each model. Raises DataError if the models have different images."""
    seen: list[Subject] = []
    models: list[Pictures] = []
    for subject in on_same_images(subjects):
        seen.append(subject)
        models.append(_pictures(subject, settings, progress))
    first = seen[0]
    labels = np.concatenate([first.labels, *(found for model in models for found in model.predicted.values())])
    classes = {label: first.class_name(label) for label in np.unique(labels).tolist()}
    return Result(settings, models, first.positions, first.labels, classes)


def _pictures(subject: Subject, settings: Settings, progress: Progress) -> Pictures:
    model = subject.classifier
    searches = {"adversarial": settings.adversarial, "collaborative": settings.collaborative}
    evaluator = Evaluator(model, searches)
    images: dict[str, list[Array]] = {kind: [] for kind in KINDS}
    logits: dict[str, list[Array]] = {kind: [] for kind in KINDS}
    with stretch(progress, subject.name, len(subject.labels)):
        for batch in subject.batches():
            natural, _, found = evaluator.evaluate_batch(batch)
            logits["natural"].append(natural)
            images["natural"].append(model.host_pixels(batch.images))
            for kind, x in found.items():
                logits[kind].append(evaluator.logits(x))
                images[kind].append(model.host_images(x))
            progress.advance(len(batch.labels))
    joined = {kind: np.concatenate(logits[kind]) for kind in KINDS}
    return Pictures(
        subject.name,
        subject.method,
        {kind: np.concatenate(images[kind]).astype(np.float64) for kind in KINDS},
        {kind: cross_entropies(joined[kind], subject.labels) for kind in KINDS},
        {kind: joined[kind].argmax(axis=1) for kind in KINDS},
    )


def one_per_class(labels: Array, classes: int, seed: int) -> Array:
    """(classes,): the index of one random image of each of the first `classes` classes, drawn by the seed."""
    checks.whole("classes", classes, 1)
    known = np.unique(labels)[:classes]
    drawn = [
        generator(seed, Stream.SAMPLE, position=int(label)).choice(np.flatnonzero(labels == label))
        for label in known
    ]
    return np.array(drawn)
