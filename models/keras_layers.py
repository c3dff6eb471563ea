"""Keras layers: pixel normalisation by constants, and batch normalisation with torch's arithmetic."""

from collections.abc import Sequence
from math import prod
from typing import Any

import keras
from keras import ops


@keras.saving.register_keras_serializable(package="stcore")
class Normalization(keras.layers.Layer):  # type: ignore[misc]
    """(x − mean) / std over the last axis.

    keras.layers.Normalization takes a variance instead, whose square root differs from the std by rounding.
    """

    def __init__(self, mean: Sequence[float], std: Sequence[float], **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.mean, self.std = tuple(mean), tuple(std)

    def call(self, x: Any) -> Any:
        """(…, channels) in, the same shape and dtype out."""
        mean, std = (ops.convert_to_tensor(values, dtype=x.dtype) for values in (self.mean, self.std))
        return (x - mean) / std

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "mean": self.mean, "std": self.std}


@keras.saving.register_keras_serializable(package="stcore")
class TorchBatchNormalization(keras.layers.BatchNormalization):  # type: ignore[misc]
    """keras.layers.BatchNormalization with an unbiased running variance, as in torch.

    Keras accumulates the biased variance and has other defaults (momentum 0.99, epsilon 1e-3). The rest is
    Keras' own behaviour: `training=True` normalises with the (biased) statistics of the batch and updates the
    running ones; `training=False`, or `trainable=False`, uses the running ones. A channel with a single value has
    variance 0, whereas torch raises an error.

    Masks, renormalisation and synchronised statistics, which torch's layer lacks, are not supported.
    Raises ValueError for renorm=True or synchronized=True.
    """

    def __init__(self, axis: int = -1, momentum: float = 0.9, epsilon: float = 1e-5, **kwargs: Any) -> None:
        super().__init__(axis=axis, momentum=momentum, epsilon=epsilon, **kwargs)
        if self.renorm or self.synchronized:
            raise ValueError("expected renorm=False and synchronized=False: torch's layer has neither")
        self.supports_masking = False

    def call(self, inputs: Any, training: bool | None = None) -> Any:
        """Normalise `inputs` over all axes but `self.axis`; same shape, in the layer's compute dtype."""
        if training and self.trainable and self._is_fused(inputs):
            return self._fused(inputs)
        # Half precision is too coarse for statistics. Not keras.backend.result_type(dtype, "float32"): on engines
        # other than TensorFlow that turns float64 into float32.
        dtype = keras.backend.standardize_dtype(inputs.dtype)
        dtype = "float32" if dtype in ("float16", "bfloat16") else dtype
        x = ops.cast(inputs, dtype)
        if training and self.trainable:
            axes = [a for a in range(len(x.shape)) if a != self.axis % len(x.shape)]
            mean, variance = ops.moments(x, axes=axes)
            shape = ops.shape(x)
            count = ops.cast(prod(shape[a] for a in axes), dtype)  # the batch may be unknown while tracing
            unbiased = variance * (count / ops.maximum(count - 1.0, 1.0))
            self._update(self.moving_mean, mean)
            self._update(self.moving_variance, unbiased)
        else:
            mean, variance = ops.cast(self.moving_mean, dtype), ops.cast(self.moving_variance, dtype)
        outputs = ops.batch_normalization(
            x,
            mean,
            variance,
            self.axis,
            offset=None if self.beta is None else ops.cast(self.beta, dtype),
            scale=None if self.gamma is None else ops.cast(self.gamma, dtype),
            epsilon=self.epsilon,
        )
        return ops.cast(outputs, self.compute_dtype)

    def _is_fused(self, inputs: Any) -> bool:
        """Whether TensorFlow's one kernel does it: for images of at most 32 bits, channels last."""
        dtype = keras.backend.standardize_dtype(inputs.dtype)
        return (
            keras.backend.backend() == "tensorflow"
            and len(inputs.shape) == 4
            and self.axis in (-1, 3)
            and dtype in ("float32", "bfloat16")
            and self.beta is not None
            and self.gamma is not None
        )

    def _fused(self, inputs: Any) -> Any:
        import tensorflow as tf

        # Not tf.nn.fused_batch_norm, which raises an epsilon of 1e-5. Statistics are float32 for bfloat16 too.
        result = tf.raw_ops.FusedBatchNormV3(
            x=inputs,
            scale=ops.cast(self.gamma, "float32"),
            offset=ops.cast(self.beta, "float32"),
            mean=[],
            variance=[],
            epsilon=self.epsilon,
        )
        self._update(self.moving_mean, result.batch_mean)
        self._update(self.moving_variance, result.batch_variance)  # unbiased, the only kind that it returns
        return ops.cast(result.y, self.compute_dtype)

    def _update(self, running: Any, batch: Any) -> None:
        # Native tensors: on some backends a Keras variable is multiplied by 0.9 rounded to float32.
        old, new = ops.convert_to_tensor(running), ops.cast(batch, running.dtype)
        running.assign(old * self.momentum + new * (1.0 - self.momentum))
