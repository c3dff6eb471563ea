"""What the shared suite needs of a backend, said once for each, and the problems it is run on.

Tests speak numpy: images are (B, H, W, C) here, and turned to the backend's own layout at the door.
"""

import importlib
import importlib.util
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import NamedTuple

import numpy as np
import pytest

import stcore
from stcore.core.dispatch import keras_engine, missing_packages
from stcore.models import build, describe, load_weights
from stcore.models.description import BatchNorm, leaves
from stcore.models.initialize import initial_weights

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"
NAMES = ("torch", "keras")
CLASSES, CHANNELS = 3, 3


class Problem(NamedTuple):
    """A batch with its noise: images and noise (B, H, W, C), labels (B,)."""

    x: np.ndarray
    y: np.ndarray
    noise: tuple[np.ndarray, np.ndarray]


def problem(batch=6, side=8, seed=0, *, law="normal", channels=CHANNELS, classes=CLASSES):
    rng = np.random.default_rng(seed)
    shape = (batch, side, side, channels)
    noise = tuple(rng.normal(size=shape) if law == "normal" else rng.uniform(-1, 1, shape) for _ in range(2))
    return Problem(rng.uniform(size=shape), rng.integers(classes, size=batch), noise)


@cache
def lively_weights(net, seed=0, channels=CHANNELS, classes=CLASSES):
    """Initial weights, but with batch norms that are not the identity: a wrong axis or statistic shows."""
    description = describe(net, classes, channels)
    weights, rng = initial_weights(description, seed), np.random.default_rng(seed)
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
    ops: object

    @property
    def engine(self):
        """What reckons: Keras runs on one of two."""
        return keras_engine() if self.name == "keras" else self.name

    def build(self, net="tiny-smooth", *, side=8, dtype="float64", seed=0, channels=CHANNELS, classes=CLASSES):
        """The network with lively weights; the same numbers on every backend."""
        size = {"num_classes": classes, "in_channels": channels}
        weights = lively_weights(net, seed, channels, classes)
        if self.name == "strict":
            return _strict().StrictModel(net, weights, **size)
        model = build(net, self.name, image_size=(side, side), dtype=dtype, **size)
        load_weights(model, weights)
        return model

    def classifier(self, model):
        return _strict().StrictClassifier(model) if self.name == "strict" else stcore.make_classifier(model)

    def learner(self, model, lr=0.1, momentum=0.9, weight_decay=5e-4):
        settings = {"momentum": momentum, "weight_decay": weight_decay}
        if self.name == "strict":
            return _strict().StrictLearner(model, lr=lr, **settings)
        return stcore.make_learner(model, self.optimizer(model, lr, **settings))

    def optimizer(self, model, lr=0.1, **settings):
        if self.name == "torch":
            import torch

            return torch.optim.SGD(model.parameters(), lr=lr, **settings)
        from stcore.backends.keras import TorchSGD

        return TorchSGD(lr, **settings)

    def tensor(self, array):
        """A native tensor of the same shape and dtype: no layout is turned."""
        array = np.asarray(array)
        if self.name == "strict":
            return _strict().StrictTensor(array)
        if self.name == "torch":
            import torch

            return torch.tensor(array)
        from keras import ops

        return ops.convert_to_tensor(array, str(array.dtype))

    def array(self, tensor):
        return np.asarray(self.ops.to_numpy(tensor))

    def images(self, array, dtype="float64"):
        array = np.asarray(array, dtype)
        return self.tensor(array if self.name == "keras" else array.transpose(0, 3, 1, 2))

    def nhwc(self, tensor):
        array = self.array(tensor)
        return array if self.name == "keras" else array.transpose(0, 2, 3, 1)

    def batch(self, given, dtype="float64"):
        """The problem in native tensors."""
        noise = tuple(self.images(n, dtype) for n in given.noise)
        return Problem(self.images(given.x, dtype), self.tensor(given.y), noise)

    def pair(self, arrays, dtype="float64"):
        return stcore.SqueezePair(*(self.images(a, dtype) for a in arrays))

    def statistics(self, model):
        """Running statistics by name."""
        if self.name == "strict":
            return {n: a.copy() for n, a in model.weights.items() if ".running_" in n}
        from stcore.models import export_weights

        return {name: array for name, array in export_weights(model).items() if ".running_" in name}


def load(name):
    """The backend, or a skip that says what is missing."""
    if name != "strict" and (missing := missing_packages(name)):
        pytest.skip(f"backend {name}: {' and '.join(missing)} not installed")
    return _load(name)


@cache
def _load(name):
    if name == "strict":
        return Backend(name, _strict().ops)
    return Backend(name, importlib.import_module(f"stcore.backends.{name}.ops"))


def built(backend, net="tiny", **size):
    """The network as built anew, if its last use is over: Keras' is kept and has its weights loaded again.

    Which is quicker by far.
    """
    if backend.name != "keras":
        return backend.build(net, **size)
    model = _kept(net, **size)
    load_weights(model, lively_weights(net))
    return model


@cache
def _kept(net, **size):
    return load("keras").build(net, **size)


def _strict():
    import strict

    return strict


def gradients(learner, objective, batch, examples, phase=0):
    """The weight gradients of the objective's mean loss by canonical name, with the loss and the metrics.

    Read off one step of plain SGD at rate 1, so the learner must have been made for that.
    """
    before = learner.weights()
    result = losses(learner, objective, batch, examples, phase)
    learner.apply_gradients(result.gradients)
    after = learner.weights()
    by_name = {name: before[name] - after[name] for name in before if ".running_" not in name}
    return SimpleNamespace(loss=result.loss, metrics=result.metrics, by_name=by_name)


def losses(learner, objective, batch, examples, phase=0):
    def mean_loss():
        per_example = objective.losses(learner, batch.x, batch.y, examples, phase)
        means = {name: learner.ops.mean(values) for name, values in per_example.metrics.items()}
        return learner.ops.mean(per_example.losses), means

    (loss, metrics), raw = learner.value_and_grad(mean_loss)
    host = learner.ops.to_numpy
    return SimpleNamespace(
        loss=float(host(loss)), metrics={name: float(host(m)) for name, m in metrics.items()}, gradients=raw
    )


def assert_close(one, other, tolerance):
    """Every entry of two dicts of arrays: the largest difference, relative to the largest value."""
    assert one.keys() == other.keys()
    for name in one:
        assert worst(one[name], other[name]) <= tolerance, f"{name}: {worst(one[name], other[name]):.2e}"


def worst(one, other):
    """The largest difference, relative to the largest value."""
    one, other = np.asarray(one), np.asarray(other)
    assert one.shape == other.shape
    return np.abs(one - other).max() / max(np.abs(other).max(), 1e-300)


def assert_same(one, other):
    """Two dicts of arrays, bit for bit."""
    assert one.keys() == other.keys()
    for name in one:
        np.testing.assert_array_equal(one[name], other[name], err_msg=name)
