"""Several runs by one command: trains what is unfinished, then prints the results as tables or JSON.

Finished runs are skipped and unfinished ones resumed, so the same command continues an interrupted one. If one run
fails, the others still train.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeAlias

from stcore import errors
from stcore.base.files import held
from stcore.cli.children import Ended
from stcore.cli.jobs import Job, train
from stcore.cli.options import TrainOptions
from stcore.cli.table import read_runs
from stcore.cli.training_plan import run_options_from
from stcore.errors import UsageError
from stcore.results.tables.table import make_table
from stcore.results.tables.text import FORMATS
from stcore.runs.folder import CHECKPOINTS
from stcore.runs.record import read_record
from stcore.runs.states import tidy

Trains: TypeAlias = Callable[[Sequence[Job], Callable[[str], None]], dict[str, Ended | None]]
"""Trains runs, given what prints a line; returns how each ended, by name."""


def carry_out(
    jobs: Sequence[Job], devices: Sequence[str | None], options: TrainOptions, trains: Trains | None = None
) -> int:
    """Trains what is unfinished, by `trains` or in processes of this machine; prints tables, or JSON.

    Returns 0, the first failure's exit code, or 130 if interrupted.
    Raises UsageError, before any run starts, if a folder holds a run with other settings, or if another process
    runs these.
    """
    for job in jobs:
        job.check_same(devices)
    root = Path(options.out) if options.out else jobs[0].folder.parent

    def here(left: Sequence[Job], say: Callable[[str], None]) -> dict[str, Ended | None]:
        return train(left, devices, say, run_options_from(options, say).seconds)

    with alone_in(root):
        return _carry_out(jobs, options, trains or here)


@contextmanager
def alone_in(root: Path) -> Iterator[None]:
    """Context of the one process that trains in the folders below this one, which is made.

    Raises UsageError if it cannot be made, or if another process is there.
    """
    try:
        root.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"out: {root} cannot be made ({error.strerror}). Choose another folder") from error
    with held(root, "running several runs"):
        yield


def printer(*, as_json: bool) -> Callable[[str], None]:
    """Prints a line: on stderr beside JSON."""
    stream = sys.stderr if as_json else sys.stdout

    def say(text: str) -> None:
        stream.write(f"{text}\n")  # in one call, so that lines of several runs do not mix
        stream.flush()

    return say


def _carry_out(jobs: Sequence[Job], options: TrainOptions, trains: Trains) -> int:
    say = printer(as_json=options.json)
    before = [job for job in jobs if job.finished]
    for job in before:
        tidy(job.folder)
        say(f"[{job.name}] finished before: {job.folder}")
    left = [job for job in jobs if job not in before]
    ended = trains(left, say) if left else {}
    ended |= {job.name: Ended(errors.OK, ()) for job in before}
    if options.json:
        print(json.dumps([_result(job, ended[job.name]) for job in jobs], indent=2))
    else:
        say_tables([job.folder for job in jobs if job.finished], say)
    return concluded({job.name: ended[job.name] for job in jobs})


def say_tables(finished: Sequence[Path], say: Callable[[str], None]) -> None:
    """Prints a table per checkpoint of these runs, `best` first."""
    result = read_record(finished[0]).result if finished else None
    for checkpoint in CHECKPOINTS:
        if checkpoint in (result or {}).get("checkpoints", {}):
            runs = read_runs(list(map(str, finished)), checkpoint)
            say(f"\n{FORMATS['markdown'](make_table(runs, checkpoint))}".rstrip())


def _result(job: Job, how: Ended | None) -> dict[str, Any]:
    """A run in the JSON output: how it ended, and its result."""
    code = errors.INTERRUPTED if how is None else how.code
    said = {"last_lines": how.last_lines} if how is not None and code != errors.OK else {}
    result = read_record(job.folder).result if job.begun else None
    return {**job.about, "exit_code": code, "run": str(job.folder), **said, **(result or {})}


def concluded(ended: Mapping[str, Ended | None]) -> int:
    """Reports failed runs on stderr; returns the exit code."""
    for name, how in ended.items():
        if how is not None and how.code != errors.OK:
            said = "".join(f"\n    {line}" for line in how.last_lines)
            print(f"stcli: {name} ended with exit code {how.code}; its last lines:{said}", file=sys.stderr)
    codes = [errors.INTERRUPTED if how is None else how.code for how in ended.values()]
    if errors.INTERRUPTED in codes:
        print("stcli: interrupted; run the same command again to resume", file=sys.stderr)
        return errors.INTERRUPTED
    return next((code for code in codes if code != errors.OK), errors.OK)
