"""`stcli train`: trains and evaluates a run."""

from __future__ import annotations

import json
import shlex
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from stcore import errors
from stcore.api.run import carry_out
from stcore.base.ranks import launched
from stcore.cli import ranks, seeds
from stcore.cli.console import make_console, make_progress, score_table
from stcore.cli.parsing import peek
from stcore.cli.quiet import load_quietly
from stcore.cli.training_plan import plan_from, resumed, run_options_from, trackers_of
from stcore.evaluation.folder import EVALUATIONS
from stcore.results.names import radius
from stcore.runs.folder import RESULT, RunFolder
from stcore.runs.plan import Plan, default_name
from stcore.runs.preparation import NOTHING_GIVEN
from stcore.runs.record import read_record
from stcore.runs.states import tidy
from stcore.runs.training_run import Outcome


def main(args: Sequence[str]) -> int:
    """Trains as the arguments say; returns the exit code."""
    if any(peek(args, name) is not None for name in ("seeds", "devices")):
        if launched() > 1:
            raise errors.UsageError("seeds: expected one process; a launcher started several. Leave torchrun out")
        return seeds.main(args)
    as_json = "--json" in args
    console = make_console(stderr=as_json)
    console.quiet = not ranks.is_first()
    say = partial(console.print, soft_wrap=True)  # not folded: commands and paths are copied
    if peek(args, "resume") is not None:
        plan, folder, options = resumed(args)
        if (folder / RESULT).is_file():
            tidy(folder)
            say(f"{folder} is finished: nothing to resume")
            return print_result(folder) if as_json and ranks.is_first() else errors.OK
    else:
        plan, out, options = plan_from(args)
        folder = Path(out) if out else RunFolder.unused(Path("runs"), default_name(plan))
        if ranks.is_first():
            RunFolder.check_free(folder)  # before a framework is loaded
    run_options = run_options_from(options, say)
    trackers = trackers_of(options, folder) if ranks.is_first() else []
    load_quietly(plan.runtime.backend)
    outcome = carry_out(plan, folder, NOTHING_GIVEN, trackers, run_options, make_progress(console), say)
    if outcome.interrupted:
        say(how_to_continue(outcome, plan))
        return errors.INTERRUPTED
    rule = f"{plan.evaluation.select_by} on " + (
        "validation" if plan.evaluation.select == "val" else "TEST, the paper's optimistic rule"
    )
    scores = {f"{name} (epoch {e})": outcome.scores[name] for name, e in outcome.checkpoints.items()}
    say(f"test split, ε = {radius(plan.evaluation.epsilon)}, 95 % intervals; best by {rule}")
    console.print(score_table(scores))
    say(f"everything is in {folder}")
    return print_result(folder) if as_json and ranks.is_first() else errors.OK


def print_result(folder: Path) -> int:
    """A finished run's result as JSON; returns the exit code."""
    print(json.dumps({"run": str(folder), **(read_record(folder).result or {})}, indent=2))
    return errors.OK


def how_to_continue(outcome: Outcome, plan: Plan) -> str:
    """The commands that resume an interrupted run, and that evaluate its current weights."""
    folder = outcome.folder
    evaluate = ["stcli", "evaluate", str(folder)]
    evaluate += ["--attacks", ",".join(plan.evaluation.attacks)] if (folder / EVALUATIONS).is_dir() else []
    return (
        f"interrupted after {outcome.epochs} whole epochs\n"
        f"  to resume:                           {shlex.join(['stcli', 'train', '--resume', str(folder)])}\n"
        f"  to evaluate the current weights:     {shlex.join(evaluate)}"
    )
