"""Training by Keras' habits: `compile`, `fit`, callbacks. Each update is `stcore.core.objective.training_step`."""

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
from stcore.core.losses import cross_entropy
from stcore.core.objective import Objective, WeightPerturbation, stage, training_step
from stcore.errors import DataError, StcoreError, UsageError
from stcore.methods.metrics import means_alone
from stcore.methods.squeeze import SqueezeConfig
from stcore.protocols import Array, Mode, Tensor

SIDE = 32  # of the grey images a network is looked over with, where it takes any size


class SqueezeModel(keras.Model):  # type: ignore[misc]
    """`net`, trained by a method of stcore: squeeze training, or any other objective.

    net: a built `keras.Model`, pixels in [0, 1] → logits (B, C).   objective: `SqueezeConfig()`, `MartConfig()`, …
    perturbation: `stcore.AWP` or `stcore.RWP`.   seed: of the training noise: `stcli train`'s numbers.

    `fit` takes what Keras takes, arrays, `tf.data`, a PyDataset: images and integer labels (B,). Each example's
    noise depends on the seed, the epoch and its place in the epoch alone. `sample_weight` (B,) and `class_weight`
    are factors of the examples' losses; the search and the batch statistics still see every example. A new phase
    of the objective, or the perturbation's first epoch, is traced once.

    Logs of training: `loss` and the objective's metrics, means over the epoch's examples. `compile`'s `metrics`
    are of natural predictions, which not every method makes: they show in `evaluate` and as `val_…` alone, where
    `loss` is the natural cross-entropy. Batches are checked as they come, each before its update.

    `save` writes the plain inner network; `save_weights` the training's state with the optimizer's, which
    `load_weights` takes up again, but for the masks of dropout, as in Keras.
    Raises DataError for pixels or labels out of range, UsageError for a network that returns no logits, or for
    losses of its own other than weight regularisers, and on JAX, where Keras' `fit` takes stateless steps alone.
    There train by `stcli train`, or by `stcore.train_step` in a loop of one's own.
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
                f"SqueezeModel: expected Keras on tensorflow; received {NAME}, whose fit takes stateless steps "
                "alone. Train by stcli train, or by stcore.train_step in a loop"
            )
        if not isinstance(net, keras.Model):
            raise UsageError(f"net: expected a keras.Model; received {type(net).__qualname__}")
        validation.check_objective(objective)
        checks.whole("seed", seed)
        KerasClassifier(net)  # or refuses it
        self.net = net
        self.objective = objective
        self.perturbation = perturbation
        self.seed = seed
        self.built = True
        self._clock = Clock()
        self._means = Means()
        self._stage = (0, False)
        self._classes: int | None = None
        self._refusal: StcoreError | None = None

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
        """Keras' `compile` without a loss, which is the objective's. UsageError for a loss, or XLA."""
        if loss is not None or loss_weights is not None:
            raise UsageError(
                f"loss: expected none, since the objective is the loss; received {loss or loss_weights!r}. "
                "Leave it out, and give the method as SqueezeModel(net, objective)"
            )
        if jit_compile not in (False, "auto"):
            raise UsageError(
                f"jit_compile: expected False; received {jit_compile!r}. Each step's noise is drawn on the host, "
                "where XLA cannot reach. Leave it out"
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
        """Keras' `fit`. Epochs count from 1 here, as in `stcli train`: Keras' `initial_epoch=0` is epoch 1."""
        begin = keras.callbacks.LambdaCallback(on_epoch_begin=lambda epoch, logs: self.begin_epoch(epoch + 1))
        if isinstance(callbacks, keras.callbacks.CallbackList):
            callbacks.append(begin)
        else:
            callbacks = [begin, *keras.tree.flatten(callbacks or [])]
        with self._refusals():
            return super().fit(x, y, batch_size, epochs, verbose, callbacks, **kwargs)

    def evaluate(self, *args: Any, **kwargs: Any) -> Any:
        """Keras' `evaluate`, of natural images; `RobustEvaluation` and `stcore.evaluate` attack them."""
        with self._refusals():
            return super().evaluate(*args, **kwargs)

    def train_on_batch(self, *args: Any, **kwargs: Any) -> Any:
        """Keras' `train_on_batch`; say `begin_epoch` before each epoch."""
        self.make_train_function()
        with self._refusals():
            return super().train_on_batch(*args, **kwargs)

    def begin_epoch(self, epoch: int) -> None:
        """What changes with the epoch (from 1), and a count of examples that starts anew; `fit` says it itself."""
        self._clock.begin(epoch)
        self._stage = stage(self.objective, self.perturbation, epoch)
        self.make_train_function()

    def make_train_function(self, force: bool = False) -> None:
        """One for each stage, kept: none is traced twice."""
        if force or self._stage not in self._train_functions:
            super().make_train_function(force=True)
            self._train_functions[self._stage] = self.train_function
        self.train_function: Any = self._train_functions[self._stage]

    def train_step(self, data: Any) -> dict[str, Tensor]:
        """One update, of the optimizer that `compile` was given."""
        phase, perturbing = self._stage
        x, y, weights, noise = self._batch(data, self.objective.noise_laws)
        perturbation = self.perturbation if perturbing else None
        result = training_step(self._learner, self.objective, x, y, noise, phase, perturbation, weights)
        size = ops.shape(x)[0]
        self._loss_tracker.update_state(result.loss, sample_weight=size)
        return {"loss": self._loss_tracker.result(), **self._means.update(means_alone(result.metrics), size)}

    def test_step(self, data: Any) -> dict[str, Tensor]:
        """Natural cross-entropy and the compiled metrics, under running statistics."""
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
        """The loss and the compiled metrics; nothing before these have seen a prediction."""
        compiled = self._compile_metrics
        return {} if compiled is not None and not compiled.built else super().get_metrics_result()

    def save(self, filepath: Any, overwrite: bool = True, **kwargs: Any) -> None:
        """The inner network alone, for `keras.models.load_model`, which needs no stcore unless its layers do."""
        self.net.save(filepath, overwrite=overwrite, **kwargs)

    def _batch(self, data: Any, laws: tuple[str, ...] = ()) -> tuple[Tensor, Tensor, Tensor, tuple[Tensor, ...]]:
        """Images, labels, weights (or None) and noise; the images are there once the host has checked them."""
        learner, (x, y, weights) = self._learner, keras.utils.unpack_x_y_sample_weight(data)
        if not hasattr(x, "shape") or not hasattr(y, "shape"):
            raise UsageError(
                "data: expected images and labels, one array or tensor each; received another structure"
            )
        x, y = ops.convert_to_tensor(x), ops.convert_to_tensor(y)
        if y.shape.rank not in (1, None):
            raise DataError(
                f"y: expected integer labels of shape (B,); received shape {tuple(y.shape)}. Give "
                "labels.reshape(-1), or of one-hot labels the argmax(axis=1)"
            )
        if weights is not None:
            weights = ops.convert_to_tensor(weights, learner.dtype)
            if weights.shape.rank not in (1, None):
                raise UsageError(f"sample_weight: expected shape (B,); received {tuple(weights.shape)}")
        if self._classes is None:
            self._classes = self._look(tuple(x.shape)[1:])

        def admit(x: Array, y: Array, epoch: Array, first: Array) -> list[Array]:
            self._check(x, y)
            places = first + np.arange(len(x))
            noise = sample(
                laws, self.seed, Stream.NOISE, places, x.shape[1:], epoch=int(epoch), dtype=learner.dtype
            )
            return [x.astype(learner.dtype), *noise]

        where = self._clock.advance(ops.shape(x)[0]) if laws else (0, 0)
        x, *noise = native.on_host(admit, x, y, *where, count=1 + len(laws), dtype=learner.dtype, shape=x.shape)
        return x, ops.reshape(ops.cast(y, "int64"), (-1,)), weights, tuple(noise)

    def _look(self, shape: tuple[int | None, ...]) -> int | None:
        """The number of classes, of a network that returns logits for grey images of this shape."""
        learner, shape = self._learner, tuple(n or SIDE for n in shape)

        def classes() -> int | None:
            return validation.check_model(learner, ops.full((2, *shape), 0.5, dtype=learner.dtype))

        result: int | None = native.in_thread(classes)
        return result

    def _check(self, x: Array, y: Array) -> None:
        try:
            validation.check_pixels(x, getattr(self.objective, "bounds", (0.0, 1.0)))
            validation.check_labels(y, self._classes or 0, len(x))
        except DataError as refusal:
            self._refusal = refusal
            raise

    @contextmanager
    def _refusals(self) -> Iterator[None]:
        """What is refused on the host comes back in TensorFlow's wrapping; here it is raised as it was said."""
        self._refusal = None
        try:
            yield
        except Exception:
            if self._refusal is not None:
                raise self._refusal from None
            raise
