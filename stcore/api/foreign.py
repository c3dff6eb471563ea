"""Weights of other programs, which do not say which network they are of: state dicts, files of Keras."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from stcore import models
from stcore.core import validation
from stcore.core.dispatch import available_backends, backend_name, load_backend, make_classifier
from stcore.errors import UsageError
from stcore.models import normalization, released
from stcore.models.weights_files import is_keras, read_weights
from stcore.protocols import Array

SIDE = 32
"""Pixels of the images of a named network, if its user says nothing."""


def load_foreign(
    path: Path,
    weights: Mapping[str, Array],
    model: Any,
    *,
    backend: str | None,
    image_shape: tuple[int, int, int] | None,
    class_names: Sequence[str] | None,
    device: str | None,
) -> tuple[Any, dict[str, str]]:
    """The network with the weights of a file, and metadata for it; arguments and errors as in `stcore.load`.

    weights: the file's; empty for a file of Keras.
    """
    metadata: dict[str, Any]
    if model is None and is_keras(path):
        load_backend("keras")
        from stcore.models import keras_files

        network = keras_files.network(path)
        metadata = {"model": models.name_of(network)}
    elif isinstance(model, str) and not is_keras(path):
        network, metadata = _named(path, weights, model, backend, image_shape, device)
    elif model is None or isinstance(model, str):
        raise UsageError(
            f"model: expected the network itself, since {path} does not say which network its weights are of; "
            f"received {model or 'none'}. Give model= an object with its layers or, for a released state dict, "
            "one of stcore's names; or import it by stcli import"
        )
    else:
        network = model
        load_backend(backend_name(network))
        models.load_weights(network, weights or read_weights(path, network)[0])
        metadata = {"model": models.name_of(network)}
    metadata |= {"backend": backend_name(network), **_sizes(network, image_shape)}
    if class_names is not None:
        count = metadata.get("num_classes", len(class_names))
        if len(class_names) != count:
            raise UsageError(f"class_names: expected {count}, one per class; received {len(class_names)}")
        metadata["class_names"] = json.dumps(list(class_names), ensure_ascii=False)
    return network, {name: str(value) for name, value in metadata.items()}


def _named(
    path: Path,
    weights: Mapping[str, Array],
    model: str,
    backend: str | None,
    image_shape: tuple[int, int, int] | None,
    device: str | None,
) -> tuple[Any, dict[str, Any]]:
    """One of our networks with a state dict that was released, in our names or in those of its repository."""
    if ":" in model:
        raise UsageError(f"model: expected the network itself for {path}; received {model}. Build it and give it")
    found = released.recognise(weights, model)
    chosen = backend or (*available_backends(), "torch")[0]
    load_backend(chosen)
    network = models.build(
        found.model,
        chosen,  # type: ignore[arg-type]
        num_classes=found.num_classes,
        in_channels=found.in_channels,
        image_size=(image_shape or (SIDE, SIDE))[:2],
        normalize=found.normalize,
        device=device,
    )
    models.load_weights(network, found.weights)
    return network, {"model": found.model, "normalize": normalization.canonical(found.normalize)}


def _sizes(network: Any, image_shape: tuple[int, int, int] | None) -> dict[str, Any]:
    """The shape of its images and the number of its classes, as far as they are known.

    Raises UsageError if the network does not take images of the shape.
    """
    known = image_shape or _input_shape(network)
    if known is None:
        return {}
    classifier = make_classifier(network)
    try:
        num_classes = validation.check_model(classifier, classifier.images(np.zeros((1, *known), np.uint8)))
    except UsageError as error:
        raise UsageError(
            f"image_shape: expected (H, W, C) that the network takes; received {known} ({error})"
        ) from error
    return {"image_shape": "x".join(map(str, known)), "num_classes": num_classes}


def _input_shape(network: Any) -> tuple[int, int, int] | None:
    """(H, W, C) of the images that a Keras network was built for; None if it is open."""
    match getattr(network, "input_shape", None):
        case (_, int(height), int(width), int(channels)):
            return height, width, channels
    return None
