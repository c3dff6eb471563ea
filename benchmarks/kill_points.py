"""Is a run that was killed and resumed, bit for bit, the run without a break? Ten random kill points (SIGKILL).

    python benchmarks/kill_points.py torch      (keras; KERAS_BACKEND chooses Keras' own engine)
        [--kills 10] [--seed 0] [--threads 1] [--folder FOLDER] [--json FILE]

One run goes through, with averaged weights, AWP and a state kept at every step. Then others, made alike, are
killed: most at a random moment of the run's whole length, from the start of the process to its end, some during an
evaluation after a random epoch, some while a state is being written; every third is killed again, after it has
gone on for a random time. Each is resumed by the command that a user would give, and its weights (the arrays of
every checkpoint), metrics.jsonl and result.json are compared with those of the run without a break, all but the
times. A run takes 20 to 40 seconds, so ten with their restarts about ten minutes. Exit code 1 if any differs.
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
TIMES = ("seconds", "images_per_second", "started")
KINDS = ("any moment",) * 3 + ("evaluation", "writing")


def command(*words: object) -> list[str]:
    return [sys.executable, "-P", "-m", "stcore.cli.main", "train", *map(str, words)]


def finish(*words: object) -> float:
    """Runs the command to its end; returns how many seconds it took."""
    begun = time.monotonic()
    done = subprocess.run(command(*words), capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"exit code {done.returncode}: {done.stderr}")
    return time.monotonic() - begun


def killed(due: Callable[[float], bool], *words: object) -> bool:
    """Starts the command and kills it when `due`, told the seconds since; False where it ended before."""
    begun = time.monotonic()
    process = subprocess.Popen(command(*words), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while process.poll() is None:
        if due(time.monotonic() - begun):
            process.send_signal(signal.SIGKILL)
        time.sleep(0.0005)
    return process.returncode == -signal.SIGKILL


def rows(run: Path) -> list[dict[str, Any]]:
    path = run / METRICS
    lines = path.read_text().splitlines() if path.is_file() else []
    return [timeless(json.loads(line)) for line in lines]


def timeless(record: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in record.items() if name not in TIMES}


def newest(run: Path) -> tuple[int, int]:
    """Epoch and steps of the newest state, 0 and 0 where there is none."""
    names = sorted(path.stem for path in (run / "state").glob("[0-9]*.safetensors"))
    return (int(names[-1][:8]), int(names[-1][9:])) if names else (0, 0)


def unfinished(run: Path) -> list[str]:
    """Files that were being written."""
    return sorted(path.name.split(".")[1] for path in run.rglob(".*.part"))


def evaluating(run: Path, epoch: int) -> bool:
    """Whether the epoch's training is over and its evaluation is not; of epoch 0 the final one."""
    done = len(rows(run))
    if epoch == 0:
        return done == EPOCHS and not (run / RESULT).is_file()
    return newest(run) == (epoch, STEPS) and done < epoch


def where(run: Path) -> str:
    """What the kill hit, as the folder tells."""
    epoch, steps = newest(run)
    if not (run / CONFIG).is_file():
        return "before the run began"
    if parts := unfinished(run):
        return f"epoch {epoch} step {steps}, writing {', '.join(parts)}"
    if len(rows(run)) == EPOCHS:
        return "final evaluation"
    return f"evaluation of epoch {epoch}" if evaluating(run, epoch) else f"epoch {epoch} step {steps}"


def moment(kind: str, run: Path, seconds: float, rng: np.random.Generator) -> Callable[[float], bool]:
    """When to kill."""
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


def after_going_on(run: Path, seconds: float, rng: np.random.Generator) -> Callable[[float], bool]:
    """When to kill again: a random while, up to a third of a run's length, after the first sign of life."""
    before, delay = newest(run), rng.uniform(0, seconds / 3)
    begun: list[float] = []

    def due(now: float) -> bool:
        if not begun and newest(run) != before:
            begun.append(now)
        return bool(begun) and now >= begun[0] + delay

    return due


def differences(whole: Path, broken: Path) -> list[str]:
    """The files that differ in more than times."""
    found = []
    for name in CHECKPOINTS:
        one, other = (load_weights(run / f"{name}.safetensors")[0] for run in (whole, broken))
        alike = one.keys() == other.keys() and all(
            a.dtype == other[k].dtype and a.tobytes() == other[k].tobytes() for k, a in one.items()
        )
        found += [] if alike else [f"{name}.safetensors"]
    results = [timeless(json.loads((run / RESULT).read_text())) for run in (whole, broken)]
    found += [METRICS] if rows(whole) != rows(broken) else []
    return found + ([RESULT] if results[0] != results[1] else [])


def trial(number: int, begin: list[str], whole: Path, run: Path, seconds: float, seed: int) -> dict[str, Any]:
    """One run, killed once or twice and resumed, against the one without a break."""
    rng, kind = np.random.default_rng((seed, number)), KINDS[number % len(KINDS)]
    while not killed(moment(kind, run, seconds, rng), *begin):  # faster than the one before it: another moment
        shutil.rmtree(run)
    hits, again = [where(run)], going_on(begin, run)
    if number % 3 == 2 and killed(after_going_on(run, seconds, rng), *again):
        hits.append(where(run))
        again = going_on(begin, run)
    if not (run / RESULT).is_file():
        finish(*again)
    left = unfinished(run) + [name for name in ("state",) if (run / name).exists()]
    return {"kind": kind, "killed at": hits, "differ": differences(whole, run), "left over": left}


def going_on(begin: list[str], run: Path) -> list[str]:
    """The command that a user would give; where there is no run yet, the first one again."""
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
    parser.add_argument("--folder", type=Path, help="where the runs are kept; by default a temporary one")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="kill-points-") as temporary:
        folder = args.folder or Path(temporary)
        settings = ["--backend", args.backend, *SETTINGS, "--threads", str(args.threads), "--out"]
        whole = folder / "whole"
        seconds = finish(*settings, whole)
        print(f"without a break: {seconds:.1f} s\n{'#':>3}  {'kind':<12}{'outcome':<14}killed at", flush=True)
        trials = []
        for number in range(args.kills):
            run = folder / f"killed-{number}"
            trials.append(trial(number, [*settings, str(run)], whole, run, seconds, args.seed))
            told = trials[-1]
            outcome = "DIFFERS" if told["differ"] else "the same"
            print(
                f"{number:>3}  {told['kind']:<12}{outcome:<14}{'; '.join(told['killed at'])}",
                *told["differ"],
                flush=True,
            )
        about = json.loads((whole / ENVIRONMENT).read_text())
    same = sum(not one["differ"] for one in trials)
    print(f"{same} of {len(trials)} ended as the run without a break, bit for bit")
    if args.json:
        content = {
            "backend": args.backend,
            "settings": " ".join(SETTINGS),
            "threads": args.threads,
            "seed": args.seed,
            "environment": {name: value for name, value in about.items() if name not in ("data", "written")},
            "seconds without a break": round(seconds, 1),
            "same": same,
            "kills": trials,
        }
        args.json.write_text(json.dumps(content, indent=2) + "\n")
    return 0 if same == len(trials) else 1


if __name__ == "__main__":
    sys.exit(main())
