"""Costs of a network in PyTorch: parameters, operations, memory."""

from __future__ import annotations

import torch
from torch.utils.flop_counter import FlopCounterMode

from stcore.backends.torch.learner import TorchLearner
from stcore.protocols import Array


def parameters(learner: TorchLearner) -> int:
    """The number of trainable parameters."""
    return sum(parameter.numel() for parameter in learner.trainable)


def forward_flops(learner: TorchLearner, images: Array) -> int:
    """Floating-point operations of one forward of an image (1, H, W, C).

    Counts two per multiply-accumulate of convolutions and matrix products, and nothing else.
    """
    with FlopCounterMode(display=False) as counter:
        learner.eval_logits(learner.images(images))
    return int(counter.get_total_flops())


def peak_bytes(device: str) -> int | None:
    """Peak memory of tensors on the device so far, in bytes; None if the device does not report it."""
    return torch.cuda.max_memory_allocated(device) if device.startswith("cuda") else None
