"""Images that withstand AutoAttack and fall to another attack, on the networks of the zoo and a standard one.

    python benchmarks/beyond_autoattack.py [--data parquet:DIR] [--epsilon 0.1] [--threads 1]

AutoAttack's own records come with the networks of the zoo; those on CIFAR-10 are left out without `--data`. The
standard network is trained here, on digits, and attacked at `--epsilon`. Every other attack runs on the images
that AutoAttack leaves, and so does AutoAttack's strongest with another seed: what that breaks is chance. Finished
attacks are kept in FOLDER: an interrupted benchmark resumes.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
import rounds

import stcore
from stcore import data, zoo
from stcore.base.files import write_file
from stcore.cli.main import main as stcli
from stcore.core.dispatch import load_backend

ATTACKS = {
    "pma": "PMA",
    "apgd-pm": "APGD on the probability margin",
    "fmn": "FMN",
    "malt+apgd-t": "APGD-T in MALT's order",
}
CHANCE = "apgd-t@1"
Images = tuple[Any, Any]


def of_zoo(card: zoo.Card, folder: Path, source: str | None) -> dict[str, Any]:
    """What other attacks break of a network of the zoo. source: of its data, if not its own."""
    records = card.read_records()
    positions, labels = records["position"].astype(int), records["label"].astype(int)
    images = np.asarray(data.load(source or card.config["dataset"]).test.images[positions])
    network = stcore.load(f"{zoo.PREFIX}{card.name}", backend="torch")
    left = np.flatnonzero(records["predicted/autoattack"] == labels)
    return attacked(network, folder / card.name, (images, labels), left, card.epsilon)


def standard(folder: Path, epsilon: float) -> dict[str, Any]:
    """What other attacks break of a network that is trained on natural images alone."""
    run = folder / "standard"
    if not (run / "result.json").is_file():
        words = ["--dataset", "digits", "--method", "standard", "--eval-epsilon", str(epsilon), "--out", str(run)]
        if stcli(["train", "--backend", "torch", *words, *["--resume"] * run.exists()]):
            raise SystemExit(1)
    network, test = stcore.load(run, backend="torch"), data.load("digits").test
    images = np.asarray(test.images), test.labels
    everything = np.arange(len(test))
    fallen = broken(network, run / "autoattack.json", images, everything, "autoattack", epsilon)
    return attacked(network, run, images, np.setdiff1d(everything, fallen), epsilon)


def attacked(
    network: stcore.LoadedNetwork, folder: Path, images: Images, left: Any, epsilon: float
) -> dict[str, Any]:
    """Which of the images that AutoAttack leaves the other attacks break, each by its place."""
    folder.mkdir(parents=True, exist_ok=True)
    found = {
        name: broken(network, folder / f"{name}.json", images, left, name, epsilon) for name in (*ATTACKS, CHANCE)
    }
    print(f"{network.config['model']}: {', '.join(f'{name} {len(places)}' for name, places in found.items())}")
    return {"images": len(images[1]), "left": len(left), "epsilon": epsilon, "broken": found}


def broken(
    network: stcore.LoadedNetwork, kept: Path, images: Images, places: Any, attack: str, epsilon: float
) -> list[int]:
    """The places, among these, of the images that an attack breaks; from its file if it was finished before."""
    if not kept.is_file():
        x, labels = (part[places] for part in images)
        name, _, seed = attack.partition("@")
        options = {"epsilon": epsilon, "norm": "linf", "seed": int(seed or 0), "audit": False}
        records = network.evaluate((x, labels), [name], **options).records
        write_file(kept, json.dumps(places[records[f"predicted/{name}"] != labels].tolist()) + "\n")
    return list(json.loads(kept.read_text()))


def page(rows: dict[str, dict[str, Any]]) -> str:
    """The results as Markdown."""
    lines = []
    for name, row in rows.items():
        union = set().union(*(row["broken"][attack] for attack in ATTACKS))
        shares = [f"{100 * it / row['images']:.1f} %" for it in (row["left"], row["left"] - len(union))]
        counts = [len(row["broken"][attack]) for attack in (*ATTACKS, CHANCE)]
        lines.append(
            [f"`{name}`", f"{row['epsilon']:.3g}", row["images"], row["left"], *counts, len(union), *shares]
        )
    head = [
        "network",
        "ε",
        "images",
        "left",
        *ATTACKS.values(),
        "APGD-T, another seed",
        "all but it",
        "AutoAttack",
        "union",
    ]
    return rounds.table(head, lines)


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="beyond_autoattack.py", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--folder", type=Path, default=Path("build/beyond"))
    parser.add_argument("--data", help="CIFAR-10, such as parquet:DIR")
    parser.add_argument("--epsilon", type=float, default=0.1)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path, default=Path("docs/results"))
    args = parser.parse_args()
    backend = load_backend("torch")
    backend.use_threads(args.threads)
    args.folder.mkdir(parents=True, exist_ok=True)

    rows = {"standard": standard(args.folder, args.epsilon)}
    for card in map(zoo.read_card, zoo.names()):
        on_cifar10 = card.config["dataset"] == "cifar10"
        if args.data or not on_cifar10:
            rows[card.name] = of_zoo(card, args.folder, args.data if on_cifar10 else None)
    rounds.publish(
        args.out,
        "beyond-autoattack",
        "Beyond AutoAttack",
        "Test images that withstand AutoAttack, and how many of them fall to other attacks in the same l∞ ball.",
        rounds.command(parser, args, "folder", "data") + " --data parquet:DIR" * bool(args.data),
        page(rows),
        {"epsilon": args.epsilon},
        backend.versions(),
        rows=rows,
    )


if __name__ == "__main__":
    main()
