"""Origin of a network by its name: ours, timm, keras.applications, or a factory of the user."""

from __future__ import annotations

import importlib
import inspect
import os
import re
import sys
from collections.abc import Callable, Mapping
from typing import Any

from stcore.errors import UsageError
from stcore.models import normalization
from stcore.models.architectures import describe

LIBRARIES = {"timm": "torch", "keras.applications": "keras"}
"""Library of networks → its backend."""
GIVEN = "given"
"""The source of a network that was handed over as an object: `given:CLASS`."""
FORMS = "timm:NAME (torch), keras.applications:NAME (keras) or package.module:factory"


def split(name: str) -> tuple[str, str] | None:
    """The library or module and the name in it; None for one of our own networks.

    Raises UsageError for a name of neither form.
    """
    if ":" not in name:
        return None
    source, _, member = name.partition(":")
    path = r"[^\W\d]\w*(\.[^\W\d]\w*)*"
    if not re.fullmatch(path, source) or not re.fullmatch(r"[\w.-]+" if source in LIBRARIES else path, member):
        raise UsageError(f"model: expected one of ours, {FORMS}; received {name!r}")
    return source, member


def is_factory(name: str) -> bool:
    """Whether the name refers to a factory of the user."""
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
    if ":" in metadata.get("model", "") and file_backend != backend:
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
    """Calls the factory package.module:factory with those of `arguments` that its signature accepts.

    The module may be installed or in the working directory. Raises UsageError if there is none, or if it fails.
    """
    factory = _import_factory(name)
    try:
        parameters = inspect.signature(factory).parameters.values()
        if not any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters):
            accepted = {p.name for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)}
            arguments = {key: value for key, value in arguments.items() if key in accepted}
        return factory(**arguments)
    except Exception as error:
        call = ", ".join(f"{key}={value!r}" for key, value in arguments.items())
        raise UsageError(
            f"model: {name}({call}) raised {type(error).__name__}: {error}. A factory is called with "
            "num_classes, in_channels and image_size, as far as its signature accepts them"
        ) from error


def _import_factory(name: str) -> Callable[..., Any]:
    source, member = name.split(":")
    if os.getcwd() not in sys.path and "" not in sys.path:  # a console script's sys.path lacks it
        sys.path.append(os.getcwd())
    try:
        item: Any = importlib.import_module(source)
    except Exception as error:  # a module may raise anything
        raise UsageError(
            f"model: {source} cannot be imported ({type(error).__name__}: {error}). Expected {FORMS}, its module "
            "installed or in the working directory"
        ) from error
    for part in member.split("."):
        if not hasattr(item, part):
            raise UsageError(f"model: expected a factory in {source}; it has no {member}")
        item = getattr(item, part)
    if not callable(item):
        raise UsageError(
            f"model: expected {name} to be a function, or a class, that returns a network; received a "
            f"{type(item).__name__}"
        )
    factory: Callable[..., Any] = item
    return factory
