"""Putting the parts of an evaluation together that were made apart, on several devices or machines."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from stcore.autoattack.cascade import under
from stcore.autoattack.records import Records
from stcore.base.files import read_arrays, read_json
from stcore.errors import UsageError
from stcore.evaluation.accuracy import Accuracy
from stcore.evaluation.assessment import Assessed, CascadeResult, StageResult
from stcore.evaluation.evaluator import Predictions
from stcore.evaluation.folder import IDENTITY, RECORDS, RESULT
from stcore.evaluation.results import records_of
from stcore.protocols import Array

MAY_DIFFER = ("shard", "images", "batch_size", "examples")


def merge(parts: Sequence[Path]) -> tuple[dict[str, Any], dict[str, Array], Assessed]:
    """What was asked, the records and the findings of all shards of one evaluation.

    parts: folders of finished evaluations.
    Raises UsageError where they are not all the shards 1/n … n/n of one and the same, or one is not finished.
    """
    abouts = [read_json(_there(part, IDENTITY)) for part in parts]
    for about, part in zip(abouts, parts, strict=True):
        for name in {**abouts[0], **about}:
            if name not in MAY_DIFFER and about.get(name) != abouts[0].get(name):
                raise UsageError(
                    f"parts: expected shards of one evaluation; {name} is {abouts[0].get(name)!r} in {parts[0]}, "
                    f"and {about.get(name)!r} in {part}"
                )
    _check_complete([about.get("shard") for about in abouts])
    records = [read_arrays(_there(part, RECORDS)) for part in parts]
    costs = [read_json(_there(part, RESULT))["cascades"] for part in parts]
    order = np.argsort(np.concatenate([one["position"] for one in records]), kind="stable")

    def joined(name: str) -> Array:
        if name.endswith("/attacks"):  # the stages' names
            return records[0][name]
        together: Array = np.concatenate([one[name] for one in records])[order]
        return together

    whole = {name: joined(name) for name in records[0]}
    found = _assessed(whole, costs)
    about = {**abouts[0], "shard": None, "images": len(order), "examples": False, "merged": len(parts)}
    return about, records_of(found, whole["position"]), found


def _assessed(whole: Mapping[str, Array], costs: Sequence[Mapping[str, Any]]) -> Assessed:
    cascades = {}
    for name in costs[0]:
        stages = []
        for place, first in enumerate(costs[0][name]):
            rows = [one[name][place] for one in costs]
            robust = Accuracy(sum(row["robust"] for row in rows), sum(row["total"] for row in rows))
            forwards, backwards, seconds = (
                sum(row[key] for row in rows) for key in ("forwards", "backwards", "seconds")
            )
            stages.append(StageResult(first["attack"], robust, forwards, backwards, seconds))
        cascades[name] = CascadeResult(Records.of(under(name, whole)), tuple(stages))
    return Assessed(Predictions(whole["label"], under("predicted", whole)), cascades)


def _check_complete(shards: Sequence[str | None]) -> None:
    said = [tuple(map(int, shard.split("/"))) if shard else (1, 1) for shard in shards]
    counts = {count for _, count in said}
    if len(counts) != 1 or sorted(place for place, _ in said) != list(range(1, max(counts) + 1)):
        given = ", ".join(shard or "the whole" for shard in shards)
        raise UsageError(f"parts: expected each of the shards 1/n … n/n once; received {given}")


def _there(part: Path, name: str) -> Path:
    if not (part / name).is_file():
        raise UsageError(f"parts: expected the folder of a finished evaluation; {part} has no {name}")
    return part / name
