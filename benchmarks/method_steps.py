"""Time of a training step of each method, against its number of passes.

    python benchmarks/method_steps.py [--backend torch] [--model resnet8] [--batch 64] [--rounds 5] [--threads 1]
        [--out docs/results]

The methods take turns within each round, so a machine that slows down slows all of them; ratios to adversarial
training are computed round by round. Writes method-steps-BACKEND.md and .json.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Callable
from pathlib import Path

import rounds
import steps

from stcore.core.dispatch import load_backend
from stcore.methods import METHODS
from stcore.runs.plan import Plan, make_plan

SETTINGS = {name: {"method": name} for name in METHODS} | {
    "st + awp": {"method": "st", "awp": 0.005},
    "trades + awp": {"method": "trades", "awp": 0.005},
    "trades + rwp": {"method": "trades", "rwp": 0.005, "rwp_threshold": 100.0},
}


def runner(args: argparse.Namespace, plan: Plan) -> Callable[[], float]:
    """One step of this plan's method in its most expensive phase, on the same batch each time."""
    objective, learner = plan.objective, steps.learner_of(args.backend, args.model)
    return steps.step_of(
        learner,
        objective,
        args.batch,
        phase=objective.phase(plan.optimisation.epochs),
        perturbation=plan.method.perturbation,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backend", choices=("torch", "keras"), default="torch")
    parser.add_argument("--model", default="resnet8")
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path, default=Path("docs/results"))
    args = parser.parse_args()

    backend = load_backend(args.backend)
    backend.use_threads(args.threads)
    backend.use_device("cpu")  # as `stcli` does
    plans = {name: make_plan({"dataset": "cifar10:", **settings}) for name, settings in SETTINGS.items()}
    runners = {name: runner(args, plan) for name, plan in plans.items()}
    _, seconds = rounds.take_turns(runners, args.rounds)

    rows = {
        name: {
            "passes": plan.units,
            "ratio_to_at": rounds.ratio(seconds, name, "at"),
            "median_seconds": statistics.median(seconds[name]),
            "seconds": seconds[name],
        }
        for name, plan in plans.items()
    }
    rounds.publish(
        args.out,
        f"method-steps-{args.backend}",
        f"A step of each method: {args.backend}",
        f"{args.model}, batches of {args.batch} of 32 × 32 × 3, K = 10, float32, {args.threads} thread(s); "
        f"medians of {args.rounds} rounds, ratios round by round with their range. Passes are those "
        "of `stcli plan`, in forward passes of the batch.",
        rounds.command(parser, args),
        rounds.table(
            ("method", "passes", "passes / at", "time / at", "images/s"),
            [
                (
                    name,
                    row["passes"],
                    f"{row['passes'] / rows['at']['passes']:.2f}",
                    rounds.said(row["ratio_to_at"]),
                    f"{args.batch / row['median_seconds']:.0f}",
                )
                for name, row in rows.items()
            ],
        ),
        {k: v for k, v in vars(args).items() if k != "out"},
        backend.versions(),
        methods=rows,
    )


if __name__ == "__main__":
    main()
