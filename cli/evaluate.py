"""`stcli evaluate`."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from stcore import checks, errors
from stcore.cli.console import make_console, make_progress, score_table
from stcore.cli.options import EvaluateOptions, TrainOptions
from stcore.cli.parsing import from_file, parse
from stcore.cli.quiet import load_quietly
from stcore.errors import UsageError
from stcore.experiment import as_json, check_about, evaluate_weights, open_for_evaluation
from stcore.plan import Plan, make_plan
from stcore.runs import CHECKPOINTS, CONFIG, RunFolder, load_weights, write_file


def main(args: Sequence[str]) -> int:
    """Evaluates as the arguments say; returns the exit code."""
    options = parse(EvaluateOptions, args, "stcli evaluate")
    folder = RunFolder.open(options.run)
    plan = plan_from(options, folder)
    if options.predictions and not Path(options.predictions).parent.is_dir():
        raise UsageError(f"predictions: expected a file in an existing folder; received {options.predictions}")
    load_quietly(plan.backend)
    evaluator, splits = open_for_evaluation(plan)
    console = make_console(stderr=options.json)  # JSON stands alone on stdout
    progress = make_progress(console)
    scores, predicted = {}, {}
    for name, path in checkpoints(options, folder).items():
        weights, metadata = load_weights(path)
        check_about(metadata, plan, splits)
        label = f"{name} (epoch {metadata['epoch']})" if "epoch" in metadata else name
        result = evaluate_weights(evaluator, weights, plan, splits.test, progress)
        scores[label] = result.accuracies
        predicted[label] = {name: classes.tolist() for name, classes in result.predicted.items()}
    if options.predictions:
        write_file(Path(options.predictions), json.dumps(predicted) + "\n")
    if options.json:
        print(json.dumps({name: as_json(accuracies) for name, accuracies in scores.items()}, indent=2))
    else:
        what = f"{plan.method}, {plan.backend}, test split of {plan.dataset}"
        console.print(f"{what}, ε = {plan.eval_epsilon:.4g}, 95 % intervals", soft_wrap=True)
        console.print(score_table(scores))
    if plan.select == "test":
        console.print("best was selected on the TEST split (the paper's rule): its figures are optimistic")
    return errors.OK


def checkpoints(options: EvaluateOptions, folder: RunFolder) -> Mapping[str, Path]:
    """The weights to evaluate: the file that was named, or what the run has of best and last."""
    if options.weights is not None:
        return {Path(options.weights).name: Path(options.weights)}
    found = {name: folder.path / f"{name}.safetensors" for name in CHECKPOINTS}
    found = {name: path for name, path in found.items() if path.is_file()}
    if not found:
        raise UsageError(
            f"run: {folder.path} holds neither best.safetensors nor last.safetensors: "
            "it was stopped before its first epoch"
        )
    return found


def plan_from(options: EvaluateOptions, folder: RunFolder) -> Plan:
    """The run's plan with what the options change of it."""
    settings = from_file(TrainOptions, folder.path / CONFIG)
    changes: dict[str, Any] = {
        "backend": options.backend,
        "attacks": options.attacks,
        "eval_epsilon": options.epsilon,
        "eval_batch_size": options.batch_size,
        "test_size": options.test_size,
        "dataset": options.dataset,
        "dtype": options.dtype,
        "seed": options.seed,
        "device": options.device,
        "threads": options.threads,
    }
    changes = {name: value for name, value in changes.items() if value is not None}
    if "threads" not in changes:
        settings.pop("threads", None)
    checks.choice("backend", changes.get("backend", settings["backend"]), ("torch", "keras"))
    return make_plan({**settings, **changes})
