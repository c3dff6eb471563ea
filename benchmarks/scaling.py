"""Growth of a squeeze-training step's time with K, batch size, width and resolution.

    python benchmarks/scaling.py [--backend torch] [--rounds 5] [--threads 1] [--out docs/results]

Along each axis the settings take turns within each round. A law is fitted to the medians by least squares: affine
in K, in the batch size and in the number of pixels; in a network's width with a linear and a quadratic term. The
largest residual shows how well the law fits. Writes scaling-BACKEND.json and .md.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import rounds
import steps

from stcore import SqueezeConfig
from stcore.core.dispatch import load_backend

MODEL, BATCH, K, SIDE = "resnet8", 32, 10, 32
AXES: dict[str, tuple[str, tuple[int, ...], tuple[int, ...]]] = {
    "steps": ("K", (0, 1, 2, 5, 10, 20), (0, 1)),
    "batch": ("images", (8, 16, 32, 64, 128), (0, 1)),
    "side": ("pixels a side", (16, 24, 32, 48, 64), (0, 2)),
    "width": ("times the base width of wrn-10", (1, 2, 3, 4, 6), (0, 1, 2)),
}
"""Axis → its unit, its values, and the powers in the fitted law."""


def runner(backend: str, axis: str, value: int) -> Callable[[], float]:
    """A step with this value on the axis and defaults elsewhere."""
    chosen = {"steps": K, "batch": BATCH, "side": SIDE} | {axis: value}
    model = f"wrn-10-{value}" if axis == "width" else MODEL
    learner = steps.learner_of(backend, model, chosen["side"])
    return steps.step_of(learner, SqueezeConfig(steps=chosen["steps"]), chosen["batch"], chosen["side"])


def fit(values: tuple[int, ...], seconds: list[float], powers: tuple[int, ...]) -> dict[str, Any]:
    """Non-negative coefficients of the powers that minimise the relative residuals, and these residuals."""
    from scipy.optimize import nnls

    columns = np.array([[float(value) ** power for power in powers] for value in values])
    measured = np.array(seconds)
    coefficients, _ = nnls(columns / measured[:, None], np.ones_like(measured))
    residuals = columns @ coefficients / measured - 1.0
    return {"powers": powers, "coefficients": coefficients.tolist(), "relative_residuals": residuals.tolist()}


def law(fitted: dict[str, Any]) -> str:
    """0.052 + 0.061·n"""
    names = {0: "", 1: "·n", 2: "·n²"}
    terms = zip(fitted["coefficients"], fitted["powers"], strict=True)
    return " + ".join(f"{coefficient:.3g}{names[power]}" for coefficient, power in terms)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backend", choices=("torch", "keras"), default="torch")
    parser.add_argument("--axes", nargs="+", choices=tuple(AXES), default=list(AXES))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path, default=Path("docs/results"))
    args = parser.parse_args()

    backend = load_backend(args.backend)
    backend.use_threads(args.threads)
    backend.use_device("cpu")  # as `stcli` does
    found = {}
    for axis in args.axes:
        unit, values, powers = AXES[axis]
        _, seconds = rounds.take_turns({str(v): runner(args.backend, axis, v) for v in values}, args.rounds)
        medians = [statistics.median(seconds[str(value)]) for value in values]
        fitted = fit(values, medians, powers)
        found[axis] = {
            "unit": unit,
            "values": values,
            "median_seconds": medians,
            "seconds": seconds,
            "fit": fitted,
        }

    rounds.publish(
        args.out,
        f"scaling-{args.backend}",
        f"How a step's time grows: {args.backend}",
        f"One squeeze-training step, {args.threads} thread(s), float32; {MODEL}, batch {BATCH}, K = {K}, "
        f"{SIDE} × {SIDE} × 3 unless it is the axis. Medians of {args.rounds} rounds; the law is fitted to them "
        "by least squares of the relative residuals, with non-negative coefficients.",
        rounds.command(parser, args),
        "\n\n".join(text(axis, row) for axis, row in found.items()),
        {name: value for name, value in vars(args).items() if name != "out"},
        backend.versions(),
        axes=found,
    )


def text(axis: str, row: dict[str, Any]) -> str:
    """An axis' law and the measurements."""
    residuals = row["fit"]["relative_residuals"]
    found = f"{law(row['fit'])} seconds, off by at most {max(map(abs, residuals)):.0%}"
    measured = ("s", *(f"{value:.3f}" for value in row["median_seconds"]))
    fitted = ("law / s", *(f"{1 + residual:.2f}" for residual in residuals))
    return f"**{axis}** (n {row['unit']}): {found}\n\n{rounds.table(('n', *row['values']), [measured, fitted])}"


if __name__ == "__main__":
    main()
