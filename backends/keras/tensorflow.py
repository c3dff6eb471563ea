"""What is TensorFlow's own in the Keras backend: differentiation, tracing, devices."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import keras
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


def unrecorded(fn: Callable[..., Any], *args: Any) -> Any:
    # Eagerly, the caller's open tape would keep every intermediate of the search alive. Tapes belong to a
    # thread, so another thread is out of their sight. In a graph, what no gradient asks for costs nothing.
    # So are stateless scopes, which say what the weights are: within one the search stays here.
    apart = tf.executing_eagerly() and not in_stateless_scope()
    result = in_thread(fn, *args) if apart else fn(*args)
    return tf.nest.map_structure(lambda x: x if x is None else tf.stop_gradient(x), result)


def in_thread(fn: Callable[..., Any], *args: Any) -> Any:
    """`fn(*args)` on a thread of its own, eagerly: out of sight of any tape, and of any graph being traced."""
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
        thread.join()  # the search puts the model back as it was before anyone goes on
        raise
    result, error = outcome
    if error is not None:
        raise error
    return result


def fori_loop(steps: int, body: Callable[..., tuple[Any, ...]], carry: tuple[Any, ...]) -> tuple[Any, ...]:
    result: tuple[Any, ...] = keras.ops.fori_loop(0, steps, lambda _, state: tuple(body(*state)), tuple(carry))
    return result


def value_and_grad(
    loss: Callable[[], tuple[Tensor, Metrics]], variables: Sequence[Any]
) -> tuple[tuple[Tensor, Metrics], list[Tensor | None]]:
    """The loss with its metrics, and its gradients with respect to Keras variables."""
    with tf.GradientTape(watch_accessed_variables=False) as tape:
        tape.watch([variable.value for variable in variables])
        value, metrics = loss()
    return (value, metrics), tape.gradient(value, [variable.value for variable in variables])


def compile(fn: Callable[..., Any], *, rowwise: bool = False, xla: bool = False) -> Callable[..., Any]:
    """One `tf.function` of tensors, traced once: the batch axis is left open, rowwise or not.

    xla: compiled by XLA, for each batch size it meets.
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


def on_host(
    fn: Callable[..., Sequence[Array]], *args: Tensor, count: int, dtype: str, shape: Any
) -> tuple[Tensor, ...]:
    """`fn` of the arguments' values, whenever a step runs, traced or not: arrays of one dtype and shape."""
    results = tuple(tf.nest.flatten(tf.numpy_function(fn, args, [tf.as_dtype(dtype)] * count)))
    for result in results:
        result.set_shape(shape)
    return results


def available(dtype: str) -> str:
    """The dtype itself: TensorFlow has them all."""
    return dtype


def admit(dtype: str) -> None:
    """TensorFlow reckons in any floating dtype."""


def check_tensor(x: Any, dtype: str) -> None:
    """TypeError unless x is a TensorFlow tensor of this dtype."""
    if not tf.is_tensor(x) or x.dtype.name != dtype:
        received = x.dtype.name if tf.is_tensor(x) else type(x).__qualname__
        hint = f". {DIVIDE}" if "int" in received else ""
        raise TypeError(f"expected a TensorFlow tensor of the model's {dtype}; received {received}{hint}")


def to_numpy(x: Any) -> Array | None:
    """The values, or None while a graph is being traced: also of a constant, or a draw would be frozen into it."""
    if not tf.executing_eagerly():
        return None
    values: Array = tf.convert_to_tensor(x).numpy()
    return values


def use_device(name: str) -> str:
    """Makes `auto`, `cpu`, `gpu` or `gpu:N` the process's device and returns its name; DeviceError if absent.

    TensorFlow places by what it may see, so this must come before the first tensor. There float32 is float32, and
    no TF32 but where it is asked for.
    """
    tf.config.experimental.enable_tensor_float_32_execution(False)
    gpus = tf.config.list_physical_devices("GPU")
    kind, _, index = name.replace("cuda", "gpu").partition(":")
    if kind == "auto":
        kind = "gpu" if gpus else "cpu"
    if kind == "cpu":
        tf.config.set_visible_devices([], "GPU")
        return "cpu"
    number = int(index or 0) if (index or "0").isdigit() else -1
    if kind != "gpu" or not 0 <= number < len(gpus):
        known = ", ".join(["cpu", *(f"gpu:{i}" for i in range(len(gpus)))])
        raise DeviceError(f"device: expected auto or one of {known}; received {name!r}")
    tf.config.set_visible_devices([gpus[number]], "GPU")
    return f"gpu:{number}"


def use_replicas(count: int) -> None:
    """UsageError: what TensorFlow has for this, `tf.distribute`, takes a batch's statistics replica by replica."""
    raise UsageError(
        f"replicas: expected none on TensorFlow; received {count}. There Keras leaves several devices to "
        "tf.distribute, under which each would search with the batch statistics of its own part, another method. "
        "Set KERAS_BACKEND=jax, or take --backend torch under torchrun"
    )


def place(x: Tensor) -> Tensor:
    """Tensors are where TensorFlow puts them."""
    return x


def devices() -> list[str]:
    """What `use_device` could be given here."""
    return ["cpu", *(f"gpu:{i}" for i in range(len(tf.config.list_physical_devices("GPU"))))]


def has_tensor_float_32() -> bool:
    """Whether the device multiplies in TF32."""
    details = map(tf.config.experimental.get_device_details, tf.config.get_visible_devices("GPU"))
    return any(each.get("compute_capability", (0, 0)) >= (8, 0) for each in details)


@contextmanager
def tensor_float_32() -> Iterator[None]:
    """What runs within multiplies in TF32; TensorFlow asks when it runs, not when it traces."""
    before = tf.config.experimental.tensor_float_32_execution_enabled()
    tf.config.experimental.enable_tensor_float_32_execution(True)
    try:
        yield
    finally:
        tf.config.experimental.enable_tensor_float_32_execution(before)


def use_threads(count: int) -> None:
    """Limits TensorFlow to this many CPU threads; like the device, before the first tensor."""
    tf.config.threading.set_intra_op_parallelism_threads(count)
    tf.config.threading.set_inter_op_parallelism_threads(count)


def threads() -> int:
    """How many CPU threads there are to one operation; 0 where TensorFlow chooses."""
    return int(tf.config.threading.get_intra_op_parallelism_threads())


def use_determinism() -> None:
    """Algorithms whose results do not depend on how threads meet, even where they are slower."""
    tf.config.experimental.enable_op_determinism()
    keras.utils.set_random_seed(0)  # without which it refuses whatever draws


def versions() -> dict[str, str]:
    """The packages that decide the numbers."""
    return {"keras": keras.__version__, "tensorflow": tf.__version__}
