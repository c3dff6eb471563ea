"""JAX engine of the Keras backend: differentiation, compilation, devices.

JAX transforms pure functions, but a Keras variable is state. Each function therefore runs in a `Scope`, which
returns the written values beside the result; they are assigned outside, to the enclosing scope or the variables.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Any

import jax
import jax.numpy as jnp
import jaxlib
import keras
import numpy as np
from jax._src.xla_bridge import backends_are_initialized
from keras.src.backend.common.dtypes import BIT64_TO_BIT32_DTYPE

from stcore.backends.keras.scope import Scope
from stcore.errors import DIVIDE, DeviceError, UsageError
from stcore.protocols import Array, Metrics, Pullback, Tensor

UNROLLED = 20  # longest loop that is unrolled on a CPU; longer ones take long to compile
_THREADS = ("PJRT_NPROC", "NPROC")  # XLA sizes its CPU thread pool by the first; older versions by the second


class _Pure:
    """`fn` as a pure function that returns its results and the new values of `written`, the assigned variables."""

    def __init__(self, fn: Callable[..., Any]) -> None:
        self._fn = fn
        self.written: list[Any] = []

    def __call__(self, *args: Any, scope: Scope | None = None) -> tuple[Any, list[Tensor]]:
        with scope or Scope() as inner:
            result = self._fn(*args)
        self.written = list(inner.written.values())
        return result, inner.writes()

    def assign(self, values: Sequence[Tensor]) -> None:
        for variable, value in zip(self.written, values, strict=True):
            variable.assign(value)


def vjp(fn: Callable[..., Tensor], *xs: Tensor) -> tuple[Tensor, Pullback]:
    pure = _Pure(fn)
    value, pull, writes = jax.vjp(pure, *xs, has_aux=True)
    pure.assign(writes)

    def pullback(cotangent: Tensor) -> tuple[Tensor, ...]:
        gradients: tuple[Tensor, ...] = _constant(pull(cotangent))
        return gradients

    return _constant(value), pullback


@jax.custom_jvp
def with_gradient_of(approximation: Tensor, value: Tensor) -> Tensor:
    """The value, as if it had been computed as the approximation was, which has its shape and dtype."""
    return value


@with_gradient_of.defjvp
def _with_gradient_of(primals: tuple[Tensor, Tensor], tangents: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
    return primals[1], tangents[0]


class _Constant(Scope):
    """A scope in which variables are constants."""

    def get_current_value(self, variable: Any) -> Tensor | None:
        value = super().get_current_value(variable)
        return None if value is None else jax.lax.stop_gradient(value)


def unrecorded(fn: Callable[..., Any], *args: Any) -> Any:
    # A caller differentiates with respect to the weights. If only the results were constants, eager JAX would
    # still compute and keep everything that the backward pass to the weights needs.
    pure = _Pure(fn)
    result, writes = pure(*args, scope=_Constant())
    pure.assign(writes)
    return _constant(result)


def _constant(tree: Any) -> Any:
    return jax.tree.map(jax.lax.stop_gradient, tree)


def fori_loop(steps: int, body: Callable[..., tuple[Any, ...]], carry: tuple[Any, ...]) -> tuple[Any, ...]:
    if _is_tracing() and (steps > UNROLLED or _device().platform != "cpu"):
        result: tuple[Any, ...] = jax.lax.fori_loop(0, steps, lambda _, state: tuple(body(*state)), tuple(carry))
        return result
    # On a CPU, convolutions in a compiled loop are several times slower (jax-ml/jax, issue 12868), and eager JAX
    # would compile the loop at each call.
    for _ in range(steps):
        carry = tuple(body(*carry))
    return carry


def fixed_point(steps: int, body: Callable[..., tuple[Any, ...]], carry: tuple[Any, ...]) -> tuple[Any, ...]:
    if _device().platform != "cpu":
        return fori_loop(steps, body, carry)

    def step(state: tuple[Any, ...]) -> tuple[Any, ...]:
        number, _, *before = state
        after = body(*before)
        moved = [jnp.any(a != b) for a, b in zip(after, before, strict=True)]
        return number + 1, jnp.any(jnp.stack(moved)), *after

    def unsettled(state: tuple[Any, ...]) -> Any:
        return (state[0] < steps) & state[1]

    state = (jnp.zeros((), int), jnp.array(True), *carry)
    if _is_tracing():
        state = jax.lax.while_loop(unsettled, step, state)
    else:  # eager JAX would compile the loop at each call
        while unsettled(state):
            state = step(state)
    return tuple(state[2:])


def _is_tracing() -> bool:
    return isinstance(jnp.zeros(()), jax.core.Tracer)


def value_and_grad(
    loss: Callable[[], tuple[Tensor, Metrics]], variables: Sequence[Any]
) -> tuple[tuple[Tensor, Metrics], list[Tensor | None]]:
    """The loss with its metrics, and its gradients with respect to Keras variables; None for variables not read.

    A variable that the loss reads but does not depend on has a gradient of zero.
    """
    pure = _Pure(loss)
    read: dict[int, Any] = {}

    def loss_at(values: list[Tensor]) -> tuple[Tensor, tuple[Metrics, list[Tensor]]]:
        scope = Scope(zip(variables, values, strict=True))
        (value, metrics), writes = pure(scope=scope)
        read.update(scope.read)
        return value, (metrics, writes)

    current = [variable.value for variable in variables]
    (value, (metrics, writes)), gradients = jax.value_and_grad(loss_at, has_aux=True)(current)
    pure.assign(writes)
    reached = [g if id(v) in read else None for v, g in zip(variables, gradients, strict=True)]
    return (value, metrics), reached


right_shift = jnp.right_shift


def compile(fn: Callable[..., Any], *, rowwise: bool = False) -> Callable[..., Any]:
    """`fn` of tensors under `jax.jit`, with any variables that it reads and writes; compiled once per batch size.

    An epoch has two sizes: full batches and the last. rowwise: each example's results depend on that example
    alone, so batches are padded to the next power of two and few sizes are compiled. No buffer is donated: earlier
    values of variables stay valid.
    """
    pure = _Pure(fn)
    variables: list[Any] | None = None

    def fn_at(values: list[Tensor], *args: Any) -> tuple[Any, list[Tensor]]:
        return pure(*args, scope=Scope(zip(variables or (), values, strict=True)))

    jitted = jax.jit(fn_at)

    def call(*args: Any) -> Any:
        nonlocal variables
        if variables is None:  # an abstract evaluation finds the variables that it reads
            scope = Scope()
            jax.eval_shape(lambda *abstract: pure(*abstract, scope=scope), *args)
            variables = list(scope.read.values())
        result, writes = jitted([variable.value for variable in variables], *args)
        pure.assign(writes)
        return result

    return _padded(call) if rowwise else call


def _padded(fn: Callable[..., Any]) -> Callable[..., Any]:
    """`fn` on batches padded to a power of two by copies of the last example, whose results are dropped."""

    def call(*args: Any) -> Any:
        count = len(jax.tree.leaves(args)[0])
        size = 1 << (count - 1).bit_length()
        if count in (0, size):
            return fn(*args)
        rows = np.minimum(np.arange(size), count - 1)
        return jax.tree.map(lambda x: x[:count], fn(*jax.tree.map(lambda x: x[rows], args)))

    return call


class Steps:
    """The steps of a Keras model that prepares its batches on the host: `update` and `measure` as pure functions.

    Keras' trainer hands the values of a model's variables from step to step. It expects train and test functions
    of this state and an iterator of batches, which return the logs of the last step and the new state.
    """

    def make_train_function(self: Any, force: bool = False) -> None:
        if force or self.train_function is None:
            self.train_function = self._stateless(self.update, self.logs, training=True)

    def make_test_function(self: Any, force: bool = False) -> None:
        if force or self.test_function is None:
            self.test_function = self._stateless(self.measure, lambda batch, metrics: metrics, training=False)

    def check_compilation(self: Any, compiled: bool | str) -> bool | str:
        """What Keras' `compile` takes as `jit_compile`: anything."""
        return compiled

    def _stateless(self: Any, step: Callable[..., Metrics], logs: Callable[..., Metrics], training: bool) -> Any:
        def kinds() -> list[list[Any]]:
            model = [self.trainable_variables, self.non_trainable_variables]
            return [*model, *([self.optimizer.variables] if training else []), self.metrics_variables]

        def values(state: Sequence[Sequence[Tensor]]) -> list[tuple[Any, Tensor]]:
            return list(zip(itertools.chain(*kinds()), itertools.chain(*state), strict=True))

        def pure(state: Any, batch: Any) -> tuple[Metrics, Any]:
            with Scope(values(state)) as scope:
                metrics = step(batch)
            return metrics, tuple([scope.get_current_value(variable) for variable in kind] for kind in kinds())

        run = jax.jit(pure, donate_argnums=0) if self.jit_compile and not self.run_eagerly else pure

        def steps(state: Any, iterator: Any) -> tuple[Metrics, Any]:
            try:
                for data in itertools.chain(
                    [next(iterator)], itertools.islice(iterator, self.steps_per_execution - 1)
                ):
                    batch = self.prepare(data, training, Scope(values(state)))
                    metrics, state = run(state, batch)
                    last = logs(batch, metrics)
            except BaseException:  # Keras has taken the values from the variables, and would not give them back
                for variable, value in values(state):
                    variable.assign(value)
                self._jax_state_synced = True
                raise
            return last, state

        return steps


def rank(x: Any) -> int:
    """The number of axes."""
    return len(x.shape)


def call_on_host(
    fn: Callable[..., Sequence[Array]], *args: Any, count: int, dtype: str, shape: Any
) -> tuple[Tensor, ...]:
    """Calls `fn` on host values, outside of compiled code; it returns `count` arrays of this dtype and shape."""
    return tuple(distribute(jnp.asarray(array, dtype)) for array in fn(*map(np.asarray, args)))


def eagerly(fn: Callable[..., Any], *args: Any) -> Any:
    """`fn(*args)` eagerly, hidden from functions being traced."""
    with jax.ensure_compile_time_eval():
        return fn(*args)


def available(dtype: str) -> str:
    """The dtype itself, or its 32-bit counterpart while JAX's 64-bit numbers are off."""
    name: str = jax.dtypes.canonicalize_dtype(dtype).name
    return name


def enable_dtype(dtype: str) -> None:
    """Makes Keras compute in this dtype. Raises UsageError while JAX does not support it."""
    if available(dtype) != dtype:
        raise UsageError(
            f"model: expected float32, since JAX's 64-bit numbers are off; received {dtype}. Set "
            "JAX_ENABLE_X64=1 in the environment before the model is made"
        )
    if dtype == "float64":  # by default Keras takes a mean of float64 in float32, even with 64-bit numbers on
        BIT64_TO_BIT32_DTYPE["float64"] = "float64"


if available("float64") == "float64":
    enable_dtype("float64")


def check_tensor(x: Any, dtype: str) -> None:
    """Raises TypeError unless x is a JAX array of this dtype."""
    if not isinstance(x, jax.Array) or x.dtype.name != dtype:
        received = x.dtype.name if isinstance(x, jax.Array) else type(x).__qualname__
        hint = f". {DIVIDE}" if "int" in received else ""
        raise TypeError(f"expected a JAX array of the model's {dtype}; received {received}{hint}")


def is_tracing(x: Any) -> bool:
    """Whether a function is traced, even if x is a constant: a trace freezes random draws."""
    return isinstance(x, jax.core.Tracer) or _is_tracing()


def on_host(x: Any) -> bool:
    """Whether an array that is not being traced is in the host's memory."""
    return {device.platform for device in getattr(x, "devices", lambda: ())()} <= {"cpu"}


def to_numpy(x: Any) -> Array | None:
    """The values, or None while a function is traced."""
    return None if is_tracing(x) else np.asarray(x)


def use_device(name: str) -> str:
    """Makes `auto`, `cpu`, `gpu[:N]` or `tpu[:N]` the process's device and returns its name.

    Also turns JAX's 64-bit numbers on, for float64 models, and float32 multiplication in full precision: by
    default GPUs and TPUs multiply in less. float32 models stay float32. Raises DeviceError if there is no such
    device.
    """
    jax.config.update("jax_enable_x64", True)
    jax.config.update("jax_default_matmul_precision", "float32")
    names = devices()
    device = name.replace("cuda", "gpu")
    if device == "auto":
        device = names[1] if len(names) > 1 else "cpu"
    if device in ("gpu", "tpu"):
        device = f"{device}:0"
    if device not in names:
        raise DeviceError(f"device: expected auto or one of {', '.join(names)}; received {name!r}")
    kind, _, index = device.partition(":")
    jax.config.update("jax_default_device", jax.devices(kind)[int(index or 0)])
    return device


def use_replicas(count: int) -> None:
    """Distributes batches over `count` of the process's devices, with a copy of the weights on each.

    Applies to models that are built afterwards. Results equal those of one device up to rounding: batch statistics
    and all other means are over the whole batch. Raises DeviceError if there are fewer devices.
    """
    platform = _device().platform
    devices = jax.local_devices(backend=platform)
    if count > len(devices):
        raise DeviceError(
            f"replicas: expected at most {len(devices)}, the number of {platform} devices; received {count}"
        )
    names = [f"{device.platform}:{device.id}" for device in devices[:count]]
    keras.distribution.set_distribution(keras.distribution.DataParallel(devices=names, auto_shard_dataset=False))


def distribute(x: Tensor) -> Tensor:
    """A batch split evenly over the replicas; unchanged without replicas, or if it does not split evenly."""
    distribution = keras.distribution.distribution()
    if distribution is None or not x.shape or x.shape[0] % distribution.device_mesh.shape[0]:
        return x
    return keras.distribution.distribute_tensor(x, distribution.get_data_layout(x.shape))


def devices() -> list[str]:
    """The devices that `use_device` accepts on this machine."""
    return ["cpu", *(f"{kind}:{i}" for kind in ("gpu", "tpu") for i in range(_count(kind)))]


def _count(kind: str) -> int:
    try:
        return len(jax.local_devices(backend=kind))
    except RuntimeError:  # no such platform
        return 0


def _device() -> Any:
    return jax.config.jax_default_device or jax.devices()[0]


def has_tensor_float_32() -> bool:
    """Whether the device supports TF32."""
    device = _device()
    return device.platform == "gpu" and float(getattr(device, "compute_capability", 0)) >= 8


def tensor_float_32() -> AbstractContextManager[Any]:
    """Context in which traced and eager code multiplies in TF32."""
    context: AbstractContextManager[Any] = jax.default_matmul_precision("tensorfloat32")
    return context


def use_threads(count: int) -> None:
    """Limits JAX to this many CPU threads. Raises UsageError after JAX has made its first array."""
    if count != threads() and backends_are_initialized():
        raise UsageError(
            f"threads: expected to be set before JAX makes its first array; received {count} afterwards. Set "
            f"{_THREADS[0]}={count} in the environment"
        )
    os.environ.update(dict.fromkeys(_THREADS, str(count)))


def threads() -> int:
    """The number of CPU threads per operation; 0 if JAX chooses."""
    return int(next((os.environ[name] for name in _THREADS if name in os.environ), 0))


def use_determinism() -> None:
    """Selects deterministic algorithms, even if they are slower; this only concerns GPUs."""
    flag = "--xla_gpu_deterministic_ops=true"
    if flag not in os.environ.get("XLA_FLAGS", ""):
        if backends_are_initialized():
            raise UsageError(
                "deterministic: expected to be set before JAX makes its first array; received afterwards. Set "
                f"XLA_FLAGS={flag} in the environment"
            )
        os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {flag}".strip()
    keras.utils.set_random_seed(0)


def versions() -> dict[str, str]:
    """Versions of the packages that the results depend on."""
    return {"keras": keras.__version__, "jax": jax.__version__, "jaxlib": jaxlib.__version__}
