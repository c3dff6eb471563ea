"""`stcli evaluate --engine reference`: runs the reference implementation of AutoAttack, for comparison."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from rich.console import Console
from rich.table import Table

from stcore import errors
from stcore.autoattack.attack import AutoAttack
from stcore.autoattack.reference import VERSIONS, run_reference
from stcore.cli.console import label_of
from stcore.cli.options import EvaluateOptions
from stcore.errors import UsageError
from stcore.evaluation.accuracy import Accuracy, percent
from stcore.evaluation.results import as_json
from stcore.runs.checkpoint_evaluation import CheckpointEvaluation


def check_by_reference(
    work: CheckpointEvaluation, known: Mapping[str, Any], console: Console, options: EvaluateOptions
) -> int:
    """Runs the reference on each checkpoint and prints robust accuracies; returns the exit code."""
    asked = {name: one for name, one in work.parts.cascades.items() if isinstance(one, AutoAttack)}
    unfit = [name for name, attack in asked.items() if attack.version not in VERSIONS]
    kept = options.out or options.save_examples or options.predictions
    if unfit or not asked or len(work.asked) > len(asked) or kept:
        raise UsageError(
            "engine: expected only autoattack or members of it, without --fast, --out, --save-examples or "
            f"--predictions, as the reference has them; received {', '.join(work.asked)}"
        )
    table = Table()
    for column in ("checkpoint", "attack", "robust %", "seconds", "forwards", "backwards"):
        table.add_column(column, no_wrap=True)
    scores: dict[str, dict[str, Accuracy]] = {}
    for name, weights in known.items():
        checkpoint = label_of(name, None, work.ways)
        work.load(weights)
        for attack_name, attack in asked.items():
            found = run_reference(
                work.classifier,
                work.images,
                work.labels,
                norm=attack.norm,
                epsilon=attack.epsilon,
                version=attack.version,
                attacks=attack.attacks or None,
                seed=work.plan.seed,
                batch_size=work.plan.evaluation.batch_size,
                progress=lambda line: console.print(f"  {line}", soft_wrap=True),
            )
            robust = Accuracy(int((~found.fooled).sum()), len(found.fooled))
            scores.setdefault(checkpoint, {})[attack_name] = robust
            costs = (f"{found.seconds:.0f}", f"{found.forwards:,}", f"{found.backwards:,}")
            table.add_row(checkpoint, attack_name, percent(robust), *costs)
    if options.json:
        print(json.dumps({name: as_json(accuracies) for name, accuracies in scores.items()}, indent=2))
    else:
        console.print(table)
    return errors.OK
