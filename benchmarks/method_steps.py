"""How long a training step of each method takes, against the passes it is made of.

    python benchmarks/method_steps.py [--backend torch] [--model resnet8] [--batch 64] [--rounds 5] [--threads 1]

The methods take turns within each round, so a machine that slows down slows all of them; ratios to adversarial
training are taken round by round. `--json FILE` keeps the figures.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np

from stcore import models
from stcore.dispatch import load_backend
from stcore.methods import METHODS
from stcore.noise import sample
from stcore.objective import training_step
from stcore.plan import Plan, make_plan
from stcore.seeding import Stream

SETTINGS = {name: {"method": name} for name in METHODS} | {
    "st + awp": {"method": "st", "awp": 0.005},
    "trades + awp": {"method": "trades", "awp": 0.005},
    "trades + rwp": {"method": "trades", "rwp": 0.005, "rwp_threshold": 100.0},
}


def runner(args: argparse.Namespace, plan: Plan) -> Callable[[], Any]:
    """One step of this plan's method, in its dearest phase, from the same weights and batch each time."""
    backend = load_backend(args.backend)
    model = models.build(args.model, args.backend, num_classes=10)
    learner = backend.make_learner(model, backend.make_sgd(model, 0.01, 0.9, 5e-4, False))
    learner = backend.prepare_training(learner, "auto")
    objective, phase = plan.objective, plan.objective.phase(plan.epochs)
    step = learner.compile(
        lambda x, y, noise: training_step(learner, objective, x, y, noise, phase, plan.perturbation)
    )
    rng, shape = np.random.default_rng(0), (32, 32, 3)
    x = learner.images(rng.random((args.batch, *shape), np.float32))
    y = learner.labels(rng.integers(0, 10, args.batch))
    arrays = sample(objective.noise_laws, 0, Stream.NOISE, np.arange(args.batch), shape)
    noise = tuple(learner.images(array) for array in arrays)
    return lambda: float(learner.ops.to_numpy(step(x, y, noise).loss))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backend", choices=("torch", "keras"), default="torch")
    parser.add_argument("--model", default="resnet8")
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()

    load_backend(args.backend).use_threads(args.threads)
    plans = {name: make_plan({"dataset": "cifar10:", **settings}) for name, settings in SETTINGS.items()}
    runners = {name: runner(args, plan) for name, plan in plans.items()}
    seconds: dict[str, list[float]] = {name: [] for name in runners}
    for round_ in range(args.rounds + 1):
        for name, run in runners.items():
            begun = time.perf_counter()
            run()
            if round_:  # the first one warms up, and traces
                seconds[name].append(time.perf_counter() - begun)
        print(f"round {round_}/{args.rounds} done", flush=True)

    print(f"\n{args.backend}, {args.model}, batch {args.batch}, K = 10, {args.threads} thread(s)\n")
    print("| method | passes | passes / at | time / at | images/s |")
    print("|---|---|---|---|---|")
    rows = {}
    for name, plan in plans.items():
        ratios = sorted(a / b for a, b in zip(seconds[name], seconds["at"], strict=True))
        middle = statistics.median(seconds[name])
        rows[name] = {"passes": plan.units, "ratios_to_at": ratios, "median_seconds": middle}
        spread = f"{statistics.median(ratios):.2f} [{ratios[0]:.2f}..{ratios[-1]:.2f}]"
        cells = (name, plan.units, f"{plan.units / plans['at'].units:.2f}", spread, f"{args.batch / middle:.0f}")
        print("| " + " | ".join(map(str, cells)) + " |")
    if args.json:
        settings = {k: v for k, v in vars(args).items() if k != "json"}
        about = {"platform": platform.platform(), **load_backend(args.backend).versions()}
        args.json.write_text(
            json.dumps({"settings": settings, "environment": about, "methods": rows}, indent=1) + "\n"
        )


if __name__ == "__main__":
    main()
