"""Brackets of robust accuracy: proofs below, AutoAttack above, on networks that were trained to be proved.

    python benchmarks/bracket.py [--released DIR] [--data parquet:DIR] [--images 300] [--checks 10000]

Two released networks of Wong, Schmidt, Metzen and Kolter (2018; repository locuslab/convex_adversarial), CIFAR-10
in l∞ and in l2, are bracketed with `--released`; a small network of the zoo on digits always is. There the
benchmark also makes `--checks` runs of attacks on proved images, which all must fail. Finished networks are kept
in FOLDER: an interrupted benchmark resumes.
"""

from __future__ import annotations

import argparse
import json
import time
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import rounds
import torch
from torch import nn

import stcore
from stcore.attacks import PGD
from stcore.autoattack import AutoAttack
from stcore.base.files import write_file
from stcore.bounds.proof import METHODS
from stcore.core.dispatch import load_backend
from stcore.data.readers import sources
from stcore.models import torch_files
from stcore.models.torch_layers import Normalization, Normalized

RELEASED = {"cifar_small_8px.pth": ("linf", 8 / 255, 52, 55), "cifar_small_36px.pth": ("l2", 36 / 255, 133, 142)}
"""File → norm, radius, and of the first 300 images those that its authors' bound proves, and those that withstand
AutoAttack."""
MEAN, DEVIATION = (0.485, 0.456, 0.406), (0.225, 0.225, 0.225)
DIGITS, RADIUS = "zoo:digits-small-cnn-fast-st", 0.05


def released(path: Path) -> nn.Module:
    """The network of a released file, from pixels in [0, 1]; no pickle is executed."""
    layers = nn.Sequential(
        nn.Conv2d(3, 16, 4, stride=2, padding=1),
        nn.ReLU(),
        nn.Conv2d(16, 32, 4, stride=2, padding=1),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(32 * 8 * 8, 100),
        nn.ReLU(),
        nn.Linear(100, 10),
    )
    layers.load_state_dict(
        {name: torch.from_numpy(w) for name, w in torch_files.read(path, "state_dict.0").items()}
    )
    return Normalized(Normalization(MEAN, DEVIATION), layers).eval()


def bracketed(
    model: Any, images: np.ndarray, labels: np.ndarray, norm: str, epsilon: float, fast: bool
) -> dict[str, Any]:
    """The row of one network: counts of the bracket, and of each method's proofs, with seconds of each."""
    pixels = torch.from_numpy(np.ascontiguousarray(images.transpose(0, 3, 1, 2))).float() / 255
    attack = AutoAttack(epsilon, norm, "fast" if fast else "standard")
    begun = time.monotonic()
    found = stcore.bracket(model, (pixels, labels), {"autoattack": attack}, epsilon=epsilon, norm=norm)
    proved = found.records["margin"] > 0
    return {
        "norm": norm,
        "epsilon": epsilon,
        "images": found.total,
        "natural": found.natural.correct,
        "proved": found.proved,
        "withstand": found.upper.correct,
        "undecided": found.undecided,
        "by_method": {name: int((found.records["method"][proved] == i).sum()) for i, name in enumerate(METHODS)},
        "seconds_per_image": found.seconds,
        "slowest": float(found.records["seconds"].max()),
        "seconds": time.monotonic() - begun,
        "attack": "autoattack-fast" if fast else "autoattack",
        "rows": np.flatnonzero(proved).tolist(),
    }


def checked(model: Any, images: np.ndarray, labels: np.ndarray, row: dict[str, Any], runs: int) -> dict[str, int]:
    """Attacks on the proved images, from another random start in each run."""
    chosen = np.array(row["rows"])
    pixels = torch.from_numpy(np.ascontiguousarray(images[chosen].transpose(0, 3, 1, 2))).float() / 255
    wanted = torch.from_numpy(labels[chosen])
    attack, made, fooled = PGD(row["epsilon"], row["epsilon"] / 4, 20), 0, 0
    while made < runs:
        found = attack(model, pixels, wanted, rng=made)
        fooled += int((model(found).argmax(1) != wanted).sum())
        made += len(chosen)
    return {"runs": made, "fooled": fooled}


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="bracket.py", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--folder", type=Path, default=Path("build/bracket"))
    parser.add_argument("--released", type=Path, help="folder of the released .pth files")
    parser.add_argument("--data", default="cifar10", help="CIFAR-10, such as parquet:DIR")
    parser.add_argument("--images", type=int, default=300)
    parser.add_argument("--checks", type=int, default=10_000)
    parser.add_argument("--fast", action="store_true", help="autoattack-fast above")
    parser.add_argument("--out", type=Path, default=Path("docs/results"))
    args = parser.parse_args()

    args.folder.mkdir(parents=True, exist_ok=True)
    rows: dict[str, dict[str, Any]] = {}
    for name, (norm, epsilon, *_) in RELEASED.items() if args.released else ():
        test = sources.load(args.data).test
        images, labels = np.asarray(test.images[: args.images]), test.labels[: args.images]
        run = partial(bracketed, released(args.released / name), images, labels, norm, epsilon, args.fast)
        rows[name] = kept(args, name, run)
    test = sources.load("digits").test
    images, labels = np.asarray(test.images[: args.images]), test.labels[: args.images]
    model = stcore.load(DIGITS, backend="torch").model
    rows[DIGITS] = kept(args, DIGITS, partial(bracketed, model, images, labels, "linf", RADIUS, args.fast))
    checks = kept(args, "checks", partial(checked, model, images, labels, rows[DIGITS], args.checks))

    shown = [{key: value for key, value in row.items() if key != "rows"} for row in rows.values()]
    rounds.publish(
        args.out,
        "bracket",
        "Robust accuracy between a proof and an attack",
        f"Of the first {args.images} test images, those that are proved and those that withstand the attack; in "
        "brackets what the networks' authors prove, and AutoAttack leaves, of the first 300.",
        rounds.command(parser, args, "folder", "released", "data")
        + " --released DIR --data parquet:DIR" * bool(args.released),
        page(rows, checks),
        {"images": args.images, "checks": args.checks},
        load_backend("torch").versions(),
        rows=dict(zip(rows, shown, strict=True)),
        checked=checks,
    )


def kept(args: argparse.Namespace, name: str, run: Any) -> dict[str, Any]:
    """The result of `run`, from its file if it was finished before."""
    path = args.folder / f"{Path(name.replace(':', '-')).stem}-{args.images}{'-fast' * args.fast}.json"
    if not path.is_file():
        write_file(path, json.dumps(run()) + "\n")
    return dict(json.loads(path.read_text()))


def page(rows: dict[str, dict[str, Any]], checks: dict[str, int]) -> str:
    """The results as Markdown."""
    head = [
        "network",
        "ball",
        "natural",
        "proved",
        "withstand",
        "undecided",
        "proved by",
        "bound, s an image (slowest)",
    ]
    lines = []
    for name, row in rows.items():
        *_, theirs, left = RELEASED.get(name, (None, None, None, None))
        lines.append(
            [
                name,
                f"{row['norm']} {row['epsilon']:.4g}",
                row["natural"],
                f"{row['proved']}{f' ({theirs})' if theirs else ''}",
                f"{row['withstand']}{f' ({left})' if left else ''}",
                row["undecided"],
                ", ".join(f"{method} {count}" for method, count in row["by_method"].items() if count),
                f"{row['seconds_per_image']:.2g} ({row['slowest']:.2g})",
            ]
        )
    attack = next(iter(rows.values()))["attack"]
    return (
        f"{rounds.table(head, lines)}\n\nThe attack is {attack}, on the images without a proof; seconds are of "
        f"the bound. On the proved digits {checks['runs']} runs of PGD-20 from random starts succeeded "
        f"{checks['fooled']} times."
    )


if __name__ == "__main__":
    main()
