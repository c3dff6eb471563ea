"""What an evaluation found, as the arrays and the plain JSON that are kept of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from stcore.evaluation.accuracy import Accuracy
from stcore.evaluation.assessment import Assessed
from stcore.protocols import Array


def as_json(scores: Mapping[str, Accuracy]) -> dict[str, Any]:
    """Accuracies with their 95 % intervals, as plain numbers."""
    return {
        name: {
            "accuracy": accuracy.value,
            "interval_95": list(accuracy.interval()),
            "correct": accuracy.correct,
            "total": accuracy.total,
        }
        for name, accuracy in scores.items()
    }


def result_of(found: Assessed, attacks: Sequence[str], audit: Sequence[Any] | None = None) -> dict[str, Any]:
    """Accuracies in the order of the attacks, each cascade's stages with their costs, the audit if there was one.

    A stage's forwards and backwards are images × passes.
    """
    stages = {
        name: [
            {
                "attack": stage.name,
                "robust": stage.robust.correct,
                "total": stage.robust.total,
                "forwards": stage.forwards,
                "backwards": stage.backwards,
                "seconds": round(stage.seconds, 1),
            }
            for stage in cascade.stages
        ]
        for name, cascade in found.cascades.items()
    }
    return {
        "images": len(found.predictions.labels),
        "accuracies": as_json({name: found.accuracies[name] for name in ("natural", *attacks)}),
        "cascades": stages,
        "audit": None if audit is None else [vars(finding) for finding in audit],
    }


def records_of(found: Assessed, places: Array) -> dict[str, Array]:
    """What is known of each image, as flat arrays (N,).

    position: its place in the test split.   label: its class.
    predicted/natural, predicted/NAME: the class predicted for it, and under each attack.
    NAME/…: of each cascade the fields of `stcore.autoattack.Records`, and NAME/attacks, its stages' names, which
        NAME/attack counts.
    """
    arrays = {"position": places, "label": found.predictions.labels}
    arrays |= {f"predicted/{name}": classes for name, classes in found.predictions.predicted.items()}
    for name, cascade in found.cascades.items():
        arrays |= {f"{name}/{key}": array for key, array in cascade.records.arrays().items()}
        arrays[f"{name}/attacks"] = np.array([stage.name for stage in cascade.stages])
    return arrays
