"""Checks at the entry of every public call: model, batch, noise.

Values are checked on the host, before anything is computed. Inside a traced graph tensors have no values: then
only shapes and types are checked.
"""

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
    """A method or an attack that starts from noise."""

    @property
    def noise_laws(self) -> tuple[str, ...]: ...


class HasBounds(Protocol):
    """Settings with a range of pixels."""

    @property
    def bounds(self) -> tuple[float, float]: ...


class FindsExamples(HasNoise, HasBounds, Protocol):
    """A search for examples: an attack, or squeeze training."""

    def find(self, model: Network, x: Tensor, y: Tensor, noise: tuple[Tensor, ...], /) -> Any: ...


def attack_batch(
    attack: FindsExamples,
    model: Any,
    x: Tensor,
    y: Tensor,
    noise: tuple[Tensor, ...] | None,
    rng: np.random.Generator | int | None,
) -> Tensor:
    """Checks model and batch, and returns the attack's adversarial examples, shaped like x."""
    return find_examples(attack, checked_classifier(model, x, y, attack), x, y, noise, rng)


def checked_classifier(model: Any, x: Tensor, y: Tensor, search: HasBounds) -> Classifier:
    """Checks model and batch against the pixel bounds; returns the classifier."""
    classifier = make_classifier(model)
    check_batch(classifier, model, x, y, search.bounds)
    return classifier


def find_examples(
    search: FindsExamples,
    classifier: Classifier,
    x: Tensor,
    y: Tensor,
    noise: tuple[Tensor, ...] | None,
    rng: np.random.Generator | int | None,
) -> Any:
    """Runs the search from given or drawn noise, hidden from the caller's differentiation."""
    start_noise = resolve_noise(classifier, search, x, noise, rng)
    return classifier.ops.unrecorded(lambda: search.find(classifier, x, y, start_noise))


_num_classes: weakref.WeakKeyDictionary[Any, tuple[Hashable, int]] = weakref.WeakKeyDictionary()
"""Signature and number of classes of each model that was checked."""


def check_batch(classifier: Classifier, key: Any, x: Tensor, y: Tensor, bounds: tuple[float, float]) -> None:
    """Checks x (B, …), y (B,) and, by one forward if `key` is new or has a new head, the model's logits.

    key: what stands for the model in the cache of checked models: the model, or its learner.
    Raises TypeError, DataError or UsageError as the public functions document.
    """
    classifier.shape(x)
    if isinstance(y, (np.ndarray, list, tuple)):
        raise TypeError(f"y: expected a tensor, as x is; received {type(y).__qualname__}. Convert it")
    pixels, labels = classifier.to_numpy(x), classifier.to_numpy(y)
    if pixels is None or labels is None:
        return
    validation.check_pixels(pixels, bounds)
    signature = classifier.signature()
    if key not in _num_classes or _num_classes[key][0] != signature:
        _num_classes[key] = signature, validation.check_model(classifier, x) or 0
    validation.check_labels(labels, _num_classes[key][1], len(pixels))


def check_shapes(classifier: Classifier, name: str, x: Tensor, given: Any, count: int) -> None:
    """Raises UsageError, naming `name`, unless `given` are `count` tensors shaped like x."""
    if len(given) != count:
        raise UsageError(f"{name}: expected {count} tensors shaped like x; received {len(given)}")
    expected, *shapes = [classifier.shape(tensor) for tensor in (x, *given)]
    for shape in shapes:
        if shape[1:] != expected[1:] or (shape[0] != expected[0] and None not in (shape[0], expected[0])):
            raise UsageError(f"{name}: expected tensors shaped like x, {expected}; received shape {shape}")


def resolve_noise(
    classifier: Classifier,
    search: HasNoise,
    x: Tensor,
    noise: tuple[Tensor, ...] | None,
    rng: np.random.Generator | int | None,
) -> tuple[Tensor, ...]:
    """Returns the given noise, checked, or draws it from `rng`: a tensor shaped like x for each of `noise_laws`.

    It is drawn as host images, so that the model's layout does not change the numbers.
    Raises UsageError for noise not shaped like x, and if it has to be drawn inside a traced graph.
    """
    laws = search.noise_laws
    if noise is not None:
        check_shapes(classifier, "noise", x, noise, len(laws))
        return tuple(noise)
    if laws and classifier.to_numpy(x) is None:
        raise UsageError("noise: expected tensors, since a draw here would be frozen into the traced graph")
    seed = int(np.random.default_rng(rng).integers(2**63))
    batch, *shape = (int(n) for n in classifier.shape(x) if n is not None)
    arrays = sample(laws, seed, Stream.NOISE, np.arange(batch), tuple(shape), dtype="float64")
    return tuple(classifier.images(array) for array in arrays)
