"""The runs of a training over seeds: what is left to do for each; on each device one trains at a time."""

from __future__ import annotations

import json
import sys
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from stcore import errors
from stcore.cli.children import Children, Ended
from stcore.cli.parsing import peek
from stcore.errors import UsageError
from stcore.plan import Plan
from stcore.run_table_reading import settings_of
from stcore.runs import CONFIG, RunFolder


@dataclass(frozen=True)
class Job:
    """One seed's run. device: of a run that was begun before; None for one that is yet to begin."""

    seed: int
    folder: Path
    device: str | None

    def words(self, args: Sequence[str], lane: str | None, hours: float | None) -> list[str]:
        """The words of the command that begins it, or lets it go on, on this device for so many hours."""
        on = ["--device", lane] if lane is not None else []
        on += ["--max-hours", f"{hours:.6f}"] if hours is not None else []
        if self.device is None:
            return ["train", *args, "--seed", str(self.seed), "--out", str(self.folder), *on]
        every = peek(args, "save_every")
        return ["train", "--resume", str(self.folder), *(["--save-every", every] if every else []), *on]


def job_of(seed: int, folder: Path) -> Job:
    """What is left to do for this seed."""
    begun = (folder / CONFIG).is_file()
    return Job(seed, folder, RunFolder.open(folder).read_config().get("device", "auto") if begun else None)


def check_same(folder: Path, plan: Plan, devices: Sequence[str | None]) -> None:
    """UsageError where a run that is there already was made by another command."""
    if not (folder / CONFIG).is_file():
        return
    there = settings_of(RunFolder.open(folder).read_config())
    asked = settings_of(json.loads(json.dumps(plan.flat())))
    for name in {**asked, **there}:
        if there.get(name) != asked.get(name) and not (name == "device" and any(devices)):
            was, here = there.get(name, "none"), asked.get(name, "none")
            raise UsageError(
                f"out: {folder} holds another run: its {name} is {was}, here it is {here}. Choose another --out"
            )


def train(
    jobs: Sequence[Job],
    args: Sequence[str],
    devices: Sequence[str | None],
    say: Callable[[str], None],
    seconds: float | None = None,
) -> dict[int, Ended | None]:
    """How each seed's run ended; None for those that never began, since an interruption came before.

    devices: each trains one run at a time; None is the one that `args` say, or the default.
    seconds: the time there is for all of them together.
    """
    end = None if seconds is None else time.monotonic() + seconds
    waiting, taking = list(jobs), threading.Lock()
    ended: dict[int, Ended | None] = {job.seed: None for job in jobs}

    def lane(device: str | None) -> None:
        while True:
            with taking:  # runs that were begun on another device come last: theirs may yet be free for them
                waiting.sort(key=lambda job: job.device not in (None, device))
                if not waiting:
                    return
                job = waiting.pop(0)
            left = None if end is None else max(0.0, end - time.monotonic())
            words = job.words(args, device, None if left is None else left / 3600)
            command = [sys.executable, "-m", "stcore.cli.main", *words]
            how = ended[job.seed] = children.run(f"[seed {job.seed}]", command)
            if how is not None and how.code == errors.INTERRUPTED:
                children.stop()  # its time is up, and so is that of the others

    with Children(say) as children, ThreadPoolExecutor(len(devices)) as lanes:
        list(lanes.map(lane, devices))
    return ended
