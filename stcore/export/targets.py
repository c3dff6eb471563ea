"""The targets of an export: each writes a network as a file of another program, which is then run and compared."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from stcore import models
from stcore.base import checks
from stcore.base.files import replacing_folder, writing
from stcore.core.dispatch import backend_name, load_backend
from stcore.errors import StcoreError, UsageError
from stcore.export import hub, onnx
from stcore.export.description import BESIDE, INSIDE, PREPROCESSING, Description, Network
from stcore.models import normalization
from stcore.models.weights_files import build_described
from stcore.protocols import Array

TOLERANCE = 1e-3
"""The largest difference of a logit from the original's, relative to the largest logit."""


@dataclass(frozen=True)
class Target:
    """A kind of file.

    file: its name in the folder; empty if it is the folder itself.
    backends: the frameworks that write it; another framework's network is written through its twin in the first.
    computes: whether it computes logits, so that preprocessing can be inside.
    """

    what: str
    file: str
    backends: tuple[str, ...]
    computes: bool = True


TARGETS: Mapping[str, Target] = {
    "onnx": Target("ONNX, for onnxruntime and others", "model.onnx", ("torch", "keras")),
    "torch-export": Target("a program of torch.export", "model.pt2", ("torch",)),
    "savedmodel": Target("TensorFlow's SavedModel", "", ("keras",)),
    "tflite": Target("TFLite (LiteRT), for phones", "model.tflite", ("keras",)),
    "state-dict": Target("a state dict of PyTorch", "model.pth", ("torch",), computes=False),
    "hub": Target("a folder for the Hugging Face hub", "", ("torch", "keras"), computes=False),
}
"""By name, as `stcli export` takes it."""


@dataclass(frozen=True)
class Exported:
    """An artefact that was compared with its network.

    path: its folder.   images: the number of images that both classified.   same: of these in the same class.
    difference: the largest of a logit.
    """

    path: Path
    images: int
    same: int
    difference: float


def export(
    network: Network, target: str, out: Path, images: Array, *, preprocessing: str | None = None
) -> Exported:
    """Writes a network into the new or empty folder `out`, runs what was written, and compares it.

    images: uint8 (N, H, W, C), to compare on.
    preprocessing: `inside` (the default if the target computes): the artefact takes uint8 images; `beside`: it
        takes floats that were scaled and normalised as preprocessing.json says.
    Raises UsageError for an unknown target, a network that the target's framework does not have or cannot express,
    a missing package, or a result that differs from the network's; `out` is then as before.
    """
    checks.choice("target", target, tuple(TARGETS))
    kind = TARGETS[target]
    preprocessing = preprocessing or (INSIDE if kind.computes else BESIDE)
    checks.choice("preprocessing", preprocessing, PREPROCESSING if kind.computes else (BESIDE,))
    expected = network.logits(images)
    with replacing_folder(out) as folder:
        if target == "hub":
            hub.write(network, folder)
            found = network.reloaded(folder).logits(images)
        else:
            found = _write(network, target, folder, images, preprocessing)
        difference = float(np.abs(found - expected).max())
        if not difference <= TOLERANCE * max(1.0, float(np.abs(expected).max())):
            raise UsageError(
                f"{target}: expected the logits of the network on {len(images)} images; received others, by up to "
                f"{difference:.2g}, so that nothing was kept. Is what it computes the same for every batch?"
            )
    same = int((found.argmax(axis=1) == expected.argmax(axis=1)).sum())
    return Exported(out, len(images), same, difference)


def _write(network: Network, target: str, folder: Path, images: Array, preprocessing: str) -> Array:
    """Writes the artefact, and computes its logits of images that were prepared as it says."""
    kind = TARGETS[target]
    model, backend = _in_framework(network, target, kind.backends, normalised=preprocessing == INSIDE)
    exporter = importlib.import_module(f"stcore.backends.{backend}.export")
    if target == "onnx":
        onnx.check_installed(backend)
    path = folder / kind.file
    description = Description.of(network, preprocessing, exporter.LAYOUT, exporter.dtype_of(model))
    try:
        with writing(path):
            exporter.WRITE[target](model, path, network.image_shape, preprocessing == INSIDE, description.text())
    except StcoreError:
        raise
    except Exception as error:  # exporters raise a hundred kinds for what they cannot express
        reason = str(error).strip().splitlines()
        raise UsageError(
            f"{target}: expected a network that {backend} can trace, without steps that depend on the values of "
            f"its input; received {type(error).__name__}: {reason[0] if reason else 'no reason given'}"
        ) from error
    if target == "onnx":
        onnx.add_metadata(path, description.texts())
    description.write(folder)
    run = onnx.run if target == "onnx" else exporter.RUN[target]
    logits: Array = run(path, Description.read(folder).prepare(images), model)
    return logits


def _in_framework(
    network: Network, target: str, backends: tuple[str, ...], *, normalised: bool
) -> tuple[Any, str]:
    """The network in one of these frameworks, with or without its normalisation, and the framework's name."""
    own, name = backend_name(network.model), network.metadata["model"]
    backend = own if own in backends else backends[0]
    trained = network.metadata.get("normalize", normalization.NONE)
    normalize = trained if normalised else normalization.NONE
    if backend == own and normalize == trained:
        return network.model, own
    if backend != own and ":" in name:
        others = [other for other, kind in TARGETS.items() if own in kind.backends]
        raise UsageError(
            f"{target}: expected a network in {backend}; {name} is in {own} and has no twin there. Its targets "
            f"are {', '.join(others)}"
        )
    load_backend(backend)
    model = build_described({**network.metadata, "normalize": normalize}, backend)
    models.load_weights(model, models.export_weights(network.model))
    return (model.eval() if backend == "torch" else model), backend
