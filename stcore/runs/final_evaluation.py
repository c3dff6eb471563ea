"""The final evaluation of a run: its checkpoints on the test split, shared among the ranks."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from stcore.base.interrupts import Interrupt
from stcore.base.progress import Progress
from stcore.base.ranks import Ranks
from stcore.base.weights_file import load_weights
from stcore.data import ImageData
from stcore.evaluation.accuracy import Accuracy, merge_accuracies
from stcore.evaluation.assessment import Assessment
from stcore.evaluation.attack_names import Evaluated, attacks_by_name, split
from stcore.evaluation.evaluator import Evaluator
from stcore.evaluation.folder import EVALUATIONS, EvaluationFolder
from stcore.evaluation.results import record_arrays, result_json
from stcore.evaluation.shards import merge
from stcore.evaluation.subset import select_indices
from stcore.protocols import Array, Learner
from stcore.runs.evaluation_identity import folder_name, identity
from stcore.runs.plan import Plan


def final_evaluation(
    plan: Plan,
    learner: Learner,
    test: ImageData,
    run: Path,
    checkpoints: Mapping[str, int],
    progress: Progress,
    until: float | None,
    ranks: Ranks,
) -> dict[str, dict[str, Accuracy]] | None:
    """Accuracies under the plan's attacks by checkpoint; None if it was interrupted.

    checkpoints: the epoch of each. The learner ends with the weights of the last one. Cascades and corruptions
    take hours: their state is kept in the run's folder, from which `stcli evaluate` continues.
    """
    attacks = attacks_by_name(plan.evaluation.attacks, plan.evaluation.epsilon, plan.norm)
    parts = split(attacks)
    long = bool(parts.cascades or parts.corruptions)
    evaluator = Evaluator(learner, parts.by_batch, plan.seed)
    shards = min(ranks.count, len(test))
    shard = None if shards == 1 else f"{ranks.rank + 1}/{shards}"
    idle = ranks.rank >= shards  # more ranks than images: the others only wait
    scores: dict[str, dict[str, Accuracy]] = {}
    with Interrupt(until, ranks) as interrupt:
        for name, epoch in checkpoints.items():
            best = name.replace("last", "best")
            if name != best and epoch == checkpoints[best]:  # the same weights
                scores[name] = scores[best]
                continue
            ranks.gather(None)  # rank 0 has written the weights
            weights, _ = load_weights(run / f"{name}.safetensors")
            learner.load_weights(weights)
            found, store = None, None
            if not idle:
                places = select_indices(len(test), None, shard)
                store = _store(plan, test, weights, attacks, run, name, len(places), shard) if long else None
                assessment = Assessment(
                    evaluator,
                    parts,
                    test.images if shard is None else test.images[places],
                    test.labels[places],
                    batch_size=plan.evaluation.batch_size,
                    positions=places,
                )
                found = assessment.run(progress, store, interrupt.came, f"test {name}")
            if ranks.any(interrupt.came() or (found is None and not idle))[0]:
                return None
            if found is not None and store is not None:
                store.finish(record_arrays(found, places), result_json(found, list(attacks)))
            gathered = ranks.gather(None if found is None else (found.accuracies, store and store.path))
            gathered = [part for part in gathered if part is not None]
            scores[name] = merge_accuracies([accuracies for accuracies, _ in gathered])
            if long and shard is not None and ranks.rank == 0:
                _merge(list(attacks), run, name, [folder for _, folder in gathered])
    return scores


def _store(
    plan: Plan,
    test: ImageData,
    weights: Mapping[str, Array],
    attacks: Mapping[str, Evaluated],
    run: Path,
    name: str,
    images: int,
    shard: str | None,
) -> EvaluationFolder:
    what = identity(plan, test, weights, attacks, images=images, shard=shard)
    return EvaluationFolder(run / EVALUATIONS / folder_name(what, whatever_weights=True) / name, what)


def _merge(attacks: list[str], run: Path, name: str, parts: list[Path]) -> None:
    """Writes the whole evaluation beside its shards, as `stcli merge` does."""
    what, records, found = merge(parts)
    whole = EvaluationFolder(run / EVALUATIONS / folder_name(what, whatever_weights=True) / name, what)
    whole.finish(records, result_json(found, attacks))
