"""What a network costs, as PyTorch counts it: parameters, operations, memory."""

from __future__ import annotations

import torch
from torch.utils.flop_counter import FlopCounterMode

from stcore.backends.torch.learner import TorchLearner
from stcore.protocols import Array


def parameters(learner: TorchLearner) -> int:
    """How many numbers training may change."""
    return sum(parameter.numel() for parameter in learner.trainable)


def forward_flops(learner: TorchLearner, images: Array) -> int:
    """Floating-point operations of one forward of an image (1, H, W, C): two to a multiply-accumulate of its
    convolutions and matrix products; the rest is not counted.
    """
    with FlopCounterMode(display=False) as counter:
        learner.eval_logits(learner.images(images))
    return int(counter.get_total_flops())


def peak_bytes(device: str) -> int | None:
    """The most memory of the device that tensors have taken so far; None on a device that does not tell."""
    return torch.cuda.max_memory_allocated(device) if device.startswith("cuda") else None
