"""Training through Keras' `compile`, `fit` and callbacks. Each update is `stcore.core.objective.training_step`."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any, NamedTuple

import keras
import numpy as np
from keras import ops

from stcore.backends.keras.counting import Clock, Means, Memory
from stcore.backends.keras.engine import native
from stcore.backends.keras.learner import KerasClassifier, KerasLearner, build, check_range
from stcore.base import checks
from stcore.base.noise import sample
from stcore.base.seeding import Stream
from stcore.core import validation
from stcore.core.losses import cross_entropy
from stcore.core.objective import (
    Drawing,
    Objective,
    WeightPerturbation,
    bounds_of,
    draws,
    phase_of_step,
    stage,
    told,
    training_step,
)
from stcore.errors import DataError, StcoreError, UsageError
from stcore.methods.class_wise import class_wise
from stcore.methods.metrics import means_alone
from stcore.methods.squeeze import SqueezeConfig
from stcore.protocols import Array, Metrics, Mode, Tensor

TALLY = "tally"  # among the metrics of an update
SIDE = 32  # pixels: image side for the check of a network that accepts any size


class Batch(NamedTuple):
    """A checked batch: pixels (B, …), labels (B,), weights (B,) of the losses or None, noise shaped like x.

    numbers: the objective's in this epoch.
    """

    x: Tensor
    y: Tensor
    weights: Tensor | None
    noise: tuple[Tensor, ...]
    numbers: tuple[Tensor, ...] = ()


class SqueezeModel(native.Steps, keras.Model):  # type: ignore[misc]
    """Trains `net` by squeeze training or any other objective of stcore, with Keras' `fit`.

    net: a `keras.Model` that maps pixels (B, …) in [0, 1] to logits (B, C); built on the first batch if it is not.
        Pixels are in the objective's `bounds`, if they are others: ε, α and the noise's scale are in their units.
    objective: `SqueezeConfig()`, `MartConfig()`, …   perturbation: `stcore.AWP`, `stcore.RWP` or None.
    seed: of the training noise; at least 0. The same seed gives the numbers of `stcli train`.

    `fit` takes arrays, `tf.data` or a PyDataset of images and labels: integers (B,) or (B, 1), or one-hot or soft
    labels (B, C), which the compiled metrics see as they are. A network of one logit z counts as one of logits
    (0, z). Each example's noise depends only on the seed, the epoch and its position in the epoch. `sample_weight`
    (B,) and `class_weight` scale the examples' losses; the search and batch statistics still see every example.
    Each phase of the objective, and the first epoch with the perturbation, is traced once; on JAX once for each
    batch size.

    Training logs hold `loss` and the objective's metrics, means over the epoch's examples. The `metrics` of
    `compile` use natural predictions, which not every method makes: they appear only in `evaluate` and as `val_…`,
    where `loss` is the natural cross-entropy. Each batch is checked before its update.

    With divergence = "gkl" this object keeps the class means from epoch to epoch; `save_weights` leaves them out,
    so that after `load_weights` in a new one the first epoch weighs all classes alike.

    `save` and `export` write the inner network. `save_weights` writes the file that Keras would of the network
    compiled with the optimizer: the plain network loads it, and training resumes from it after `load_weights`,
    except for dropout masks.
    Raises UsageError for a network that returns no logits or has losses other than weight regularisers; DataError
    for pixels or labels out of range.
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
        if not isinstance(net, keras.Model):
            raise UsageError(f"net: expected a keras.Model; received {type(net).__qualname__}")
        validation.check_objective(objective)
        checks.whole("seed", seed)
        if net.built:
            KerasClassifier(net)  # raises UsageError for a network that does not fit
        self.net = net
        self.objective = objective
        self.perturbation = perturbation
        self.seed = seed
        self.built = True
        check_range(net, bounds_of(objective))
        self._clock = Clock()
        self._means = Means()
        self._memory = Memory()
        self._method = objective  # with its class means, once the number of classes is known
        self._epoch, self._step = 1, 0
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
        jit_compile: bool | str = "auto",
        **kwargs: Any,
    ) -> None:
        """Keras' `compile` without a loss: the objective is the loss.

        jit_compile: on JAX whether steps are compiled; on TensorFlow they are, but never by XLA.
        Raises UsageError for a loss, for XLA on TensorFlow, and for a `tf.distribute` strategy.
        """
        if loss is not None or loss_weights is not None:
            raise UsageError(
                f"loss: expected none, since the objective is the loss; received {loss or loss_weights!r}. "
                "Leave it out, and give the method as SqueezeModel(net, objective)"
            )
        if steps_per_execution != 1 and draws(self.objective):
            raise UsageError(
                "steps_per_execution: expected 1 with a method that draws the phase of each step; received "
                f"{steps_per_execution}. Leave it out"
            )
        super().compile(
            optimizer,
            metrics=metrics,
            weighted_metrics=weighted_metrics,
            run_eagerly=run_eagerly,
            steps_per_execution=steps_per_execution,
            jit_compile=self.check_compilation(jit_compile),
            **kwargs,
        )
        if self.net.built and not self.optimizer.built:  # `load_weights` restores its state
            self.optimizer.build(self.net.trainable_variables)
        self._train_functions: dict[tuple[int, bool], Callable[..., Any]] = {}
        self._classes = None  # so that the next batch makes a new learner

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
        begin = keras.callbacks.LambdaCallback(
            on_epoch_begin=lambda epoch, logs: self.begin_epoch(epoch + 1),
            on_train_batch_begin=lambda step, logs: self._begin_step(),
        )
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
        self._begin_step()
        with self._data_errors():
            return super().train_on_batch(*args, **kwargs)

    def begin_epoch(self, epoch: int) -> None:
        """Sets the epoch (from 1) and resets the count of its examples; `fit` calls this itself."""
        self._clock.begin(epoch)
        self._epoch, self._step = epoch, 0
        self._memory.begin(self._method, epoch)
        self._stage = stage(self.objective, self.perturbation, epoch)
        self.make_train_function()

    def _begin_step(self) -> None:
        """Sets the phase of the epoch's next step."""
        if isinstance(self.objective, Drawing):
            phase = phase_of_step(self.objective, self.seed, self._epoch, self._step, self._memory.remembered)
            self._step, self._stage = self._step + 1, (phase, self._stage[1])
        self.make_train_function()

    def make_train_function(self, force: bool = False) -> None:
        """Keeps one train function per stage of the objective, so that none is traced twice."""
        if force or self._stage not in self._train_functions:
            super().make_train_function(force=True)
            self._train_functions[self._stage] = self.train_function
        self.train_function: Any = self._train_functions[self._stage]

    def update(self, batch: Batch) -> Metrics:
        """One update by the optimizer of `compile`; returns the mean loss of the epoch so far, and metrics."""
        phase, perturbing = self._stage
        x, y, weights, noise, numbers = batch
        perturbation, objective = self.perturbation if perturbing else None, told(self._method, numbers)
        result = training_step(self._learner, objective, x, y, noise, phase, perturbation, weights)
        self._loss_tracker.update_state(result.loss, sample_weight=ops.shape(x)[0])
        tally = {} if result.tally is None else {TALLY: result.tally}
        return {"loss": self._loss_tracker.result(), **means_alone(result.metrics), **tally}

    def logs(self, batch: Batch, metrics: Metrics) -> Metrics:
        """The logs of an update, means of the epoch so far; the method's tally is added up instead."""
        if TALLY in metrics:
            self._memory.add(metrics[TALLY])
        loss = {"loss": metrics["loss"]}
        others = {name: value for name, value in metrics.items() if name not in ("loss", TALLY)}
        return loss | self._means.update(others, ops.shape(batch.x)[0])

    def measure(self, batch: Batch) -> Metrics:
        """Natural cross-entropy and the compiled metrics, with running statistics."""
        x, y, weights, *_ = batch
        logits = self._learner.logits(x, Mode.EVAL)
        losses = cross_entropy(self._learner.ops, logits, y)
        loss = ops.mean(losses if weights is None else weights * losses)
        self._loss_tracker.update_state(loss, sample_weight=ops.shape(x)[0])
        metrics: Metrics = self.compute_metrics(x, y, logits, sample_weight=weights)
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

    def export(self, *args: Any, **kwargs: Any) -> None:
        """Keras' `export` of the inner network, such as a SavedModel or `format="onnx"`, which needs no stcore."""
        self.net.export(*args, **kwargs)

    def save_weights(self, *args: Any, **kwargs: Any) -> None:
        """Keras' `save_weights` of the inner network, with the optimizer's state beside its weights."""
        with self._compiled() as net:
            net.save_weights(*args, **kwargs)

    def load_weights(self, *args: Any, **kwargs: Any) -> None:
        """Keras' `load_weights` into the inner network, and the optimizer if the file has its state."""
        with self._compiled() as net:
            net.load_weights(*args, **kwargs)

    @contextmanager
    def _compiled(self) -> Iterator[Any]:
        """The inner network, which holds the optimizer as if compiled with it; its files are then Keras' own."""
        net, before = self.net, getattr(self.net, "optimizer", None)
        net.optimizer = getattr(self, "optimizer", None)
        try:
            yield net
        finally:
            net.optimizer = before

    def prepare(self, data: Any, training: bool, state: AbstractContextManager[Any] | None = None) -> Batch:
        """Checks a batch of Keras' and draws its noise, on the host.

        state: context in which the variables have their values, if they have none of their own.
        """
        x, y, weights = keras.utils.unpack_x_y_sample_weight(data)
        if not hasattr(x, "shape") or not hasattr(y, "shape"):
            raise UsageError(
                "data: expected images and labels, one array or tensor each; received another structure"
            )
        x, given = ops.convert_to_tensor(x), ops.convert_to_tensor(y)
        if self._classes is None:
            self._start(tuple(x.shape)[1:], state)
        dtype, laws = self._learner.dtype, self.objective.noise_laws if training else ()
        if weights is not None:
            weights = ops.convert_to_tensor(weights, dtype)
            if native.rank(weights) not in (1, None):
                raise UsageError(f"sample_weight: expected shape (B,); received {tuple(weights.shape)}")
        y = self._labels(given)
        soft = native.rank(y) == 2

        def check_and_draw(x: Array, y: Array, epoch: Array, first: Array) -> list[Array]:
            self._check(x, y, soft)
            positions = first + np.arange(len(x))
            noise = sample(laws, self.seed, Stream.NOISE, positions, x.shape[1:], epoch=int(epoch), dtype=dtype)
            return [x.astype(dtype), *noise]

        epoch, first = self._clock.advance(ops.shape(x)[0]) if training else (0, 0)
        x, *noise = native.call_on_host(
            check_and_draw, x, given, epoch, first, count=1 + len(laws), dtype=dtype, shape=x.shape
        )
        y = y if soft else ops.reshape(ops.cast(y, native.available("int64")), (-1,))
        return Batch(x, y, weights, tuple(noise), self._memory.numbers() if training else ())

    def _labels(self, y: Tensor) -> Tensor:
        """Labels (B,), or soft (B, C) in the logits' dtype, of those (B,), (B, 1), one-hot or soft."""
        rank = native.rank(y)
        if rank == 2 and y.shape[1] != 1:
            validation.check_soft_kind("float", tuple(y.shape), self._classes or 0, y.shape[0])
            return ops.cast(y, "float64" if self._learner.dtype == "float64" else "float32")
        if rank not in (1, 2, None):
            raise DataError(
                f"y: expected labels of shape (B,), (B, 1) or (B, C); received shape {tuple(y.shape)}. Give "
                "labels.reshape(-1)"
            )
        return ops.reshape(y, (-1,))

    def _start(self, shape: tuple[int | None, ...], state: AbstractContextManager[Any] | None) -> None:
        """Makes the learner, builds the network if it is not, and counts its classes, on images of this shape."""

        def start() -> None:
            with state or nullcontext():
                build(self.net, shape)
                self._learner = learner = KerasLearner(self.net, self.optimizer)
                grey = ops.full((2, *(n or SIDE for n in shape)), 0.5, dtype=learner.dtype)
                self._classes = validation.check_model(learner, grey, training=True)
            self._method = class_wise(self.objective, self._classes)
            self._memory.start(self._method, self._epoch, learner.dtype)

        native.eagerly(start)

    def _check(self, x: Array, y: Array, soft: bool) -> None:
        """Checks a batch as it was given; the labels are taken for soft ones, or for integers (B,) or (B, 1)."""
        try:
            validation.check_pixels(x, bounds_of(self.objective))
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
