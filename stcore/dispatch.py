"""Which backend owns a model: read off its type, importing no framework that is not in use already."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from typing import Any

from stcore.errors import UsageError
from stcore.protocols import Classifier, Learner

BACKENDS = {"torch": ("torch",), "keras": ("keras", "tensorflow")}
"""Each backend with the packages it needs, which is also what its extra installs."""


def available_backends() -> tuple[str, ...]:
    """The backends whose packages are installed; nothing is imported to find out."""
    return tuple(name for name in BACKENDS if not missing_packages(name))


def missing_packages(backend: str) -> tuple[str, ...]:
    """The packages this backend still needs."""
    return tuple(package for package in BACKENDS[backend] if importlib.util.find_spec(package) is None)


def load_backend(name: str) -> Any:
    """The backend's package by its name; UsageError where it is unknown or not installed."""
    if loaded := sys.modules.get(f"stcore.backends.{name}"):
        return loaded  # AutoGraph, which may be looking, warns of what importlib does
    if name not in BACKENDS:
        raise UsageError(f"backend: expected one of {', '.join(BACKENDS)}; received {name!r}")
    if missing := missing_packages(name):
        raise UsageError(
            f"backend {name}: {' and '.join(missing)} not installed; in the repository: pip install '.[{name}]'"
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
