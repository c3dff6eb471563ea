"""Evidence file: safetensors with a JSON header in its metadata, and a seal over all bytes before it.

    safetensors   arrays as in `Evidence`; the metadata `evidence` is JSON: the header, and the network's metadata
    32 bytes      the seal: SHA-256 of everything before

No byte is outside the seal: what is changed, cut off, appended or swapped is found before anything is read. Who
seals anew what they changed is caught by replay, which believes no success it has not seen, and by the seal
itself, wherever it was published. Nothing in a file is executed.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from stcore.base.files import as_plain, from_json, write_file
from stcore.base.snapshots import part
from stcore.core.threat import ORDERS
from stcore.errors import DataError
from stcore.evaluation.accuracy import Accuracy
from stcore.evidence.differences import WORDS
from stcore.protocols import Array

FORMAT = "stcore-evidence-1"
EVALUATION, REFUTATION = "evaluation", "refutation"
BLOCK = 100
"""Images whose differences are packed together."""
SEAL = 32
_DIFFERENCE, _WEIGHTS, _STATE = "difference/", "weights/", "state/"
_COLUMNS = {
    "row": (np.int64, ()),
    "label": (np.int64, ()),
    "predicted": (np.int64, ()),
    "attack": (np.int64, ()),
    "distance": (np.float64, ()),
    "image": (np.uint8, (32,)),
}
_HEADER = {
    "kind": str,
    "claim": dict,
    "network": dict,
    "data": dict,
    "code": dict,
    "attacks": list,
    "dtype": str,
    "settings": dict,
}
_REFUTATION = {
    "accuracy": float | int,
    "confidence": float | int,
    "tolerance": float | int,
    "seed": int,
    "subset": str | None,
    "verdict": str,
    "ladder": list,
    "passes": dict,
}


@dataclass(frozen=True, eq=False)
class Evidence:
    """What a file holds: N images of a test split were attacked, and for n of them there is a misclassified point.

    header: `kind` (evaluation or refutation), `claim` (norm, epsilon, bounds, images N, broken n), `network`
        (model, normalize, weights, image_shape, num_classes), `data` (dataset, sha256, images), `code` (stcore,
        sha256), `attacks` (names), `dtype` of the points, `settings`; of an evaluation its `result`, of a
        refutation `refutation`, the claim and the way to its verdict. In JSON's types.
    evaluated: (N,) the images' positions in the test split.   row: (n,) those of the misclassified, in any order.
    label, predicted: (n,) their classes, and those that the network predicted.
    attack: (n,) which of the header's attacks found the point; natural, if the image is misclassified without one.
    distance: (n,) of the point from the image, in the claim's norm.   image: (n, 32) SHA-256 of each image.
    differences: the points, as `stcore.evidence.differences` packs them, `BLOCK` images each.
    rung: of a refutation, (N,) how many attacks of its ladder each image has withstood.
    weights, metadata: of the network; empty if the file names it by digest alone.
    state: of a refutation that is not finished, what it resumes from.   seal: of the file, hexadecimal.
    """

    header: Mapping[str, Any]
    evaluated: Array
    row: Array
    label: Array
    predicted: Array
    attack: Array
    distance: Array
    image: Array
    differences: tuple[Array, ...]
    rung: Array | None = None
    weights: Mapping[str, Array] = field(default_factory=dict)
    metadata: Mapping[str, str] = field(default_factory=dict)
    state: Mapping[str, Array] = field(default_factory=dict)
    seal: str = ""

    @property
    def at_most(self) -> Accuracy:
        """The images that the attacks left, of all: no robust accuracy is higher, if each success is confirmed."""
        return Accuracy(len(self.evaluated) - len(self.row), len(self.evaluated))

    @property
    def names(self) -> list[str]:
        """Of each misclassified image, the attack that found the point."""
        return [self.header["attacks"][index] for index in self.attack.tolist()]


def image_digest(image: Array) -> Array:
    """SHA-256 of a natural image, uint8 (H, W, C), and its shape: uint8 (32,)."""
    digest = hashlib.sha256(f"{image.shape}".encode())
    digest.update(np.ascontiguousarray(image).data)
    return np.frombuffer(digest.digest(), np.uint8)


def write(path: Path, evidence: Evidence) -> str:
    """Writes a file, and returns its seal. Raises UsageError if it cannot be written."""
    from safetensors.numpy import save

    arrays = {name: getattr(evidence, name).astype(kind) for name, (kind, _) in _COLUMNS.items()}
    arrays["evaluated"] = evidence.evaluated.astype(np.int64)
    if evidence.rung is not None:
        arrays["rung"] = evidence.rung.astype(np.int64)
    arrays |= {f"{_DIFFERENCE}{index:06}": packed for index, packed in enumerate(evidence.differences)}
    arrays |= {f"{_WEIGHTS}{name}": array for name, array in evidence.weights.items()}
    arrays |= {f"{_STATE}{name}": array for name, array in evidence.state.items()}
    header = {**as_plain(evidence.header), "format": FORMAT}
    about = json.dumps({"header": header, "weights": dict(evidence.metadata)})
    arrays = {name: np.asarray(array, order="C") for name, array in arrays.items()}  # save writes raw memory
    content = save(arrays, metadata={"evidence": about})  # several entries would be in a random order
    seal = hashlib.sha256(content)
    write_file(path, content + seal.digest())
    return seal.hexdigest()


def read(path: Path) -> Evidence:
    """Reads a file. Raises DataError if it is missing, no evidence, or other than when it was sealed."""
    from safetensors import SafetensorError
    from safetensors.numpy import load

    try:
        content = path.read_bytes()
    except OSError as error:
        raise DataError(f"evidence: {path} cannot be read ({error.strerror}). Check the path") from error
    content, seal = content[:-SEAL], content[-SEAL:]
    if hashlib.sha256(content).digest() != seal:
        raise DataError(
            f"evidence: {path} is damaged, or no evidence: its bytes are not those that were sealed. Fetch it "
            "again"
        )
    try:
        arrays, about = load(content), _metadata(content)
        return _checked(about["header"], arrays, about["weights"], seal.hex())
    except (SafetensorError, KeyError, TypeError, ValueError) as error:
        raise DataError(f"evidence: {path} is sealed, but no evidence that stcore reads ({error})") from error


def _metadata(content: bytes) -> dict[str, Any]:
    """Header and network, from the metadata of safetensors: 8 bytes hold the length of the JSON around it."""
    length = int.from_bytes(content[:8], "little")
    found: dict[str, Any] = from_json(from_json(content[8 : 8 + length])["__metadata__"]["evidence"])
    return found


def _checked(header: Any, arrays: Mapping[str, Array], metadata: Any, seal: str) -> Evidence:
    """The evidence, whose parts fit each other. Raises ValueError otherwise: a file may come from anybody."""
    _require(isinstance(header, dict) and header.get("format") == FORMAT, f"its format is not {FORMAT}")
    for name, kind in _HEADER.items():
        _require(isinstance(header.get(name), kind), f"its header's {name} is not a {kind.__name__}")
    claim, network, data = header["claim"], header["network"], header["data"]
    shape, count, low_high = network["image_shape"], network["num_classes"], claim["bounds"]
    _require(header["kind"] in (EVALUATION, REFUTATION), f"its kind is {header['kind']}")
    _require(header["dtype"] in WORDS, f"its points are in {header['dtype']}")
    _require(claim["norm"] in ORDERS, f"its norm is {claim['norm']}")
    _require(all(isinstance(n, int | float) for n in (claim["epsilon"], *low_high)), "its ball has no size")
    _require(len(low_high) == 2 and 0 <= claim["epsilon"] < np.inf, "its ball has no size")
    _require(
        len(shape) == 3 and all(isinstance(n, int) and n > 0 for n in (*shape, count, data["images"])), "a size"
    )
    evaluated = arrays["evaluated"]
    columns = {name: arrays[name] for name in _COLUMNS}
    _require(
        evaluated.ndim == 1 and evaluated.dtype == np.int64 and len(evaluated) > 0, "its images are not listed"
    )
    broken = len(columns["row"])
    for name, (dtype, rest) in _COLUMNS.items():
        _require(
            columns[name].dtype == dtype and columns[name].shape == (broken, *rest), f"its {name} are no column"
        )
    _require(len(np.unique(evaluated)) == len(evaluated), "an image is listed twice")
    _require(len(np.unique(columns["row"])) == broken, "an image is broken twice")
    _require(bool(np.isin(columns["row"], evaluated).all()), "an image is broken that was not evaluated")
    _require(_within(evaluated, data["images"]), "an image is not in the test split")
    _require(_within(columns["label"], count) and _within(columns["predicted"], count), "a class is none")
    _require(_within(columns["attack"], len(header["attacks"])), "an attack has no name")
    _require((claim["images"], claim["broken"]) == (len(evaluated), broken), "its claim counts other images")
    differences = part(arrays, _DIFFERENCE)
    _require(len(differences) == -(-broken // BLOCK), "differences are missing")
    rung = arrays.get("rung")
    if header["kind"] == REFUTATION:
        settings = header["refutation"]
        for name, kinds in _REFUTATION.items():
            _require(isinstance(settings[name], kinds), f"its refutation's {name} is {settings[name]!r:.40}")
        _require(rung is not None and rung.shape == evaluated.shape, "its ladder is missing")
    return Evidence(
        header,
        evaluated,
        **columns,
        differences=tuple(differences[name] for name in sorted(differences)),
        rung=rung,
        weights=part(arrays, _WEIGHTS),
        metadata=metadata,
        state=part(arrays, _STATE),
        seal=seal,
    )


def _within(values: Array, count: int) -> bool:
    return bool(((values >= 0) & (values < count)).all())


def _require(holds: bool, otherwise: str) -> None:
    if not holds:
        raise ValueError(otherwise)
