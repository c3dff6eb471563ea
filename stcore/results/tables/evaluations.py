"""Accuracies that `stcli evaluate` added to a run later."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from stcore.base.weights_file import load_weights
from stcore.errors import DataError, UsageError
from stcore.evaluation.accuracy import Accuracy
from stcore.evaluation.attack_names import has_own_budget
from stcore.evaluation.folder import EVALUATIONS, IDENTITY, RESULT, read_identity, read_result
from stcore.evaluation.results import STRICT
from stcore.runs.evaluation_identity import fingerprint
from stcore.runs.record import FinishedRun


def with_evaluations(run: FinishedRun, checkpoint: str, leave_out: Callable[[str], None]) -> FinishedRun:
    """The run with the accuracies of its finished evaluations added.

    An attack whose setting differs from the run's (ε, norm, backend, subset, …) gets it as a suffix of its name.
    leave_out: receives a sentence for each evaluation that is unfinished, a shard, or of other weights or data.
    """
    folders = sorted(path.parent for path in (run.path / EVALUATIONS).glob(f"*/{checkpoint}/{IDENTITY}"))
    weights = fingerprint(load_weights(run.path / f"{checkpoint}.safetensors")[0]) if folders else ""
    known = dict(run.accuracies)
    for folder in folders:
        try:
            found = _accuracies(run, folder, weights)
        except (DataError, UsageError) as reason:
            leave_out(str(reason))
            continue
        known = {**found, **known}
    ordered = {name: known[name] for name in [*run.accuracies, *(n for n in known if n not in run.accuracies)]}
    return dataclasses.replace(run, accuracies=ordered)


def _accuracies(run: FinishedRun, folder: Path, weights: str) -> dict[str, Accuracy]:
    identity = read_identity(folder)
    if not (folder / RESULT).is_file():
        raise UsageError(f"{folder} is unfinished. To resume it, repeat its stcli evaluate command")
    if identity["shard"] is not None:
        raise UsageError(f"{folder} is shard {identity['shard']}. Merge the shards: stcli merge")
    if identity["weights"] != weights:
        raise UsageError(f"{folder} is of other weights than the run's. Evaluate again")
    if identity["data"] != run.data.get("test", {}).get("sha256"):
        raise UsageError(f"{folder} is of other test data than the run's. Evaluate again")
    scores: Mapping[str, Any] = read_result(folder)["accuracies"]
    return {
        f"{attack}{_suffix(run, identity, attack)}": Accuracy.of_json(score)
        for attack, score in scores.items()
        if attack != "natural"  # the run has its own
    }


def _suffix(run: FinishedRun, identity: Mapping[str, Any], attack: str) -> str:
    """The settings in which the evaluation differs from the run: " (epsilon 0.1, subset 100)"."""
    plan = run.plan
    own = {} if has_own_budget(attack) else {"epsilon": plan.evaluation.epsilon, "norm": plan.norm}
    own |= {"subset": None}
    own |= {"backend": plan.runtime.backend, "dtype": plan.runtime.dtype, "seed": plan.seed}
    own |= {"precision": STRICT, "bpda": None}  # of every evaluation that training makes
    its = {"precision": STRICT, "bpda": None, **identity}
    different = [f"{name} {_show(its[name])}" for name, value in own.items() if its[name] != value]
    return f" ({', '.join(different)})" if different else ""


def _show(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
