"""Optimizer and training options of the PyTorch backend."""

from __future__ import annotations

import inspect
from typing import Any

import torch
from torch import nn

from stcore.backends.torch.learner import TorchLearner
from stcore.backends.torch.precision import check_precision


class SGD(torch.optim.SGD):
    """torch's SGD without what concerns torch.compile, whose import takes more than a second of each start."""

    add_param_group = inspect.unwrap(torch.optim.SGD.add_param_group)
    load_state_dict = inspect.unwrap(torch.optim.SGD.load_state_dict)
    state_dict = inspect.unwrap(torch.optim.SGD.state_dict)
    zero_grad = inspect.unwrap(torch.optim.SGD.zero_grad)
    step = torch.no_grad()(inspect.unwrap(torch.optim.SGD.step))


def make_sgd(
    model: nn.Module, learning_rate: float, momentum: float, weight_decay: float, nesterov: bool
) -> torch.optim.Optimizer:
    """SGD with coupled weight decay on every tensor, as in the paper's recipes; all tensors in one call."""
    return SGD(
        model.parameters(),
        lr=learning_rate,
        momentum=momentum,
        weight_decay=weight_decay,
        nesterov=nesterov,
        foreach=True,
    )


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
