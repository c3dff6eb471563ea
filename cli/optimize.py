"""`stcli sweep --optimize`: a search by optuna over settings, resumable, that stops runs of little promise."""

from __future__ import annotations

import importlib
import json
import threading
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stcore import errors
from stcore.base.extras import of_extra
from stcore.base.files import as_plain
from stcore.cli.children import Children, Ended
from stcore.cli.jobs import Job, run_job
from stcore.cli.many import alone_in, concluded, printer, say_tables
from stcore.cli.options import SweepOptions
from stcore.cli.search_space import Space, space_of, suggested
from stcore.errors import UsageError
from stcore.runs.plan import Plan
from stcore.runs.preparation import monitors
from stcore.runs.record import metrics_so_far, settings_of

STORAGE = "search.db"
"""The search's file in its folder: a SQLite data base that optuna's own tools read."""
BROKEN_OFF = "broken off"
"""The study's list of trials that a stop or a kill broke off: others continue their runs."""
STOPPED = "stopped after epoch"
"""The mark of a trial whose run was asked to stop."""
AGAIN = 10
"""How often a lane asks for a point whose run does not train in another lane."""
WARMUP = 0.25
"""The share of the epochs in which no run is stopped."""

JobOf = Callable[[Mapping[str, Any]], Job]
"""The run of a point."""


@dataclass(frozen=True)
class Search:
    """A search for the settings with the highest figure on the images that select the best epoch.

    study: optuna's.   space: of the settings.   job_of: the run of a point.   figure: natural or an attack.
    trials: how many in all.
    """

    study: Any
    space: Space
    job_of: JobOf
    figure: str
    trials: int

    def made(self) -> list[Any]:
        """The trials so far, without those that another took up and those that wait."""
        gone = self.study.user_attrs.get(BROKEN_OFF, [])
        waiting = _states().WAITING
        return [trial for trial in self.study.trials if trial.number not in gone and trial.state != waiting]

    def take_up(self) -> None:
        """Proposes again the points of trials that were broken off."""
        for trial in self.study.get_trials(states=[_states().RUNNING]):
            self._forget(trial)
            self.study.enqueue_trial(trial.params)

    def _forget(self, trial: Any) -> None:
        self.study.set_user_attr(BROKEN_OFF, [*self.study.user_attrs.get(BROKEN_OFF, []), trial.number])
        self.study.tell(trial.number, state=_states().FAIL)

    def ask(self, elsewhere: Collection[Path]) -> tuple[Any, Job] | None:
        """The next trial and its run; None if there is none, or only in folders that train elsewhere now."""
        for _ in range(AGAIN):
            if len(self.made()) >= self.trials:
                return None
            trial = self.study.ask()
            job = self.job_of(suggested(self.space, trial))
            if job.folder not in elsewhere:
                trial.set_user_attr("run", str(job.folder))
                return trial, job
            self._forget(trial)
        return None

    def heeds(self, trial: Any, job: Job) -> Callable[[], bool]:
        """A function that reports a run's new epochs, and says whether to stop it."""
        told = 0

        def heed() -> bool:
            nonlocal told
            values = figures(job.folder, self.figure)
            for epoch in range(told, len(values)):
                trial.report(max(values[: epoch + 1]), epoch + 1)
            whole = len(values) == job.plan.optimisation.epochs
            stops = len(values) > told and not whole and trial.should_prune()
            told = len(values)
            if stops:
                trial.set_user_attr(STOPPED, told)
            return bool(stops)

        return heed

    def tell(self, trial: Any, job: Job, how: Ended | None) -> Ended | None:
        """Records how a trial's run ended, and returns it; to be stopped early is no failure.

        A trial that was broken off stays open.
        """
        if job.finished:
            self.study.tell(trial, max(figures(job.folder, self.figure)))
        elif STOPPED in trial.user_attrs and how is not None and how.code == errors.INTERRUPTED:
            self.study.tell(trial, state=_states().PRUNED)
            return Ended(errors.OK, ())
        elif how is not None and how.code != errors.INTERRUPTED:
            self.study.tell(trial, state=_states().FAIL)
        return how


def figures(folder: Path, figure: str) -> list[float]:
    """The figure of each epoch so far: the better of the trained and the averaged weights'."""
    names = (f"{figure}_accuracy", f"ema_{figure}_accuracy")
    return [max(row[name] for name in names if name in row) for row in metrics_so_far(folder)]


def main(options: SweepOptions, plan: Plan, job_of: JobOf, devices: Sequence[str | None]) -> int:
    """Makes the trials that are left, and prints the best and the table; returns the exit code.

    plan: of the settings that all runs share.
    Raises UsageError for a figure that the runs do not measure, a missing optuna, or a folder of another search.
    """
    figure = str(options.optimize)
    known = ("natural", *monitors(plan))
    if figure not in known:
        raise UsageError(
            f"optimize: expected a figure of every epoch, one of {', '.join(known)}; received {figure!r}. "
            "--select-by adds another"
        )
    root = Path(str(options.out))
    with alone_in(root):
        search = Search(
            _study(root, options, plan), space_of(options.vary, options.method), job_of, figure, options.trials
        )
        search.take_up()
        return _carry_out(search, devices, options)


def _states() -> Any:
    return importlib.import_module("optuna.trial").TrialState


def _study(root: Path, options: SweepOptions, plan: Plan) -> Any:
    """optuna's study in the folder, made if there is none."""
    optuna = of_extra("optimize", "optuna", "search")
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    epochs = plan.optimisation.epochs
    study = optuna.create_study(
        storage=f"sqlite:///{(root / STORAGE).resolve()}",
        study_name="stcli sweep",
        direction="maximize",
        load_if_exists=True,
        pruner=optuna.pruners.MedianPruner(n_startup_trials=4, n_warmup_steps=round(WARMUP * epochs)),
    )
    drawn = plan.seed + len(study.trials)  # a sampler that is made again would repeat its first draws
    study.sampler = optuna.samplers.TPESampler(seed=drawn, constant_liar=True)
    varied = {word.partition("=")[0].strip().replace("-", "_") for word in options.vary}
    shared = {name: value for name, value in as_plain(settings_of(plan.flat())).items() if name not in varied}
    asked = {"figure": options.optimize, "space": sorted(options.vary), "settings": shared, "seed": plan.seed}
    there = study.user_attrs.get("asked")
    if there is None:
        study.set_user_attr("asked", asked)
    elif there != asked:
        wrong = next(name for name in asked if there.get(name) != asked[name])
        raise UsageError(
            f"out: {root} holds another search: its {wrong} is {there.get(wrong)}, here it is {asked[wrong]}. "
            "Choose another --out"
        )
    return study


def _carry_out(search: Search, devices: Sequence[str | None], options: SweepOptions) -> int:
    say = printer(as_json=options.json)
    end = None if options.max_hours is None else time.monotonic() + 3600 * options.max_hours
    taking, training = threading.Lock(), set[Path]()
    ended: dict[str, Ended | None] = {}

    def lane(device: str | None) -> None:
        while True:
            with taking:
                asked = None if children.stopped else search.ask(training)
                if asked is None:
                    return
                trial, job = asked
                training.add(job.folder)
            name, heed = f"trial {trial.number + 1}: {job.name}", search.heeds(trial, job)
            seconds = None if end is None else max(0.0, end - time.monotonic())
            how: Ended | None = Ended(errors.OK, ())
            if not job.finished:  # another trial proposed this point
                how = run_job(children, job, f"[{name}]", device, seconds, heed)
            with taking:
                training.remove(job.folder)
                said = ended[name] = search.tell(trial, job, how)
            if said != how:
                say(f"[{name}] stopped: its {search.figure} is below the median of the trials before it")
            if said is None or said.code == errors.INTERRUPTED:
                children.stop()  # the time is up for the others too

    with Children(say) as children, ThreadPoolExecutor(len(devices)) as lanes:
        list(lanes.map(lane, devices))
    _report(search, say, as_json=options.json)
    return concluded(ended)


def _report(search: Search, say: Callable[[str], None], *, as_json: bool) -> None:
    """The trials as JSON, or the table of the finished runs and the best."""
    told = search.made()
    if as_json:
        said = [
            {
                "trial": trial.number + 1,
                "state": trial.state.name.lower(),
                search.figure: trial.value,
                "settings": trial.params,
                "run": trial.user_attrs.get("run"),
            }
            for trial in told
        ]
        print(json.dumps(said, indent=2))
        return
    complete = [trial for trial in told if trial.value is not None]
    say_tables(list(dict.fromkeys(Path(trial.user_attrs["run"]) for trial in complete)), say)
    if complete:
        best = max(complete, key=lambda trial: trial.value)
        say(
            f"best of {len(told)} trials: {search.figure} {100 * best.value:.2f} % on the images that choose the "
            f"epoch, in {best.user_attrs['run']}"
        )
