"""Training through Keras' `compile`, `fit` and callbacks. Each update is `stcore.core.objective.training_step`."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import keras
import numpy as np
from keras import ops

from stcore.backends.keras.counting import Clock, Means
from stcore.backends.keras.engine import NAME, native
from stcore.backends.keras.learner import KerasClassifier, KerasLearner
from stcore.base import checks
from stcore.base.noise import sample
from stcore.base.seeding import Stream
from stcore.core import validation
from stcore.core.losses import are_soft, cross_entropy
from stcore.core.objective import Objective, WeightPerturbation, stage, training_step
from stcore.errors import DataError, StcoreError, UsageError
from stcore.methods.metrics import means_alone
from stcore.methods.squeeze import SqueezeConfig
from stcore.protocols import Array, Mode, Tensor

SIDE = 32  # pixels: image side for the check of a network that accepts any size


class SqueezeModel(keras.Model):  # type: ignore[misc]
    """Trains `net` by squeeze training or any other objective of stcore, with Keras' `fit`.

    net: a built `keras.Model` that maps pixels (B, …) in [0, 1] to logits (B, C).
    objective: `SqueezeConfig()`, `MartConfig()`, …   perturbation: `stcore.AWP`, `stcore.RWP` or None.
    seed: of the training noise; at least 0. The same seed gives the numbers of `stcli train`.

    `fit` takes arrays, `tf.data` or a PyDataset of images and labels: integers (B,) or (B, 1), or one-hot or soft
    labels (B, C), which the compiled metrics see as they are. A network of one logit z counts as one of logits
    (0, z). Each example's noise depends only on the seed, the epoch and its position in the epoch. `sample_weight`
    (B,) and `class_weight` scale the examples' losses; the search and batch statistics still see every example.
    Each phase of the objective, and the first epoch with the perturbation, is traced once.

    Training logs hold `loss` and the objective's metrics, means over the epoch's examples. The `metrics` of
    `compile` use natural predictions, which not every method makes: they appear only in `evaluate` and as `val_…`,
    where `loss` is the natural cross-entropy. Each batch is checked before its update.

    `save` writes the inner network; `save_weights` writes the training state with the optimizer's, and
    `load_weights` restores it except for dropout masks, as in Keras.
    Raises UsageError for a network that returns no logits or has losses other than weight regularisers, and on
    JAX, where Keras' `fit` requires stateless steps (use `stcli train` or `stcore.train_step`); DataError for
    pixels or labels out of range.
    """

    def __init__(
        self,
        net: Any,
        objective: Objective = SqueezeConfig(),
        *,
        perturbation: WeightPerturbation | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__(autocast=False)
        if NAME != "tensorflow":
            raise UsageError(
                f"SqueezeModel: expected Keras on tensorflow; received {NAME}, whose fit requires stateless "
                "steps. Use stcli train, or stcore.train_step in a loop"
            )
        if not isinstance(net, keras.Model):
            raise UsageError(f"net: expected a keras.Model; received {type(net).__qualname__}")
        validation.check_objective(objective)
        checks.whole("seed", seed)
        KerasClassifier(net)  # raises UsageError for a network that does not fit
        self.net = net
        self.objective = objective
        self.perturbation = perturbation
        self.seed = seed
        self.built = True
        self._clock = Clock()
        self._means = Means()
        self._stage = (0, False)
        self._classes: int | None = None
        self._data_error: StcoreError | None = None

    def call(self, x: Tensor, training: bool | None = None) -> Tensor:
        return self.net(x, training=training)

    def compile(
        self,
        optimizer: Any = "rmsprop",
        loss: None = None,
        loss_weights: None = None,
        metrics: Any = None,
        weighted_metrics: Any = None,
        run_eagerly: bool = False,
        steps_per_execution: int = 1,
        jit_compile: bool | str = False,
        **kwargs: Any,
    ) -> None:
        """Keras' `compile` without a loss: the objective is the loss. Raises UsageError for a loss or XLA."""
        if loss is not None or loss_weights is not None:
            raise UsageError(
                f"loss: expected none, since the objective is the loss; received {loss or loss_weights!r}. "
                "Leave it out, and give the method as SqueezeModel(net, objective)"
            )
        if jit_compile not in (False, "auto"):
            raise UsageError(
                f"jit_compile: expected False; received {jit_compile!r}. Each step's noise is drawn on the host, "
                "which XLA cannot call. Leave it out"
            )
        if self.distribute_strategy.num_replicas_in_sync > 1:
            raise UsageError(
                "strategy: expected one device; received a tf.distribute strategy of "
                f"{self.distribute_strategy.num_replicas_in_sync}. Make the model outside its scope"
            )
        super().compile(
            optimizer,
            metrics=metrics,
            weighted_metrics=weighted_metrics,
            run_eagerly=run_eagerly,
            steps_per_execution=steps_per_execution,
            jit_compile=False,
            **kwargs,
        )
        self._learner = KerasLearner(self.net, self.optimizer)
        self._train_functions: dict[tuple[int, bool], Callable[..., Any]] = {}
        self._classes = None

    def fit(
        self,
        x: Any = None,
        y: Any = None,
        batch_size: int | None = None,
        epochs: int = 1,
        verbose: Any = "auto",
        callbacks: Any = None,
        **kwargs: Any,
    ) -> Any:
        """Keras' `fit`. The objective counts epochs from 1, like `stcli train`: `initial_epoch=0` is epoch 1."""
        begin = keras.callbacks.LambdaCallback(on_epoch_begin=lambda epoch, logs: self.begin_epoch(epoch + 1))
        if isinstance(callbacks, keras.callbacks.CallbackList):
            callbacks.append(begin)
        else:
            callbacks = [begin, *keras.tree.flatten(callbacks or [])]
        with self._data_errors():
            return super().fit(x, y, batch_size, epochs, verbose, callbacks, **kwargs)

    def evaluate(self, *args: Any, **kwargs: Any) -> Any:
        """Keras' `evaluate` on natural images; `RobustEvaluation` and `stcore.evaluate` attack them."""
        with self._data_errors():
            return super().evaluate(*args, **kwargs)

    def train_on_batch(self, *args: Any, **kwargs: Any) -> Any:
        """Keras' `train_on_batch`; call `begin_epoch` before each epoch."""
        self.make_train_function()
        with self._data_errors():
            return super().train_on_batch(*args, **kwargs)

    def export(self, *args: Any, **kwargs: Any) -> None:
        """Keras' `export` of the network alone: what predicts is of use without the training around it."""
        self.net.export(*args, **kwargs)

    def begin_epoch(self, epoch: int) -> None:
        """Sets the epoch (from 1) and resets the count of its examples; `fit` calls this itself."""
        self._clock.begin(epoch)
        self._stage = stage(self.objective, self.perturbation, epoch)
        self.make_train_function()

    def make_train_function(self, force: bool = False) -> None:
        """Keeps one train function per stage of the objective, so that none is traced twice."""
        if force or self._stage not in self._train_functions:
            super().make_train_function(force=True)
            self._train_functions[self._stage] = self.train_function
        self.train_function: Any = self._train_functions[self._stage]

    def train_step(self, data: Any) -> dict[str, Tensor]:
        """One update by the optimizer of `compile`."""
        phase, perturbing = self._stage
        x, y, weights, noise = self._batch(data, self.objective.noise_laws)
        perturbation = self.perturbation if perturbing else None
        result = training_step(self._learner, self.objective, x, y, noise, phase, perturbation, weights)
        size = ops.shape(x)[0]
        self._loss_tracker.update_state(result.loss, sample_weight=size)
        return {"loss": self._loss_tracker.result(), **self._means.update(means_alone(result.metrics), size)}

    def test_step(self, data: Any) -> dict[str, Tensor]:
        """Natural cross-entropy and the compiled metrics, with running statistics."""
        x, y, weights, _ = self._batch(data)
        logits = self._learner.logits(x, Mode.EVAL)
        losses = cross_entropy(self._learner.ops, logits, y)
        loss = ops.mean(losses if weights is None else weights * losses)
        self._loss_tracker.update_state(loss, sample_weight=ops.shape(x)[0])
        metrics: dict[str, Tensor] = self.compute_metrics(x, y, logits, sample_weight=weights)
        return metrics

    def reset_metrics(self) -> None:
        super().reset_metrics()
        self._means.reset()

    def get_metrics_result(self) -> dict[str, Tensor]:
        """The loss and the compiled metrics; empty before the metrics have seen a prediction."""
        compiled = self._compile_metrics
        return {} if compiled is not None and not compiled.built else super().get_metrics_result()

    def save(self, filepath: Any, overwrite: bool = True, **kwargs: Any) -> None:
        """Saves the inner network for `keras.models.load_model`, which needs stcore only if its layers do."""
        self.net.save(filepath, overwrite=overwrite, **kwargs)

    def _batch(self, data: Any, laws: tuple[str, ...] = ()) -> tuple[Tensor, Tensor, Tensor, tuple[Tensor, ...]]:
        """Images, labels, weights (or None) and noise; the host checks the images first."""
        learner, (x, y, weights) = self._learner, keras.utils.unpack_x_y_sample_weight(data)
        if not hasattr(x, "shape") or not hasattr(y, "shape"):
            raise UsageError(
                "data: expected images and labels, one array or tensor each; received another structure"
            )
        x, given = ops.convert_to_tensor(x), ops.convert_to_tensor(y)
        if weights is not None:
            weights = ops.convert_to_tensor(weights, learner.dtype)
            if weights.shape.rank not in (1, None):
                raise UsageError(f"sample_weight: expected shape (B,); received {tuple(weights.shape)}")
        if self._classes is None:
            self._classes = self._count_classes(tuple(x.shape)[1:])
        y = self._labels(given)
        soft = are_soft(learner.ops, y)

        def check_and_draw(x: Array, y: Array, epoch: Array, first: Array) -> list[Array]:
            self._check(x, y, soft)
            positions = first + np.arange(len(x))
            noise = sample(
                laws, self.seed, Stream.NOISE, positions, x.shape[1:], epoch=int(epoch), dtype=learner.dtype
            )
            return [x.astype(learner.dtype), *noise]

        epoch, first = self._clock.advance(ops.shape(x)[0]) if laws else (0, 0)
        x, *noise = native.call_on_host(
            check_and_draw, x, given, epoch, first, count=1 + len(laws), dtype=learner.dtype, shape=x.shape
        )
        return x, y if soft else ops.cast(y, "int64"), weights, tuple(noise)

    def _labels(self, y: Tensor) -> Tensor:
        """Labels (B,), or soft (B, C) in the logits' dtype, of those (B,), (B, 1), one-hot or soft."""
        if y.shape.rank == 2 and y.shape[1] != 1:
            validation.check_soft_kind("float", tuple(y.shape), self._classes or 0, y.shape[0])
            return ops.cast(y, "float64" if self._learner.dtype == "float64" else "float32")
        if y.shape.rank not in (1, 2, None):
            raise DataError(
                f"y: expected labels of shape (B,), (B, 1) or (B, C); received shape {tuple(y.shape)}. Give "
                "labels.reshape(-1)"
            )
        return ops.reshape(y, (-1,))

    def _count_classes(self, shape: tuple[int | None, ...]) -> int | None:
        """The number of classes, from the logits of grey images of this shape."""
        learner, shape = self._learner, tuple(n or SIDE for n in shape)

        def classes() -> int | None:
            return validation.check_model(learner, ops.full((2, *shape), 0.5, dtype=learner.dtype), training=True)

        result: int | None = native.in_thread(classes)
        return result

    def _check(self, x: Array, y: Array, soft: bool) -> None:
        """Checks a batch as it was given; the labels are taken for soft ones, or for integers (B,) or (B, 1)."""
        try:
            validation.check_pixels(x, getattr(self.objective, "bounds", (0.0, 1.0)))
            if soft:
                validation.check_targets(y * 1.0, self._classes or 0, len(x))
            elif y.ndim == 2 and y.shape[1] > 1:
                raise DataError(
                    f"y: expected integer labels, since the data do not say the labels' shape; received "
                    f"{y.shape}. Declare it, by tf.ensure_shape in the pipeline, or call compile again"
                )
            else:
                validation.check_labels(y[:, 0] if y.shape[1:] == (1,) else y, self._classes or 0, len(x))
        except DataError as error:
            self._data_error = error
            raise

    @contextmanager
    def _data_errors(self) -> Iterator[None]:
        """Raises the original DataError of a check on the host, which TensorFlow wraps in an error of its own."""
        self._data_error = None
        try:
            yield
        except Exception:
            if self._data_error is not None:
                raise self._data_error from None
            raise
