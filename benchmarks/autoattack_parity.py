"""Agreement of two AutoAttack implementations: per-image verdicts of an engine, and their comparison.

    parity() { python benchmarks/autoattack_parity.py "$@"; }
    parity run WEIGHTS --dataset parquet:DIR --images 500 --json reference.json
    parity run WEIGHTS --dataset parquet:DIR --images 500 --engine ours --json ours.json
    parity compare reference.json ours.json

`run` attacks the correctly classified ones of the first N test images, once per attack and seed, and saves for
each
run: `fooled` (0 or 1 per image), the robust accuracy in % of the N images, seconds, and forwards and backwards as
images × passes. Attacks use the settings of the standard version, each on all the images; `standard` is the
cascade. The file is written after every run, so that nothing is lost.

`compare` prints how often two runs of an attack agree, for seeds of one engine and between engines.
"""

from __future__ import annotations

import argparse
import hashlib
import itertools
import json
import os
import platform
import statistics
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np

import stcore
from stcore import data, models
from stcore.autoattack import AutoAttack, Stage
from stcore.autoattack.reference import run_reference
from stcore.base.progress import Silent
from stcore.base.weights_file import load_weights
from stcore.core.dispatch import load_backend
from stcore.evaluation.assessment import Assessment
from stcore.evaluation.attack_names import split
from stcore.evaluation.evaluator import Evaluator
from stcore.protocols import Array


def reference(model: Any, images: Array, labels: Array, attack: str, seed: int, args: Any) -> dict[str, Any]:
    """One run of pyautoattack."""
    result = run_reference(
        model,
        images,
        labels,
        norm=args.norm,
        epsilon=args.epsilon,
        attacks=None if attack == "standard" else [attack],
        seed=seed,
        batch_size=args.batch,
        queries=args.queries,
        progress=lambda line: print(f"  {line}", flush=True) if args.verbose else None,
    )
    return {
        "fooled": result.fooled.astype(int).tolist(),
        "seconds": result.seconds,
        "forwards": result.forwards,
        "backwards": result.backwards,
        "weight_gradients": result.weight_gradients,
    }


def ours(model: Any, images: Array, labels: Array, attack: str, seed: int, args: Any) -> dict[str, Any]:
    """One run of our AutoAttack, with the same keys as `reference`."""
    evaluator = Evaluator(stcore.make_classifier(model), {}, seed)
    cascade = Standard(args.epsilon, args.norm, queries=args.queries, only=attack)
    begun = time.perf_counter()
    found = Assessment(evaluator, split({"it": cascade}), images, labels, batch_size=args.batch).run(Silent())
    stages = found.cascades["it"].stages
    return {
        "fooled": (~found.cascades["it"].records.robust).astype(int).tolist(),
        "seconds": time.perf_counter() - begun,
        "forwards": sum(stage.forwards for stage in stages),
        "backwards": sum(stage.backwards for stage in stages),
        "weight_gradients": False,
    }


@dataclass(frozen=True)
class Standard(AutoAttack):
    """AutoAttack, or a single one of its attacks with the same settings."""

    only: str = "standard"

    def stages(self, classes: int) -> tuple[Stage, ...]:
        return tuple(stage for stage in super().stages(classes) if self.only in ("standard", stage.name))


ENGINES = {"reference": reference, "ours": ours}


def run(args: argparse.Namespace) -> None:
    load_backend(args.backend).use_threads(args.threads)
    weights, metadata = load_weights(args.weights)
    height, width, channels = map(int, metadata["image_shape"].split("x"))
    model = models.build(
        metadata["model"],
        args.backend,
        num_classes=int(metadata["num_classes"]),
        in_channels=channels,
        image_size=(height, width),
    )
    models.load_weights(model, weights)
    test = data.load(args.dataset).test
    rows = correctly_classified(stcore.make_classifier(model), test.head(args.images))
    images, labels = test.images[rows], test.labels[rows]
    record: dict[str, Any] = {
        "engine": args.engine,
        "backend": args.backend,
        "model": metadata["model"],
        "weights": hashlib.sha256(args.weights.read_bytes()).hexdigest(),
        "norm": args.norm,
        "epsilon": args.epsilon,
        "batch": args.batch,
        "queries": args.queries,
        "threads": args.threads,
        "images": rows,
        "of": args.images,
        "natural_accuracy": 100 * len(rows) / args.images,
        "environment": {"platform": platform.platform(), **load_backend(args.backend).versions()},
        "runs": [],
    }
    for attack, seed in itertools.product(args.attacks.split(","), map(int, args.seeds.split(","))):
        begun = time.perf_counter()
        one = ENGINES[args.engine](model, images, labels, attack, seed, args)
        accuracy = 100 * (len(rows) - sum(one["fooled"])) / args.images
        record["runs"].append({"attack": attack, "seed": seed, "robust_accuracy": accuracy, **one})
        args.json.write_text(json.dumps(record) + "\n")
        passes = f"{one['forwards']} forwards, {one['backwards']} backwards"
        print(
            f"{args.engine} {attack}, seed {seed}: {accuracy:.2f} % of {args.images} robust, "
            f"{time.perf_counter() - begun:.1f} s, {passes}",
            flush=True,
        )


def correctly_classified(classifier: Any, test: data.ImageData) -> list[int]:
    """The indices of the correctly classified images."""
    rows: list[int] = []
    for first in range(0, len(test), 250):
        part = slice(first, first + 250)
        predicted = classifier.eval_logits(classifier.images(test.images[part])).argmax(axis=1)
        rows += (first + np.flatnonzero(predicted == test.labels[part])).tolist()
    return rows


def compare(args: argparse.Namespace) -> None:
    records = [json.loads(path.read_text()) for path in args.files]
    for name in ("weights", "norm", "epsilon", "images"):
        if any(record[name] != records[0][name] for record in records):
            raise SystemExit(f"{name}: expected the same in all files; they differ. Compare runs of one setting")
    by_attack: dict[str, dict[str, list[dict[str, Any]]]] = defaultdict(lambda: defaultdict(list))
    for record in records:
        for one in record["runs"]:
            by_attack[one["attack"]][f"{record['engine']}, {record['backend']}"].append(one)

    total = records[0]["of"]
    print(f"{records[0]['model']}, {total} images, {len(records[0]['images'])} of them classified correctly\n")
    table(("attack", "engine", "seeds", "robust %", "seconds", "forwards", "backwards"), accuracies(by_attack))
    print()
    table(
        ("attack", "between", "pairs", "agree %", "least %", "most images", "points", "most points"),
        agreements(by_attack),
    )


def accuracies(by_attack: dict[str, dict[str, list[dict[str, Any]]]]) -> Iterator[Sequence[str]]:
    """A row per attack and engine: mean robust accuracy over the seeds with its range, and mean costs."""
    for attack, engines in by_attack.items():
        for engine, of_seeds in engines.items():
            robust = [one["robust_accuracy"] for one in of_seeds]
            costs = [
                statistics.mean(one[name] for one in of_seeds) for name in ("seconds", "forwards", "backwards")
            ]
            spread = f"{statistics.mean(robust):.2f} [{min(robust):.2f}..{max(robust):.2f}]"
            yield (
                attack,
                engine,
                str(len(of_seeds)),
                spread,
                f"{costs[0]:.1f}",
                f"{costs[1]:.0f}",
                f"{costs[2]:.0f}",
            )


def agreements(by_attack: dict[str, dict[str, list[dict[str, Any]]]]) -> Iterator[Sequence[str]]:
    """A row per attack and pair of engines: the share of equal verdicts on the correctly classified images, the
    largest number of different verdicts, and the difference of the robust accuracies.

    `points` is the mean of the second engine's robust accuracy minus the first's, `most points` the largest gap.
    """
    for attack, engines in by_attack.items():
        for one, other in itertools.combinations_with_replacement(engines, 2):
            same = one == other
            pairs = list(
                itertools.combinations(engines[one], 2)
                if same
                else itertools.product(engines[one], engines[other])
            )
            if not pairs:
                continue  # a single seed
            agree = [100 * statistics.mean(map(int.__eq__, a["fooled"], b["fooled"])) for a, b in pairs]
            apart = max(sum(map(int.__ne__, a["fooled"], b["fooled"])) for a, b in pairs)
            points = [b["robust_accuracy"] - a["robust_accuracy"] for a, b in pairs]
            yield (
                attack,
                f"seeds of {one}" if same else f"{one} and {other}",
                str(len(pairs)),
                f"{statistics.mean(agree):.2f}",
                f"{min(agree):.2f}",
                str(apart),
                "" if same else f"{statistics.mean(points):+.2f}",
                f"{max(map(abs, points)):.2f}",
            )


def table(head: Sequence[str], rows: Iterator[Sequence[str]]) -> None:
    for row in (head, ["---"] * len(head), *rows):
        print("| " + " | ".join(row) + " |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(required=True)
    one = commands.add_parser("run", help="verdicts of one engine")
    one.add_argument("weights", type=Path, help="a .safetensors file of stcli train")
    one.add_argument("--dataset", required=True, help="a data set as for stcli train, such as parquet:DIR")
    one.add_argument("--engine", choices=ENGINES, default="reference")
    one.add_argument("--backend", choices=("torch", "keras"), default="torch")
    one.add_argument("--images", type=int, default=200)
    one.add_argument(
        "--attacks", default="apgd-ce,apgd-t,fab-t,square", help="separated by commas; standard is the cascade"
    )
    one.add_argument("--seeds", default="0,1,2")
    one.add_argument("--norm", choices=("linf", "l2", "l1"), default="linf")
    one.add_argument("--epsilon", type=float, default=8 / 255)
    one.add_argument("--queries", type=int, default=5000, help="of Square")
    one.add_argument("--batch", type=int, default=250)
    one.add_argument("--threads", type=int, default=1)
    one.add_argument("--verbose", action="store_true", help="print the engine's log")
    one.add_argument("--json", type=Path, required=True)
    one.set_defaults(command=run)
    several = commands.add_parser("compare", help="agreement of runs")
    several.add_argument("files", type=Path, nargs="+")
    several.set_defaults(command=compare)
    args = parser.parse_args()
    args.command(args)


if __name__ == "__main__":
    main()
