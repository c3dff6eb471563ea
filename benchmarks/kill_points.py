"""Bitwise check of resuming: runs killed at ten random points (SIGKILL) against an uninterrupted one.

    python benchmarks/kill_points.py torch      (keras; KERAS_BACKEND chooses Keras' own engine)
        [--kills 10] [--seed 0] [--threads 1] [--folder FOLDER] [--json FILE]

One run is not interrupted; it has averaged weights, AWP and a state saved at every step. Other runs with the same
settings are killed: most at a random moment between the start and the end of the process, some during an
evaluation after a random epoch, some while a state is being written; every third is killed again, a random time
after it resumed. Each is resumed with the command that a user would give. Its weights (the arrays of every
checkpoint), metrics.jsonl and result.json, without the times, are compared with those of the uninterrupted run. A
run takes 20 to 40 seconds, so ten with their restarts take about ten minutes. The exit code is 1 if any run
differs.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("TF_NUM_INTRAOP_THREADS", "1")

import numpy as np

from stcore.base.weights_file import load_weights
from stcore.runs.folder import CHECKPOINTS, CONFIG, ENVIRONMENT, METRICS, RESULT

EPOCHS, STEPS = 20, 20
SETTINGS = (
    f"--model tiny --epochs {EPOCHS} --train-size {50 * STEPS} --batch-size 50 --validation-size 190 "
    "--test-size 340 --learning-rate 0.02 --steps 3 --ema 0.9 --awp 0.005 --attacks fgsm,pgd100 --save-every 0"
).split()
TIMES = ("seconds", "images_per_second", "started", "checksum")  # which is of the times too
OF_THE_RUN = ("data", "written", "folder", "checksum")  # and not of the machine
KINDS = ("any moment",) * 3 + ("evaluation", "writing")


def command(*words: object) -> list[str]:
    return [sys.executable, "-P", "-m", "stcore.cli.main", "train", *map(str, words)]


def finish(*words: object) -> float:
    """Runs the command to its end and returns the seconds it took."""
    begun = time.monotonic()
    done = subprocess.run(command(*words), capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"exit code {done.returncode}: {done.stderr}")
    return time.monotonic() - begun


def killed(due: Callable[[float], bool], *words: object) -> bool:
    """Starts the command and kills it once `due(seconds since the start)`; False if it ended before."""
    begun = time.monotonic()
    process = subprocess.Popen(command(*words), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while process.poll() is None:
        if due(time.monotonic() - begun):
            process.send_signal(signal.SIGKILL)
        time.sleep(0.0005)
    return process.returncode == -signal.SIGKILL


def rows(run: Path) -> list[dict[str, Any]]:
    path = run / METRICS
    lines = path.read_text().splitlines(keepends=True) if path.is_file() else []
    whole = [line for line in lines if line.endswith("\n")]  # the run may be writing the last one
    return [timeless(json.loads(line)) for line in whole]


def timeless(record: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in record.items() if name not in TIMES}


def newest(run: Path) -> tuple[int, int]:
    """Epoch and steps of the newest state; 0 and 0 if there is none."""
    names = sorted(path.stem for path in (run / "state").glob("[0-9]*.safetensors"))
    return (int(names[-1][:8]), int(names[-1][9:])) if names else (0, 0)


def unfinished(run: Path) -> list[str]:
    """The files that were being written."""
    return sorted(path.name.split(".")[1] for path in run.rglob(".*.part"))


def evaluating(run: Path, epoch: int) -> bool:
    """Whether the evaluation after this epoch is running; epoch 0 means the final evaluation."""
    done = len(rows(run))
    if epoch == 0:
        return done == EPOCHS and not (run / RESULT).is_file()
    return newest(run) == (epoch, STEPS) and done < epoch


def where(run: Path) -> str:
    """The moment of the kill, according to the folder."""
    epoch, steps = newest(run)
    if not (run / CONFIG).is_file():
        return "before the run began"
    if parts := unfinished(run):
        return f"epoch {epoch} step {steps}, writing {', '.join(parts)}"
    if len(rows(run)) == EPOCHS:
        return "final evaluation"
    return f"evaluation of epoch {epoch}" if evaluating(run, epoch) else f"epoch {epoch} step {steps}"


def moment(kind: str, run: Path, seconds: float, rng: np.random.Generator) -> Callable[[float], bool]:
    """The condition for the kill, given the seconds since the start."""
    if kind == "evaluation":
        epoch, delay = int(rng.integers(0, EPOCHS + 1)), rng.uniform(0, 0.1)
        begun: list[float] = []

        def soon(now: float) -> bool:
            if not begun and (run / METRICS).is_file() and evaluating(run, epoch):
                begun.append(now)
            return bool(begun) and now >= begun[0] + delay

        return soon
    at = rng.uniform(0, seconds * (0.8 if kind == "writing" else 1.0))
    if kind == "writing":
        return lambda now: now >= at and any((run / "state").glob(".*.part"))
    return lambda now: now >= at


def after_resuming(run: Path, seconds: float, rng: np.random.Generator) -> Callable[[float], bool]:
    """The condition for the second kill: a random time, up to a third of a run's length, after the next state."""
    before, delay = newest(run), rng.uniform(0, seconds / 3)
    begun: list[float] = []

    def due(now: float) -> bool:
        if not begun and newest(run) != before:
            begun.append(now)
        return bool(begun) and now >= begun[0] + delay

    return due


def differences(whole: Path, broken: Path) -> list[str]:
    """The files that differ, apart from times."""
    found = []
    for name in CHECKPOINTS:
        one, other = (load_weights(run / f"{name}.safetensors")[0] for run in (whole, broken))
        equal = one.keys() == other.keys() and all(
            a.dtype == other[k].dtype and a.tobytes() == other[k].tobytes() for k, a in one.items()
        )
        found += [] if equal else [f"{name}.safetensors"]
    results = [timeless(json.loads((run / RESULT).read_text())) for run in (whole, broken)]
    found += [METRICS] if rows(whole) != rows(broken) else []
    return found + ([RESULT] if results[0] != results[1] else [])


def trial(number: int, begin: list[str], whole: Path, run: Path, seconds: float, seed: int) -> dict[str, Any]:
    """Compares a run that is killed once or twice and resumed with the uninterrupted one."""
    rng, kind = np.random.default_rng((seed, number)), KINDS[number % len(KINDS)]
    while not killed(moment(kind, run, seconds, rng), *begin):  # the run ended before the kill: another moment
        shutil.rmtree(run)
    hits, again = [where(run)], resuming(begin, run)
    if number % 3 == 2 and killed(after_resuming(run, seconds, rng), *again):
        hits.append(where(run))
        again = resuming(begin, run)
    if not (run / RESULT).is_file():
        finish(*again)
    left = unfinished(run) + [name for name in ("state",) if (run / name).exists()]
    return {"kind": kind, "killed at": hits, "differ": differences(whole, run), "left over": left}


def resuming(begin: list[str], run: Path) -> list[str]:
    """The options with which a user resumes the run; if there is no run yet, those that began it."""
    if (run / CONFIG).is_file():
        return ["--resume", str(run), "--save-every", "0"]
    shutil.rmtree(run, ignore_errors=True)
    return begin


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("backend", choices=("torch", "keras"))
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--folder", type=Path, help="folder of the runs; by default a temporary one")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="kill-points-") as temporary:
        folder = args.folder or Path(temporary)
        settings = ["--backend", args.backend, *SETTINGS, "--threads", str(args.threads), "--out"]
        whole = folder / "whole"
        seconds = finish(*settings, whole)
        print(f"uninterrupted: {seconds:.1f} s\n{'#':>3}  {'kind':<12}{'outcome':<14}killed at", flush=True)
        trials = []
        for number in range(args.kills):
            run = folder / f"killed-{number}"
            trials.append(trial(number, [*settings, str(run)], whole, run, seconds, args.seed))
            last = trials[-1]
            outcome = "DIFFERS" if last["differ"] else "the same"
            print(
                f"{number:>3}  {last['kind']:<12}{outcome:<14}{'; '.join(last['killed at'])}",
                *last["differ"],
                flush=True,
            )
        environment = json.loads((whole / ENVIRONMENT).read_text())
    same = sum(not one["differ"] for one in trials)
    print(f"{same} of {len(trials)} are bit for bit the same as the uninterrupted run")
    if args.json:
        content = {
            "backend": args.backend,
            "settings": " ".join(SETTINGS),
            "threads": args.threads,
            "seed": args.seed,
            "environment": {name: value for name, value in environment.items() if name not in OF_THE_RUN},
            "seconds without a break": round(seconds, 1),
            "same": same,
            "kills": trials,
        }
        args.json.write_text(json.dumps(content, indent=2) + "\n")
    return 0 if same == len(trials) else 1


if __name__ == "__main__":
    sys.exit(main())
