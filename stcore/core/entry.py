"""Checks at the entry of every public call: model, batch, noise.

Values are checked before anything is computed. Inside a traced graph tensors have no values: then only shapes and
types are checked. On another device than the host a model's first batch is checked so; the spans of later ones are
fetched together, so that no call waits for the device (see `stcore.core.inspection`).
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
from stcore.core.inspection import inspect
from stcore.errors import DataError, UsageError
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


def checked_classifier(
    model: Any, x: Tensor, y: Tensor, search: HasBounds, *, training: bool = False, soft: bool = False
) -> Classifier:
    """Checks model and batch against the pixel bounds; returns the classifier.   training, soft: as below."""
    if not hasattr(search, "bounds"):
        raise UsageError(f"config: expected settings, such as stcore.SqueezeConfig(); received {search!r:.100}")
    classifier = make_classifier(model)
    check_batch(classifier, model, x, y, search.bounds, training=training, soft=soft)
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


_checked: weakref.WeakKeyDictionary[Any, tuple[Hashable, bool, int]] = weakref.WeakKeyDictionary()
"""Of each model that was checked: its signature, whether in training mode too, and the number of classes."""


def check_batch(
    classifier: Classifier,
    key: Any,
    x: Tensor,
    y: Tensor,
    bounds: tuple[float, float],
    *,
    training: bool = False,
    soft: bool = False,
) -> None:
    """Checks x (B, …), y (B,) and, if `key` is new or has a new head, the model's logits, by one forward.

    key: what stands for the model in the cache of checked models: the model, or its learner.
    training: checks the logits in training mode too, by another forward.   soft: y may be soft, (B, C).
    Raises TypeError, DataError or UsageError as the public functions document.
    """
    count = classifier.shape(x)[0]
    if y is None or isinstance(y, np.ndarray | list | tuple | dict | str | int | float):
        raise TypeError(f"y: expected a tensor, as x is; received {type(y).__qualname__}. Convert it")
    if classifier.is_tracing(x):
        return
    if is_soft := soft and len(getattr(y, "shape", ())) == 2:
        _check_dtype(x, y)
    signature = classifier.signature()
    known = _checked.get(key)
    if known is not None and (known[0] != signature or training > known[1]):
        known = None
    if known is not None and count and not classifier.on_host(x):
        inspect(classifier, x, validation.check_pixel_span, bounds)
        if is_soft:
            validation.check_soft_kind(y.dtype, tuple(y.shape), known[2], count)
            inspect(classifier, y, validation.check_probability_span)
            inspect(classifier, classifier.ops.sum(y), validation.check_sum_span)
            return
        validation.check_label_kind(y.dtype, tuple(y.shape), count)
        inspect(classifier, y, validation.check_label_span, known[2])
        return
    pixels, labels = classifier.to_numpy(x), classifier.to_numpy(y)
    if pixels is None or labels is None:
        return
    validation.check_pixels(pixels, bounds)
    if known is None:
        known = signature, training, validation.check_model(classifier, x, training=training) or 0
        _checked[key] = known
    check = validation.check_targets if is_soft else validation.check_labels
    check(labels, known[2], len(pixels))


def _check_dtype(x: Tensor, y: Tensor) -> None:
    """Raises DataError unless soft labels y have the dtype of the logits of images x."""
    dtype = "float64" if "float64" in str(x.dtype) else "float32"
    if "float" in str(y.dtype) and dtype not in str(y.dtype):
        raise DataError(f"y: expected class probabilities in the logits' {dtype}; received {y.dtype}. Cast them")


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
    Raises UsageError for noise not shaped like x, and if it has to be drawn inside a traced graph; DataError for
    noise that is not finite.
    """
    laws = search.noise_laws
    if noise is not None:
        check_shapes(classifier, "noise", x, noise, len(laws))
        for tensor in noise:
            inspect(classifier, tensor, validation.check_finite_span, "noise")
        return tuple(noise)
    if laws and classifier.is_tracing(x):
        raise UsageError("noise: expected tensors, since a draw here would be frozen into the traced graph")
    try:
        seed = int(np.random.default_rng(rng).integers(2**63))
    except (TypeError, ValueError) as error:
        raise UsageError(
            f"rng: expected a whole number of at least 0, or a numpy Generator; received {rng!r}. Give "
            "rng=np.random.default_rng(seed), or draw the noise yourself"
        ) from error
    batch, *shape = (int(n) for n in classifier.shape(x) if n is not None)
    arrays = sample(laws, seed, Stream.NOISE, np.arange(batch), tuple(shape), dtype="float64")
    return tuple(classifier.images(array) for array in arrays)
