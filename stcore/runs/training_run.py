"""From a plan to a trained, selected and evaluated network in its run folder."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from stcore import data
from stcore.base.files import held, sweep
from stcore.base.progress import Progress, Silent
from stcore.base.ranks import Ranks
from stcore.data.resident import resident
from stcore.errors import DeviceError, UsageError
from stcore.evaluation.accuracy import Accuracy
from stcore.evaluation.results import as_json
from stcore.runs.final_evaluation import final_evaluation
from stcore.runs.folder import ENVIRONMENT, RESULT, RunFolder
from stcore.runs.plan import Plan
from stcore.runs.preparation import (
    average_of,
    batches_of,
    build_learner,
    check_data,
    check_norm,
    dependencies,
    environment,
    failure_policy_of,
    load_data,
    make_trainer,
    prepare,
    selection_of,
)
from stcore.runs.states import RunStates
from stcore.runs.store import RunStore, Unkept, weights_metadata
from stcore.training.state import TrainingStore


@dataclass(frozen=True)
class Outcome:
    """How a run ended: accuracies on the test split by checkpoint and attack, and the checkpoints' epochs.

    Checkpoints are `best` and `last`, with averaged weights also `best-ema` and `last-ema`.
    """

    folder: Path
    scores: dict[str, dict[str, Accuracy]]
    checkpoints: dict[str, int]
    epochs: int
    interrupted: bool


@dataclass(frozen=True)
class RunOptions:
    """What is asked of a run beside its settings: none of it changes its numbers.

    resume: go on from the state that the folder holds.   save_every: seconds between two states within an epoch.
    seconds: the time there is, after which the run stops as by Ctrl-C.   warn: told what is otherwise than it was.
    """

    resume: bool = False
    save_every: float = 300.0
    seconds: float | None = None
    warn: Callable[[str], None] = lambda text: None


def run(
    plan: Plan,
    out: Path,
    progress: Progress,
    on_row: Callable[[Mapping[str, Any]], None] = lambda row: None,
    on_begin: Callable[[], None] = lambda: None,
    options: RunOptions = RunOptions(),
) -> Outcome:
    """Trains by `run_on` as one process, or as one of the ranks that a launcher started, of which the first writes
    and speaks. DeviceError where another rank is lost, UsageError where another process is training in `out`."""
    check_norm(plan)
    backend, device = prepare(plan)
    ranks: Ranks = backend.join_ranks(device)
    if not options.resume and not ranks.rank:
        RunFolder.check_free(out)
    if ranks.rank:
        progress, on_row, on_begin = Silent(), lambda row: None, lambda: None
        options = replace(options, warn=lambda text: None)
    try:
        with ExitStack() as holding:

            def hold() -> None:
                if not ranks.rank:
                    holding.enter_context(held(out))

            def begin() -> None:
                if not options.resume:
                    hold()
                on_begin()

            if options.resume:
                hold()  # before its state is read
                check_unfinished(out)
            outcome = run_on(plan, ranks.gather(out)[0], progress, on_row, begin, options, backend, device, ranks)
    except Exception as error:
        if not ranks.lost(error):
            raise
        raise DeviceError(
            "ranks: another one is gone; the launcher says how it ended. Go on from the last state by stcli train "
            f"--resume {out}"
        ) from error
    ranks.leave()
    return outcome


def check_unfinished(out: Path) -> None:
    """UsageError where another process has finished the run since it was looked at."""
    if (out / RESULT).is_file():
        raise UsageError(f"run: {out} was finished by another process just now; the same command says its result")


def run_on(
    plan: Plan,
    out: Path,
    progress: Progress,
    on_row: Callable[[Mapping[str, Any]], None],
    on_begin: Callable[[], None],
    options: RunOptions,
    backend: Any,
    device: str,
    ranks: Ranks,
) -> Outcome:
    """Trains, selects, and evaluates the best and the last checkpoint on the test split; all lands in `out`.

    A run that was stopped, by whatever, goes on with `options.resume`: the weights, metrics and choices are then
    those of a run without a break.
    on_begin: called when all that was asked for has been found to be there.   on_row: with each epoch's metrics.
    """
    started = datetime.now(UTC)
    until = None if options.seconds is None else time.monotonic() + options.seconds
    splits = load_data(plan)
    selection = selection_of(plan, splits)
    extra = None if plan.extra_data is None else data.load_extra(plan.extra_data)
    batches = batches_of(plan, splits.train, extra)
    states = RunStates(out, options.save_every, dependencies(plan, backend, device) | {"ranks": ranks.count})
    state = states.latest(options.warn) if options.resume else None
    learner = build_learner(plan, backend, device, splits, options.warn, resumed=state is not None)
    learner = ranks.join(learner)
    batches = resident(batches, plan.resident, backend.free_memory(device), learner.resident)
    if not options.resume and not ranks.rank:
        RunFolder.create(out)
    ranks.gather(None)  # it is there
    folder = RunFolder(out)
    surroundings = environment(backend, device, splits, extra)
    if options.resume:
        check_data(folder, surroundings)
    on_begin()
    if not options.resume and not ranks.rank:
        folder.write_config(plan.flat())
    if folder.read_json(ENVIRONMENT) is None and not ranks.rank:  # a kill may have come between the two
        folder.write_json(ENVIRONMENT, surroundings)

    average = average_of(plan, learner)
    keeper: TrainingStore = Unkept()
    if not ranks.rank:
        keeper = RunStore(folder, states, learner, average, weights_metadata(plan, splits), on_row)
    trainer = make_trainer(plan, learner, average, batches, selection, keeper, progress, until, ranks)
    trainer.failure_policy = failure_policy_of(plan, selection, options.warn)
    if state is not None:
        trainer.recall(state)
        trainer.failure_policy.good = states.good(options.warn)
    if options.resume and not ranks.rank:
        sweep(out)
        folder.write_metrics(trainer.history)  # without the lines of epochs that are made again
    trainer.run()
    finished = len(trainer.history)
    checkpoints = {"best": trainer.best[1], "last": finished}
    if average is not None:
        checkpoints |= {"best-ema": average.best[1], "last-ema": finished}
    if trainer.interrupted:
        return Outcome(out, {}, checkpoints, finished, interrupted=True)

    scores = final_evaluation(plan, learner, splits.test, out, checkpoints, progress, until, ranks)
    if scores is None:
        return Outcome(out, {}, checkpoints, finished, interrupted=True)
    if ranks.rank:
        return Outcome(out, scores, checkpoints, finished, interrupted=False)
    folder.write_json(
        RESULT,
        {
            "split": "test",
            "images": len(splits.test),
            "epsilon": plan.eval_epsilon,
            "selected_on": f"{plan.select_by}@{plan.select}",
            "best_epoch": trainer.best[1],
            "epochs": finished,
            "checkpoint_epochs": checkpoints,
            "checkpoints": {name: as_json(accuracies) for name, accuracies in scores.items()},
            **trainer.failure_policy.summary(trainer.history),
            "started": started.isoformat(timespec="seconds"),
            "seconds": round((datetime.now(UTC) - started).total_seconds(), 1),
        },
    )
    states.clear()
    return Outcome(out, scores, checkpoints, finished, interrupted=False)
