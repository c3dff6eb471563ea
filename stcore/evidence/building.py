"""Evidence of a finished evaluation: of each image that an attack broke, the first point that did."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from stcore.autoattack.cascade import check_points
from stcore.base.files import read_arrays
from stcore.data.images import ImageData
from stcore.data.pixels import unit_interval
from stcore.errors import DataError, UsageError
from stcore.evaluation.folder import EVALUATIONS, IDENTITY, RECORDS, RESULT, WHOLE, read_identity, read_result
from stcore.evidence.code import code
from stcore.evidence.differences import decode, encode
from stcore.evidence.file import BLOCK, EVALUATION, Evidence, image_digest
from stcore.protocols import Array
from stcore.runs.evaluation_identity import fingerprint
from stcore.runs.folder import CHECKPOINTS, CONFIG

NATURAL = "natural"
BOUNDS = (0.0, 1.0)
"""The range of pixels of every data set."""


def find_evaluation(place: Path, checkpoint: str | None = None) -> Path:
    """The folder of the one finished evaluation with its examples, at a place that `stcli evidence` takes.

    place: an evaluation's folder, its --out, or a run's folder.   checkpoint: of a run; by default best, or the
    only one. Raises UsageError if there is none, or if there are several.
    """
    if (place / IDENTITY).is_file():
        return _finished(place)
    below = (
        (place / EVALUATIONS).glob(f"*/*/{IDENTITY}")
        if (place / CONFIG).is_file()
        else place.glob(f"*/{IDENTITY}")
    )
    found = sorted(path.parent for path in below)
    names = {path.name for path in found}
    if not found:
        raise UsageError(
            f"evaluation: expected the folder of a finished evaluation, or of a run with one; {place} holds none. "
            f"{_command(place)}"
        )
    wanted = checkpoint or (CHECKPOINTS[0] if len(names) > 1 and CHECKPOINTS[0] in names else None)
    chosen = [path for path in found if wanted in (None, path.name)]
    kept = [path for path in chosen if read_identity(path)["examples"] and (path / RESULT).is_file()] or chosen
    if len(kept) == 1:
        return _finished(kept[0])
    raise UsageError(
        f"evaluation: expected one; {place} holds {'several' if kept else f'none of {wanted}'}: "
        f"{', '.join(map(str, kept or found))}. Give the folder of one"
    )


def _finished(folder: Path) -> Path:
    identity = read_identity(folder)
    if not identity.get("examples"):
        merged = " Its shards may have theirs: give the folder of one." if identity.get("merged") else ""
        raise UsageError(
            f"evaluation: expected one that kept its adversarial images; {folder} has none.{merged} "
            f"{_command(folder, identity)}"
        )
    if not (folder / RESULT).is_file() or not (folder / RECORDS).is_file():
        raise UsageError(f"evaluation: {folder} is not finished. Run its command again, which resumes it")
    return folder


def _command(place: Path, identity: Mapping[str, Any] | None = None) -> str:
    run = place if identity is None else place.parents[2] if place.parents[1].name == EVALUATIONS else "RUN"
    attacks = ",".join(identity["attacks"]) if identity else "autoattack"
    return f"Keep them by stcli evaluate {run} --attacks {attacks} --save-examples"


def run_of(folder: Path) -> Path | None:
    """The run that an evaluation's folder lies in; None if it lies elsewhere."""
    above = folder.absolute().parents
    return above[2] if len(above) > 2 and above[1].name == EVALUATIONS and (above[2] / CONFIG).is_file() else None


def same_images(test: ImageData, sha256: str, sizes: Sequence[int] = ()) -> ImageData | None:
    """The test split, or one of its heads of these sizes, with a fingerprint; None if there is none."""
    for size in (len(test), *sizes):
        if size <= len(test):
            head = test if size == len(test) else test.head(size)
            if head.fingerprint() == sha256:
                return head
    return None


def from_evaluation(folder: Path, test: ImageData) -> Evidence:
    """The evidence of a finished evaluation that kept its examples.

    test: the test split that it was made on.   Raises DataError for another, or for a damaged folder.
    """
    identity, records = read_identity(folder), read_arrays(folder / RECORDS)
    if test.fingerprint() != identity["data"]:
        raise DataError(
            f"data: expected the test split of the evaluation, with the fingerprint {identity['data'][:16]}…; "
            f"received {test.fingerprint()[:16]}…. Name its place by --dataset"
        )
    positions, labels = records["position"], records["label"]
    images = test.images[positions]
    open_, broken = np.ones(len(labels), bool), []
    dtype = identity["dtype"]

    def add(rows: Array, points: Array, names: Sequence[str], predicted: Array) -> None:
        """Adds those of these images whose points are successes in the claim's ball."""
        barred, distance = check_points(
            points, unit_interval(images[rows], dtype), identity["norm"], identity["epsilon"], BOUNDS
        )
        for at in np.flatnonzero((barred == "") & open_[rows] & (predicted != labels[rows])).tolist():
            open_[rows[at]] = False
            broken.append((rows[at], points[at], names[at], predicted[at], distance[at]))

    natural = np.flatnonzero(records["predicted/natural"] != labels)
    missed = records["predicted/natural"][natural]
    add(natural, unit_interval(images[natural], dtype), [NATURAL] * len(natural), missed)
    fell = np.zeros(len(labels), bool)
    for name in identity["attacks"]:
        kept = read_arrays(folder / f"{name}{WHOLE}")
        predicted = records[f"predicted/{name}"]
        fooled = np.flatnonzero((predicted != labels) & (records["predicted/natural"] == labels))
        fell[fooled] = True
        if missing := set(fooled.tolist()) - set(kept["rows"].tolist()):
            raise DataError(
                f"{folder / f'{name}{WHOLE}'}: expected the adversarial images of {len(fooled)} images; received "
                f"{len(fooled) - len(missing)}. Evaluate again with --save-examples in another folder"
            )
        chosen = np.isin(kept["rows"], fooled)
        rows, points = kept["rows"][chosen], kept["examples"][chosen].astype(dtype, copy=False)
        add(rows, points, _stages(records, name, rows), predicted[rows])
    header = {
        "kind": EVALUATION,
        "claim": {"norm": identity["norm"], "epsilon": identity["epsilon"], "bounds": BOUNDS},
        "network": _network(identity, test),
        "data": {"dataset": identity["dataset"], "sha256": identity["data"], "images": len(test)},
        "code": code(),
        "dtype": dtype,
        "settings": identity,
        "result": read_result(folder),
        "left_out": int(fell[open_].sum()),
    }
    return assembled(header, positions, broken, images, labels)


def assembled(
    header: Mapping[str, Any],
    positions: Array,
    broken: Sequence[tuple[int, Array, str, int, float]],
    images: Array,
    labels: Array,
    **more: Any,
) -> Evidence:
    """The evidence of images that were broken.

    positions: (N,) of the evaluated images in the test split; images (N, H, W, C) and labels (N,) are theirs.
    broken: (index among these, point, attack, predicted class, distance) of each.   more: of `Evidence`.
    """
    rows = np.array([index for index, *_ in broken], int)
    names = [name for _, _, name, *_ in broken]
    attacks = list(dict.fromkeys(names))
    points = np.array([point for _, point, *_ in broken], header["dtype"])
    blocks = [slice(begin, begin + BLOCK) for begin in range(0, len(rows), BLOCK)]
    return Evidence(
        {
            **header,
            "attacks": attacks,
            "claim": {**header["claim"], "images": len(positions), "broken": len(rows)},
        },
        evaluated=positions,
        row=positions[rows],
        label=labels[rows],
        predicted=np.array([predicted for *_, predicted, _ in broken], int),
        attack=np.array([attacks.index(name) for name in names], int),
        distance=np.array([distance for *_, distance in broken], float),
        image=np.array([image_digest(images[row]) for row in rows], np.uint8).reshape(-1, 32),
        differences=tuple(encode(points[block], images[rows[block]]) for block in blocks),
        **more,
    )


def restored(evidence: Evidence, test: ImageData) -> Array:
    """The points (n, H, W, C) of evidence on this test split, bit for bit."""
    rows, dtype = evidence.row, evidence.header["dtype"]
    blocks = [
        decode(packed, test.images[rows[number * BLOCK : (number + 1) * BLOCK]], dtype)
        for number, packed in enumerate(evidence.differences)
    ]
    return np.concatenate(blocks) if blocks else np.zeros((0, *test.image_shape), dtype)


def with_weights(evidence: Evidence, weights: Mapping[str, Array], metadata: Mapping[str, str]) -> Evidence:
    """The evidence with the network's weights. Raises UsageError for other weights."""
    check_weights(evidence, weights)
    return replace(evidence, weights=weights, metadata=metadata)


def check_weights(evidence: Evidence, weights: Mapping[str, Array]) -> None:
    """Raises UsageError unless these are the weights that were attacked."""
    expected, received = evidence.header["network"]["weights"], fingerprint(weights)
    if received != expected:
        raise UsageError(
            f"weights: expected those that were attacked, of {evidence.header['network']['model']}, with the "
            f"fingerprint {expected[:16]}…; received {received[:16]}…. Give the weights of the claim"
        )


def _network(identity: Mapping[str, Any], test: ImageData) -> dict[str, Any]:
    return {
        "model": identity["model"],
        "normalize": identity.get("normalize", "none"),
        "weights": identity["weights"],
        "image_shape": list(test.image_shape),
        "num_classes": test.num_classes,
    }


def _stages(records: Mapping[str, Array], name: str, rows: Array) -> list[str]:
    """Of each image the attack that fooled the network; of a cascade the member."""
    if f"{name}/attacks" not in records:
        return [name] * len(rows)
    members = records[f"{name}/attacks"][records[f"{name}/attack"][rows]]
    return [f"{name}/{member}" for member in members.tolist()]
