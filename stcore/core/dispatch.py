"""Backend dispatch: which backend owns a model, by the model's type.

No framework is imported that is not in use already.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
import sys
from pathlib import Path
from typing import Any

from stcore.base import checks
from stcore.base.files import from_json
from stcore.errors import UsageError
from stcore.protocols import Classifier, Learner

BACKENDS = ("torch", "keras")


def keras_engine() -> str:
    """Returns Keras' engine: the imported one, or what KERAS_BACKEND, keras.json or the default will choose."""
    if keras := sys.modules.get("keras"):
        return str(keras.backend.backend())
    if named := os.environ.get("KERAS_BACKEND"):
        return named
    try:
        home = Path(os.environ.get("KERAS_HOME") or "~/.keras").expanduser()
        return str(from_json((home / "keras.json").read_bytes())["backend"])
    except (OSError, RuntimeError, ValueError, KeyError, TypeError):  # missing, or it names no backend
        return "tensorflow"


def check_engine(engine: str) -> None:
    """Raises UsageError unless the Keras backend supports this engine (`tensorflow` or `jax`)."""
    if engine in ("tensorflow", "jax"):
        return
    hint = ", for which stcore has a backend of its own: use --backend torch" if engine == "torch" else ""
    raise UsageError(
        "backend keras: expected KERAS_BACKEND=tensorflow or jax, before Keras is imported; received "
        f"{engine}{hint}"
    )


def available_backends() -> tuple[str, ...]:
    """Returns the backends whose packages are installed, of `torch` and `keras`. Imports none of them."""
    return tuple(name for name in BACKENDS if not missing_packages(name))


def missing_packages(backend: str) -> tuple[str, ...]:
    """Returns the packages that this backend needs and that are not installed; Keras' engine counts as one."""
    packages = ("keras", keras_engine()) if backend == "keras" else (backend,)
    return tuple(package for package in packages if importlib.util.find_spec(package) is None)


def extra(backend: str) -> str:
    """Returns the name of the package extra that installs this backend."""
    return "jax" if backend == "keras" and keras_engine() == "jax" else backend


def remedy(backend: str) -> str:
    """Returns what installs a backend that is missing, or selects the engine of Keras that is there."""
    others: dict[tuple[str, ...], str] = {("tensorflow",): "jax", ("jax",): "tensorflow"}
    other = others.get(tuple(missing_packages(backend)))
    if other is not None and importlib.util.find_spec(other) is not None:
        return f"{other} is installed: set KERAS_BACKEND={other}"
    return f"in the repository: pip install '.[{extra(backend)}]'"


def load_backend(name: str) -> Any:
    """Imports and returns a backend by its name. Raises UsageError if it is unknown or not installed."""
    if loaded := sys.modules.get(f"stcore.backends.{name}"):
        return loaded  # importlib inside a traced function makes AutoGraph warn
    checks.choice("backend", name, BACKENDS)
    if name == "keras":
        check_engine(keras_engine())
    if missing := missing_packages(name):
        raise UsageError(f"backend {name}: {' and '.join(missing)} not installed; {remedy(name)}")
    return importlib.import_module(f"stcore.backends.{name}")


def backend_name(model: Any) -> str:
    """Returns the name of the backend of a `torch.nn.Module` or `keras.Model`. Raises TypeError for others."""
    # Keras first: on its own torch backend a Keras model is an nn.Module too.
    keras, torch = sys.modules.get("keras"), sys.modules.get("torch")
    if keras is not None and isinstance(model, keras.Model):
        return "keras"
    if torch is not None and isinstance(model, torch.nn.Module):
        return "torch"
    raise TypeError(
        f"model: expected a torch.nn.Module or a keras.Model; received {type(model).__module__}."
        f"{type(model).__qualname__}"
    )


def backend_of(model: Any) -> Any:
    """Returns the backend of a `torch.nn.Module` or `keras.Model`. Raises TypeError for anything else."""
    return load_backend(backend_name(model))


def make_classifier(model: Any) -> Classifier:
    """Wraps a model for evaluation and attacks.

    model: a `torch.nn.Module` or a built `keras.Model` that maps pixels in [0, 1], (B, …) in its own layout, to
    logits (B, C). Raises TypeError for any other object, and UsageError for a model in float16, a Keras model that
    is not built, or a backend that is not installed.
    """
    classifier: Classifier = backend_of(model).make_classifier(model)
    return classifier


def make_learner(model: Any, optimizer: Any) -> Learner:
    """Wraps a model and its optimizer for `stcore.train_step`.

    model: as for `make_classifier`.   optimizer: a `torch.optim` optimizer over the model's parameters, or one of
    `keras.optimizers`. Raises as `make_classifier` does.
    """
    learner: Learner = backend_of(model).make_learner(model, optimizer)
    return learner
