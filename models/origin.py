"""Origin of a network by its name: ours, timm, keras.applications, or a factory of the user."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

from stcore.base.registry import GIVEN, Registry, call, is_import_path
from stcore.errors import UsageError
from stcore.models import normalization
from stcore.models.architectures import GROUP, describe, known_names

LIBRARIES = {"timm": "torch", "keras.applications": "keras"}
"""Library of networks → its backend."""
FORMS = "timm:NAME (torch), keras.applications:NAME (keras) or package.module:factory"


def _accepted(part: Any, name: str) -> Callable[..., Any]:
    if not callable(part):
        raise UsageError(
            f"model: expected {name} to be a function, or a class, that returns a network; received a "
            f"{type(part).__name__}"
        )
    return part  # type: ignore[no-any-return]


def _own(name: str) -> Callable[..., Any]:
    return lambda num_classes, in_channels: describe(name, num_classes, in_channels)


MODELS: Registry[Callable[..., Any]] = Registry(
    "model", GROUP, {name: _own(name) for name in known_names()}, _accepted, FORMS
)
"""Ours by name, whose functions return a description; a plug-in's returns a network of its framework."""


def split(name: str) -> tuple[str, str] | None:
    """The library or module and the name in it; None for a network with a short name.

    Raises UsageError for a name of neither form.
    """
    if ":" not in name:
        return None
    source, _, member = name.partition(":")
    if not (is_import_path(name) or (source in (*LIBRARIES, GIVEN) and re.fullmatch(r"[\w.-]+", member))):
        raise UsageError(f"model: expected one of ours, {FORMS}; received {name!r}")
    return source, member


def is_third_party(name: str) -> bool:
    """Whether the network is not one of ours, so that it exists in one framework only."""
    if ":" in name or not MODELS.is_plug_in(name):
        return ":" in name
    try:
        describe(name, 10)  # ours win, also of the many of one form, such as resnet-s-W
    except UsageError:
        return True
    return False


def is_factory(name: str) -> bool:
    """Whether the name is the import path of a factory, whose code the user has to trust.

    A short name is of a package that the user has installed.
    """
    origin = split(name)
    return origin is not None and origin[0] not in (*LIBRARIES, GIVEN)


def name_of(model: Any) -> str:
    """The name of a network that was handed over as an object."""
    return f"{GIVEN}:{type(getattr(model, '_orig_mod', model)).__name__}"  # torch.compile wraps a module


def is_given(name: str) -> bool:
    """Whether the name stands for an object that was handed over."""
    return name.startswith(f"{GIVEN}:")


def check_name(name: str, backend: str) -> None:
    """Raises UsageError for an unknown name, a library of another backend, or a network that has no name."""
    if is_given(name):
        raise UsageError(
            f"model: {name.partition(':')[2]} was handed to stcore.train as an object, which no name brings back; "
            "hand it over again in Python, by stcore.load(FOLDER, model=…) or stcore.train(…, resume=True)"
        )
    origin = split(name)
    if origin is None:
        if not is_third_party(name):
            describe(name, 10)
        return
    library = origin[0]
    if LIBRARIES.get(library, backend) != backend:
        raise UsageError(f"model: expected --backend {LIBRARIES[library]} for {name}; received {backend}")


def check_weights(metadata: Mapping[str, str], backend: str, normalize: str) -> None:
    """Checks a weights file by its metadata: backend of a third-party network, and normalisation.

    Raises UsageError if the network exists in another framework only, or has another normalisation.
    """
    file_backend = metadata.get("backend", backend)
    if file_backend != backend and is_third_party(metadata.get("model", "")):
        raise UsageError(
            f"weights: expected those of a {backend} network; received those of {metadata['model']} in "
            f"{file_backend}, a network that exists only there. Give --backend {file_backend}"
        )
    trained = metadata.get("normalize", normalization.NONE)
    if "model" in metadata and normalization.canonical(trained) != normalization.canonical(normalize):
        raise UsageError(
            f"weights: expected those of a network with normalize {normalize}; received {trained}. Give "
            f"--normalize {trained}"
        )


def call_factory(name: str, **arguments: Any) -> Any:
    """Calls the factory of this name with those of `arguments` that its signature accepts.

    Its module may be installed or in the working directory. Raises UsageError if there is none, or if it fails.
    """
    return call("model", name, MODELS.find(name), **arguments)
