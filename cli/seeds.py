"""`stcli train --seeds 1..7`: a run for each seed, in a process of its own, and the table over them.

A finished seed is not trained again, and an unfinished one goes on, so that the same command takes up all that is
left. What one seed fails at does not keep the others from training.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from stcore import errors
from stcore.cli.children import Ended
from stcore.cli.parsing import peek
from stcore.cli.seed_jobs import check_same, job_of, train
from stcore.cli.table import read_runs
from stcore.cli.train import default_name, keeping_from, plan_from
from stcore.comparison import read_record
from stcore.errors import UsageError
from stcore.run_table import make_table
from stcore.run_table_text import FORMATS
from stcore.runs import CHECKPOINTS, CONFIG, RESULT

MOST = 1000  # seeds; a slip of the finger asks for more


def main(args: Sequence[str]) -> int:
    """Trains each seed that `args` ask for; returns 0, the first failure's exit code, or 130 when interrupted."""
    check_together(args)
    seeds, devices = parse_seeds(peek(args, "seeds") or ""), parse_devices(args)
    plan, out, options = plan_from(without(args, "seeds", "devices"))
    own = without(args, "seeds", "devices", "json", "max-hours", "max_hours")
    parent = Path(out) if out else Path("runs") / default_name(plan).removesuffix(f"-seed{plan.seed}")
    if (parent / CONFIG).is_file():
        raise UsageError(f"out: expected a folder for runs; {parent} is a run itself. Choose another --out")
    folders = {seed: parent / f"seed{seed}" for seed in seeds}
    for folder in folders.values():
        check_same(folder, plan, devices)

    as_json = "--json" in args
    stream = sys.stderr if as_json else sys.stdout

    def say(text: str) -> None:
        stream.write(f"{text}\n")  # at once, for lines of several runs not to mix
        stream.flush()

    before = [seed for seed in seeds if (folders[seed] / RESULT).is_file()]
    for seed in before:
        say(f"[seed {seed}] finished before: {folders[seed]}")
    left = [job_of(seed, folders[seed]) for seed in seeds if seed not in before]
    ended = train(left, own, devices, say, keeping_from(options, say).seconds)
    ended |= {seed: Ended(errors.OK, ()) for seed in before}

    finished = [folders[seed] for seed in seeds if (folders[seed] / RESULT).is_file()]
    if as_json:
        print(json.dumps([_result(seed, folders[seed], ended[seed]) for seed in seeds], indent=2))
    else:
        for checkpoint in _checkpoints(finished):
            runs = read_runs(list(map(str, finished)), checkpoint)
            say(f"\n{FORMATS['markdown'](make_table(runs, checkpoint))}".rstrip())
    return _conclude({seed: ended[seed] for seed in seeds})


def parse_seeds(text: str) -> tuple[int, ...]:
    """1..7, also 1,2,5 and 1..3,7, as seeds in this order; UsageError for what is none, or one given twice."""
    seeds: list[int] = []
    for part in text.split(","):
        match = re.fullmatch(r"\s*(\d{1,18})(?:\.\.(\d{1,18}))?\s*", part, re.ASCII)
        first, last = (int(match[1]), int(match[2] or match[1])) if match else (1, 0)
        if first > last:
            raise UsageError(f"seeds: expected seeds such as 1..7, 1,2,5 or 1..3,7; received {text!r}")
        if len(seeds) + last - first + 1 > MOST:
            raise UsageError(f"seeds: expected at most {MOST} seeds; received {text!r}")
        seeds += range(first, last + 1)
    twice = sorted({seed for seed in seeds if seeds.count(seed) > 1})
    if twice:
        raise UsageError(f"seeds: expected each once; received {', '.join(map(str, twice))} more than once")
    return tuple(seeds)


def parse_devices(args: Sequence[str]) -> tuple[str | None, ...]:
    """The devices that train at the same time; one, not named, where `args` do not say."""
    text = peek(args, "devices")
    if text is None:
        return (None,)
    devices = tuple(name.strip() for name in text.split(","))
    if not all(devices):
        raise UsageError(f"devices: expected devices such as cuda:0,cuda:1; received {text!r}")
    return devices


def without(args: Sequence[str], *names: str) -> list[str]:
    """The words but for these options and their values."""
    kept: list[str] = []
    skip = False
    for arg in args:
        name, equals, _ = arg.removeprefix("--").partition("=")
        if skip:
            skip = False
        elif arg.startswith("--") and name in names:
            skip = not equals and name != "json"  # which takes no value
        else:
            kept.append(arg)
    return kept


def check_together(args: Sequence[str]) -> None:
    """UsageError for options that do not go with --seeds, or not without it."""
    given = {name: peek(args, name) is not None for name in ("seeds", "seed", "resume", "devices", "device")}
    for one, other in (("seeds", "seed"), ("seeds", "resume"), ("devices", "device")):
        if given[one] and given[other]:
            raise UsageError(f"{one}: expected no --{other} beside it; received both. Leave one out")
    if given["devices"] and not given["seeds"]:
        raise UsageError("devices: expected --seeds beside it, such as 1..7; received none. One run has --device")


def _checkpoints(finished: Sequence[Path]) -> list[str]:
    """Those that a run has, `best` first."""
    result = read_record(finished[0]).result if finished else None
    return [name for name in CHECKPOINTS if name in (result or {}).get("checkpoints", {})]


def _result(seed: int, folder: Path, how: Ended | None) -> dict[str, Any]:
    """What JSON says of a seed: how its run ended, and the run's own result."""
    code = errors.INTERRUPTED if how is None else how.code
    said = {"last_lines": how.last_lines} if how is not None and code != errors.OK else {}
    result = read_record(folder).result if (folder / CONFIG).is_file() else None
    return {"seed": seed, "exit_code": code, "run": str(folder), **said, **(result or {})}


def _conclude(ended: Mapping[int, Ended | None]) -> int:
    """Says on stderr which seeds failed, and returns the exit code."""
    for seed, how in ended.items():
        if how is not None and how.code != errors.OK:
            said = "".join(f"\n    {line}" for line in how.last_lines)
            print(f"stcli: seed {seed} ended with exit code {how.code}; it said last:{said}", file=sys.stderr)
    codes = [errors.INTERRUPTED if how is None else how.code for how in ended.values()]
    if errors.INTERRUPTED in codes:
        print("stcli: interrupted; the same command goes on", file=sys.stderr)
        return errors.INTERRUPTED
    return next((code for code in codes if code != errors.OK), errors.OK)
