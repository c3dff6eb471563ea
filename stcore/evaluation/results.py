"""Results of an evaluation as plain JSON and arrays, the content of its files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from stcore.evaluation.accuracy import Accuracy
from stcore.evaluation.assessment import AssessmentResult
from stcore.protocols import Array

STRICT, PRECISIONS = "fp32", ("fp32", "tf32")
"""The precisions of an evaluation's products; an evaluation that names none is in the first."""


def unusual(about: Mapping[str, Any]) -> tuple[str, ...]:
    """How an evaluation of this identity differs from the usual: its precision, its layers under BPDA."""
    precision, layers = about.get("precision", STRICT), about.get("bpda")
    return (*([] if precision == STRICT else [precision]), *([f"BPDA of {layers}"] if layers else []))


def as_json(scores: Mapping[str, Accuracy]) -> dict[str, Any]:
    """Accuracies and their 95 % intervals as plain numbers in [0, 1]."""
    return {name: accuracy.as_json() for name, accuracy in scores.items()}


def result_json(
    result: AssessmentResult,
    attacks: Sequence[str],
    audit: Sequence[Any] | None = None,
    precision: str = STRICT,
) -> dict[str, Any]:
    """The content of result.json: accuracies in the order of the attacks, stages with their costs, and the audit.

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
        for name, cascade in result.cascades.items()
    }
    return {
        "images": len(result.predictions.labels),
        "precision": precision,
        "accuracies": as_json({name: result.accuracies[name] for name in ("natural", *attacks)}),
        "cascades": stages,
        "audit": None if audit is None else [vars(finding) for finding in audit],
    }


def record_arrays(result: AssessmentResult, indices: Array) -> dict[str, Array]:
    """The content of records.npz: arrays (N,) with an entry per image.

    position: its index in the test split.   label: its class.
    predicted/natural, predicted/NAME: its predicted class, without and under each attack.
    NAME/…: for each cascade the fields of `stcore.autoattack.Records`, and NAME/attacks, the names of its stages,
        which NAME/attack indexes.
    NAME/predicted: for corruptions (N, n), the predicted class of each image's n versions, which NAME/cells names.
    NAME/minimum_norm: for each minimum-norm attack the smallest norm found: 0 for an image that is misclassified
        itself, infinite where no example was found.
    """
    arrays = {"position": indices, "label": result.predictions.labels}
    arrays |= {f"predicted/{name}": classes for name, classes in result.predictions.predicted.items()}
    for name, cascade in result.cascades.items():
        arrays |= {f"{name}/{key}": array for key, array in cascade.records.arrays().items()}
        arrays[f"{name}/attacks"] = np.array([stage.name for stage in cascade.stages])
        if cascade.nearest:
            arrays[f"{name}/minimum_norm"] = cascade.records.minimum_norm
    for name, found in result.corruptions.items():
        arrays |= {f"{name}/predicted": found.predicted, f"{name}/cells": np.array(found.cells)}
    return arrays
