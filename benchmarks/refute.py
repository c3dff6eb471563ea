"""Passes that refute an overclaim, and how often a true claim is refuted, over random orders of the images.

    python benchmarks/refute.py [--network digits-small-cnn-st] [--points 10] [--orders 20] [--simulated 200]
        [--threads 1] [--out docs/results]

A network of the zoo is claimed `--points` above its accuracy under AutoAttack. Each order is a whole refutation,
its audit included. The full evaluation is counted too low: the images that withstand AutoAttack, each with all its
passes, and none for those that fall. The simulated orders are of a claim that just holds, with a look after every
image and the outcomes of the records.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import rounds

import stcore
from stcore import data, zoo
from stcore.autoattack import stages
from stcore.base.progress import Silent
from stcore.core.dispatch import load_backend
from stcore.evidence.refuting import Refutation
from stcore.evidence.sampling import REFUTED, Claim
from stcore.evidence.sequential import log_evidence


def passes_of(stage: Any) -> int:
    """Forward and backward passes of an image that withstands an attack."""
    attack = stage.attack
    each = attack.forwards + attack.backwards if hasattr(attack, "forwards") else 1
    return int(stage.restarts * max(stage.targets, 1) * attack.evaluations * each)


def refutation(card: zoo.Card, claim: Claim, seed: int) -> Mapping[str, Any]:
    """One order: its verdict, the images looked at, and the passes by attack."""
    test = data.load(card.config["dataset"]).test
    identity = {
        "seed": seed,
        "weights": card.weights,
        "data": card.data,
        "dtype": "float32",
        "dataset": card.config["dataset"],
        "model": card.config["model"],
        "subset": None,
    }
    model = stcore.load(f"{zoo.PREFIX}{card.name}", backend="torch").model
    work = Refutation(stcore.make_classifier(model), test, np.arange(len(test)), claim, identity)
    standing = work.run(Silent())
    return {
        "seed": seed,
        "verdict": standing.verdict,
        "images": standing.seen,
        "broken": standing.broken,
        "passes": sum(work.passes.values()),
        "by_attack": work.passes,
    }


def wrongly_refuted(total: int, stand: int, orders: int, confidence: float) -> int:
    """In how many random orders a claim that just holds is refuted at any look."""
    rng, limit, wrong = np.random.default_rng(0), -np.log1p(-confidence), 0
    for _ in range(orders):
        standing = np.cumsum(rng.permutation(np.arange(total) < stand))
        wrong += any(log_evidence(total, seen + 1, int(standing[seen]))[stand] >= limit for seen in range(total))
    return wrong


def main() -> None:
    parser = argparse.ArgumentParser(prog="refute.py", description=__doc__.splitlines()[0])
    parser.add_argument("--network", default="digits-small-cnn-st")
    parser.add_argument("--points", type=float, default=10)
    parser.add_argument("--orders", type=int, default=20)
    parser.add_argument("--simulated", type=int, default=200)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path, default=Path("docs/results"))
    args = parser.parse_args()
    backend = load_backend("torch")
    backend.use_threads(args.threads)
    card = zoo.read_card(args.network)
    score = card.accuracies["autoattack"]
    stand, total = score["correct"], score["total"]
    claim = Claim(round(stand / total + args.points / 100, 3), card.epsilon, card.norm)
    classes = data.load(card.config["dataset"]).test.num_classes
    full = stand * sum(passes_of(stage) for stage in stages("standard", card.norm, card.epsilon, classes))
    found = []
    for seed in range(args.orders):
        found.append(refutation(card, claim, seed))
        one = found[-1]
        print(f"seed {seed}: {one['verdict']}, {one['images']} images, {one['passes']:,} passes", flush=True)
    wrong = wrongly_refuted(total, stand, args.simulated, claim.confidence)
    median, least, most = rounds.spread(one["passes"] / full for one in found)
    images = rounds.spread(one["images"] for one in found)
    refuted = sum(one["verdict"] == REFUTED for one in found)
    body = "\n".join(
        [
            rounds.table(
                ["", "median", "least", "most"],
                [
                    ["passes, of the full evaluation's", *(f"{100 * it:.1f} %" for it in (median, least, most))],
                    [f"images looked at, of {total}", *(f"{it:g}" for it in images)],
                ],
            ),
            "",
            f"{refuted} of {len(found)} orders refuted the claim. Of {args.simulated} simulated orders of a claim "
            f"that just holds, {wrong} refuted it ({100 * wrong / args.simulated:g} %; at most 5 % may).",
            "",
            rounds.table(
                ["seed", "verdict", "images", "broken", "passes", "of the full evaluation's"],
                [
                    [
                        one["seed"],
                        one["verdict"],
                        one["images"],
                        one["broken"],
                        f"{one['passes']:,}",
                        f"{100 * one['passes'] / full:.1f} %",
                    ]
                    for one in found
                ],
            ),
        ]
    )
    rounds.publish(
        args.out,
        "refute",
        "Refuting an overclaim",
        f"`{args.network}` withstands AutoAttack on {stand} of {total} images ({100 * stand / total:.2f} %) at "
        f"{card.norm} ε = {card.epsilon:g}; claimed are {100 * claim.accuracy:g} %. A full evaluation takes at "
        f"least {full:,} passes.",
        rounds.command(parser, args),
        body,
        vars(args),
        backend.versions(),
        full=full,
        claim=vars(claim),
        orders=found,
        wrongly_refuted=wrong,
    )


if __name__ == "__main__":
    main()
