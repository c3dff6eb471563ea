"""Worker processes that take turns: one step of each per round, while the others wait."""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from typing import Any

from rounds import in_turns


def serve(run: Callable[[], Any], **extra: Any) -> None:
    """Runs a step for each line on standard input; prints its time, its memory and `extra` as a line of JSON."""
    for _ in sys.stdin:
        before, begun = resource.getrusage(resource.RUSAGE_SELF), time.perf_counter()
        run()
        seconds, after = time.perf_counter() - begun, resource.getrusage(resource.RUSAGE_SELF)
        faults = after.ru_minflt - before.ru_minflt
        answer = {"seconds": seconds, "page_faults": faults, "peak_mib": after.ru_maxrss / 1024, **extra}
        print(json.dumps(answer), flush=True)


class Worker:
    """A process of a script that calls `serve`, started with these options and environment variables."""

    def __init__(self, script: str, options: Mapping[str, Any], environment: Mapping[str, str]) -> None:
        flags = [word for name, value in options.items() for word in (f"--{name}", str(value))]
        self._process = subprocess.Popen(
            [sys.executable, script, *flags],
            env=os.environ | environment | {"TF_CPP_MIN_LOG_LEVEL": "3"},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def step(self) -> dict[str, Any]:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write("\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        if not line:
            raise SystemExit(f"a worker ended with exit code {self._process.wait()}; see its output above")
        answer: dict[str, Any] = json.loads(line)
        return answer

    def stop(self) -> None:
        self._process.communicate()


def take_turns(
    workers: Mapping[str, Worker], rounds: int
) -> tuple[dict[str, dict[str, Any]], dict[str, list[dict[str, Any]]]]:
    """The workers' answers to the first step, which may compile, and in each round. Stops the workers."""
    first, answers = in_turns({name: worker.step for name, worker in workers.items()}, rounds)
    for worker in workers.values():
        worker.stop()
    return first, answers
