"""What a training run needs of PyTorch beside the learner."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from stcore.backends.torch.learner import TorchLearner
from stcore.backends.torch.precision import check_precision


def make_sgd(
    model: nn.Module, learning_rate: float, momentum: float, weight_decay: float, nesterov: bool
) -> torch.optim.Optimizer:
    """SGD with coupled weight decay on every tensor, as the paper's recipes use it."""
    return torch.optim.SGD(
        model.parameters(), lr=learning_rate, momentum=momentum, weight_decay=weight_decay, nesterov=nesterov
    )


def prepare_training(
    learner: TorchLearner,
    choice: str,
    precision: str = "fp32",
    inner_precision: str = "fp32",
    gradient_checkpointing: bool = False,
) -> TorchLearner:
    """`on` compiles the model by `torch.compile`; `off` and `auto` stay eager (on CPU compiling gained nothing).

    Weights are laid out channels-last, as host images are: the same numbers, sooner. The precisions are those of
    the outer forwards and of the search for examples. Gradient checkpointing is for both, since the search holds
    as many activations. DeviceError where the device lacks a precision.
    """
    check_precision("precision", precision, learner.device)
    check_precision("inner_precision", inner_precision, learner.device)
    learner.precision, learner.inner_precision = precision, inner_precision
    learner.gradient_checkpointing = gradient_checkpointing
    learner.model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    if choice == "on":
        compiled: Any = torch.compile(learner.model)  # model.compile() compiles nothing of an nn.Sequential
        learner.model = compiled
    return learner
