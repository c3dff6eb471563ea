"""TensorFlow engine of the Keras backend: differentiation, tracing, devices."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from keras.src.backend.common.stateless_scope import in_stateless_scope

from stcore.errors import DIVIDE, DeviceError, UsageError
from stcore.protocols import Array, Metrics, Pullback, Tensor


def vjp(fn: Callable[..., Tensor], *xs: Tensor) -> tuple[Tensor, Pullback]:
    leaves = tuple(tf.identity(x) for x in xs)
    with tf.GradientTape(persistent=True, watch_accessed_variables=False) as tape:
        tape.watch(leaves)
        value = fn(*leaves)

    def pullback(cotangent: Tensor) -> tuple[Tensor, ...]:
        gradients = tape.gradient(value, leaves, cotangent, unconnected_gradients="zero")
        return tuple(tf.stop_gradient(gradient) for gradient in gradients)

    return tf.stop_gradient(value), pullback


@tf.custom_gradient
def with_gradient_of(approximation: Tensor, value: Tensor) -> tuple[Tensor, Callable[..., Any]]:
    """The value, as if it had been computed as the approximation was, which has its shape and dtype."""
    return tf.identity(value), lambda gradient: (gradient, None)


def unrecorded(fn: Callable[..., Any], *args: Any) -> Any:
    # In eager mode the caller's open tape would keep every intermediate of the search alive. A tape records its
    # own thread only, so the search runs in another. A graph pays nothing for tensors without a gradient.
    # Stateless scopes belong to a thread too, and hold the weights: inside one the search stays in this thread.
    separate = tf.executing_eagerly() and not in_stateless_scope()
    result = eagerly(fn, *args) if separate else fn(*args)
    return tf.nest.map_structure(lambda x: x if x is None else tf.stop_gradient(x), result)


def eagerly(fn: Callable[..., Any], *args: Any) -> Any:
    """`fn(*args)` eagerly in a new thread, hidden from open tapes and from graphs being traced."""
    outcome: list[Any] = []

    def run() -> None:
        try:
            outcome.extend((fn(*args), None))
        except BaseException as error:
            outcome.extend((None, error))

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    try:
        thread.join()
    except KeyboardInterrupt:
        thread.join()  # the search restores the model before the caller continues
        raise
    result, error = outcome
    if error is not None:
        raise error
    return result


def fori_loop(steps: int, body: Callable[..., tuple[Any, ...]], carry: tuple[Any, ...]) -> tuple[Any, ...]:
    result: tuple[Any, ...] = keras.ops.fori_loop(0, steps, lambda _, state: tuple(body(*state)), tuple(carry))
    return result


def fixed_point(steps: int, body: Callable[..., tuple[Any, ...]], carry: tuple[Any, ...]) -> tuple[Any, ...]:
    if tf.config.get_visible_devices("GPU"):
        return fori_loop(steps, body, carry)

    def step(_: Tensor, *before: Tensor) -> tuple[Tensor, ...]:
        after = body(*before)
        return tf.reduce_any([tf.reduce_any(a != b) for a, b in zip(after, before, strict=True)]), *after

    _, *last = tf.while_loop(lambda moved, *_: moved, step, (tf.constant(True), *carry), maximum_iterations=steps)
    return tuple(last)


def value_and_grad(
    loss: Callable[[], tuple[Tensor, Metrics]], variables: Sequence[Any]
) -> tuple[tuple[Tensor, Metrics], list[Tensor | None]]:
    """The loss with its metrics, and its gradients with respect to Keras variables."""
    with tf.GradientTape(watch_accessed_variables=False) as tape:
        tape.watch([variable.value for variable in variables])
        value, metrics = loss()
    return (value, metrics), tape.gradient(value, [variable.value for variable in variables])


right_shift = tf.bitwise.right_shift


def compile(fn: Callable[..., Any], *, rowwise: bool = False, xla: bool = False) -> Callable[..., Any]:
    """`fn` of tensors as a `tf.function`, traced once with an open batch axis, rowwise or not.

    xla: compile by XLA, once per batch size.
    """
    traced: list[Callable[..., Any]] = []

    def open_batch(x: Tensor) -> tf.TensorSpec:
        return tf.TensorSpec([None, *x.shape[1:]] if x.shape.rank else [], x.dtype)

    def call(*args: Any) -> Any:
        if not traced:
            signature = tf.nest.map_structure(open_batch, args)
            traced.append(tf.function(fn, signature, autograph=False, jit_compile=xla or None))
        return traced[0](*args)

    return call


def call_on_host(
    fn: Callable[..., Sequence[Array]], *args: Tensor, count: int, dtype: str, shape: Any
) -> tuple[Tensor, ...]:
    """Calls `fn` on host values each time a step runs, traced or not; it returns `count` arrays of this dtype and
    shape."""
    results = tuple(tf.nest.flatten(tf.numpy_function(fn, args, [tf.as_dtype(dtype)] * count)))
    for result in results:
        result.set_shape(shape)
    return results


class Steps:
    """The steps of a Keras model that prepares its batches on the host: TensorFlow traces that as well."""

    def train_step(self: Any, data: Any) -> Metrics:
        batch = self.prepare(data, training=True)
        logs: Metrics = self.logs(batch, self.update(batch))
        return logs

    def test_step(self: Any, data: Any) -> Metrics:
        logs: Metrics = self.measure(self.prepare(data, training=False))
        return logs

    def check_compilation(self: Any, xla: bool | str) -> bool:
        """What Keras' `compile` takes as `jit_compile`. Raises UsageError for XLA and for several devices."""
        if xla not in (False, "auto"):
            raise UsageError(
                f"jit_compile: expected False; received {xla!r}. Each step's noise is drawn on the host, "
                "which XLA cannot call. Leave it out"
            )
        if (replicas := self.distribute_strategy.num_replicas_in_sync) > 1:
            raise UsageError(
                f"strategy: expected one device; received a tf.distribute strategy of {replicas}. Make the model "
                "outside its scope"
            )
        return False


def rank(x: Any) -> int | None:
    """The number of axes; None if a traced tensor does not say it."""
    axes: int | None = x.shape.rank
    return axes


def available(dtype: str) -> str:
    """The dtype itself: TensorFlow supports them all."""
    return dtype


def enable_dtype(dtype: str) -> None:
    """Does nothing: TensorFlow computes in any floating dtype."""


def check_tensor(x: Any, dtype: str) -> None:
    """Raises TypeError unless x is a TensorFlow tensor of this dtype."""
    if not tf.is_tensor(x) or x.dtype.name != dtype:
        received = x.dtype.name if tf.is_tensor(x) else type(x).__qualname__
        hint = f". {DIVIDE}" if "int" in received else ""
        raise TypeError(f"expected a TensorFlow tensor of the model's {dtype}; received {received}{hint}")


def is_tracing(x: Any) -> bool:
    """Whether a graph is traced, even if x is a constant: the trace would freeze a random draw."""
    return not tf.executing_eagerly()


def on_host(x: Any) -> bool:
    """Whether a tensor that is not being traced is in the host's memory."""
    return "CPU" in (getattr(x, "device", None) or "CPU")


def to_numpy(x: Any) -> Array | None:
    """The values, or None while a graph is traced."""
    if is_tracing(x):
        return None
    values: Array = tf.convert_to_tensor(x).numpy() if tf.is_tensor(x) else np.asarray(x)
    return values


def use_device(name: str) -> str:
    """Makes `auto`, `cpu`, `gpu` or `gpu:N` the process's device and returns its name.

    Hides the other devices from TensorFlow, so call it before the first tensor. Also turns TF32 off unless a
    precision asks for it. Raises DeviceError if there is no such device, or a tensor with others in view.
    """
    tf.config.experimental.enable_tensor_float_32_execution(False)
    gpus = tf.config.list_physical_devices("GPU")
    kind, _, index = name.replace("cuda", "gpu").partition(":")
    if kind == "auto":
        kind = "gpu" if gpus else "cpu"
    if kind == "cpu":
        _show_gpus([])
        return "cpu"
    number = int(index or 0) if (index or "0").isdigit() else -1
    if kind != "gpu" or not 0 <= number < len(gpus):
        names = ", ".join(["cpu", *(f"gpu:{i}" for i in range(len(gpus)))])
        raise DeviceError(f"device: expected auto or one of {names}; received {name!r}")
    _show_gpus([gpus[number]])
    return f"gpu:{number}"


def _show_gpus(gpus: list[Any]) -> None:
    """Hides all other GPUs from TensorFlow. Raises DeviceError if a tensor has been made with others in view."""
    try:
        tf.config.set_visible_devices(gpus, "GPU")
    except RuntimeError as error:
        raise DeviceError(
            "device: expected to be chosen before TensorFlow's first tensor, such as a model's weights; received "
            "one after it. Set CUDA_VISIBLE_DEVICES before the process starts: to 0, or to -1 for the CPU"
        ) from error


def use_replicas(count: int) -> None:
    """Raises UsageError: `tf.distribute` would compute batch statistics per replica."""
    raise UsageError(
        f"replicas: expected none on TensorFlow; received {count}. Under tf.distribute each device would search "
        "with the batch statistics of its own part, which is another method. "
        "Set KERAS_BACKEND=jax, or use --backend torch under torchrun"
    )


def distribute(x: Tensor) -> Tensor:
    """The tensor itself: TensorFlow has no replicas here."""
    return x


def devices() -> list[str]:
    """The devices that `use_device` accepts on this machine."""
    return ["cpu", *(f"gpu:{i}" for i in range(len(tf.config.list_physical_devices("GPU"))))]


def has_tensor_float_32() -> bool:
    """Whether the device supports TF32."""
    details = map(tf.config.experimental.get_device_details, tf.config.get_visible_devices("GPU"))
    return any(each.get("compute_capability", (0, 0)) >= (8, 0) for each in details)


@contextmanager
def tensor_float_32() -> Iterator[None]:
    """Context in which operations multiply in TF32; TensorFlow reads the switch at run time, not while tracing."""
    before = tf.config.experimental.tensor_float_32_execution_enabled()
    tf.config.experimental.enable_tensor_float_32_execution(True)
    try:
        yield
    finally:
        tf.config.experimental.enable_tensor_float_32_execution(before)


def use_threads(count: int) -> None:
    """Limits TensorFlow to this many CPU threads; call it before the first tensor."""
    tf.config.threading.set_intra_op_parallelism_threads(count)
    tf.config.threading.set_inter_op_parallelism_threads(count)


def threads() -> int:
    """The number of CPU threads per operation; 0 if TensorFlow chooses."""
    return int(tf.config.threading.get_intra_op_parallelism_threads())


def use_determinism() -> None:
    """Selects deterministic algorithms, even if they are slower."""
    tf.config.experimental.enable_op_determinism()
    keras.utils.set_random_seed(0)  # without a seed it rejects random operations


def versions() -> dict[str, str]:
    """Versions of the packages that the results depend on."""
    return {"keras": keras.__version__, "tensorflow": tf.__version__}
