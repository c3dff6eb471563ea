"""`stcli bracket`: robust accuracy between a proof and an attack."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from stcore import errors
from stcore.base import checks
from stcore.base.interrupts import Interrupt
from stcore.bounds.smoothing import Smoothing
from stcore.cli.console import make_console, make_progress, say
from stcore.cli.evaluation_plan import checkpoints, is_weights, located, plan_from
from stcore.cli.options import BracketOptions
from stcore.cli.parsing import parse
from stcore.cli.quiet import load_quietly
from stcore.evaluation.folder import EvaluationFolder
from stcore.models.weights_files import read_weights
from stcore.results import names
from stcore.runs.checkpoint_bracket import CheckpointBracket, result_json
from stcore.runs.evaluation_identity import folder_name
from stcore.runs.preparation import set_up
from stcore.runs.store import check_weights_metadata

BRACKETS = "brackets"
"""The folder of brackets within a run's, or beside a weights file."""


def main(args: Sequence[str]) -> int:
    """Bounds and attacks as the arguments say; returns the exit code."""
    options = parse(BracketOptions, args, "stcli bracket")
    options = replace(options, run=located(options.run))
    checks.number("save_every", options.save_every)
    one_file = is_weights(options.run)
    if not one_file and options.weights is None and options.checkpoint is None:
        options = replace(options, checkpoint="best")
    ((name, path),) = checkpoints(options).items()
    smoothing = None
    if options.smoothing is not None:
        smoothing = Smoothing(options.smoothing, options.selection, options.samples, options.alpha)
    plan = plan_from(options)
    load_quietly(plan.runtime.backend)
    weights, metadata = read_weights(path)
    work = CheckpointBracket(
        set_up(plan, metadata), options.subset, method=options.method, smoothing=smoothing, check=options.check
    )
    check_weights_metadata(metadata, plan, work.test)
    console = make_console(stderr=options.json)  # stdout holds only the JSON
    identity = work.identity(weights)
    parent = options.run.parent if one_file else options.run
    out = Path(options.out) if options.out else parent / BRACKETS / folder_name(identity, whatever_weights=False)
    with work.context(), Interrupt() as interrupt:
        work.load(weights)
        store = EvaluationFolder(out, identity, options.save_every)
        with store.alone():
            if store.begun:
                say(console, f"{'finished before' if store.result else 'resumes'}: {store.path}")
            found = work.bracket(make_progress(console), store, interrupt)
            if found is None:
                say(console, f"interrupted: kept in {out}; run the same command again to resume")
                return errors.INTERRUPTED
            result = dict(store.result or result_json(found))
            store.finish(found.records, result)

    if options.json:
        print(json.dumps({name: result}, indent=2))
        return errors.OK
    of = "the network" if smoothing is None else f"the classifier smoothed with σ = {smoothing.sigma:g}"
    bounded = f"{plan.norm} ε = {names.radius(plan.evaluation.epsilon)}"
    say(console, f"{name}, {plan.runtime.backend}, test split of {plan.data.dataset}, {bounded}: {of}")
    say(console, str(found))
    say(console, f"natural {100 * found.natural.value:.2f} %; the bound took {found.seconds:.2g} s an image")
    if smoothing is not None:
        say(
            console,
            "this certifies the smoothed classifier, not the network, and each certificate is wrong with "
            f"probability at most {smoothing.alpha:g}; at most: its accuracy without an attack",
        )
    say(console, f"everything is in {out}")
    return errors.OK
