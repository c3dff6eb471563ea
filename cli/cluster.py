"""`--cluster`: each run of a sweep is a job of SLURM, or of this machine, by submitit."""

from __future__ import annotations

import importlib
import signal
import subprocess
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from stcore import errors
from stcore.base.extras import of_extra
from stcore.base.files import read_json, write_json
from stcore.cli.children import LAST, Ended
from stcore.cli.jobs import Job, child_command
from stcore.errors import UsageError
from stcore.runs.record import metrics_so_far

KINDS = ("slurm", "local")
FOLDER = "cluster"
"""Where the jobs' logs and numbers are, in the folder of the sweep."""
JOBS = "jobs.json"
POLL = {"slurm": 10.0, "local": 0.5}
"""Seconds between two looks at the jobs."""


@dataclass
class Training:
    """What a job does: it starts the run, or resumes it. submitit keeps it in a file of the sweep's own folder.

    Before its time is up the job stops the run with its state saved, and is queued again.
    """

    job: Job
    _process: subprocess.Popen[str] | None = field(default=None, repr=False)

    def __call__(self) -> Ended:
        command = child_command(self.job.words(None, None))
        said = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
        with subprocess.Popen(command, stdin=subprocess.PIPE, **said) as self._process:  # type: ignore[call-overload]
            last: deque[str] = deque(maxlen=LAST)
            for line in self._process.stdout or ():
                print(line, end="", flush=True)
                last.append(line.rstrip("\n"))
        return Ended.of(self._process, last)

    def checkpoint(self) -> Any:
        """Called by submitit when the job's time is nearly up, or its node is wanted."""
        if self._process is not None and self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)
            self._process.wait()
        return importlib.import_module("submitit").helpers.DelayedSubmission(Training(self.job))


def parameters(words: Sequence[str]) -> dict[str, Any]:
    """submitit's parameters from NAME=VALUE. Raises UsageError for another form."""
    given: dict[str, Any] = {}
    for word in words:
        name, equals, value = word.partition("=")
        if not (name and equals and value):
            raise UsageError(
                f"cluster_option: expected NAME=VALUE, such as slurm_partition=gpu; received {word!r}"
            )
        given[name] = int(value) if value.lstrip("-").isdigit() else value
    return given


def train(
    jobs: Sequence[Job], kind: str, given: Mapping[str, Any], root: Path, say: Callable[[str], None]
) -> dict[str, Ended | None]:
    """Submits the runs that have no job yet, and follows all jobs to their ends; None for one that still is there.

    Ctrl-C ends the jobs of this machine; those of SLURM stay queued, and the same command follows them again.
    Raises UsageError for a missing submitit, a cluster that is not there, or a parameter that it does not know.
    """
    executor = _executor(kind, given, root / FOLDER)
    (root / FOLDER).mkdir(parents=True, exist_ok=True)
    at_work = _submitted(jobs, executor, root / FOLDER / JOBS, say)
    ended: dict[str, Ended | None] = {job.name: None for job in jobs}
    epochs = dict.fromkeys(ended, 0)
    try:
        while waiting := [job for job in jobs if ended[job.name] is None]:
            for job in waiting:
                rows = len(metrics_so_far(job.folder))
                if rows > epochs[job.name]:
                    say(f"[{job.name}] epoch {rows}/{job.plan.optimisation.epochs}")
                    epochs[job.name] = rows
                if at_work[job.name].done():
                    ended[job.name] = how = _end(at_work[job.name])
                    say(f"[{job.name}] job {at_work[job.name].job_id} ended with exit code {how.code}")
            time.sleep(POLL[kind] if None in ended.values() else 0)
    except KeyboardInterrupt:
        left = [at_work[job.name] for job in jobs if ended[job.name] is None]
        if kind == "local":
            for one in left:
                one.cancel()
        else:
            say(f"jobs {', '.join(one.job_id for one in left)} stay in the queue; scancel takes them out")
    return ended


def _executor(kind: str, given: Mapping[str, Any], folder: Path) -> Any:
    submitit = of_extra("cluster", "submitit", "cluster")
    try:
        executor = submitit.AutoExecutor(folder=folder / "%j", cluster=kind)
    except RuntimeError as error:
        raise UsageError(f"cluster: expected {kind} on this machine; received: {error}") from error
    try:
        executor.update_parameters(**{"name": "stcli", **given})
    except (NameError, TypeError, ValueError, AssertionError) as error:
        raise UsageError(f"cluster_option: expected submitit's parameters; received: {error}") from error
    return executor


def _submitted(jobs: Sequence[Job], executor: Any, file: Path, say: Callable[[str], None]) -> dict[str, Any]:
    """The job of each run by name: the one that was submitted before and is there still, or a new one."""
    known: dict[str, str] = read_json(file) if file.is_file() else {}
    kind = executor._executor.job_class
    found = {}
    for job in jobs:
        if (number := known.get(str(job.folder))) is not None:
            before = kind(folder=executor.folder, job_id=number, tasks=[0])
            if not before.done():
                found[job.name] = before
                say(f"[{job.name}] job {number}, submitted before")
    new = [job for job in jobs if job.name not in found]
    with executor.batch():
        submitted = [executor.submit(Training(job)) for job in new]
    for job, one in zip(new, submitted, strict=True):
        found[job.name] = one
        known[str(job.folder)] = one.job_id
        say(f"[{job.name}] job {one.job_id}")
    write_json(file, known)
    return found


def _end(job: Any) -> Ended:
    """How a job ended; with the end of its log if it left no result."""
    try:
        how = job.result()
        return how if isinstance(how, Ended) else Ended(errors.BUG, (f"unexpected result {how!r}",))
    except Exception as error:  # submitit passes on whatever a job raised, or that it left nothing
        return Ended(errors.BUG, tuple(str(error).splitlines()[-LAST:]))
