"""Merging of evaluation shards that ran on several devices or machines."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from stcore.autoattack.cascade import under
from stcore.autoattack.records import Records
from stcore.base.files import read_arrays
from stcore.errors import UsageError
from stcore.evaluation.accuracy import Accuracy
from stcore.evaluation.assessment import AssessmentResult, CascadeResult, StageResult
from stcore.evaluation.corruptions import CorruptionResult
from stcore.evaluation.evaluator import Predictions
from stcore.evaluation.folder import IDENTITY, RECORDS, RESULT, read_identity, read_result
from stcore.evaluation.results import record_arrays
from stcore.protocols import Array

MAY_DIFFER = ("shard", "images", "batch_size", "examples")


def merge(parts: Sequence[Path]) -> tuple[dict[str, Any], dict[str, Array], AssessmentResult]:
    """The identity, the records and the result of a whole evaluation, from its shards.

    parts: folders of finished evaluations.
    Raises UsageError if they are not all the shards 1/n … n/n of one evaluation, or if one is not finished.
    """
    identities = [read_identity(required(part, IDENTITY).parent) for part in parts]
    for identity, part in zip(identities, parts, strict=True):
        for name in {**identities[0], **identity}:
            if name not in MAY_DIFFER and identity.get(name) != identities[0].get(name):
                raise UsageError(
                    f"parts: expected shards of one evaluation; {name} is {identities[0].get(name)!r} in "
                    f"{parts[0]}, and {identity.get(name)!r} in {part}. Give the shards of one evaluation"
                )
    _check_complete([identity.get("shard") for identity in identities])
    records = [read_arrays(required(part, RECORDS)) for part in parts]
    costs = [read_result(required(part, RESULT).parent).get("cascades", {}) for part in parts]
    order = np.argsort(np.concatenate([record["position"] for record in records]), kind="stable")

    def joined(name: str) -> Array:
        if name.endswith(("/attacks", "/cells")):  # names of stages and of corruptions
            return records[0][name]
        array: Array = np.concatenate([record[name] for record in records])[order]
        return array

    whole = {name: joined(name) for name in records[0]}
    result = assessed(whole, costs)
    identity = {**identities[0], "shard": None, "images": len(order), "examples": False, "merged": len(parts)}
    return identity, record_arrays(result, whole["position"]), result


def assessed(whole: Mapping[str, Array], costs: Sequence[Mapping[str, Any]]) -> AssessmentResult:
    """The result that the records of all images hold.   costs: the cascades of each part's result.json."""
    cascades = {}
    for name in costs[0]:
        stages = []
        for index, first in enumerate(costs[0][name]):
            rows = [cost[name][index] for cost in costs]
            robust = Accuracy(sum(row["robust"] for row in rows), sum(row["total"] for row in rows))
            forwards, backwards, seconds = (
                sum(row[key] for row in rows) for key in ("forwards", "backwards", "seconds")
            )
            stages.append(StageResult(first["attack"], robust, forwards, backwards, seconds))
        nearest = f"{name}/minimum_norm" in whole
        cascades[name] = CascadeResult(Records.of(under(name, whole)), tuple(stages), nearest)
    corruptions = {
        name: CorruptionResult(tuple(whole[f"{name}/cells"].tolist()), whole[f"{name}/predicted"], whole["label"])
        for name in (key.removesuffix("/cells") for key in whole if key.endswith("/cells"))
    }
    return AssessmentResult(Predictions(whole["label"], under("predicted", whole)), cascades, corruptions)


def _check_complete(shards: Sequence[str | None]) -> None:
    parsed = [tuple(map(int, shard.split("/"))) if shard else (1, 1) for shard in shards]
    counts = {count for _, count in parsed}
    if len(counts) != 1 or sorted(number for number, _ in parsed) != list(range(1, max(counts) + 1)):
        received = ", ".join(shard or "the whole" for shard in shards)
        raise UsageError(
            f"parts: expected each of the shards 1/n … n/n once; received {received}. Give all of them"
        )


def required(part: Path, name: str) -> Path:
    """The file of this name in the folder of an evaluation. Raises UsageError if it is not finished."""
    if not (part / name).is_file():
        raise UsageError(
            f"parts: expected the folder of a finished evaluation; {part} has no {name}. Finish it first"
        )
    return part / name
