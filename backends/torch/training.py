"""Training options of the PyTorch backend."""

from __future__ import annotations

from typing import Any

import torch

from stcore.backends.torch.learner import TorchLearner
from stcore.backends.torch.precision import check_precision


def prepare_training(
    learner: TorchLearner,
    choice: str,
    precision: str = "fp32",
    inner_precision: str = "fp32",
    gradient_checkpointing: bool = False,
) -> TorchLearner:
    """Sets compilation, precision and gradient checkpointing of a learner, and returns it.

    choice: `on` compiles the model by `torch.compile`, on a GPU for full batches alone: the short one stays eager;
        `off` and `auto` stay eager (on CPU it gains nothing).
    precision, inner_precision: fp32, tf32 or bf16, of the outer forwards and of the search for examples.
    gradient_checkpointing: of both, since the search holds as many activations.
    Weights become channels-last like the images: the same numbers, faster.
    Raises DeviceError if the device does not support a precision.
    """
    check_precision("precision", precision, learner.device)
    check_precision("inner_precision", inner_precision, learner.device)
    learner.precision, learner.inner_precision = precision, inner_precision
    learner.gradient_checkpointing = gradient_checkpointing
    learner.model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    if choice == "on":
        dynamic = False if learner.static_shapes else None
        compiled: Any = torch.compile(
            learner.model, dynamic=dynamic
        )  # model.compile() leaves out an nn.Sequential
        learner.model = compiled
    return learner
