"""A training run: from a plan to trained, selected and evaluated weights in the run folder."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from stcore.base import checks
from stcore.base.files import held, sweep
from stcore.base.progress import Progress, Silent
from stcore.base.ranks import Ranks
from stcore.errors import DeviceError, UsageError
from stcore.evaluation.accuracy import Accuracy
from stcore.evaluation.results import as_json
from stcore.runs.final_evaluation import final_evaluation
from stcore.runs.folder import ENVIRONMENT, RESULT, RunFolder
from stcore.runs.images_list import write_images
from stcore.runs.plan import Plan
from stcore.runs.preparation import NOTHING_GIVEN, Given, Setup, check_norm, check_same_data, set_up
from stcore.runs.states import RunStates
from stcore.runs.store import NullStore, RunStore, weights_metadata
from stcore.training.state import TrainingStore


@dataclass(frozen=True)
class Outcome:
    """The result of a run: accuracies on the test split by checkpoint and attack, and the checkpoints' epochs.

    Checkpoints are `best` and `last`, with averaged weights also `best-ema` and `last-ema`.
    """

    folder: Path
    scores: dict[str, dict[str, Accuracy]]
    checkpoints: dict[str, int]
    epochs: int
    interrupted: bool


@dataclass(frozen=True)
class RunOptions:
    """Run options that do not affect the results.

    resume: continue from the state in the folder.   save_every: seconds between two states within an epoch.
    seconds: time limit, after which the run stops as by Ctrl-C.   warn: is given what differs from before.
    """

    resume: bool = False
    save_every: float = 300.0
    seconds: float | None = None
    warn: Callable[[str], None] = lambda text: None

    @classmethod
    def of(
        cls, resume: bool, save_every: float, max_hours: float | None, warn: Callable[[str], None]
    ) -> RunOptions:
        """The options in the units of `stcli train`. Raises UsageError for a number below 0."""
        checks.number("save_every", save_every)
        if max_hours is not None:
            checks.number("max_hours", max_hours)
        return cls(resume, save_every, None if max_hours is None else 3600 * max_hours, warn)


def run(
    plan: Plan,
    out: Path,
    progress: Progress,
    on_row: Callable[[Mapping[str, Any]], None] = lambda row: None,
    on_begin: Callable[[], None] = lambda: None,
    options: RunOptions = RunOptions(),
    on_step: Callable[[int, Mapping[str, float]], None] = lambda step, metrics: None,
    given: Given = NOTHING_GIVEN,
) -> Outcome:
    """Trains by `train` as one process, or as one rank of several, of which the first writes and prints.

    given: objects in place of what the plan names.
    Raises DeviceError if another rank is lost, UsageError if another process is training in `out`.
    """
    check_norm(plan)
    setup = set_up(plan, given=given)
    ranks: Ranks = setup.backend.join_ranks(setup.device)
    if not options.resume and not ranks.rank:
        RunFolder.check_free(out)
    if ranks.rank:
        progress, on_row, on_begin, on_step = Silent(), lambda row: None, lambda: None, lambda step, metrics: None
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
            outcome = train(setup, ranks.gather(out)[0], progress, on_row, begin, on_step, options, ranks)
            ranks.gather(None)  # the result is written
    except Exception as error:
        if not ranks.lost(error):
            raise
        raise DeviceError(
            "ranks: another one is gone; the launcher says how it ended. Resume from the last state by stcli "
            f"train --resume {out}"
        ) from error
    ranks.leave()
    return outcome


def check_unfinished(out: Path) -> None:
    """UsageError if another process has finished the run in the meantime."""
    if (out / RESULT).is_file():
        raise UsageError(f"run: {out} was finished by another process just now; the same command says its result")


def train(
    setup: Setup,
    out: Path,
    progress: Progress,
    on_row: Callable[[Mapping[str, Any]], None],
    on_begin: Callable[[], None],
    on_step: Callable[[int, Mapping[str, float]], None],
    options: RunOptions,
    ranks: Ranks,
) -> Outcome:
    """Trains, selects, and evaluates the best and the last checkpoint on the test split; writes all to `out`.

    With `options.resume` a stopped run continues: weights, metrics and choices are then those of a run without a
    break.
    on_begin: called once data, weights and device are loaded.   on_row: called with each epoch's metrics.
    on_step: see `Trainer`.
    """
    started, plan = datetime.now(UTC), setup.plan
    until = None if options.seconds is None else time.monotonic() + options.seconds
    setup.check_data()
    dependencies = setup.dependencies() | {"ranks": ranks.count}
    states = RunStates(out, options.save_every, dependencies, plan.flat())
    state = states.latest(options.warn) if options.resume else None
    learner = ranks.join(setup.learner(options.warn, resumed=state is not None))
    batches, teacher = setup.batches_of(learner), setup.teacher(out if options.resume else None)
    if not options.resume and not ranks.rank:
        RunFolder.create(out)
    if teacher is not None and not ranks.rank:
        teacher.keep(out)
    ranks.gather(None)  # the folder exists
    folder = RunFolder(out)
    environment = setup.environment()
    if options.resume:
        check_same_data(folder, environment)
    on_begin()
    if not options.resume and (doubt := setup.doubt_of_selection()):
        options.warn(doubt)
    if not ranks.rank:
        sweep(out)
    if not options.resume and not ranks.rank:
        folder.write_config(plan.flat())
    if folder.read_json(ENVIRONMENT) is None and not ranks.rank:  # a kill may have come between the two
        folder.write_json(ENVIRONMENT, environment)
        write_images(out, setup.splits)

    average = setup.average(learner)
    store: TrainingStore = NullStore()
    if not ranks.rank:
        metadata = weights_metadata(plan, setup.splits.train)
        store = RunStore(folder, states, learner, average, metadata, on_row)
    trainer = setup.trainer(learner, average, teacher, batches, store, progress, until, ranks)
    trainer.on_step = on_step
    trainer.failure_policy = setup.failure_policy(options.warn)
    if state is not None:
        trainer.restore(state)
        trainer.failure_policy.good = states.good(options.warn)
    if options.resume and not ranks.rank:
        folder.write_metrics(trainer.history)  # without the epochs that are trained again
    trainer.run()
    learner.set_learning_rate(plan.optimisation.learning_rate)  # that which a given optimizer had
    finished = len(trainer.history)
    checkpoints = {"best": trainer.best[1], "last": finished}
    if average is not None:
        checkpoints |= {"best-ema": average.best[1], "last-ema": finished}
    if trainer.interrupted:
        return Outcome(out, {}, checkpoints, finished, interrupted=True)

    scores = final_evaluation(plan, learner, setup.test, out, checkpoints, progress, until, ranks)
    if scores is None:
        return Outcome(out, {}, checkpoints, finished, interrupted=True)
    if ranks.rank:
        return Outcome(out, scores, checkpoints, finished, interrupted=False)
    folder.write_json(
        RESULT,
        {
            "split": "test",
            "images": len(setup.test),
            "epsilon": plan.evaluation.epsilon,
            "selected_on": f"{plan.evaluation.select_by}@{plan.evaluation.select}",
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
