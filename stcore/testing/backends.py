"""The installed backends with a uniform way to make and to feed networks, and the problems they are tried on.

Here everything is numpy: images are (B, H, W, C), and turned to the backend's own layout at the door.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np

from stcore.base.noise import sample
from stcore.base.seeding import Stream
from stcore.core.dispatch import available_backends, keras_engine, make_classifier, make_learner
from stcore.methods.squeeze_search import SqueezePair
from stcore.models import build, describe, export_weights, load_weights
from stcore.models.description import BatchNorm, Node, leaves
from stcore.models.initialize import initial_weights
from stcore.protocols import Array, Tensor

CLASSES, CHANNELS = 3, 3
STRICT = "strict"
"""The numpy backend that knows the protocol alone (`stcore.testing.strict`)."""


class Problem(NamedTuple):
    """A batch with its noise: images and noise (B, H, W, C), labels (B,)."""

    x: Any
    y: Any
    noise: tuple[Any, ...]


def problem(
    batch: int = 6,
    side: int = 8,
    seed: int = 0,
    *,
    law: str = "normal",
    channels: int = CHANNELS,
    classes: int = CLASSES,
) -> Problem:
    """A batch of random images with two noises of one law."""
    rng = np.random.default_rng(seed)
    shape = (batch, side, side, channels)
    noise = tuple(rng.normal(size=shape) if law == "normal" else rng.uniform(-1, 1, shape) for _ in range(2))
    return Problem(rng.uniform(size=shape), rng.integers(classes, size=batch), noise)


def draw(laws: Sequence[str], shape: Sequence[int], seed: int = 0) -> tuple[Array, ...]:
    """The unit noise of a batch for each law, as float64 arrays of this shape."""
    return sample(tuple(laws), seed, Stream.NOISE, np.arange(shape[0]), tuple(shape[1:]), dtype="float64")


@cache
def lively_weights(net: str, seed: int = 0, channels: int = CHANNELS, classes: int = CLASSES) -> dict[str, Array]:
    """Those of a network by name."""
    return lively(describe(net, classes, channels), seed)


def lively(description: Node, seed: int) -> dict[str, Array]:
    """Initial weights, but with batch norms that are not the identity: a wrong axis or statistic shows."""
    weights, rng = dict(initial_weights(description, seed)), np.random.default_rng(seed)
    for path, leaf in leaves(description):
        if isinstance(leaf, BatchNorm):
            shape = (leaf.channels,)
            weights[f"{path}.weight"] = rng.uniform(0.5, 1.5, shape)
            weights[f"{path}.bias"] = rng.normal(0, 0.1, shape)
            weights[f"{path}.running_mean"] = rng.normal(0, 0.2, shape)
            weights[f"{path}.running_var"] = rng.uniform(0.5, 2, shape)
    return weights


@dataclass(frozen=True, eq=False)  # so a key of caches: `load` makes one of each
class Backend:
    """One backend: its operations and its models, with a uniform way to make and to feed them."""

    name: str
    ops: Any

    @property
    def engine(self) -> str:
        """What computes: Keras runs on one of two."""
        return keras_engine() if self.name == "keras" else self.name

    def build(
        self,
        net: str = "tiny-smooth",
        *,
        side: int = 8,
        dtype: str = "float64",
        seed: int = 0,
        channels: int = CHANNELS,
        classes: int = CLASSES,
    ) -> Any:
        """The network with lively weights; the same numbers on every backend."""
        weights = lively_weights(net, seed, channels, classes)
        if self.name == STRICT:
            return _strict().StrictModel(net, weights, num_classes=classes, in_channels=channels)
        model = build(
            net,
            self.name,  # type: ignore[arg-type]
            image_size=(side, side),
            dtype=dtype,
            num_classes=classes,
            in_channels=channels,
        )
        load_weights(model, weights)
        return model

    def classifier(self, model: Any) -> Any:
        return _strict().StrictClassifier(model) if self.name == STRICT else make_classifier(model)

    def learner(self, model: Any, lr: float = 0.1, momentum: float = 0.9, weight_decay: float = 5e-4) -> Any:
        """The network with SGD."""
        settings = {"momentum": momentum, "weight_decay": weight_decay}
        if self.name == STRICT:
            return _strict().StrictLearner(model, lr=lr, **settings)
        return make_learner(model, self.optimizer(model, lr, **settings))

    def optimizer(self, model: Any, lr: float = 0.1, **settings: float) -> Any:
        if self.name == "torch":
            return importlib.import_module("torch").optim.SGD(model.parameters(), lr=lr, **settings)
        from stcore.backends.keras import TorchSGD

        return TorchSGD(lr, **settings)  # type: ignore[arg-type]

    def tensor(self, array: Any) -> Tensor:
        """A native tensor of the same shape and dtype: no layout is turned."""
        array = np.asarray(array)
        if self.name == STRICT:
            return _strict().StrictTensor(array)
        if self.name == "torch":
            return importlib.import_module("torch").tensor(array)
        return importlib.import_module("keras").ops.convert_to_tensor(array, str(array.dtype))

    def array(self, tensor: Tensor) -> Array:
        return np.asarray(self.ops.to_numpy(tensor))

    def images(self, array: Any, dtype: str = "float64") -> Tensor:
        """Native pixels of images (B, H, W, C)."""
        array = np.asarray(array, dtype)
        return self.tensor(array if self.name == "keras" else array.transpose(0, 3, 1, 2))

    def nhwc(self, tensor: Tensor) -> Array:
        """Images (B, H, W, C) of native pixels."""
        array = self.array(tensor)
        return array if self.name == "keras" else array.transpose(0, 2, 3, 1)

    def batch(self, given: Problem, dtype: str = "float64") -> Problem:
        """The problem in native tensors."""
        noise = tuple(self.images(n, dtype) for n in given.noise)
        return Problem(self.images(given.x, dtype), self.tensor(given.y), noise)

    def pair(self, arrays: Sequence[Array], dtype: str = "float64") -> SqueezePair:
        return SqueezePair(*(self.images(a, dtype) for a in arrays))

    def statistics(self, model: Any) -> dict[str, Array]:
        """Running statistics by name."""
        weights: Mapping[str, Array] = model.weights if self.name == STRICT else export_weights(model)
        return {name: array.copy() for name, array in weights.items() if ".running_" in name}


@cache
def load(name: str) -> Backend:
    """The backend of this name: torch, keras or strict. ImportError if it is not installed."""
    if name == STRICT:
        return Backend(name, _strict().ops)
    return Backend(name, importlib.import_module(f"stcore.backends.{name}.ops"))


def installed() -> tuple[Backend, ...]:
    """The installed backends, without the strict one."""
    return tuple(map(load, available_backends()))


def _strict() -> ModuleType:
    return importlib.import_module("stcore.testing.strict")


def assert_close(one: Mapping[str, Any], other: Mapping[str, Any], tolerance: float) -> None:
    """Every entry of two dicts of arrays: the largest difference, relative to the largest value."""
    assert one.keys() == other.keys(), f"expected the entries {set(other)}; received {set(one)}"
    for name in one:
        difference = worst(one[name], other[name])
        assert difference <= tolerance, (
            f"{name}: expected equality to {tolerance:g}; it differs by {difference:.2e}"
        )


def worst(one: Any, other: Any) -> float:
    """The largest difference, relative to the largest value."""
    one, other = np.asarray(one), np.asarray(other)
    assert one.shape == other.shape, f"expected the shape {other.shape}; received {one.shape}"
    return float(np.abs(one - other).max() / max(np.abs(other).max(), 1e-300))
