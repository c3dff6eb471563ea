"""Timing in rounds: runners take turns within each round, so a machine that slows down slows all of them.

Ratios are computed round by round and given as their median and range. Results are written as JSON and as a page
of Markdown with the command that measured them.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shlex
import statistics
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from stcore.base.machine import processor

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # idle threads of one engine must not spin beside another
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

Seconds = dict[str, list[float]]
T = TypeVar("T")


def take_turns(runners: Mapping[str, Callable[[], Any]], rounds: int) -> tuple[dict[str, float], Seconds]:
    """Seconds of each runner's first run, with warm-up, tracing and compilation, and of its run in each round."""
    return in_turns({name: partial(_timed, run) for name, run in runners.items()}, rounds)


def in_turns(runners: Mapping[str, Callable[[], T]], rounds: int) -> tuple[dict[str, T], dict[str, list[T]]]:
    """The result of each runner's first run, and of its run in each round."""
    first = {name: run() for name, run in runners.items()}
    given: dict[str, list[T]] = {name: [] for name in runners}
    for number in range(rounds):
        for name, run in runners.items():
            given[name].append(run())
        print(f"round {number + 1}/{rounds} done", flush=True)
    return first, given


def ratio(seconds: Seconds, one: str, other: str) -> tuple[float, float, float]:
    """The ratios of two runners' times, round by round: median, smallest, largest."""
    return spread(a / b for a, b in zip(seconds[one], seconds[other], strict=True))


def spread(values: Iterable[float]) -> tuple[float, float, float]:
    """Median, smallest and largest."""
    ordered = sorted(values)
    return statistics.median(ordered), ordered[0], ordered[-1]


def said(values: tuple[float, float, float]) -> str:
    """0.86 [0.85..0.87]"""
    return "{:.2f} [{:.2f}..{:.2f}]".format(*values)


def table(head: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """A Markdown table."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(map(str, line)) + " |" for line in lines)


def command(parser: argparse.ArgumentParser, args: argparse.Namespace, *hidden: str) -> str:
    """The command with these options; defaults, the output folder and the hidden options are left out."""
    words = ["python", f"benchmarks/{parser.prog}"]
    for action in parser._actions:
        value = getattr(args, action.dest, None)
        if action.dest in ("help", "out", *hidden) or value == action.default:
            continue
        name = action.option_strings[:1]
        words += [
            *name,
            *map(str, value if isinstance(value, (list, tuple)) else [] if value is True else [value]),
        ]
    return shlex.join(words)


def publish(
    out: Path,
    name: str,
    title: str,
    description: str,
    ran: str,
    body: str,
    settings: Mapping[str, Any],
    versions: Mapping[str, str],
    **results: Any,
) -> None:
    """Writes NAME.json and the page NAME.md, and prints the page."""
    out.mkdir(parents=True, exist_ok=True)
    keep(out / f"{name}.json", settings, versions, **results)
    software = ", ".join(f"{package} {version}" for package, version in versions.items())
    page = f"# {title}\n\n{description} {processor()}; {software}.\n\n    {ran}\n\n{body}\n"
    (out / f"{name}.md").write_text(page)
    print(f"\n{page}")


def keep(path: Path, settings: Mapping[str, Any], versions: Mapping[str, str], **results: Any) -> None:
    """Writes the results as JSON, with the settings and the environment."""
    environment = {"platform": platform.platform(), "processor": processor(), "cpus": os.cpu_count(), **versions}
    content = {"settings": settings, "environment": environment, **results}
    path.write_text(json.dumps(content, indent=1, default=str) + "\n")


def _timed(run: Callable[[], Any]) -> float:
    begun = time.perf_counter()
    run()
    return time.perf_counter() - begun
