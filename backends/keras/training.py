"""Ranks and training options of the Keras backend."""

from __future__ import annotations

from stcore.backends.keras import engine
from stcore.backends.keras.learner import KerasLearner
from stcore.backends.keras.precision import check_precision
from stcore.base.ranks import Alone, launched
from stcore.errors import UsageError


def join_ranks(device: str) -> Alone:
    """This process alone. Raises UsageError if a launcher started several: Keras does not support that."""
    if launched() > 1:
        raise UsageError(
            "ranks: expected one process with keras; a launcher started several. Run it without torchrun, and for "
            "several devices use --replicas on JAX, or --backend torch"
        )
    return Alone()


def prepare_training(
    learner: KerasLearner,
    choice: str,
    precision: str = "fp32",
    inner_precision: str = "fp32",
    gradient_checkpointing: bool = False,
) -> KerasLearner:
    """Sets compilation, precision and gradient checkpointing of a learner, and returns it.

    choice: `on` and `auto` run each whole step in one `tf.function`, or under `jax.jit`; `off` stays eager; `xla`
        compiles the `tf.function` by XLA.
    precision, inner_precision: fp32, tf32 or bf16, of the outer forwards and of the search for examples.
    gradient_checkpointing: of both, since the search holds as many activations.
    Raises DeviceError if the device does not support a precision, UsageError for `xla` on JAX or fp32 with tf32.
    """
    check_precision(precision, inner_precision)
    if choice == "xla" and engine.NAME == "jax":
        raise UsageError("compile: expected auto, on or off on JAX, which compiles by XLA anyway; received xla")
    learner.precision, learner.inner_precision = precision, inner_precision
    learner.gradient_checkpointing = gradient_checkpointing
    learner.compiled, learner.xla = choice != "off", choice == "xla"
    return learner
