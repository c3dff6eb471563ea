"""`stcli train --seeds 1..7`: trains one run per seed, each in its own process, and prints their table."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from stcore.cli.jobs import Job
from stcore.cli.many import carry_out
from stcore.cli.parsing import peek
from stcore.cli.training_plan import plan_from
from stcore.errors import UsageError
from stcore.runs.folder import CONFIG
from stcore.runs.plan import Plan, default_name

MOST = 1000  # seeds; more is a typing error
DRY_RUN = ("dry-run", "dry_run", "no-dry-run", "no_dry_run")
VALUELESS = ("json", *DRY_RUN)


def main(args: Sequence[str]) -> int:
    """Trains a run per seed; returns the exit code."""
    check_together(args)
    seeds, devices = parse_seeds(peek(args, "seeds") or ""), parse_devices(args)
    plan, out, options = plan_from(without(args, "seeds", "devices"))
    parent = Path(out) if out else Path("runs") / default_name(plan).removesuffix(f"-seed{plan.seed}")
    return carry_out(jobs_of(seeds, parent, own(args), plan), devices, options)


def jobs_of(seeds: Sequence[int], parent: Path, args: Sequence[str], plan: Plan) -> list[Job]:
    """A job per seed, each with its own folder. Raises UsageError if `parent` is a run itself."""
    if (parent / CONFIG).is_file():
        raise UsageError(f"out: expected a folder for runs; {parent} is a run itself. Choose another --out")
    return [
        Job(
            f"seed {seed}",
            parent / f"seed{seed}",
            (*args, "--seed", str(seed)),
            replace(plan, seed=seed),
            {"seed": seed},
        )
        for seed in seeds
    ]


def own(args: Sequence[str]) -> list[str]:
    """The options of each run: `args` without those for all runs together."""
    return without(args, "seeds", "devices", "json", "max-hours", "max_hours", "out")


def parse_seeds(text: str) -> tuple[int, ...]:
    """Seeds of 1..7, 1,2,5 or 1..3,7, in this order. Raises UsageError for another form or a repeated seed."""
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
    """The devices of --devices; one unnamed device (None) without it."""
    text = peek(args, "devices")
    if text is None:
        return (None,)
    devices = tuple(name.strip() for name in text.split(","))
    if not all(devices):
        raise UsageError(f"devices: expected devices such as cuda:0,cuda:1; received {text!r}")
    return devices


def without(args: Sequence[str], *names: str) -> list[str]:
    """The words without these options and their values."""
    kept: list[str] = []
    skip = False
    for arg in args:
        name, equals, _ = arg.removeprefix("--").partition("=")
        if skip:
            skip = False
        elif arg.startswith("--") and name in names:
            skip = not equals and name not in VALUELESS
        else:
            kept.append(arg)
    return kept


def check_together(args: Sequence[str], *, several: bool = False) -> None:
    """Raises UsageError for options that exclude each other, or that need --seeds. several: more than one run."""
    given = {name: peek(args, name) is not None for name in ("seeds", "seed", "resume", "devices", "device")}
    for one, other in (("seeds", "seed"), ("seeds", "resume"), ("devices", "device")):
        if given[one] and given[other]:
            raise UsageError(f"{one}: expected no --{other} with it; received both. Leave one out")
    if given["devices"] and not (given["seeds"] or several):
        raise UsageError("devices: expected --seeds with it, such as 1..7; received none. One run has --device")
