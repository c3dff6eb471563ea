"""The engine that Keras runs on, TensorFlow or JAX, under one set of names."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

import keras

from stcore.core.dispatch import check_engine

__all__ = ["NAME", "native"]

NAME: str = keras.backend.backend()
check_engine(NAME)

if TYPE_CHECKING:
    from stcore.backends.keras import tensorflow as native
else:
    native = import_module(f"stcore.backends.keras.{NAME}")
