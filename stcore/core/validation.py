"""Checks of batches and models on host values, at the public edge.

Nothing here runs inside a training or attack step.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np

from stcore.errors import DIVIDE, DataError, DivergedError, StcoreError, UsageError
from stcore.protocols import Array, Classifier, Tensor

SUM_ROUNDED = 1e-3
"""The probabilities of a soft label sum to one up to this: half precision rounds each by 2⁻¹¹ of itself."""
ROUNDED = 0.01
"""A pixel of x + epsilon in bfloat16 is this near, of the largest pixel: what is further was not found so."""


def check_finite_span(name: str, low: float, high: float) -> None:
    """Raises DataError for numbers between NaN or infinities."""
    if not np.isfinite(low + high):
        raise DataError(f"{name}: expected finite numbers; received NaN or infinity")


def check_distance(name: str, reach: float, bounds: tuple[float, float], low: float, distance: float) -> None:
    """Raises DataError unless the pixels of a point are finite and at most `reach` from their image's."""
    check_finite_span(name, low, distance)
    if distance > reach + ROUNDED * max(reach, *map(abs, bounds)):
        raise DataError(
            f"{name}: expected points at most {reach:g} from x in every pixel; received one at {distance:g}. "
            "Give the neighbours of these images, found with this epsilon"
        )


def check_pixels(values: Array, bounds: tuple[float, float] = (0.0, 1.0)) -> None:
    """Raises DataError unless there is an image and every pixel is a finite float within the bounds."""
    if values.size == 0:
        raise DataError(f"x: expected at least one image; received an empty batch of shape {values.shape}")
    if values.dtype.kind in "iub":
        remedy = DIVIDE if bounds[1] <= 1 else "Convert them by astype('float32')"
        raise DataError(
            f"x: expected floating pixels in [{bounds[0]:g}, {bounds[1]:g}]; received {values.dtype}. {remedy}"
        )
    check_pixel_span(bounds, float(values.min()), float(values.max()))


def check_pixel_span(bounds: tuple[float, float], low: float, high: float) -> None:
    """Raises DataError unless pixels from `low` to `high` are finite and within the bounds."""
    if not np.isfinite(low + high):
        raise DataError("x: expected finite pixels; received NaN or infinity")
    if low < bounds[0] or high > bounds[1]:
        span = bounds[1] - bounds[0]
        near = bounds[0] - low < span / 100 and high - bounds[1] < span / 100
        otherwise = DIVIDE if bounds[1] <= 1 else "Give bounds that hold them"
        remedy = "Clip them: an interpolation goes a little beyond" if near else otherwise
        raise DataError(
            f"x: expected pixels in [{bounds[0]:g}, {bounds[1]:g}]; received [{low:.9g}, {high:.9g}]. "
            f"{remedy}; make mean/std normalisation a layer of the model"
        )


def check_labels(values: Array, num_classes: int, count: int | None = None) -> None:
    """Raises DataError unless values are integer labels (B,) in [0, num_classes); B = `count` if given."""
    check_label_kind(values.dtype, values.shape, count)
    if values.size:
        check_label_span(num_classes, values.min(), values.max())


def check_label_kind(dtype: object, shape: tuple[int, ...], count: int | None) -> None:
    """Raises DataError unless these are integer labels (B,); B = `count` if given. dtype: of any framework."""
    if len(shape) != 1 or "int" not in str(dtype):
        hint = ". Of one-hot or soft labels, give the argmax" if len(shape) == 2 and shape[1] > 1 else ""
        raise DataError(f"y: expected integer labels of shape (B,); received {dtype} of shape {shape}{hint}")
    if count is not None and shape[0] != count:
        raise DataError(f"y: expected a label for each image; received {shape[0]} for {count} images")


def check_label_span(num_classes: int, low: float, high: float) -> None:
    """Raises DataError unless labels from `low` to `high` are in [0, num_classes)."""
    if not 0 <= low <= high < num_classes:
        raise DataError(
            f"y: expected labels in [0, {num_classes}), the model's number of classes; received "
            f"[{low:g}, {high:g}]"
        )


def check_targets(values: Array, num_classes: int, count: int) -> None:
    """Raises DataError unless values are integer labels (B,) as in `check_labels`, or soft labels (B, C)."""
    if values.ndim != 2:
        check_labels(values, num_classes, count)
        return
    check_soft_kind(values.dtype, values.shape, num_classes, count)
    if values.size:
        check_probability_span(values.min(), values.max())
        sums = values.sum(axis=1, dtype=np.float64)
        check_sum_span(sums.min(), sums.max())


def hard_labels(values: Array, num_classes: int, count: int | None = None) -> Array:
    """Returns integer labels (B,): those given, (B,) or (B, 1), or the likeliest classes of soft labels (B, C).

    Raises DataError as `check_labels` and `check_targets` do.
    """
    if values.ndim == 2 and values.shape[1] == 1:
        values = values[:, 0]
    if values.ndim == 2:
        check_targets(values * 1.0, num_classes, len(values) if count is None else count)
        values = values.argmax(axis=1)
    check_labels(values, num_classes, count)
    return values


def check_soft_kind(dtype: object, shape: tuple[int, ...], num_classes: int, count: int | None) -> None:
    """Raises DataError unless these are floating soft labels (count, num_classes). dtype: of any framework."""
    if "float" not in str(dtype) or shape[1] != num_classes:
        hint = ", or of one column, give y.reshape(-1)" if shape[1] == 1 else ""
        raise DataError(
            f"y: expected integer labels (B,), or floating class probabilities of shape (B, {num_classes}), the "
            f"model's classes; received {dtype} of shape {shape}. Of one-hot integers, give floats{hint}"
        )
    if shape[0] != count:
        raise DataError(f"y: expected a label for each image; received {shape[0]} for {count} images")


def check_probability_span(low: float, high: float) -> None:
    """Raises DataError unless the entries of soft labels, from `low` to `high`, are in [0, 1]."""
    if not -SUM_ROUNDED <= low <= high <= 1 + SUM_ROUNDED:
        raise DataError(f"y: expected class probabilities in [0, 1]; received [{low:g}, {high:g}]")


def check_sum_span(low: float, high: float) -> None:
    """Raises DataError unless the rows of soft labels sum to one, as far as their rounding lets them."""
    if not 1 - SUM_ROUNDED <= low <= high <= 1 + SUM_ROUNDED:
        raise DataError(
            f"y: expected class probabilities whose rows sum to 1; received sums from {low:g} to {high:g}. Divide "
            "each row by its sum"
        )


def check_logits(values: Array, num_classes: int | None = None) -> None:
    """Raises UsageError unless values (B, C) are finite logits, not probabilities; C = `num_classes` if given."""
    if values.ndim != 2 or values.shape[1] < 2:
        raise UsageError(f"model: expected logits of shape (B, C), C at least 2; received shape {values.shape}")
    if num_classes is not None and values.shape[1] != num_classes:
        raise UsageError(
            f"model: expected logits of {num_classes} classes, as the data has; received {values.shape[1]}"
        )
    if not (values < np.inf).all():
        raise UsageError(
            "model: expected finite logits; received NaN or +∞. Its weights have diverged: load others"
        )
    rows = values.astype(np.float64).sum(axis=1)
    if (values >= 0).all() and np.allclose(rows, 1.0, atol=1e-2):
        raise UsageError(
            "model: expected logits; received rows that are non-negative and sum to 1, which are probabilities. "
            "Remove the final softmax"
        )


def check_finite(logits: Array) -> Array:
    """Returns the logits (B, C). Raises DivergedError if one is NaN or +∞, which argmax would take for a class."""
    if not (logits < np.inf).all():
        raise DivergedError(
            "the model's logits are not finite: its weights have diverged. Lower the learning rate"
        )
    return logits


def check_precision(classifier: Classifier, shape: Sequence[int]) -> None:
    """Raises UsageError if the model's dtype is too coarse to decide whether a point is in the ball.

    shape: shape of one image, (H, W, C) or flat (d,).
    """
    third = np.full((1, *shape), 1 / 3)
    if np.abs(classifier.host_pixels(third) - third).max() > 1e-6:
        raise UsageError(
            "model: expected float32 or float64 for this attack; received half precision, in which points rounded "
            "out of the ball would not count. Convert the model to float32"
        )


def check_objective(objective: object) -> None:
    """Raises UsageError unless this is a method's settings."""
    if not hasattr(objective, "noise_laws"):
        raise UsageError(
            f"objective: expected a method's settings, such as stcore.SqueezeConfig(); received {objective!r}"
        )


@contextmanager
def answering(shape: tuple[int, ...]) -> Iterator[None]:
    """Turns an error of the model's own code into a UsageError that says what it was given."""
    try:
        yield
    except (StcoreError, MemoryError):
        raise
    except Exception as error:
        if "out of memory" in str(error).lower():  # has an exit code of its own
            raise
        raise UsageError(
            f"model: expected logits of images of shape {shape}; its forward raised {type(error).__name__}: "
            f"{error}. Give images of its size and channels in its own layout: (B, C, H, W) in PyTorch, mostly "
            "(B, H, W, C) in Keras"
        ) from error


def check_model(
    model: Classifier, x: Tensor, num_classes: int | None = None, *, training: bool = False
) -> int | None:
    """Checks the logits of one forward of x (B, …); returns the number of classes, or None inside a traced graph.

    training: also checks a forward in training mode, which may return something else. It writes nothing.
    Raises UsageError for a model that changes its input, or whose output is not finite logits.
    """
    before = model.to_numpy(x)
    if before is None:
        return None
    copy = x + 0.0
    with answering(before.shape):
        logits = model.eval_logits(copy)
    if logits is None:
        return None
    if not np.array_equal(np.asarray(model.to_numpy(copy)), before):
        raise UsageError(
            "model: expected pixels to be left as they are; received a model that changes its input in place. "
            "Write x = x - mean rather than x -= mean"
        )
    check_logits(logits, num_classes)
    if training and len(before) > 1:  # a batch norm may refuse to normalise a single image
        with answering(before.shape):
            trial = model.trial_logits(x)
        if trial is not None and trial.shape != logits.shape:
            raise UsageError(
                f"model: expected logits of one shape in training and in evaluation; received {trial.shape} "
                f"and {logits.shape}"
            )
    return int(logits.shape[1])
