"""Accuracy of the forecasts of `stcli plan`, in seconds and in CPU time.

    python benchmarks/plan.py [--cifar10 parquet:DIR] [--probe-seconds 30] [--threads 1] [--only NAME …]

Each configuration is planned and then trained, in processes of their own, one after the other: squeeze training on
the embedded digits in PyTorch, TRADES with AWP and weight averaging on the digits in Keras, and, with --cifar10,
adversarial training on a part of CIFAR-10 in PyTorch. `--json FILE` saves the figures.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

DIGITS = ["--dataset", "digits"]
CONFIGURATIONS = {
    "digits, st, torch": [*DIGITS, "--backend", "torch", "--method", "st", "--epochs", "30"],
    "digits, trades + awp + ema, keras": [
        *(*DIGITS, "--backend", "keras", "--method", "trades", "--epochs", "20"),
        *("--awp", "0.005", "--perturbation-warmup", "8", "--ema", "0.99"),
    ],
}
CIFAR10 = [
    *("--backend", "torch", "--method", "at", "--model", "resnet8", "--epochs", "3"),
    *("--train-size", "2000", "--validation-size", "200", "--test-size", "200"),
]


def timed(words: list[str]) -> tuple[float, float, str]:
    """The seconds and CPU seconds that a command takes, and its output."""
    before, begun = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-P", "-m", "stcore.cli.main", *words], check=True, stdout=subprocess.PIPE
    )
    seconds, after = time.perf_counter() - begun, resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return seconds, cpu, done.stdout.decode()


def compared(settings: list[str], probe_seconds: float) -> dict[str, Any]:
    """The forecast, the measurement, and their ratio."""
    probe = ["--probe-seconds", str(probe_seconds), "--json"]
    probed, _, forecast = timed(["plan", *settings, *probe])
    total = json.loads(forecast)["total"]
    with tempfile.TemporaryDirectory() as folder:
        seconds, cpu, _ = timed(["train", *settings, "--out", f"{folder}/run"])
    return {
        "probe_seconds": probed,
        "forecast": total,
        "measured": {"seconds": seconds, "cpu_seconds": cpu},
        "ratio": {"seconds": total["seconds"] / seconds, "cpu_seconds": total["cpu_seconds"] / cpu},
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cifar10", help="the data set, such as parquet:DIR")
    parser.add_argument("--probe-seconds", type=float, default=30.0)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--only", action="append", help="a configuration's name; repeat it for several")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()

    configurations = dict(CONFIGURATIONS)
    if args.cifar10:
        configurations["cifar10, at, resnet8, torch"] = ["--dataset", args.cifar10, *CIFAR10]
    rows = {}
    print("| configuration | probe s | forecast CPU s | measured CPU s | ratio | ratio of seconds |")
    print("|---|---|---|---|---|---|")
    for name in args.only or configurations:
        row = rows[name] = compared([*configurations[name], "--threads", str(args.threads)], args.probe_seconds)
        cells = [f"{row['probe_seconds']:.0f}"]
        cells += [f"{row[what]['cpu_seconds']:.1f}" for what in ("forecast", "measured")]
        cells += [f"{row['ratio'][what]:.2f}" for what in ("cpu_seconds", "seconds")]
        print(f"| {name} | {' | '.join(cells)} |", flush=True)
    if args.json:
        environment = {"platform": platform.platform(), "cpus": os.cpu_count(), "threads": args.threads}
        args.json.write_text(json.dumps({"environment": environment, "configurations": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
