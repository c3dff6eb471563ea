"""Time of a squeeze-training step in three engines: PyTorch, Keras on TensorFlow, Keras on JAX.

    python benchmarks/engines.py [--models resnet8 resnet18] [--batch 32] [--steps 10] [--rounds 7] [--threads 1]

Each engine runs in its own process, and they take turns: one step of each per round, while the others wait. Ratios
are computed round by round. Writes engines.json and engines.md into --out, by default docs/results.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Callable
from pathlib import Path
from typing import Any

import rounds
import steps
from workers import Worker, serve, take_turns

import stcore
from stcore.core.dispatch import load_backend

ENGINES = {
    "PyTorch": ("torch", "torch"),
    "Keras, TensorFlow": ("keras", "tensorflow"),
    "Keras, JAX": ("keras", "jax"),
}
"""Engine → the backend, and the framework that it runs on."""


def step_of(
    backend_name: str, model_name: str, size: int, inner_steps: int, threads: int
) -> tuple[Callable[[], Any], dict[str, str]]:
    """One training step as in `stcli train`, and the versions of the packages."""
    backend = load_backend(backend_name)
    backend.use_threads(threads)
    backend.use_device("cpu")
    learner = steps.learner_of(backend_name, model_name)
    return steps.step_of(learner, stcore.SqueezeConfig(steps=inner_steps), size), backend.versions()


def worker(args: argparse.Namespace, model: str, backend: str, engine: str) -> Worker:
    """One engine's process."""
    given = {"worker": backend, "models": model, "batch": args.batch, "steps": args.steps, "threads": args.threads}
    threads = {name: str(args.threads) for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS")}
    return Worker(__file__, given, threads | {"KERAS_BACKEND": engine})


def measure(args: argparse.Namespace, model: str) -> dict[str, Any]:
    """For each engine: seconds of the first step, including tracing and compilation, and of each round."""
    first, answers = take_turns({name: worker(args, model, *how) for name, how in ENGINES.items()}, args.rounds)
    seconds = {name: [answer["seconds"] for answer in each] for name, each in answers.items()}
    return {
        name: {
            "median_seconds": statistics.median(seconds[name]),
            "ratio_to_torch": rounds.ratio(seconds, name, "PyTorch"),
            "first_step_seconds": first[name]["seconds"],
            "seconds": seconds[name],
            "versions": first[name]["versions"],
        }
        for name in ENGINES
    }


def table(results: dict[str, Any]) -> str:
    cells = []
    for model, rows in results.items():
        for name, row in rows.items():
            ratio = "1" if name == "PyTorch" else rounds.said(row["ratio_to_torch"])
            cells.append((model, name, f"{row['median_seconds']:.3f}", ratio, f"{row['first_step_seconds']:.1f}"))
    return rounds.table(("network", "engine", "s per step", "/ PyTorch", "first step, s"), cells)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", default=["resnet8", "resnet18"])
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path, default=Path("docs/results"))
    parser.add_argument("--worker", choices=["torch", "keras"], help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.worker:
        run, versions = step_of(args.worker, args.models[0], args.batch, args.steps, args.threads)
        serve(run, versions=versions)
        return
    results = {model: measure(args, model) for model in args.models}
    versions = {k: v for rows in results.values() for row in rows.values() for k, v in row["versions"].items()}
    rounds.publish(
        args.out,
        "engines",
        "Three engines",
        f"Seconds per squeeze-training step on a CPU: batch {args.batch} of 32 × 32 × 3, K = {args.steps}, "
        f"float32, {args.threads} thread(s); each engine in its own process, {args.rounds} rounds in which they "
        "take turns. Medians, and ratios to PyTorch round by round with their range. The first step includes "
        "tracing and compilation; JAX compiles again for each new batch size.",
        rounds.command(parser, args, "worker"),
        table(results),
        {name: value for name, value in vars(args).items() if name not in ("out", "worker")},
        versions,
        engines=results,
    )


if __name__ == "__main__":
    main()
