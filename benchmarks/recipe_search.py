"""Accuracy and time of the parts of faster or stronger recipes.

    python benchmarks/recipe_search.py digits [--seeds 1..3] [--jobs 2]
    python benchmarks/recipe_search.py digits-fast [--seeds 1..3] [--jobs 2]
    python benchmarks/recipe_search.py digits-strong [--seeds 1..3] [--jobs 2]
    python benchmarks/recipe_search.py cifar10 --data DATA [--seeds 1] [--jobs 2]

Squeeze training with one part changed at a time, or several together. `digits`: the embedded digits, 20 epochs.
`digits-fast`: the same data by other methods, for about the same time. `digits-strong`: the same parts around ST,
TRADES and AT, each for about the same time. `cifar10`: DATA is a folder with CIFAR-10
as train-*.parquet and test-*.parquet; ResNet-8, a short schedule, bf16. Differences are computed seed by seed (see
`variants.py`). Writes recipe-search-NAME.md and .json into docs/results.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import rounds
from variants import Options, VariantRuns, plus_minus

from stcore.cli.seeds import parse_seeds
from stcore.core.dispatch import load_backend

METHODS: dict[str, Options] = {
    "ST": {},
    "TRADES, 40 epochs": {"method": "trades", "epochs": 40},
    "AT, 50 epochs": {"method": "at", "epochs": 50},
}
"""For about the same time."""
PARTS: dict[str, Options] = {
    "": {},
    " + smoothing, averaged weights": {"label-smoothing": 0.1, "ema": 0.98},
    " + ADR": {"teacher": "average", "ema": 0.98},
    " + ReBAT": {
        "teacher": "average",
        "guidance": "rebat",
        "ema": 0.98,
        "drops": ("0.5", "0.75"),
        "drop-factor": "2/3",
    },
    " + distillation": {"teacher": "zoo:digits-small-cnn-st"},
    " + ε ramp": {"ramp": "epsilon@1"},
    " + ε ramp, cosine": {"ramp": "epsilon@1", "schedule": "cosine"},
    " + AWP": {"awp": 0.005},
}
DIVERGENCES: dict[str, Options] = {
    " + improved KL, β = 3": {"divergence": "improved_kl", "beta": 3},
    " + GKL, β = 20": {"divergence": "gkl", "beta": 20},
    " + GKL, β = 6": {"divergence": "gkl", "beta": 6},
}
"""Of the methods that have one."""
VARIANTS: dict[str, dict[str, Options]] = {
    "digits-strong": {
        f"{method}{part}": {**of_method, **of_part}
        for part, of_part in (PARTS | DIVERGENCES).items()
        for method, of_method in METHODS.items()
        if part in PARTS or not method.startswith("AT")
    },
    "digits": {
        "as the preset": {},
        "bf16": {"precision": "bf16"},
        "K = 5": {"steps": 5},
        "K = 5, from half-way 10": {"early-steps": "5@0.5"},
        "K = 2, 5, then 10": {"early-steps": ("2@0.3", "5@0.6")},
        "one-cycle": {"schedule": "one-cycle"},
        "one-cycle, half of the epochs": {"schedule": "one-cycle", "epochs": 10},
        "that, bf16, K = 5, from half-way 10": {
            "schedule": "one-cycle",
            "epochs": 10,
            "precision": "bf16",
            "early-steps": "5@0.5",
        },
        "averaged weights": {"ema": 0.98},
        "AWP": {"awp": 0.005},
        "RWP": {"rwp": 0.005},
        "labels smoothed by 0.1": {"label-smoothing": 0.1},
        "SiLU": {"model": "small-cnn-silu"},
        "improved KL, β = 3": {"divergence": "improved_kl", "beta": 3},
    },
    "digits-fast": {
        "as the preset": {},
        "improved KL, β = 3": {"divergence": "improved_kl", "beta": 3},
        "AT, 50 epochs": {"method": "at", "epochs": 50},
        "ST, K = 2, 90 epochs": {"steps": 2, "step-size": 0.125, "epochs": 90},
        "fast ST, 60 epochs": {"method": "fast-st", "epochs": 60},
        "fast ST, 120 epochs": {"method": "fast-st", "epochs": 120},
        "fast ST, 120 epochs, one-cycle": {"method": "fast-st", "epochs": 120, "schedule": "one-cycle"},
        "fast ST, 120 epochs, β = 10": {"method": "fast-st", "epochs": 120, "beta": 10},
        "fast ST, 120 epochs, improved KL, β = 3": {
            "method": "fast-st",
            "epochs": 120,
            "divergence": "improved_kl",
            "beta": 3,
        },
        "fast ST of the image, 90 epochs": {"method": "fast-st", "epochs": 90, "natural": "image"},
        "fast ST by descent, 90 epochs": {
            "method": "fast-st",
            "epochs": 90,
            "natural": "image",
            "collaborative": "descent",
        },
        "fast ST in two steps, 100 epochs": {"method": "fast-st", "epochs": 100, "steps": 2, "step-scale": 0.625},
        "N-FGSM, k = 1, 150 epochs": {"method": "n-fgsm", "epochs": 150, "start-scale": 1},
        "FGSM-RS, 150 epochs": {"method": "fgsm-rs", "epochs": 150},
        "consistency, 120 epochs": {"method": "fgsm-consistency", "epochs": 120, "ramp": "consistency@1"},
    },
    "cifar10": {
        "bf16": {},
        "improved KL, β = 3": {"divergence": "improved_kl", "beta": 3},
        "K = 5": {"steps": 5},
        "cutout": {"augment": "crop-flip-cutout"},
    },
}
"""The variants by the name of the data; the first is the reference."""
DESCRIPTIONS = {
    "digits": "scikit-learn's digits, `small-cnn`, preset `digits` (20 epochs), ε = 0.2, the 347 test images",
    "digits-fast": "scikit-learn's digits, `small-cnn`, preset `digits` (20 epochs) unless said, ε = 0.2, the 347 "
    "test images",
    "digits-strong": "scikit-learn's digits, `small-cnn`, preset `digits` (ST: 20 epochs), ε = 0.2, the 347 test "
    "images",
    "cifar10": "CIFAR-10 (of which 4 000 images, stored as JPEG), ResNet-8, 6 epochs in batches of 64, learning "
    "rate 0.05 by cosine, bf16, ε = 8/255, 1 000 test images",
}
PLACES = {
    "digits": "the digits",
    "digits-fast": "the digits, method by method",
    "digits-strong": "the digits, around three methods",
    "cifar10": "CIFAR-10, a small budget",
}
NAMES = {"natural": "natural %", "pgd20": "PGD-20 %", "apgd-ce+apgd-t": "APGD-CE and -T %"}


def runs_of(args: argparse.Namespace) -> VariantRuns:
    base: dict[str, str | float] = {"attacks": "pgd20,apgd-ce+apgd-t"}
    if args.name == "cifar10":
        base = {"dataset": f"parquet:{args.data}", "model": "resnet8", "train-size": 4000, "validation-size": 500}
        base |= {"test-size": 1000, "batch-size": 64, "learning-rate": 0.05, "schedule": "cosine", "epochs": 6}
        base |= {"precision": "bf16", "attacks": "pgd20"}
    return VariantRuns(args.name, base, VARIANTS[args.name])


def cells(row: dict[str, Any], first: str) -> tuple[str, ...]:
    found = [row["variant"]]
    for attack, figures in row["accuracies"].items():
        more = "" if row["variant"] == first else plus_minus(row["differences"][attack], "+")
        found += [plus_minus(figures), more]
    return (*found, f"{row['seconds']:.0f}", rounds.said(row["ratio_of_seconds"]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", choices=tuple(VARIANTS))
    parser.add_argument("--data", type=Path)
    parser.add_argument("--seeds", help="by default 1..3 for the digits and 1 for cifar10")
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--runs", type=Path, default=Path("runs/recipe-search"))
    parser.add_argument("--out", type=Path, default=Path("docs/results"))
    args = parser.parse_args()
    if (args.name == "cifar10") != (args.data is not None):
        parser.error("expected --data with cifar10, and not with digits")
    seeds = parse_seeds(args.seeds or ("1" if args.name == "cifar10" else "1..3"))

    one = runs_of(args)
    one.train(args.runs, seeds, args.jobs)
    rows = one.rows(args.runs, seeds)
    first = rows[0]["variant"]
    columns = [word for attack in rows[0]["accuracies"] for word in (NAMES[attack], "more")]
    rounds.publish(
        args.out,
        f"recipe-search-{args.name}",
        f"Parts of a recipe, on {PLACES[args.name]}",
        f"Squeeze training, PyTorch: {DESCRIPTIONS[args.name]}; {len(seeds)} seed(s), last epoch (of the averaged "
        f"weights, if the variant has them). Means with 95 % t-intervals. Differences to *{first}* and ratios of "
        "times are computed seed by seed: seconds of all epochs together, median [lowest..highest] of the "
        f"ratios, one CPU thread per run, {args.jobs} run(s) at a time.",
        rounds.command(parser, args, "runs", "data") + (" --data DATA" if args.data else ""),
        rounds.table(("variant", *columns, "s", "time"), [cells(row, first) for row in rows]),
        {"seeds": seeds, "jobs": args.jobs, "base": {**one.base, "dataset": args.name}},
        load_backend("torch").versions(),
        rows=rows,
    )


if __name__ == "__main__":
    main()
