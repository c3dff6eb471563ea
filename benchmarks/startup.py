"""CPU time of a start: from the beginning of a process to the first attack of an evaluation or the first step.

    python benchmarks/startup.py parquet:DIR [--backend torch] [--model small-cnn] [--rounds 3]
        [--out docs/results]

Each start is a process of its own that ends there, with an empty cache of decoded images, with a full one, and
with the cache off; they take turns. Two trainings that wait side by side then show the memory that they share.
Writes startup.md and startup.json, of Keras startup-keras.*.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import rounds

from stcore.core.dispatch import load_backend
from stcore.data.cache import FOLDER

IMPORT, EVALUATE, TRAIN = "import the framework", "stcli evaluate", "stcli train"
OFF, EMPTY, FULL = "off", "empty", "full"
REACHED = "reached after"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dataset", help="what is decoded, such as parquet:DIR")
    parser.add_argument("--backend", choices=("torch", "keras"), default="torch")
    parser.add_argument("--model", default="small-cnn")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--out", type=Path, default=Path("docs/results"))
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        starts = Starts(Path(folder), args)
        starts.prepare()
        found = starts.measure(args.rounds)
        memory = starts.memory()
    publish(parser, args, found, memory)


class Starts:
    """The commands that are measured, with a run and a cache in a folder of their own."""

    def __init__(self, folder: Path, args: argparse.Namespace) -> None:
        self.run, self.cache, self.out = folder / "run", folder / "cache", folder / "out"
        self.backend, self.dataset = args.backend, args.dataset
        self.train = ["train", "--dataset", args.dataset, "--backend", args.backend, "--model", args.model]
        self.train += ["--threads", "1"]
        chosen = ["--checkpoint", "last", "--attacks", "fgsm", "--no-audit", "--threads", "1"]
        self.evaluate = ["evaluate", str(self.run), *chosen]

    def prepare(self) -> None:
        """A run to evaluate, and the bytecode of everything."""
        short = ["--epochs", "1", "--train-size", "200", "--validation-size", "20", "--test-size", "20"]
        self._process("stcli", [*self.train, *short, "--attacks", "", "--out", str(self.run)], OFF)
        config = self.run / "config.toml"  # from here on all test images
        kept = [line for line in config.read_text().splitlines() if not line.startswith("test_size")]
        config.write_text("\n".join(kept) + "\n")

    def measure(self, count: int) -> dict[str, list[float]]:
        """CPU seconds, user and system, of all threads."""
        found: dict[str, list[float]] = {}
        for number in range(count):
            found.setdefault(IMPORT, []).append(self._spent(IMPORT, [], OFF))
            for what, words in ((EVALUATE, self.evaluate), (TRAIN, [*self.train, "--out", str(self.out)])):
                for state in (OFF, EMPTY, FULL):
                    if state == EMPTY:
                        shutil.rmtree(self.cache, ignore_errors=True)
                    found.setdefault(f"{what}, cache {state}", []).append(self._spent(what, words, state))
            print(f"round {number + 1}/{count} done", flush=True)
        return found

    def memory(self) -> dict[str, dict[str, float]]:
        """MiB of a training before its first step: alone without a cache, and beside another with it."""
        return {
            "cache off, alone": self._beside(OFF, 1),
            "cache off, beside another": self._beside(OFF, 2),
            "cache full, alone": self._beside(FULL, 1),
            "cache full, beside another": self._beside(FULL, 2),
        }

    def _beside(self, state: str, count: int) -> dict[str, float]:
        shutil.rmtree(self.out, ignore_errors=True)
        words = [[*self.train, "--out", f"{self.out}/{number}"] for number in range(count)]
        waiting = [self._begin("wait", each, state, stdin=subprocess.PIPE) for each in words]
        for process in waiting:
            if not any(line.startswith(REACHED.encode()) for line in process.stdout or ()):
                raise SystemExit(f"{' '.join(self.train)} ended before its first step")
        sizes = memory_of(waiting[-1].pid)
        for process in waiting:
            process.communicate(b"\n")
        return sizes

    def _spent(self, what: str, words: list[str], state: str) -> float:
        said = self._process(what, words, state).splitlines()
        return float(next(line for line in said if line.startswith(REACHED)).removeprefix(REACHED))

    def _process(self, what: str, words: list[str], state: str) -> str:
        shutil.rmtree(self.out, ignore_errors=True)
        process = self._begin(what, words, state)
        said, _ = process.communicate()
        if process.returncode:
            raise SystemExit(f"{what} {' '.join(words)} ended with {process.returncode}")
        return said.decode()

    def _begin(self, what: str, words: list[str], state: str, **pipes: Any) -> subprocess.Popen[bytes]:
        environment = {**os.environ, FOLDER: "off" if state == OFF else str(self.cache), "OMP_NUM_THREADS": "1"}
        given = json.dumps([what, self.backend, words])
        return subprocess.Popen(
            [sys.executable, __file__, "--start", given], stdout=subprocess.PIPE, env=environment, **pipes
        )


def memory_of(process: int) -> dict[str, float]:
    """MiB of a process: resident, its share of what several map, and what it has alone."""
    sizes = {}
    for line in Path(f"/proc/{process}/smaps_rollup").read_text().splitlines()[1:]:
        name, kilobytes, *_ = line.split()
        sizes[name.removesuffix(":")] = int(kilobytes) / 1024
    return {
        "rss": sizes["Rss"],
        "pss": sizes["Pss"],
        "private": sizes["Private_Clean"] + sizes["Private_Dirty"],
    }


def start(what: str, backend: str, words: list[str]) -> None:
    """One start, which prints its CPU seconds where the work begins, and ends."""

    def reached(*given: Any, **more: Any) -> None:
        print(REACHED, time.process_time(), flush=True)
        if what == "wait":
            sys.stdin.readline()
        os._exit(0)

    if what == IMPORT:
        __import__(backend)
        reached()
    from stcore import attacks
    from stcore.cli.main import main as stcli
    from stcore.training.trainer import Trainer

    if what == EVALUATE:
        type(attacks.preset("fgsm", 0.03)).find = reached  # type: ignore[method-assign]
    if what in (TRAIN, "wait"):
        Trainer.run = reached  # type: ignore[method-assign]
    sys.exit(stcli(words))


def publish(
    parser: argparse.ArgumentParser,
    args: argparse.Namespace,
    found: Mapping[str, list[float]],
    memory: Mapping[str, Mapping[str, float]],
) -> None:
    imported = statistics.median(found[IMPORT])
    cells = [
        (
            name,
            f"{statistics.median(each):.2f} [{min(each):.2f}..{max(each):.2f}]",
            f"{statistics.median(each) - imported:.2f}",
        )
        for name, each in found.items()
    ]
    sizes = [(name, *(f"{row[kind]:.0f}" for kind in ("rss", "pss", "private"))) for name, row in memory.items()]
    rounds.publish(
        args.out,
        "startup" if args.backend == "torch" else f"startup-{args.backend}",
        "What a start costs",
        "CPU seconds (user and system, all threads) from the beginning of a process to the first attack of "
        f"`stcli evaluate` and to the first step of `stcli train`, with {args.model} on CIFAR-10's parquet files, "
        f"60 000 JPEGs, in {args.backend}; medians and ranges of {args.rounds} rounds. *Empty* is a first start, "
        "which decodes and fills the cache, *full* every later one. An evaluation reads the 10 000 test images "
        "alone. PyTorch's first gradient then imports sympy, some 0.4 s, which belongs to the attack or the step.",
        f"{rounds.command(parser, args, 'dataset')} parquet:DIR",
        rounds.table(("start", "CPU s", "without the framework's import"), cells)
        + "\n\nMemory of a training before its first step, in MiB: resident, its share of what several processes "
        "map (PSS), and what it has alone.\n\n" + rounds.table(("training", "RSS", "PSS", "private"), sizes),
        {"dataset": "CIFAR-10, parquet", "model": args.model, "rounds": args.rounds},
        load_backend(args.backend).versions(),
        starts=found,
        memory=memory,
    )


if __name__ == "__main__":
    if sys.argv[1:2] == ["--start"]:
        start(*json.loads(sys.argv[2]))
    else:
        main()
