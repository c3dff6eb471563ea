"""Time of one squeeze-training step: ours on PyTorch and Keras, against a plain implementation.

    python benchmarks/squeeze_step.py [--model resnet18] [--batch 32] [--steps 10] [--rounds 5] [--threads 1]
        [--variants] [--out docs/results]

`exact` steps compute the plain step's numbers, equal in float64 (tests/test_benchmarks.py); the others are named
variants of it. Writes squeeze-step-MODEL-BATCH-THREADS.md and .json.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Callable
from pathlib import Path
from typing import Any

import rounds
import steps

import stcore
from stcore.core.dispatch import available_backends, load_backend

LEGEND = (
    "*Plain* is a straightforward PyTorch step with the released code's forward passes "
    "(`benchmarks/plain_torch.py`). *Exact* steps compute its numbers, equal in float64; the others differ in "
    "precision (bf16) or in K. The first step includes tracing and compilation."
)
PLAIN, OURS = "plain torch (34 forwards)", "ours, torch"


def ours(args: argparse.Namespace, backend: str = "torch", steps_: int | None = None, **prepared: Any) -> Any:
    config = stcore.SqueezeConfig(steps=args.steps if steps_ is None else steps_)
    return steps.step_of(steps.learner_of(backend, args.model, **prepared), config, args.batch)


def engines(args: argparse.Namespace) -> dict[str, tuple[str, Callable[[], Any]]]:
    """Engine → "exact" or its variant's name, and the step."""
    half = max(1, args.steps // 2)
    variants: dict[str, dict[str, Any]] = {
        "bf16 search": {"inner_precision": "bf16"},
        "bf16": {"precision": "bf16", "inner_precision": "bf16"},
        f"K = {half}": {"steps_": half},
        f"bf16, K = {half}": {"precision": "bf16", "inner_precision": "bf16", "steps_": half},
    }
    found = {
        PLAIN: ("exact", steps.plain(args.model, args.batch, args.steps)),
        "plain torch, channels-last": (
            "exact",
            steps.plain(args.model, args.batch, args.steps, channels_last=True),
        ),
    }
    for backend in available_backends():
        load_backend(backend).use_threads(args.threads)
        found[f"ours, {backend}"] = ("exact", ours(args, backend))
        for name, changes in variants.items() if args.variants else ():
            found[f"ours, {backend}, {name}"] = (name, ours(args, backend, **changes))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="resnet18")
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument(
        "--variants", action="store_true", help="also steps with other numbers than the plain step's"
    )
    parser.add_argument("--out", type=Path, default=Path("docs/results"))
    args = parser.parse_args()

    found = engines(args)
    first, seconds = rounds.take_turns({name: run for name, (_, run) in found.items()}, args.rounds)
    rows = {
        name: {
            "numbers": numbers,
            "median_seconds": statistics.median(seconds[name]),
            "ratio_to_plain": rounds.ratio(seconds, name, PLAIN),
            "ratio_to_ours_torch": rounds.ratio(seconds, name, OURS),
            "first_step_seconds": first[name],
            "seconds": seconds[name],
        }
        for name, (numbers, _) in found.items()
    }
    versions = {k: v for backend in available_backends() for k, v in load_backend(backend).versions().items()}
    publish(args, rounds.command(parser, args), rows, versions)


def publish(args: argparse.Namespace, ran: str, rows: dict[str, Any], versions: dict[str, str]) -> None:
    rounds.publish(
        args.out,
        f"squeeze-step-{args.model}-{args.batch}-{args.threads}",
        f"A squeeze-training step: {args.model}, batch {args.batch}, {args.threads} thread(s)",
        f"K = {args.steps}, float32 unless noted, on a CPU; medians of {args.rounds} rounds in which all take "
        f"turns, ratios round by round with their range. {LEGEND}",
        ran,
        rounds.table(
            ("engine", "numbers", "median s", "/ plain", "/ ours, torch", "first step s"),
            [
                (
                    name,
                    row["numbers"],
                    f"{row['median_seconds']:.2f}",
                    rounds.said(row["ratio_to_plain"]),
                    rounds.said(row["ratio_to_ours_torch"]),
                    f"{row['first_step_seconds']:.1f}",
                )
                for name, row in rows.items()
            ],
        ),
        {k: v for k, v in vars(args).items() if k != "out"},
        versions,
        engines=rows,
    )


if __name__ == "__main__":
    main()
