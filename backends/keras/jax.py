"""What is JAX's own in the Keras backend: differentiation, compilation, devices.

JAX's transformations take pure functions, and a Keras variable is a state. So each runs its function in a `Scope`;
what was written there is returned beside the result and assigned outside: into the next scope, or for good.
"""

from __future__ import annotations

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

UNROLLED = 20  # steps of a loop that are laid out one after another on a CPU; more would take long to compile
_THREADS = ("PJRT_NPROC", "NPROC")  # what XLA sizes its CPU's thread pool by, and what it did before


class _Pure:
    """`fn` as a pure function: returns the results, and the new values of `written`, the variables it assigned."""

    def __init__(self, fn: Callable[..., Any]) -> None:
        self._fn = fn
        self.written: list[Any] = []

    def __call__(self, *args: Any, scope: Scope | None = None) -> tuple[Any, list[Tensor]]:
        with scope or Scope() as within:
            result = self._fn(*args)
        self.written = list(within.written.values())
        return result, within.writes()

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


class _Constant(Scope):
    """Within it, variables are constants."""

    def get_current_value(self, variable: Any) -> Tensor | None:
        value = super().get_current_value(variable)
        return None if value is None else jax.lax.stop_gradient(value)


def unrecorded(fn: Callable[..., Any], *args: Any) -> Any:
    # What a caller differentiates by reaches the search through the weights. Were its results alone made
    # constants, eager JAX would still reckon and keep all that the way back to the weights needs.
    pure = _Pure(fn)
    result, writes = pure(*args, scope=_Constant())
    pure.assign(writes)
    return _constant(result)


def _constant(tree: Any) -> Any:
    return jax.tree.map(jax.lax.stop_gradient, tree)


def fori_loop(steps: int, body: Callable[..., tuple[Any, ...]], carry: tuple[Any, ...]) -> tuple[Any, ...]:
    if _traced() and (steps > UNROLLED or _device().platform != "cpu"):
        result: tuple[Any, ...] = jax.lax.fori_loop(0, steps, lambda _, state: tuple(body(*state)), tuple(carry))
        return result
    # On a CPU, convolutions in a compiled loop are several times slower (jax-ml/jax, issue 12868). And eagerly JAX
    # would compile the loop anew at each call.
    for _ in range(steps):
        carry = tuple(body(*carry))
    return carry


def _traced() -> bool:
    return isinstance(jnp.zeros(()), jax.core.Tracer)


def value_and_grad(
    loss: Callable[[], tuple[Tensor, Metrics]], variables: Sequence[Any]
) -> tuple[tuple[Tensor, Metrics], list[Tensor | None]]:
    """The loss with its metrics, and its gradients with respect to Keras variables; None for those it never read.

    A variable that is read has a gradient, be it zero by construction: JAX does not tell.
    """
    pure = _Pure(loss)
    read: dict[int, Any] = {}

    def of(values: list[Tensor]) -> tuple[Tensor, tuple[Metrics, list[Tensor]]]:
        scope = Scope(zip(variables, values, strict=True))
        (value, metrics), writes = pure(scope=scope)
        read.update(scope.read)
        return value, (metrics, writes)

    now = [variable.value for variable in variables]
    (value, (metrics, writes)), gradients = jax.value_and_grad(of, has_aux=True)(now)
    pure.assign(writes)
    reached = [g if id(v) in read else None for v, g in zip(variables, gradients, strict=True)]
    return (value, metrics), reached


def compile(fn: Callable[..., Any], *, rowwise: bool = False) -> Callable[..., Any]:
    """One `jax.jit` of tensors, whatever variables `fn` reads and writes; compiled anew for each batch size.

    An epoch has two of these, whole batches and the last. rowwise: each example's results are its own affair, so
    that batches may be filled up to the next power of two, and few sizes be compiled.
    No buffer is donated: who holds a variable's value from before keeps it.
    """
    pure = _Pure(fn)
    variables: list[Any] | None = None

    def of(values: list[Tensor], *args: Any) -> tuple[Any, list[Tensor]]:
        return pure(*args, scope=Scope(zip(variables or (), values, strict=True)))

    jitted = jax.jit(of)

    def call(*args: Any) -> Any:
        nonlocal variables
        if variables is None:  # a rehearsal tells what it reads
            scope = Scope()
            jax.eval_shape(lambda *given: pure(*given, scope=scope), *args)
            variables = list(scope.read.values())
        result, writes = jitted([variable.value for variable in variables], *args)
        pure.assign(writes)
        return result

    return _filled_up(call) if rowwise else call


def _filled_up(fn: Callable[..., Any]) -> Callable[..., Any]:
    """The last example is repeated up to a power of two, and what comes of the copies is dropped."""

    def call(*args: Any) -> Any:
        count = len(jax.tree.leaves(args)[0])
        size = 1 << (count - 1).bit_length()
        if count in (0, size):
            return fn(*args)
        rows = np.minimum(np.arange(size), count - 1)
        return jax.tree.map(lambda x: x[:count], fn(*jax.tree.map(lambda x: x[rows], args)))

    return call


def available(dtype: str) -> str:
    """The dtype itself, or what JAX has for it while 64-bit numbers are off."""
    name: str = jax.dtypes.canonicalize_dtype(dtype).name
    return name


def admit(dtype: str) -> None:
    """Sees to it that Keras reckons in this dtype; UsageError while JAX has it not."""
    if available(dtype) != dtype:
        raise UsageError(
            f"model: expected float32, since JAX's 64-bit numbers are off; received {dtype}. Set "
            "JAX_ENABLE_X64=1 in the environment before the model is made"
        )
    if dtype == "float64":  # otherwise a mean of float64 is taken in float32, whether 64-bit numbers are on or not
        BIT64_TO_BIT32_DTYPE["float64"] = "float64"


if available("float64") == "float64":
    admit("float64")


def check_tensor(x: Any, dtype: str) -> None:
    """TypeError unless x is a JAX array of this dtype."""
    if not isinstance(x, jax.Array) or x.dtype.name != dtype:
        received = x.dtype.name if isinstance(x, jax.Array) else type(x).__qualname__
        hint = f". {DIVIDE}" if "int" in received else ""
        raise TypeError(f"expected a JAX array of the model's {dtype}; received {received}{hint}")


def to_numpy(x: Any) -> Array | None:
    """The values, or None while a function is traced: also of a constant, or a draw would be frozen into it."""
    if isinstance(x, jax.core.Tracer) or _traced():
        return None
    return np.asarray(x)


def use_device(name: str) -> str:
    """Makes `auto`, `cpu`, `gpu[:N]` or `tpu[:N]` the process's device, returns its name; DeviceError if absent.

    Also switches JAX's 64-bit numbers on, for models of float64, and has float32 be float32: on GPUs and TPUs JAX
    would multiply in coarser numbers. Models of float32 stay what they are.
    """
    jax.config.update("jax_enable_x64", True)
    jax.config.update("jax_default_matmul_precision", "float32")
    known = devices()
    wanted = name.replace("cuda", "gpu")
    if wanted == "auto":
        wanted = known[1] if len(known) > 1 else "cpu"
    if wanted in ("gpu", "tpu"):
        wanted = f"{wanted}:0"
    if wanted not in known:
        raise DeviceError(f"device: expected auto or one of {', '.join(known)}; received {name!r}")
    kind, _, index = wanted.partition(":")
    jax.config.update("jax_default_device", jax.devices(kind)[int(index or 0)])
    return wanted


def use_replicas(count: int) -> None:
    """Spreads batches over so many of the process's devices, weights on each; DeviceError where there are fewer.

    For the models made from now on. The computation is that of one device but for rounding: batch statistics, and
    whatever a method takes over a batch, are the whole batch's.
    """
    device = _device()
    found = jax.local_devices(backend=device.platform)
    if count > len(found):
        raise DeviceError(
            f"replicas: expected at most {len(found)}, the devices of kind {device.platform} here; "
            f"received {count}"
        )
    names = [f"{one.platform}:{one.id}" for one in found[:count]]
    keras.distribution.set_distribution(keras.distribution.DataParallel(devices=names, auto_shard_dataset=False))


def place(x: Tensor) -> Tensor:
    """A batch in equal parts on the replicas, where there are some; as it is where it has no equal parts."""
    distribution = keras.distribution.distribution()
    if distribution is None or not x.shape or x.shape[0] % distribution.device_mesh.shape[0]:
        return x
    return keras.distribution.distribute_tensor(x, distribution.get_data_layout(x.shape))


def devices() -> list[str]:
    """What `use_device` could be given here."""
    return ["cpu", *(f"{kind}:{i}" for kind in ("gpu", "tpu") for i in range(_count(kind)))]


def _count(kind: str) -> int:
    try:
        return len(jax.local_devices(backend=kind))
    except RuntimeError:  # no such platform
        return 0


def _device() -> Any:
    return jax.config.jax_default_device or jax.devices()[0]


def has_tensor_float_32() -> bool:
    """Whether the device multiplies in TF32."""
    device = _device()
    return device.platform == "gpu" and float(getattr(device, "compute_capability", 0)) >= 8


def tensor_float_32() -> AbstractContextManager[Any]:
    """What is traced, or runs eagerly, within multiplies in TF32."""
    within: AbstractContextManager[Any] = jax.default_matmul_precision("tensorfloat32")
    return within


def use_threads(count: int) -> None:
    """Limits JAX to this many CPU threads; UsageError once it has begun, which is with its first array."""
    if count != threads() and backends_are_initialized():
        raise UsageError(
            f"threads: expected to be set before JAX makes its first array; received {count} afterwards. Set "
            f"{_THREADS[0]}={count} in the environment"
        )
    os.environ.update(dict.fromkeys(_THREADS, str(count)))


def threads() -> int:
    """How many CPU threads there are to one operation; 0 where JAX chooses."""
    return int(next((os.environ[name] for name in _THREADS if name in os.environ), 0))


def use_determinism() -> None:
    """Algorithms whose results do not depend on how threads meet, even where they are slower: a matter of GPUs."""
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
    """The packages that decide the numbers."""
    return {"keras": keras.__version__, "jax": jax.__version__, "jaxlib": jaxlib.__version__}
