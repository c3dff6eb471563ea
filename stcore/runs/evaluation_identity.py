"""What an evaluation is of: all that its figures depend on, and by it the name of its folder."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

import numpy as np

from stcore import models
from stcore.base.version import __version__
from stcore.data import ImageData
from stcore.evaluation.attack_names import attacks_by_name
from stcore.protocols import Array
from stcore.runs.plan import Plan

FORMAT = "stcore-evaluation-1"


def identity(
    plan: Plan,
    test: ImageData,
    weights: Mapping[str, Array],
    *,
    images: int,
    subset: str | None = None,
    shard: str | None = None,
    examples: bool = False,
) -> dict[str, Any]:
    """Of a plan's attacks on so many images of the test split, as plain JSON; examples: whether they are kept."""
    normalize = models.normalization.canonical(plan.normalize)
    return {
        "format": FORMAT,
        "stcore": __version__,
        "backend": plan.backend,
        "model": plan.model,
        "weights": fingerprint(weights),
        "dataset": plan.dataset.partition(":")[0],  # where it lies is not what it is
        "data": test.fingerprint(),
        "subset": subset,
        "shard": shard,
        "images": images,
        "attacks": {
            name: repr(it) for name, it in attacks_by_name(plan.attacks, plan.eval_epsilon, plan.norm).items()
        },
        "epsilon": plan.eval_epsilon,
        "norm": plan.norm,
        "seed": plan.seed,
        "batch_size": plan.eval_batch_size,
        "dtype": plan.dtype,
        "examples": examples,
        # Said where there is one: what was written before there were any is of networks without.
        **({} if normalize == models.normalization.NONE else {"normalize": normalize}),
    }


def folder_name(about: Mapping[str, Any], *, whatever_weights: bool) -> str:
    """Attacks and shard, and a mark of all the rest; whatever_weights: one name for all checkpoints of a run."""
    said = {name: value for name, value in about.items() if not (whatever_weights and name == "weights")}
    mark = hashlib.sha256(json.dumps(said, sort_keys=True).encode()).hexdigest()[:8]
    shard = f"-shard-{about['shard'].replace('/', '-of-')}" if about["shard"] else ""
    return f"{'-'.join(about['attacks'])[:60]}{shard}-{mark}"


def fingerprint(weights: Mapping[str, Array]) -> str:
    """SHA-256 of weights: the same numbers, whatever their file."""
    digest = hashlib.sha256()
    for name in sorted(weights):
        digest.update(name.encode())
        digest.update(np.ascontiguousarray(weights[name]).data)
    return digest.hexdigest()
