"""Queue of training runs, each in its own process; one at a time per device."""

from __future__ import annotations

import contextlib
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stcore import errors
from stcore.base import files
from stcore.cli.children import Children, Ended
from stcore.cli.parsing import peek
from stcore.errors import UsageError
from stcore.runs.folder import CONFIG, RESULT, RunFolder
from stcore.runs.plan import Plan, make_plan
from stcore.runs.record import settings_of


@dataclass(frozen=True)
class Job:
    """One run of a command.

    name: the mark of its output lines.   args: its `stcli train` options, without folder and device.
    plan: the plan they make.   about: its identity in the JSON output.
    """

    name: str
    folder: Path
    args: tuple[str, ...]
    plan: Plan
    about: Mapping[str, Any]

    @property
    def begun(self) -> bool:
        return (self.folder / CONFIG).is_file()

    @property
    def finished(self) -> bool:
        return (self.folder / RESULT).is_file()

    @property
    def device(self) -> str | None:
        """The device of a run that has begun; None before."""
        return RunFolder.open(self.folder).read_config().get("device", "auto") if self.begun else None

    def words(self, lane: str | None, hours: float | None) -> list[str]:
        """The command that starts or resumes it on a device, for at most `hours`."""
        on = ["--device", lane] if lane is not None else []
        on += ["--max-hours", f"{hours:.6f}"] if hours is not None else []
        if not self.begun:
            return ["train", *self.args, "--out", str(self.folder), *on]
        every = peek(self.args, "save_every")
        return ["train", "--resume", str(self.folder), *(["--save-every", every] if every else []), *on]

    def check_same(self, devices: Sequence[str | None]) -> None:
        """Raises UsageError if its folder holds a run with other settings."""
        if not self.begun:
            return
        there = _compared(_complete(RunFolder.open(self.folder).read_config()))
        asked = _compared(files.as_plain(self.plan.flat()))
        for name in {**asked, **there}:
            if there.get(name) != asked.get(name) and not (name == "device" and any(devices)):
                was, here = there.get(name, "none"), asked.get(name, "none")
                raise UsageError(
                    f"out: {self.folder} holds another run: its {name} is {was}, here it is {here}. "
                    "Choose another --out"
                )


def _complete(config: Mapping[str, Any]) -> dict[str, Any]:
    """A run's settings, completed by the defaults of settings that later versions added."""
    made = make_plan({name: value for name, value in config.items() if name != "preset"}).flat()
    return {**files.as_plain(made), **config}


def _compared(flat: Mapping[str, Any]) -> dict[str, Any]:
    return {**settings_of(flat), "seed": flat.get("seed", 0)}


def child_command(words: Sequence[str]) -> list[str]:
    """`stcli WORDS` as a child process.

    -P keeps the working directory off the head of the import path, as it is for `stcli` itself: a folder `stcore/`
    there, such as a checkout's, does not hide the installed package. See `cli/child.py`.
    """
    return [sys.executable, "-P", "-m", "stcore.cli.child", *words]


def run_job(
    children: Children,
    job: Job,
    mark: str,
    device: str | None,
    seconds: float | None,
    heed: Callable[[], bool] = lambda: False,
) -> Ended | None:
    """Starts or resumes a run, for at most `seconds`; mark and heed as in `Children.run`."""
    if job.folder.is_dir() and not job.begun:
        with contextlib.suppress(UsageError), files.held(job.folder):
            files.sweep(job.folder)  # a kill may have interrupted the first write
    words = job.words(device, None if seconds is None else seconds / 3600)
    return children.run(mark, child_command(words), heed)


def train(
    jobs: Sequence[Job],
    devices: Sequence[str | None],
    say: Callable[[str], None],
    seconds: float | None = None,
) -> dict[str, Ended | None]:
    """Trains the runs; returns how each ended, by name, or None for a run that an interruption kept from starting.

    devices: each trains one run at a time; None stands for the device in a run's `args`, or the default.
    seconds: time limit for all runs together.
    """
    end = None if seconds is None else time.monotonic() + seconds
    on = {job.name: job.device for job in jobs}
    waiting, taking = list(jobs), threading.Lock()
    ended: dict[str, Ended | None] = {job.name: None for job in jobs}

    def lane(device: str | None) -> None:
        while True:
            with taking:
                if device is not None:  # runs begun on another device come last: theirs may become free
                    waiting.sort(key=lambda job: on[job.name] not in (None, device))
                if not waiting:
                    return
                job = waiting.pop(0)
            left = None if end is None else max(0.0, end - time.monotonic())
            how = ended[job.name] = run_job(children, job, f"[{job.name}]", device, left)
            if how is not None and how.code == errors.INTERRUPTED:
                children.stop()  # the time is up for the others too

    with Children(say) as children, ThreadPoolExecutor(len(devices)) as lanes:
        list(lanes.map(lane, devices))
    return ended
