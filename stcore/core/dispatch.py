"""Which backend owns a model: read off its type, importing no framework that is not in use already."""

from __future__ import annotations

import importlib
import importlib.util
import json
import os
import sys
from pathlib import Path
from typing import Any

from stcore.base import checks
from stcore.errors import UsageError
from stcore.protocols import Classifier, Learner

BACKENDS = ("torch", "keras")


def keras_engine() -> str:
    """What Keras runs on: as it was imported, or as KERAS_BACKEND, its keras.json or its default say it will."""
    if keras := sys.modules.get("keras"):
        return str(keras.backend.backend())
    if named := os.environ.get("KERAS_BACKEND"):
        return named
    try:
        home = Path(os.environ.get("KERAS_HOME") or "~/.keras").expanduser()
        return str(json.loads((home / "keras.json").read_bytes())["backend"])
    except (OSError, RuntimeError, ValueError, KeyError, TypeError):  # there is none, or it says nothing
        return "tensorflow"


def check_engine(engine: str) -> None:
    """UsageError unless the Keras backend runs on this."""
    if engine in ("tensorflow", "jax"):
        return
    hint = ", for which stcore has a backend of its own: use --backend torch" if engine == "torch" else ""
    raise UsageError(
        "backend keras: expected KERAS_BACKEND=tensorflow or jax, before Keras is imported; received "
        f"{engine}{hint}"
    )


def available_backends() -> tuple[str, ...]:
    """The backends whose packages are installed; nothing is imported to find out."""
    return tuple(name for name in BACKENDS if not missing_packages(name))


def missing_packages(backend: str) -> tuple[str, ...]:
    """The packages this backend still needs; Keras' engine is one of them."""
    packages = ("keras", keras_engine()) if backend == "keras" else (backend,)
    return tuple(package for package in packages if importlib.util.find_spec(package) is None)


def extra(backend: str) -> str:
    """The extra that installs them."""
    return "jax" if backend == "keras" and keras_engine() == "jax" else backend


def load_backend(name: str) -> Any:
    """The backend's package by its name; UsageError where it is unknown or not installed."""
    if loaded := sys.modules.get(f"stcore.backends.{name}"):
        return loaded  # AutoGraph, which may be looking, warns of what importlib does
    checks.choice("backend", name, BACKENDS)
    if name == "keras":
        check_engine(keras_engine())
    if missing := missing_packages(name):
        raise UsageError(
            f"backend {name}: {' and '.join(missing)} not installed; in the repository: "
            f"pip install '.[{extra(name)}]'"
        )
    return importlib.import_module(f"stcore.backends.{name}")


def backend_of(model: Any) -> Any:
    """The backend's package of a `torch.nn.Module` or `keras.Model`; TypeError for anything else."""
    # Keras first: on its own torch backend a Keras model is an nn.Module too.
    keras, torch = sys.modules.get("keras"), sys.modules.get("torch")
    if keras is not None and isinstance(model, keras.Model):
        return load_backend("keras")
    if torch is not None and isinstance(model, torch.nn.Module):
        return load_backend("torch")
    raise TypeError(
        f"model: expected a torch.nn.Module or a keras.Model; received {type(model).__module__}."
        f"{type(model).__qualname__}"
    )


def make_classifier(model: Any) -> Classifier:
    """A model as the methods see it. The model maps pixels in [0, 1], in its own layout, to logits (B, C)."""
    classifier: Classifier = backend_of(model).make_classifier(model)
    return classifier


def make_learner(model: Any, optimizer: Any) -> Learner:
    """A model with its optimizer (`torch.optim` or `keras.optimizers`), ready for `train_step`."""
    learner: Learner = backend_of(model).make_learner(model, optimizer)
    return learner
