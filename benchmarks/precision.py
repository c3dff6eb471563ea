"""Accuracy and time of bf16 and compiled training on the embedded digits, compared with fp32.

    python benchmarks/precision.py [--seeds 1..5] [--epochs 10] [--backends torch,keras] [--runs runs/precision]

A ratio compares, seed by seed, the medians over all epochs except the first, which compiles (see `variants.py`).
Writes docs/results/precision.md and .json.
"""

from __future__ import annotations

import argparse
from importlib import metadata
from pathlib import Path
from typing import Any

import rounds
from variants import VariantRuns, plus_minus

from stcore.cli.seeds import parse_seeds

COMPILER = {"torch": "on", "keras": "xla"}
COLUMNS = {"natural": "natural %", "pgd20": "PGD-20 %"}


def runs_of(backend: str, epochs: int) -> VariantRuns:
    base = {"backend": backend, "epochs": epochs, "attacks": "pgd20"}
    variants = {
        "fp32": {},
        "bf16": {"precision": "bf16"},
        "bf16 in the search alone": {"inner-precision": "bf16"},
        "compiled": {"compile": COMPILER[backend]},
    }
    return VariantRuns(backend, base, variants)


def cells(row: dict[str, Any]) -> tuple[str, ...]:
    accuracies = (plus_minus(row["accuracies"][attack]) for attack in COLUMNS)
    times = f"{row['seconds_per_epoch']:.2f}", f"{row['first_epoch_seconds']:.1f}", rounds.said(row["ratio"])
    return (row["backend"], row["variant"], *accuracies, *times)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", default="1..5")
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--backends", default="torch,keras")
    parser.add_argument("--runs", type=Path, default=Path("runs/precision"))
    parser.add_argument("--out", type=Path, default=Path("docs/results"))
    args = parser.parse_args()

    seeds = parse_seeds(args.seeds)
    by_backend = {backend: runs_of(backend, args.epochs) for backend in args.backends.split(",")}
    for seed in seeds:
        for one in by_backend.values():
            one.train(args.runs, [seed])
    rows = [{"backend": name, **row} for name, one in by_backend.items() for row in one.rows(args.runs, seeds)]
    rounds.publish(
        args.out,
        "precision",
        "Precision: accuracy and time",
        f"scikit-learn's digits, `small-cnn`, ST, preset `digits`, {args.epochs} epochs, {len(seeds)} seeds, "
        "one CPU thread; last epoch, test split, means with 95 % t-intervals. A ratio to fp32 compares the "
        "seconds per epoch of the same seed, without the first epoch: median [lowest..highest].",
        rounds.command(parser, args, "runs"),
        rounds.table(
            ("backend", "variant", *COLUMNS.values(), "s/epoch", "first epoch s", "/ fp32"), map(cells, rows)
        ),
        {"seeds": seeds, "epochs": args.epochs},
        {name: metadata.version(name) for name in ("torch", "keras", "tensorflow")},
        rows=rows,
    )


if __name__ == "__main__":
    main()
