"""Adds a trained network to those that come with the package, from its run and its evaluation with AutoAttack.

    python benchmarks/zoo_add.py NAME RUN EVALUATION [--dataset cifar10]

NAME names the data, the network and the method, such as digits-small-cnn-st. RUN is the folder of a finished run,
EVALUATION that of a finished `stcli evaluate --attacks autoattack` of one of its checkpoints (it holds
evaluation.json), on the whole test split or its first images. Weights, card and records are written to stcore/zoo;
every fact of the card is read from the two folders. --dataset is the published name of data that the run read from
a folder. An entry of the same name is replaced.
"""

from __future__ import annotations

import argparse
import dataclasses
import io
import re
import sys
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from stcore import zoo
from stcore.base.files import file_checksum, read_arrays, write_file, write_json
from stcore.base.weights_file import load_weights
from stcore.errors import StcoreError, UsageError
from stcore.evaluation.folder import IDENTITY, RECORDS, RESULT, read_identity, read_result
from stcore.report.gathered import GatheredRun, LaterEvaluation, gather
from stcore.report.reproduce import commands
from stcore.runs.evaluation_identity import fingerprint
from stcore.runs.folder import CHECKPOINTS, WORKING_FOLDER

ATTACK = "autoattack"
ROOT = Path(__file__).parents[1]
DATA = {
    "digits": "The test set of the UCI optical digits (Alpaydin and Kaynak, 1998; CC BY 4.0), which scikit-learn "
    "includes.",
    "cifar10": "CIFAR-10 (Krizhevsky, 2009), published for research without a licence; its images come from the "
    "web.",
}
"""Data sets of networks that may be added: where the images come from, and their licence."""
FILES = ("init_weights", "extra_data")
"""Settings that name files: a run with them cannot be repeated from its command."""


def add(name: str, run: Path, evaluation: Path, dataset: str | None, folder: Path) -> zoo.Card:
    """Writes the entry into `folder` and returns its card. Raises UsageError for folders that do not fit."""
    if not re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", name):
        raise UsageError(f"name: expected lower-case words and numbers joined by hyphens; received {name!r}")
    identity, result, records = _evaluation(evaluation)
    (gathered,) = gather([run])
    of = _checkpoint(run, identity["weights"])
    gathered, config = portable(gathered, dataset)
    plan = gathered.plan
    assert plan is not None  # portable has checked it
    if (identity["norm"], identity["epsilon"]) != (plan.norm, plan.evaluation.epsilon):
        raise UsageError(
            f"evaluation: expected the threat model of the run, {plan.norm} {plan.evaluation.epsilon:g}; received "
            f"{identity['norm']} {identity['epsilon']:g}"
        )
    later = LaterEvaluation(evaluation, evaluation.parent.name, of, identity, result, "")
    gathered = dataclasses.replace(gathered, name=name, path=Path(name), evaluations=(later,))

    write_file(folder / f"{name}.safetensors", (run / f"{of}.safetensors").read_bytes())
    write_file(folder / f"{name}.npz", _compressed(records))
    card = zoo.Card(
        name=name,
        config=config,
        checkpoint=of,
        commands=tuple(commands(gathered)),
        versions=_versions(gathered.record.environment or {}),
        parameters=gathered.weights[of],
        norm=identity["norm"],
        epsilon=identity["epsilon"],
        accuracies=_accuracies(gathered.checkpoints.get(of, {}), result["accuracies"]),
        attacks=identity["attacks"],
        data=identity["data"],
        weights=identity["weights"],
        records=file_checksum(folder / f"{name}.npz"),
        licence=tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["license"],
        data_note=DATA[config["dataset"]],
    )
    write_json(folder / f"{name}.json", dataclasses.asdict(card))
    return card


def _evaluation(folder: Path) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
    """Identity, result and records. Raises UsageError unless the standard AutoAttack is finished in float32."""
    if missing := [file for file in (IDENTITY, RESULT, RECORDS) if not (folder / file).is_file()]:
        raise UsageError(f"evaluation: expected a finished one; {folder} has no {missing[0]}")
    identity, result = read_identity(folder), read_result(folder)
    unfit = [key for key in ("shard", "precision") if identity.get(key) is not None]
    unfit += ["subset"] * (not (identity["subset"] or "0").isdigit())
    if ATTACK not in result["accuracies"] or unfit:
        raise UsageError(
            f"evaluation: expected one by {ATTACK} of all images or the first, in fp32; {folder} has "
            f"{', '.join(result['accuracies'])}{''.join(f', {key} {identity[key]}' for key in unfit)}"
        )
    return identity, result, read_arrays(folder / RECORDS)


def _checkpoint(run: Path, wanted: str) -> str:
    """The name of the checkpoint with these weights."""
    for name in CHECKPOINTS:
        file = run / f"{name}.safetensors"
        if file.is_file() and fingerprint(load_weights(file)[0]) == wanted:
            return name
    raise UsageError(f"evaluation: expected one of a checkpoint of {run}; received one of other weights")


def portable(run: GatheredRun, dataset: str | None) -> tuple[GatheredRun, dict[str, Any]]:
    """The run and its settings with the published name of its data, without paths of this machine."""
    if run.plan is None or run.result is None:
        raise UsageError(f"run: expected a finished run of this version of stcli train; received {run.path}")
    kind, _, place = run.plan.data.dataset.partition(":")
    published = dataset or kind
    if published not in DATA or (dataset is not None and not place):
        raise UsageError(
            f"dataset: expected one of {', '.join(DATA)}, for data that the run read from a folder; received "
            f"{published}"
        )
    if given := [name for name in FILES if run.config.get(name) is not None]:
        raise UsageError(f"run: expected one that its command repeats; it has {', '.join(given)}, a file's name")
    data = dataclasses.replace(run.plan.data, dataset=published)
    return (
        dataclasses.replace(run, plan=dataclasses.replace(run.plan, data=data)),
        {**run.config, "dataset": published},
    )


def _versions(environment: Mapping[str, Any]) -> dict[str, str]:
    """Versions, platform and device of the training."""
    return {k: v for k, v in environment.items() if isinstance(v, str) and k not in (WORKING_FOLDER, "written")}


def _accuracies(*sources: Mapping[str, Any]) -> dict[str, dict[str, int]]:
    """The counts by attack; of two for one attack that on more images."""
    found: dict[str, dict[str, int]] = {}
    for scores in sources:
        for attack, score in scores.items():
            if attack not in found or score["total"] > found[attack]["total"]:
                found[attack] = {"correct": score["correct"], "total": score["total"]}
    return found


def _compressed(records: Mapping[str, Any]) -> bytes:
    """The records as a compressed .npz: integers in the smallest type that holds them, floats in float32."""
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **{name: _small(array) for name, array in records.items()})
    return buffer.getvalue()


def _small(array: Any) -> Any:
    if array.dtype.kind == "f":
        return array.astype(np.float32)
    if array.dtype.kind != "i" or not array.size:
        return array
    return array.astype(np.promote_types(np.min_scalar_type(array.min()), np.min_scalar_type(array.max())))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name")
    parser.add_argument("run", type=Path)
    parser.add_argument("evaluation", type=Path)
    parser.add_argument("--dataset")
    args = parser.parse_args()
    try:
        card = add(args.name, args.run, args.evaluation, args.dataset, zoo.FOLDER)
    except StcoreError as error:
        print(f"zoo_add: {error}", file=sys.stderr)
        return error.exit_code
    print(f"{card.name}: {card.size / 1e6:.2f} MB in {zoo.FOLDER}")
    for attack, score in card.accuracies.items():
        print(f"  {attack}: {score['correct']} of {score['total']}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
