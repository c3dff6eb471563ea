"""`stcli evaluate`: evaluates checkpoints under attack."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from rich.console import Console

from stcore import errors
from stcore.audit import Finding
from stcore.autoattack.attack import AutoAttack
from stcore.autoattack.records import Records
from stcore.autoattack.versions import notes
from stcore.base import checks
from stcore.base.files import write_file
from stcore.base.interrupts import Interrupt
from stcore.base.progress import Progress
from stcore.cli.console import (
    corruption_table,
    findings_table,
    label_of,
    make_console,
    make_progress,
    say,
    score_table,
    stage_table,
)
from stcore.cli.evaluation_plan import checkpoints, is_weights, located, plan_from
from stcore.cli.options import EvaluateOptions
from stcore.cli.parsing import parse
from stcore.cli.quiet import load_quietly
from stcore.cli.reference import check_by_reference
from stcore.errors import UsageError
from stcore.evaluation.accuracy import Accuracy, MeanAccuracy
from stcore.evaluation.assessment import AssessmentResult, CascadeResult
from stcore.evaluation.attack_names import has_own_budget
from stcore.evaluation.folder import EVALUATIONS, EvaluationFolder
from stcore.evaluation.results import as_json, record_arrays, result_json
from stcore.evaluation.unions import in_ball
from stcore.models.weights_files import read_weights
from stcore.protocols import Array
from stcore.results import names
from stcore.runs.checkpoint_evaluation import CheckpointEvaluation
from stcore.runs.evaluation_identity import folder_name
from stcore.runs.plan import Plan
from stcore.runs.preparation import set_up
from stcore.runs.store import check_weights_metadata

ENGINES = ("native", "reference")
AUDITED_NORMS = ("linf", "l2")
MADE = (
    "corruptions: made from the test images after CIFAR-10-C's, frost drawn, not photographed; --corrupted FOLDER "
    "takes the published files"
)


def main(args: Sequence[str]) -> int:
    """Evaluates as the arguments say; returns the exit code."""
    options = parse(EvaluateOptions, args, "stcli evaluate")
    options = replace(options, run=located(options.run))
    checks.choice("engine", options.engine, ENGINES)
    checks.number("save_every", options.save_every)
    files = checkpoints(options)
    plan = plan_from(options)
    if options.predictions and not Path(options.predictions).parent.is_dir():
        raise UsageError(f"predictions: expected a file in an existing folder; received {options.predictions}")
    load_quietly(plan.runtime.backend)
    known = {name: read_weights(path) for name, path in files.items()}
    _, metadata = next(iter(known.values()))
    work = CheckpointEvaluation(
        set_up(plan, metadata),
        options.subset,
        options.shard,
        options.save_examples,
        options.precision,
        options.bpda,
        options.corrupted,
    )
    console = make_console(stderr=options.json)  # stdout holds only the JSON
    progress = make_progress(console)
    for _, metadata in known.values():
        check_weights_metadata(metadata, plan, work.test)
    weights = {name: arrays for name, (arrays, _) in known.items()}
    if options.engine == "reference":
        with work.context():
            return check_by_reference(work, weights, console, options)

    with work.context():
        base = folder_of(options, work, next(iter(weights.values())))
        found = evaluated(work, weights, base, options, console, progress)
    if found is None:
        kept = f"kept in {base}; run the same command again to resume" if base else "nothing was kept: give --out"
        say(console, f"interrupted: {kept}")
        return errors.INTERRUPTED
    labels = {name: label_of(name, about.get("epoch"), work.ways) for name, (_, about) in known.items()}
    scores = {
        labels[name]: {attack: one.assessed.accuracies[attack] for attack in ("natural", *work.asked)}
        for name, one in found.items()
    }
    if options.predictions:
        predicted = {
            labels[name]: {a: classes.tolist() for a, classes in one.assessed.predictions.predicted.items()}
            for name, one in found.items()
        }
        write_file(Path(options.predictions), json.dumps(predicted) + "\n")
    if options.json:
        print(json.dumps({name: as_json(accuracies) for name, accuracies in scores.items()}, indent=2))
    else:
        _show(console, work, options, scores)
        _show_corruptions(console, work, scores)
        _show_cascades(console, work, {labels[name]: one.assessed.cascades for name, one in found.items()})
        _show_audits(console, options, plan, {name: one.audit for name, one in found.items()})
    if plan.evaluation.select == "test":
        say(console, "best was selected on the TEST split (the paper's rule): its figures are optimistic")
    if base is not None:
        say(console, f"everything is in {base}")
    return errors.OK


@dataclass
class Found:
    """One checkpoint's accuracies, and its audit if there is one."""

    assessed: AssessmentResult
    audit: list[Finding] | None
    folder: EvaluationFolder | None

    def keep(self, work: CheckpointEvaluation) -> None:
        if self.folder is not None:
            result = result_json(self.assessed, list(work.asked), self.audit, work.precision)
            self.folder.finish(record_arrays(self.assessed, work.places), result)


def evaluated(
    work: CheckpointEvaluation,
    weights: Mapping[str, Mapping[str, Array]],
    base: Path | None,
    options: EvaluateOptions,
    console: Console,
    progress: Progress,
) -> dict[str, Found] | None:
    """Each checkpoint under all attacks, then audited; skips what is stored already. None after Ctrl-C."""
    found: dict[str, Found] = {}
    with Interrupt() as interrupt, ExitStack() as holding:
        for name, arrays in weights.items():
            store, before = None, None
            if base is not None:
                store = EvaluationFolder(base / name, work.identity(arrays), options.save_every)
                if store.result is None:
                    holding.enter_context(store.alone())
                else:
                    store.tidy()
                before = store.result
                if store.begun:
                    say(console, f"{'finished before' if before else 'resumes'}: {store.path}")
            if before is None:
                work.load(arrays)
            assessed = work.run(progress, store, interrupt)
            if assessed is None:
                return None
            signs = before.get("audit") if before is not None else None
            found[name] = Found(assessed, signs and [Finding(**sign) for sign in signs], store)
            found[name].keep(work)
    if options.audit and work.plan.norm in AUDITED_NORMS:
        missing = [name for name, one in found.items() if one.audit is None]
        for name, signs in audits(work, weights, missing, progress).items():
            found[name].audit = signs
            found[name].keep(work)
    return found


def _show(
    console: Console,
    work: CheckpointEvaluation,
    options: EvaluateOptions,
    scores: Mapping[str, Mapping[str, Accuracy]],
) -> None:
    plan = work.plan
    part = "".join(
        f", {name} {value}" for name, value in (("subset", options.subset), ("shard", options.shard)) if value
    )
    what = f"{plan.method.name}, {plan.runtime.backend}, test split of {plan.data.dataset}{part}"
    own = bool(work.asked) and all(map(has_own_budget, work.asked))  # each name says its ball
    ball = "" if own else f", {plan.norm} ε = {names.radius(plan.evaluation.epsilon)}"
    say(console, f"{what}{ball}, 95 % intervals")
    console.print(score_table(scores))


def _show_corruptions(
    console: Console, work: CheckpointEvaluation, scores: Mapping[str, Mapping[str, Accuracy]]
) -> None:
    for label, found in scores.items():
        for name, accuracy in found.items():
            if isinstance(accuracy, MeanAccuracy):
                console.print(corruption_table(f"{label}, {name}: correct % by severity", accuracy))
    if work.parts.corruptions and work.corrupted is None:
        say(console, MADE)


def _show_cascades(
    console: Console, work: CheckpointEvaluation, cascades: Mapping[str, Mapping[str, CascadeResult]]
) -> None:
    for label, found in cascades.items():
        for attack, result in found.items():
            console.print(stage_table(f"{label}, {attack}", result.stages))
            if result.nearest:
                norm = in_ball(attack, work.plan.norm, work.plan.evaluation.epsilon).norm
                say(console, f"{label}, {attack}: {norms_in_words(result.records, norm)}")
    asked = work.parts.cascades.values()
    if versions := [attack.version for attack in asked if isinstance(attack, AutoAttack)]:
        for note in notes(work.test.num_classes, versions):
            say(console, note)


def norms_in_words(records: Records, norm: str) -> str:
    """The median of the smallest norms found, of the images that are classified correctly."""
    found = records.minimum_norm[records.natural == records.label]
    missing = int(np.isinf(found).sum())
    median = float(np.median(found)) if len(found) else math.inf
    middle = "beyond all that was found" if math.isinf(median) else names.radius(median)
    return (
        f"median {names.norm(norm)} norm of the nearest examples {middle}, over the {len(found)} images that are "
        "classified correctly" + (f"; {missing} without an example" if missing else "")
    )


def _show_audits(
    console: Console, options: EvaluateOptions, plan: Plan, findings: Mapping[str, Sequence[Finding] | None]
) -> None:
    for name, signs in findings.items():
        if options.audit and signs is not None:
            console.print(findings_table(f"audit of {name}", signs))
    if options.audit and plan.norm not in AUDITED_NORMS:
        say(console, f"audit: none for {plan.norm}")
    doubted = [name for name, signs in findings.items() if any(sign.status == "warn" for sign in signs or ())]
    if options.fast and options.audit and doubted:
        say(
            console,
            f"autoattack-fast has gradient attacks alone, and the audit of {', '.join(doubted)} warns: where "
            "gradients mislead it leaves far more images than AutoAttack. Evaluate without --fast",
        )


def audits(
    work: CheckpointEvaluation, known: Mapping[str, Mapping[str, Array]], names: Sequence[str], progress: Progress
) -> dict[str, list[Finding]]:
    """The audits of these checkpoints; each is also tested on the others' adversarial examples."""
    examples = {}
    for name, weights in known.items() if names and len(known) > 1 else ():
        work.load(weights)
        examples[name] = work.examples()
    found = {}
    for name in names:
        work.load(known[name])
        found[name] = work.audit(progress, {other: e for other, e in examples.items() if other != name})
    return found


def folder_of(options: EvaluateOptions, work: CheckpointEvaluation, weights: Mapping[str, Array]) -> Path | None:
    """The evaluation's folder: --out; else, if it is long, a union, or keeps examples, one in the run's folder,
    beside the weights file or, for a network of the zoo, in the working folder; else None."""
    if options.out is not None:
        return Path(options.out)
    parts = work.parts
    if not (parts.cascades or parts.unions or parts.corruptions or options.save_examples):
        return None
    one_file = is_weights(options.run)
    parent = options.run.parent if one_file else options.run
    whatever = not one_file and options.weights is None
    return parent / EVALUATIONS / folder_name(work.identity(weights), whatever_weights=whatever)
