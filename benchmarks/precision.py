"""Whether bf16 and compiled training of the embedded digits end where fp32 does, and how long their epochs take.

    python benchmarks/precision.py [--seeds 1..5] [--epochs 10] [--backends torch,keras] [--runs runs/precision]

The variants take turns seed by seed, each run by `stcli train --seeds` in a process of its own, so a machine that
slows down slows all of them. A ratio is of the medians over all epochs but the first, which compiles, by seed. A
run that has a result is not made again. Writes docs/results/precision.md and .json.
"""

from __future__ import annotations

import argparse
import os
import platform
import statistics
import subprocess
import sysconfig
from pathlib import Path
from typing import Any

import rounds

from stcore.cli.seeds import parse_seeds
from stcore.tables.reading import FinishedRun, read_run
from stcore.tables.table import Row

VARIANTS = {
    "fp32": {},
    "bf16": {"precision": "bf16"},
    "bf16 in the search alone": {"inner-precision": "bf16"},
    "compiled": {"compile": {"torch": "on", "keras": "xla"}},
}
ATTACKS = {"natural": "natural %", "pgd20": "PGD-20 %"}


def folder(runs: Path, backend: str, variant: str) -> Path:
    return runs / f"{backend}-{variant.replace(' ', '-')}"


def train(args: argparse.Namespace, backend: str, variant: str, seed: int) -> None:
    stcli = Path(sysconfig.get_path("scripts")) / "stcli"
    options: dict[str, Any] = {"backend": backend, "epochs": args.epochs, "threads": 1, "attacks": "pgd20"}
    for name, value in VARIANTS[variant].items():
        options[name] = value[backend] if isinstance(value, dict) else value
    words = [word for name, value in options.items() for word in (f"--{name}", str(value))]
    out = folder(args.runs, backend, variant)
    limits = {"OMP_NUM_THREADS": "1", "TF_NUM_INTRAOP_THREADS": "1", "TF_NUM_INTEROP_THREADS": "1"}
    command = [stcli, "train", *words, "--seeds", str(seed), "--out", out]
    subprocess.run(list(map(str, command)), check=True, env=os.environ | limits, stdout=subprocess.DEVNULL)
    print(
        f"{backend}, {variant}, seed {seed}: {seconds(read_run(out / f'seed{seed}', 'last')):.2f} s/epoch",
        flush=True,
    )


def seconds(run: FinishedRun) -> float:
    return statistics.median(run.seconds[1:])


def summary(args: argparse.Namespace, backend: str, variant: str) -> dict[str, Any]:
    """Accuracies of the last epoch in percent with their 95 % t-interval over seeds; times, and ratios to fp32."""
    runs, reference = (
        [read_run(folder(args.runs, backend, each) / f"seed{seed}", "last") for seed in args.seeds]
        for each in (variant, "fp32")
    )
    row = Row(tuple(runs))
    figures = {name: figure for name in ATTACKS if (figure := row.figure(name)) is not None}
    ratios = sorted(seconds(run) / seconds(other) for run, other in zip(runs, reference, strict=True))
    return {
        "backend": backend,
        "variant": variant,
        "accuracies": {name: [figure.mean, figure.low, figure.high] for name, figure in figures.items()},
        "seconds_per_epoch": statistics.median(map(seconds, runs)),
        "first_epoch_seconds": statistics.median(run.seconds[0] for run in runs),
        "ratio_to_fp32": [statistics.median(ratios), ratios[0], ratios[-1]],
    }


def text(args: argparse.Namespace, rows: list[dict[str, Any]]) -> str:
    lines = [
        "# Precision: accuracy and time",
        "",
        f"scikit-learn's digits, `small-cnn`, ST, preset `digits`, {args.epochs} epochs, {len(args.seeds)} seeds, "
        f"one CPU thread ({rounds.processor()}); last epoch, test split, means with 95 % t-intervals. By "
        "`benchmarks/precision.py`. A ratio to fp32 is of the same seed's seconds per epoch, without the first "
        "epoch: median [lowest, highest].",
        "",
        f"| backend | variant | {' | '.join(ATTACKS.values())} | s/epoch | first epoch s | / fp32 |",
        "|---|---|" + "---:|" * (len(ATTACKS) + 3),
    ]
    for row in rows:
        cells = [f"{mean:.1f} ± {high - mean:.1f}" for mean, _, high in row["accuracies"].values()]
        ratio, low, high = row["ratio_to_fp32"]
        times = [f"{row['seconds_per_epoch']:.2f}", f"{row['first_epoch_seconds']:.1f}"]
        times.append(f"{ratio:.2f} [{low:.2f}, {high:.2f}]")
        lines.append("| " + " | ".join([row["backend"], row["variant"], *cells, *times]) + " |")
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=parse_seeds, default=parse_seeds("1..5"))
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--backends", type=lambda words: words.split(","), default=["torch", "keras"])
    parser.add_argument("--runs", type=Path, default=Path("runs/precision"))
    parser.add_argument("--out", type=Path, default=Path("docs/results"))
    args = parser.parse_args()

    for seed in args.seeds:
        for backend in args.backends:
            for variant in VARIANTS:
                train(args, backend, variant, seed)
    rows = [summary(args, backend, variant) for backend in args.backends for variant in VARIANTS]
    args.out.mkdir(parents=True, exist_ok=True)
    (args.out / "precision.md").write_text(text(args, rows))
    settings = {"seeds": args.seeds, "epochs": args.epochs}
    rounds.keep(args.out / "precision.json", settings, {"python": platform.python_version()}, rows=rows)
    print(text(args, rows))


if __name__ == "__main__":
    main()
