"""The identity of an evaluation: all that its accuracies depend on, and the name of its folder."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

import numpy as np

from stcore import models
from stcore.base.files import checksum
from stcore.base.version import __version__
from stcore.data import ImageData
from stcore.evaluation.attack_names import Evaluated
from stcore.evaluation.folder import stem
from stcore.evaluation.results import STRICT
from stcore.protocols import Array
from stcore.runs.plan import Plan

FORMAT = "stcore-evaluation-1"


def identity(
    plan: Plan,
    test: ImageData,
    weights: Mapping[str, Array],
    attacks: Mapping[str, Evaluated],
    *,
    images: int,
    subset: str | None = None,
    shard: str | None = None,
    examples: bool = False,
    precision: str = STRICT,
    bpda: str | None = None,
) -> dict[str, Any]:
    """The identity of a plan's evaluation under attacks by name on some images of the test split, in JSON's types.

    images: their number.   examples: whether the adversarial examples are kept.   precision: fp32 or tf32.
    bpda: the layers with the backward pass of the identity, joined by commas.
    """
    normalize = models.normalization.canonical(plan.model.normalize)
    return {
        "format": FORMAT,
        "stcore": __version__,
        "backend": plan.runtime.backend,
        "model": plan.model.name,
        "weights": fingerprint(weights),
        "dataset": plan.data.dataset.partition(":")[0],  # the path does not matter
        "data": test.fingerprint(),
        "subset": subset,
        "shard": shard,
        "images": images,
        "attacks": {name: repr(it) for name, it in attacks.items()},
        "epsilon": plan.evaluation.epsilon,
        "norm": plan.norm,
        "seed": plan.seed,
        "batch_size": plan.evaluation.batch_size,
        "dtype": plan.runtime.dtype,
        "examples": examples,
        # Left out where it is the usual, as by versions that had no other.
        **({} if normalize == models.normalization.NONE else {"normalize": normalize}),
        **({} if precision == STRICT else {"precision": precision}),
        **({} if bpda is None else {"bpda": bpda}),
    }


def folder_name(about: Mapping[str, Any], *, whatever_weights: bool) -> str:
    """Attacks, shard, and a hash of the rest; whatever_weights: one name for all checkpoints of a run."""
    said = {name: value for name, value in about.items() if not (whatever_weights and name == "weights")}
    mark = checksum(said)[:8]
    shard = f"-shard-{about['shard'].replace('/', '-of-')}" if about["shard"] else ""
    return f"{stem('-'.join(about['attacks']))[:60]}{shard}-{mark}"


def fingerprint(weights: Mapping[str, Array]) -> str:
    """SHA-256 (hexadecimal) of the weights, independent of their file."""
    digest = hashlib.sha256()
    for name in sorted(weights):
        digest.update(name.encode())
        digest.update(np.ascontiguousarray(weights[name]).data)
    return digest.hexdigest()
