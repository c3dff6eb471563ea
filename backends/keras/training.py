"""What a training run needs of Keras beside the learner."""

from __future__ import annotations

from typing import Any

from stcore.backends.keras import engine
from stcore.backends.keras.learner import KerasLearner
from stcore.backends.keras.precision import check_precision
from stcore.backends.keras.sgd import TorchSGD
from stcore.base.ranks import Alone, launched
from stcore.errors import UsageError


def join_ranks(device: str) -> Alone:
    """This process, alone; UsageError where a launcher started several, which Keras knows nothing of."""
    if launched() > 1:
        raise UsageError(
            "ranks: expected one process with keras; a launcher started several. Run it without torchrun, and for "
            "several devices take --replicas on JAX, or --backend torch"
        )
    return Alone()


def make_sgd(model: Any, learning_rate: float, momentum: float, weight_decay: float, nesterov: bool) -> TorchSGD:
    """SGD with coupled weight decay on every tensor, as the paper's recipes use it."""
    return TorchSGD(learning_rate, momentum=momentum, weight_decay=weight_decay, nesterov=nesterov)


def prepare_training(
    learner: KerasLearner,
    choice: str,
    precision: str = "fp32",
    inner_precision: str = "fp32",
    gradient_checkpointing: bool = False,
) -> KerasLearner:
    """`on` and `auto` run each whole step in one `tf.function`, or under `jax.jit`; `off` stays eager.

    `xla` has XLA compile the `tf.function`. The precisions are those of the outer forwards and of the search for
    examples. Gradient checkpointing is for both, since the search holds as many activations. DeviceError where the
    device lacks a precision.
    """
    check_precision(precision, inner_precision)
    if choice == "xla" and engine.NAME == "jax":
        raise UsageError("compile: expected auto, on or off on JAX, which compiles by XLA anyway; received xla")
    learner.precision, learner.inner_precision = precision, inner_precision
    learner.gradient_checkpointing = gradient_checkpointing
    learner.compiled, learner.xla = choice != "off", choice == "xla"
    return learner
