"""Checks at the entry of every public call: model, batch and noise."""

from __future__ import annotations

import weakref
from collections.abc import Hashable
from typing import Any, Protocol

import numpy as np

from stcore.base.noise import sample
from stcore.base.seeding import Stream
from stcore.core import validation
from stcore.core.dispatch import make_classifier
from stcore.errors import UsageError
from stcore.protocols import Classifier, Network, Tensor


class HasNoise(Protocol):
    """A method or an attack, as far as its noise goes."""

    @property
    def noise_laws(self) -> tuple[str, ...]: ...


class HasBounds(Protocol):
    """A search, as far as the range of its pixels goes."""

    @property
    def bounds(self) -> tuple[float, float]: ...


class Finds(HasNoise, HasBounds, Protocol):
    """A search for examples, be it an attack's or squeeze training's."""

    def find(self, model: Network, x: Tensor, y: Tensor, noise: tuple[Tensor, ...], /) -> Any: ...


_known: weakref.WeakKeyDictionary[Any, tuple[Hashable, int]] = weakref.WeakKeyDictionary()
"""The number of classes of each network that was looked at."""


def checked(model: Any, x: Tensor, y: Tensor, search: HasBounds) -> Classifier:
    """The model as a classifier, when it and the batch are what a search of these bounds can work on."""
    classifier = make_classifier(model)
    _check_batch(classifier, model, x, y, search.bounds)
    return classifier


def _check_batch(classifier: Classifier, key: Any, x: Tensor, y: Tensor, bounds: tuple[float, float]) -> None:
    classifier.shape(x)
    if isinstance(y, (np.ndarray, list, tuple)):
        raise TypeError(f"y: expected a tensor, as x is; received {type(y).__qualname__}. Convert it")
    pixels, labels = classifier.to_numpy(x), classifier.to_numpy(y)
    if pixels is None or labels is None:
        return
    validation.check_pixels(pixels, bounds)
    network = classifier.signature()
    if key not in _known or _known[key][0] != network:  # one forward, when a model is new or has a new head
        _known[key] = network, validation.check_model(classifier, x) or 0
    validation.check_labels(labels, _known[key][1], len(pixels))


def _check_shapes(classifier: Classifier, name: str, x: Tensor, given: Any, count: int) -> None:
    if len(given) != count:
        raise UsageError(f"{name}: expected {count} tensors shaped like x; received {len(given)}")
    shapes = [classifier.shape(one) for one in (x, *given)]
    for shape in shapes:
        if shape[1:] != shapes[0][1:] or (shape[0] != shapes[0][0] and None not in (shape[0], shapes[0][0])):
            raise UsageError(f"{name}: expected tensors shaped like x, {shapes[0]}; received shape {shape}")


def _noise(
    classifier: Classifier,
    search: HasNoise,
    x: Tensor,
    noise: tuple[Tensor, ...] | None,
    rng: np.random.Generator | int | None,
) -> tuple[Tensor, ...]:
    """The noise that was given, checked; or else drawn as host images, so that no layout changes the numbers."""
    laws = search.noise_laws
    if noise is not None:
        _check_shapes(classifier, "noise", x, noise, len(laws))
        return tuple(noise)
    if laws and classifier.to_numpy(x) is None:
        raise UsageError("noise: expected tensors, since a draw here would be frozen into the traced graph")
    seed = int(np.random.default_rng(rng).integers(2**63))
    batch, *shape = (int(n) for n in classifier.shape(x) if n is not None)
    arrays = sample(laws, seed, Stream.NOISE, np.arange(batch), tuple(shape), dtype="float64")
    return tuple(classifier.images(array) for array in arrays)


def _found(
    search: Finds,
    classifier: Classifier,
    x: Tensor,
    y: Tensor,
    noise: tuple[Tensor, ...] | None,
    rng: np.random.Generator | int | None,
) -> Any:
    """The examples a search finds from its noise, unseen by whatever the caller differentiates."""
    drawn = _noise(classifier, search, x, noise, rng)
    return classifier.ops.unrecorded(lambda: search.find(classifier, x, y, drawn))


def attack_batch(
    attack: Finds,
    model: Any,
    x: Tensor,
    y: Tensor,
    noise: tuple[Tensor, ...] | None,
    rng: np.random.Generator | int | None,
) -> Tensor:
    """Adversarial examples of one batch by an attack of `stcore.attacks`."""
    return _found(attack, checked(model, x, y, attack), x, y, noise, rng)
