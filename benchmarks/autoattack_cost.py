"""Cost of the standard AutoAttack, ours against the reference, and the saving of each optimisation. PyTorch.

    python benchmarks/autoattack_cost.py WEIGHTS --data parquet:DIR [--images 1000] [--batch-size 250]
        [--threads 1] [--queries 5000] [--parts 1] [--rounds 1] [--two] [--out FILE]

WEIGHTS is a file of `stcli train`, or a .pth of a network that `small_networks.py` knows.

The engines attack the same first test images one after the other: the reference (pyautoattack), ours, and ours
with optimisations disabled, which `--two` leaves out. With several `--parts` they take turns on one part of the
images after the other, so a machine that slows down slows all of them; small parts, however, fill fewer lanes. Of
several `--rounds` the fastest counts. Freed memory is kept, as `stcli` keeps it.

A unit is one forward pass of one image. A backward pass to the pixels is one more unit, and computing gradients of
the weights as well, as the reference's FAB does, another one. A ratio above 1 means that ours is cheaper.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import platform
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from fractions import Fraction
from functools import partial, reduce
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import numpy as np
import small_networks
import torch
from torch import Tensor, nn

from stcore import data, models
from stcore.autoattack import AutoAttack
from stcore.autoattack.reference import run_reference
from stcore.backends.torch import make_classifier
from stcore.backends.torch.allocator import keep_freed_memory
from stcore.backends.torch.folding import candidates
from stcore.base.progress import Silent
from stcore.base.weights_file import load_weights
from stcore.evaluation.assessment import Assessment
from stcore.evaluation.attack_names import split
from stcore.evaluation.evaluator import Evaluator
from stcore.protocols import Array

REFERENCE, OURS, LAID_OUT, PLAIN = "reference", "ours", "ours, not folded", "ours, not folded, channels-first"


@dataclass
class Cost:
    """An engine's verdicts and its cost. robust: per image.   Passes count images × passes."""

    robust: list[bool] = field(default_factory=list)
    forwards: int = 0
    backwards: int = 0
    weight_gradients: int = 0
    seconds: float = 0.0
    cpu_seconds: float = 0.0

    @property
    def units(self) -> int:
        return self.forwards + self.backwards + self.weight_gradients

    def add(self, robust: Array, forwards: int, backwards: int, weight_gradients: int = 0) -> None:
        self.robust += robust.tolist()
        self.forwards += forwards
        self.backwards += backwards
        self.weight_gradients += weight_gradients

    def fastest(self, other: Cost) -> Cost:
        """This cost with the lesser times of both. Raises ValueError unless both have the same verdicts."""
        if self.robust != other.robust:
            raise ValueError("verdicts: expected the same in every round")
        times = {name: min(getattr(self, name), getattr(other, name)) for name in ("seconds", "cpu_seconds")}
        return replace(self, **times)


class CountingNetwork(nn.Module):
    """A network that counts, in images, the backward passes that compute gradients of its weights."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model, self.weight_gradients, self._images = model, 0, 0
        next(model.parameters()).register_hook(self._count)

    def forward(self, x: Tensor) -> Tensor:
        self._images = len(x)
        logits: Tensor = self.model(x)
        return logits

    def _count(self, gradient: Tensor) -> None:
        self.weight_gradients += self._images


def reference(model: nn.Module, images: Array, labels: Array, args: argparse.Namespace, cost: Cost) -> None:
    counting = CountingNetwork(model)
    found = run_reference(
        counting,
        images,
        labels,
        norm=args.norm,
        epsilon=args.epsilon,
        batch_size=args.batch_size,
        queries=args.queries,
    )
    cost.add(~found.fooled, found.forwards, found.backwards, counting.weight_gradients)


def ours(lever: Callable[[Any], Any]) -> Callable[..., None]:
    """Our cascade; `lever` returns the classifier that its lanes attack, or None for the folded one."""

    def run(model: nn.Module, images: Array, labels: Array, args: argparse.Namespace, cost: Cost) -> None:
        classifier = make_classifier(model)
        attacked = lever(classifier)
        if attacked is not None:
            classifier.folded = lambda x: attacked
        attack = AutoAttack(args.epsilon, args.norm, queries=args.queries)
        assessment = Assessment(
            Evaluator(classifier, {}), split({"it": attack}), images, labels, batch_size=args.batch_size
        )
        found = assessment.run(Silent())
        assert found is not None
        it = found.cascades["it"]
        forwards = len(images) + sum(stage.forwards for stage in it.stages)  # first the natural images
        cost.add(it.records.robust, forwards, sum(stage.backwards for stage in it.stages))

    return run


ENGINES = {
    REFERENCE: reference,
    OURS: ours(lambda classifier: None),
    LAID_OUT: ours(lambda classifier: make_classifier(list(candidates(classifier.model))[-1])),
    PLAIN: ours(lambda classifier: classifier),
}


def network(path: Path) -> Callable[[], nn.Module]:
    """A function that builds the network of a weights file, a new one for each engine."""
    if path.suffix == ".pth":
        return partial(small_networks.provable, path)
    weights, metadata = load_weights(path)
    height, width, channels = map(int, metadata["image_shape"].split("x"))
    classes = int(metadata["num_classes"])

    def build() -> nn.Module:
        size = {"num_classes": classes, "in_channels": channels, "image_size": (height, width)}
        model: nn.Module = models.build(metadata["model"], "torch", **size)
        models.load_weights(model, weights)
        return model

    return build


def measure(args: argparse.Namespace) -> dict[str, Cost]:
    torch.set_num_threads(args.threads)
    keep_freed_memory()
    build, test = network(args.weights), data.load(args.data).test
    rounds = [one_round(args, build, test) for _ in range(args.rounds)]
    return {name: reduce(Cost.fastest, (costs[name] for costs in rounds)) for name in rounds[0]}


def one_round(args: argparse.Namespace, build: Callable[[], nn.Module], test: Any) -> dict[str, Cost]:
    """The cost of each engine.   test: the data set's test images."""
    engines = {name: run for name, run in ENGINES.items() if name in (REFERENCE, OURS) or not args.two}
    costs = {name: Cost() for name in engines}
    for part in np.array_split(np.arange(min(args.images, len(test))), args.parts):
        for name, run in engines.items():
            model, cost = build(), costs[name]
            begun, cpu = time.perf_counter(), time.process_time()
            run(model, test.images[part], test.labels[part], args, cost)
            cost.seconds += time.perf_counter() - begun
            cost.cpu_seconds += time.process_time() - cpu
            print(
                f"{name}: {len(cost.robust)} images, {cost.seconds:.0f} s, CPU {cost.cpu_seconds:.1f} s",
                flush=True,
            )
    return costs


def levers(costs: dict[str, Cost]) -> dict[str, float]:
    """Factors of process CPU time; their product is the reference's time divided by ours."""
    per_unit = {name: cost.cpu_seconds / cost.units for name, cost in costs.items()}
    return {
        "fewer passes": costs[REFERENCE].units / costs[OURS].units,
        "less work around the passes": per_unit[REFERENCE] / per_unit[PLAIN],
        "channels-last weights": per_unit[PLAIN] / per_unit[LAID_OUT],
        "batch norm folded": per_unit[LAID_OUT] / per_unit[OURS],
    }


def show(costs: dict[str, Cost]) -> None:
    print(f"\n| engine | robust % | agree % | forwards | backwards | units | s | CPU s |\n|{'---|' * 8}")
    for name, cost in costs.items():
        agree = 100 * np.mean(np.equal(cost.robust, costs[REFERENCE].robust))
        print(
            f"| {name} | {100 * np.mean(cost.robust):.2f} | {agree:.2f} | {cost.forwards} | {cost.backwards} | "
            f"{cost.units} | {cost.seconds:.1f} | {cost.cpu_seconds:.1f} |"
        )
    one, other = costs[REFERENCE], costs[OURS]
    print(
        f"\nreference / ours: units {one.units / other.units:.2f}, wall-clock {one.seconds / other.seconds:.2f}, "
        f"process CPU {one.cpu_seconds / other.cpu_seconds:.2f}; ours / reference: process CPU "
        f"{other.cpu_seconds / one.cpu_seconds:.2f}"
    )
    if PLAIN in costs:
        print("reference / ours, process CPU, is the product of")
        for name, factor in levers(costs).items():
            print(f"  {factor:.2f}  {name}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("weights", type=Path, help="a .safetensors file of stcli train, or a released .pth")
    parser.add_argument("--data", required=True, help="a data set as for stcli train, such as parquet:DIR")
    parser.add_argument("--images", type=int, default=1000)
    parser.add_argument("--batch-size", type=int, default=250)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--queries", type=int, default=5000, help="of Square")
    parser.add_argument("--norm", choices=("linf", "l2", "l1"), default="linf")
    parser.add_argument("--epsilon", type=lambda text: float(Fraction(text)), default=8 / 255)
    parser.add_argument(
        "--parts", type=int, default=1, help="number of parts of the images on which the engines take turns"
    )
    parser.add_argument("--rounds", type=int, default=1, help="how often each engine runs; the fastest counts")
    parser.add_argument("--two", action="store_true", help="the reference and ours only")
    parser.add_argument("--out", type=Path, help="write the figures to this JSON file")
    args = parser.parse_args()

    costs = measure(args)
    show(costs)
    if args.out:
        weights = hashlib.sha256(args.weights.read_bytes()).hexdigest()
        settings = {name: value for name, value in vars(args).items() if name not in ("out", "weights", "data")}
        record = {
            "settings": {"weights": weights, **settings},
            "environment": {"platform": platform.platform(), "torch": torch.__version__, "numpy": np.__version__},
            "engines": {name: {**asdict(cost), "units": cost.units} for name, cost in costs.items()},
            "levers": levers(costs) if PLAIN in costs else None,
        }
        args.out.write_text(json.dumps(record) + "\n")


if __name__ == "__main__":
    main()
