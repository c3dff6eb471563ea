"""Whose network a name means: ours, timm's, keras.applications', or what a factory of the user's returns."""

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
"""Each library of networks with its backend."""
FORMS = "timm:NAME (torch), keras.applications:NAME (keras) or package.module:factory"


def split(name: str) -> tuple[str, str] | None:
    """Library or module, and the name in it; None for one of our own networks.

    UsageError where neither it can be.
    """
    if ":" not in name:
        return None
    source, _, member = name.partition(":")
    path = r"[^\W\d]\w*(\.[^\W\d]\w*)*"
    if not re.fullmatch(path, source) or not re.fullmatch(r"[\w.-]+" if source in LIBRARIES else path, member):
        raise UsageError(f"model: expected one of ours, {FORMS}; received {name!r}")
    return source, member


def is_factory(name: str) -> bool:
    """Whether the name means code of the user's own."""
    origin = split(name)
    return origin is not None and origin[0] not in LIBRARIES


def check_name(name: str, backend: str) -> None:
    """UsageError for a name that is none of ours and of no known form, or a library's that has another backend."""
    origin = split(name)
    if origin is None:
        describe(name, 10)
        return
    library = origin[0]
    if LIBRARIES.get(library, backend) != backend:
        raise UsageError(f"model: expected --backend {LIBRARIES[library]} for {name}; received {backend}")


def check_weights(about: Mapping[str, str], backend: str, normalize: str) -> None:
    """UsageError where a weights file, by what it says of itself, is of a network that only another framework has,
    or of one with another normalisation, which weights do not show.
    """
    theirs = about.get("backend", backend)
    if ":" in about.get("model", "") and theirs != backend:
        raise UsageError(
            f"weights: expected those of a {backend} network; received those of {about['model']} in {theirs}, "
            f"which load only there: of its network there is no twin. Give --backend {theirs}"
        )
    trained = about.get("normalize", normalization.NONE)
    if "model" in about and normalization.canonical(trained) != normalization.canonical(normalize):
        raise UsageError(
            f"weights: expected those of a network with normalize {normalize}; received {trained}. Give "
            f"--normalize {trained}"
        )


def made(name: str, **wanted: Any) -> Any:
    """What the factory package.module:factory returns, given those of `wanted` that its signature takes.

    Modules are looked for in the working directory too. UsageError where there is none, or where it fails.
    """
    factory = _found(name)
    try:
        parameters = inspect.signature(factory).parameters.values()
        if not any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters):
            named = {p.name for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)}
            wanted = {key: value for key, value in wanted.items() if key in named}
        return factory(**wanted)
    except Exception as error:
        given = ", ".join(f"{key}={value!r}" for key, value in wanted.items())
        raise UsageError(
            f"model: {name}({given}) raised {type(error).__name__}: {error}. A factory is called with "
            "num_classes, in_channels and image_size, as far as its signature takes them"
        ) from error


def _found(name: str) -> Callable[..., Any]:
    source, member = name.split(":")
    if os.getcwd() not in sys.path and "" not in sys.path:  # a command's own path begins where it is installed
        sys.path.append(os.getcwd())
    try:
        found: Any = importlib.import_module(source)
    except Exception as error:  # a module is anybody's code
        raise UsageError(
            f"model: {source} cannot be imported ({type(error).__name__}: {error}). Expected {FORMS}, its module "
            "installed or in the working directory"
        ) from error
    for part in member.split("."):
        if not hasattr(found, part):
            raise UsageError(f"model: expected a factory in {source}; it has no {member}")
        found = getattr(found, part)
    if not callable(found):
        raise UsageError(
            f"model: expected {name} to be a function, or a class, that returns a network; received a "
            f"{type(found).__name__}"
        )
    factory: Callable[..., Any] = found
    return factory
