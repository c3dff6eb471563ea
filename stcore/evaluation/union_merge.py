"""Union of finished evaluations: an AND over the records of one network in several threat models."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from stcore.base.files import read_arrays
from stcore.errors import UsageError
from stcore.evaluation.assessment import AssessmentResult
from stcore.evaluation.corruptions import by_name as corruptions_by_name
from stcore.evaluation.folder import IDENTITY, RECORDS, RESULT, read_identity, read_result
from stcore.evaluation.results import record_arrays
from stcore.evaluation.shards import assessed, required
from stcore.evaluation.unions import joined, members_of, name_of, threat_model, union_name
from stcore.protocols import Array

MAY_DIFFER = ("attacks", "epsilon", "norm", "seed", "batch_size", "examples", "stcore", "merged")


def merge_union(parts: Sequence[Path]) -> tuple[dict[str, Any], dict[str, Array], AssessmentResult]:
    """The identity, the records and the result of the union of evaluations.

    parts: folders of finished evaluations. Each of their attacks is a member, named by its threat model; unions
    and corruptions in them are left out.
    Raises UsageError if they are of other weights, data or images, hold one attack twice, or fewer than two,
    or if one is not finished.
    """
    identities = [read_identity(required(part, IDENTITY).parent) for part in parts]
    for identity, part in zip(identities, parts, strict=True):
        for name in {**identities[0], **identity}:
            if name not in MAY_DIFFER and identity.get(name) != identities[0].get(name):
                raise UsageError(
                    f"parts: expected evaluations of the same weights and images; {name} is "
                    f"{identities[0].get(name)!r} in {parts[0]}, and {identity.get(name)!r} in {part}"
                )
    whole: dict[str, Array] = {}
    attacks: dict[str, str] = {}
    costs: dict[str, Any] = {}
    for identity, part in zip(identities, parts, strict=True):
        records = _in_order(read_arrays(required(part, RECORDS)))
        cascades = read_result(required(part, RESULT).parent).get("cascades", {})
        for key in ("position", "label"):
            if not np.array_equal(whole.setdefault(key, records[key]), records[key]):
                raise UsageError(
                    f"parts: expected evaluations of the same images; {parts[0]} and {part} have others"
                )
        whole.setdefault("predicted/natural", records["predicted/natural"])
        for name, settings in identity["attacks"].items():
            if members_of(name) is not None or corruptions_by_name(name) is not None:
                continue
            member = name if threat_model(name) else name_of(name, identity["norm"], identity["epsilon"])
            if member in attacks:
                raise UsageError(f"parts: expected each threat model and attack once; received {member} twice")
            attacks[member] = settings
            whole[f"predicted/{member}"] = records[f"predicted/{name}"]
            whole |= {
                f"{member}{key.removeprefix(name)}": array
                for key, array in records.items()
                if key.startswith(f"{name}/")
            }
            costs |= {member: cascades[name]} if name in cascades else {}
    members = list(attacks)
    if len(members) < 2:
        raise UsageError(
            f"parts: expected evaluations with two attacks or more; received {', '.join(members) or 'none'}"
        )
    union = union_name(members)
    whole[f"predicted/{union}"] = joined([whole[f"predicted/{member}"] for member in members], whole["label"])
    result = assessed(whole, [costs])
    about = {
        **identities[0],
        "attacks": {**attacks, union: f"Union({', '.join(members)})"},
        "examples": False,
        "merged": len(parts),
    }
    return about, record_arrays(result, whole["position"]), result


def _in_order(records: Mapping[str, Array]) -> dict[str, Array]:
    """The records in the order of the images; names of stages and of corruptions have another length."""
    order = np.argsort(records["position"], kind="stable")
    return {key: array if key.endswith(("/attacks", "/cells")) else array[order] for key, array in records.items()}
