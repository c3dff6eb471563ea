"""Robustness for minutes: methods and networks against each other at equal time on CIFAR-10.

    python benchmarks/minutes.py --data DATA [--budgets 5 15 30 60] [--seeds 1] [--points NAME …] [--widths W …]
                                 [--precision bf16]

DATA is a folder with CIFAR-10 as train-*.parquet and test-*.parquet. A budget is minutes of one core for training
alone. A network's seconds per pass are measured once on this machine (calibration.json in the runs' folder); with
the passes of a method they give its number of epochs. Each is `stcli train` in a process of
its own, with one thread, then AutoAttack's short version of the averaged weights. Smallest budget first; finished
runs are kept, so that the search may be interrupted and continued. Writes minutes.md and .json into docs/results,
or minutes-bf16.md and .json: on a processor with matrix units, bfloat16 trains for more epochs in the same time.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sysconfig
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import rounds
from variants import LIMITS, Options, VariantRuns, interval, plus_minus

from stcore import models
from stcore.base.files import write_file
from stcore.core.dispatch import load_backend
from stcore.core.objective import training_step
from stcore.core.optimizers import SGD
from stcore.evaluation.accuracy import Accuracy
from stcore.methods import make_objective
from stcore.methods.single_step import SingleStepConfig

BASE: Options = {
    "validation-size": 500,
    "test-size": 1000,
    "batch-size": 128,
    "learning-rate": 0.2,
    "schedule": "one-cycle",
    "nesterov": (),
    "augment": "flip",
    "ema": 0.995,
    "attacks": "pgd20",
    "threads": 1,
}
TWO_STEPS = {"steps": 2, "step-size": "5/255"}
FLIPPED: dict[str, Options] = {
    "N-FGSM": {"method": "n-fgsm"},
    "N-FGSM, ε = 10/255": {"method": "n-fgsm", "epsilon": "10/255", "eval-epsilon": "8/255"},
    "N-FGSM, smoothed": {"method": "n-fgsm", "label-smoothing": 0.1},
    "N-FGSM, smoothed by 0.3": {"method": "n-fgsm", "label-smoothing": 0.3},
    "N-FGSM, SiLU": {"method": "n-fgsm", "model": "resnet-s-{width}-silu"},
    "N-FGSM, not augmented": {"method": "n-fgsm", "augment": "none"},
    "N-FGSM, rate 0.4": {"method": "n-fgsm", "learning-rate": 0.4},
    "N-FGSM, rate 0.1": {"method": "n-fgsm", "learning-rate": 0.1},
    "N-FGSM, batches of 256": {"method": "n-fgsm", "batch-size": 256, "learning-rate": 0.3},
    "FGSM-RS": {"method": "fgsm-rs"},
    "consistency": {"method": "fgsm-consistency", "ramp": "consistency@1"},
    "fast ST": {"method": "fast-st"},
    "fast ST, β = 10": {"method": "fast-st", "beta": 10},
    "fast ST, k = 2, unprojected": {"method": "fast-st", "start-scale": 2, "no-project": ()},
    "fast ST, β = 20, k = 2, unprojected": {"method": "fast-st", "beta": 20, "start-scale": 2, "no-project": ()},
    "fast ST of the image": {"method": "fast-st", "natural": "image"},
    "fast ST by descent": {"method": "fast-st", "natural": "image", "collaborative": "descent"},
    "ST, K = 2": {"method": "st", **TWO_STEPS},
    "AT, K = 2": {"method": "at", **TWO_STEPS},
    "AT": {"method": "at"},
    "TRADES": {"method": "trades"},
}
CROPPED = (
    *("N-FGSM", "N-FGSM, ε = 10/255", "N-FGSM, smoothed", "N-FGSM, smoothed by 0.3", "N-FGSM, SiLU"),
    *("FGSM-RS", "consistency", "fast ST", "fast ST, β = 10"),
)
METHODS: dict[str, Options] = FLIPPED | {
    f"{name}, cropped": {**FLIPPED[name], "augment": "crop-flip"} for name in CROPPED
}
"""The methods that are compared, by the options that make them."""
WIDTHS = {5: (16, 24), 15: (16, 24, 32), 30: (24, 32, 48), 60: (32, 48, 64)}
"""The widths of `resnet-s-W` that are tried with N-FGSM and fast ST, by the budget in minutes."""
USUAL = {5: 16, 15: 24, 30: 32, 60: 32}
"""The width at which all methods are compared."""
IMAGES = 49_500
CHECKPOINT = "last-ema"


@dataclass(frozen=True)
class Point:
    """One method on one network for a budget in minutes of one core."""

    budget: int
    method: str
    width: int

    @property
    def model(self) -> str:
        return str(METHODS[self.method].get("model", "resnet-s-{width}")).format(width=self.width)

    @property
    def units(self) -> int:
        """The passes of a step."""
        options = METHODS[self.method]
        told = {name: options[name] for name in ("steps", "natural", "collaborative") if name in options}
        return make_objective(str(options["method"]), told).passes.units

    @property
    def name(self) -> str:
        return f"{self.budget} min, {self.method}, {self.model}"


def points(budgets: Sequence[int]) -> Iterator[Point]:
    """All points, smallest budget first, and within it what matters most first."""
    for budget in budgets:
        usual = [Point(budget, method, USUAL[budget]) for method in METHODS]
        others = [
            Point(budget, method, width)
            for width in WIDTHS[budget]
            if width != USUAL[budget]
            for method in ("N-FGSM", "fast ST")
        ]
        yield from (*usual, *others)


def seconds_per_unit(model: str, precision: str, steps: int = 6, batch: int = 128) -> float:
    """CPU seconds of a forward of one image, on one thread: a fifth of an N-FGSM step, the least of a few."""
    backend = load_backend("torch")
    backend.use_threads(1)
    network = models.build(model, "torch", num_classes=10, in_channels=3, image_size=(32, 32), seed=0)
    optimizer = backend.make_optimizer(network, SGD(momentum=0.9, weight_decay=5e-4, nesterov=True))
    learner = backend.prepare_training(backend.make_learner(network, optimizer), "auto", precision, precision)
    objective, rng = SingleStepConfig(), np.random.default_rng(0)
    x = learner.images(rng.integers(0, 256, (batch, 32, 32, 3), dtype=np.uint8))
    y, noise = learner.labels(rng.integers(0, 10, batch)), (x - 0.5,)
    taken = []
    for _ in range(steps + 1):
        begun = time.process_time()
        training_step(learner, objective, x, y, noise)
        taken.append(time.process_time() - begun)
    return min(taken[1:]) / batch / objective.passes.units


class Search:
    """The runs of the search in a folder, and what they found."""

    def __init__(self, runs: Path, data: Path, precision: str = "fp32") -> None:
        self.runs, self.data, self.precision = runs, data, precision
        self._calibration = runs / "calibration.json"
        runs.mkdir(parents=True, exist_ok=True)
        known = json.loads(self._calibration.read_text()) if self._calibration.is_file() else {}
        self.calibrated: dict[str, float] = known

    def epochs(self, point: Point) -> int:
        """The whole number of epochs nearest to the budget, at least 2."""
        if point.model not in self.calibrated:
            self.calibrated[point.model] = seconds_per_unit(point.model, self.precision)
            write_file(self._calibration, json.dumps(self.calibrated, indent=1) + "\n")
        return max(2, round(point.budget / self.minutes(point)))

    def minutes(self, point: Point) -> float:
        """Minutes of an epoch: the method's passes on this network."""
        return point.units * IMAGES * self.calibrated[point.model] / 60

    def variant(self, point: Point) -> VariantRuns:
        base = {
            **BASE,
            "dataset": f"parquet:{self.data}",
            "model": point.model,
            "epochs": self.epochs(point),
            "precision": self.precision,
        }
        options = {**METHODS[point.method], "model": point.model}
        return VariantRuns(f"{point.budget} min", base, {f"{point.method} {point.model}": options})

    def folder(self, point: Point, seed: int) -> Path:
        variant = self.variant(point)
        return variant._folder(self.runs, next(iter(variant.variants))) / f"seed{seed}"

    def make(self, point: Point, seed: int) -> None:
        """Trains and attacks what has no result yet."""
        self.variant(point).train(self.runs, [seed])
        out = self.folder(point, seed) / "autoattack-fast.json"
        if out.is_file():
            return
        stcli = Path(sysconfig.get_path("scripts")) / "stcli"
        words = [
            "evaluate",
            self.folder(point, seed),
            "--checkpoint",
            CHECKPOINT,
            "--attacks",
            "autoattack",
            "--fast",
        ]
        said = subprocess.run(
            [*map(str, (stcli, *words)), "--threads", "1", "--no-audit", "--json"],
            check=True,
            env=os.environ | LIMITS,
            capture_output=True,
            text=True,
        )
        write_file(out, said.stdout)

    def found(self, point: Point, seeds: Sequence[int]) -> dict[str, Any] | None:
        """Means over the seeds that are done, with intervals; None if there is none."""
        done = [seed for seed in seeds if (self.folder(point, seed) / "autoattack-fast.json").is_file()]
        if not done:
            return None
        variant = self.variant(point)
        (name,) = variant.variants
        figures: dict[str, list[float]] = {"natural": [], "pgd20": [], "autoattack-fast": []}
        for seed in done:
            for attack, accuracy in variant.run(self.runs, name, seed).accuracies.items():
                figures[attack].append(100 * accuracy.value)
            result = json.loads((self.folder(point, seed) / "autoattack-fast.json").read_text())
            figures["autoattack-fast"].append(100 * _robust(result).value)
        return {
            "budget": point.budget,
            "method": point.method,
            "model": point.model,
            "epochs": self.epochs(point),
            "minutes": self.epochs(point) * self.minutes(point),
            "seeds": done,
            **{attack: interval(values) for attack, values in figures.items()},
        }


def _robust(result: Any) -> Accuracy:
    (row,) = result.values()
    return Accuracy(row["autoattack-fast"]["correct"], row["autoattack-fast"]["total"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--budgets", type=int, nargs="+", default=list(USUAL), choices=tuple(USUAL))
    parser.add_argument("--seeds", type=int, nargs="+", default=[1])
    parser.add_argument("--points", nargs="+", help="only these methods", choices=tuple(METHODS))
    parser.add_argument("--widths", type=int, nargs="+", help="only networks of these widths")
    parser.add_argument(
        "--report", action="store_true", help="make no run; write the page from those that are done"
    )
    parser.add_argument("--precision", choices=("fp32", "bf16"), default="fp32")
    parser.add_argument("--runs", type=Path, help="default: runs/minutes, or runs/minutes-bf16")
    parser.add_argument("--out", type=Path, default=Path("docs/results"))
    args = parser.parse_args()
    name = "minutes" if args.precision == "fp32" else f"minutes-{args.precision}"
    search = Search(args.runs or Path("runs") / name, args.data.resolve(), args.precision)
    chosen = [
        point
        for point in points(args.budgets)
        if (args.points is None or point.method in args.points)
        and (args.widths is None or point.width in args.widths)
    ]
    for seed in args.seeds if not args.report else ():
        for point in chosen:
            print(f"{point.name}, {point.units} units, {search.epochs(point)} epochs, seed {seed}", flush=True)
            search.make(point, seed)
    rows = [row for point in chosen if (row := search.found(point, args.seeds)) is not None]
    rounds.publish(
        args.out,
        name,
        "Robustness for minutes" + (", in bfloat16" if args.precision == "bf16" else ""),
        "CIFAR-10 (stored as JPEG, 49 500 images to train on), PyTorch, "
        f"{'bfloat16' if args.precision == 'bf16' else 'float32'}, `resnet-s-W`, batches of 128, "
        "learning rate 0.2 by one-cycle with Nesterov's momentum, averaged weights (0.995) of the last epoch; "
        "ε = 8/255. Minutes of one core for training alone, computed from the measured time of a step. Accuracies "
        "on the first 1 000 test images, AutoAttack in its short version; means over the seeds, with 95 % "
        "t-intervals where there are several.",
        rounds.command(parser, args, "runs", "data", "report") + " --data DATA",
        rounds.table(
            (
                "budget",
                "method",
                "network",
                "epochs",
                "minutes",
                "seeds",
                "natural %",
                "PGD-20 %",
                "AutoAttack fast %",
            ),
            [
                (
                    row["budget"],
                    row["method"],
                    f"`{row['model']}`",
                    row["epochs"],
                    f"{row['minutes']:.1f}",
                    len(row["seeds"]),
                    *(plus_minus(row[attack]) for attack in ("natural", "pgd20", "autoattack-fast")),
                )
                for row in sorted(rows, key=lambda row: (row["budget"], -row["autoattack-fast"][0]))
            ],
        ),
        {"seeds": args.seeds, "base": BASE, "methods": METHODS, "calibration": search.calibrated},
        load_backend("torch").versions(),
        rows=rows,
    )


if __name__ == "__main__":
    main()
