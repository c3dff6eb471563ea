"""Numeric precision of the forward passes: float32, TensorFloat-32 on CUDA, or bfloat16 by autocast.

Weights, losses and projections stay in the weights' dtype; logits leave `as_logits` in float32 or float64.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from types import SimpleNamespace
from typing import Any, TypeAlias, cast

import torch
from torch import Tensor

from stcore.backends.torch import ops as torch_ops
from stcore.core.outputs import FLOOR, is_one_logit, logits_of
from stcore.errors import HALF, DeviceError, UsageError
from stcore.protocols import Mode, Network, Ops, Pullback

Forward: TypeAlias = Callable[[str, Tensor, Mode, bool], Tensor]
"""Precision, pixels (B, …), mode, dropout → logits (B, C)."""


def check_precision(name: str, precision: str, device: torch.device) -> None:
    """Raises DeviceError if the device does not support the precision."""
    cuda = device.type == "cuda"
    if precision == "tf32" and not (cuda and torch.cuda.get_device_capability(device) >= (8, 0)):
        raise DeviceError(
            f"{name}: expected a CUDA device of compute capability 8.0 or more for tf32; received {device}. "
            "Use fp32 or bf16"
        )
    if precision == "bf16" and cuda and not torch.cuda.is_bf16_supported():
        raise DeviceError(
            f"{name}: expected a CUDA device that supports bfloat16 for bf16; received {device}. Use fp32"
        )


def use_float32() -> None:
    """Makes CUDA multiply float32 as float32: PyTorch's convolutions use TF32 by default."""
    _set_tensor_float_32(False)


def _set_tensor_float_32(on: bool) -> None:
    # Not `fp32_precision`: torch 2.6 lacks it, and reading the old flags raises once the new one is set.
    torch.backends.cuda.matmul.allow_tf32 = on
    torch.backends.cudnn.allow_tf32 = on


@contextmanager
def _in_tensor_float_32() -> Iterator[None]:
    before = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
    _set_tensor_float_32(True)
    try:
        yield
    finally:
        torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = before


def as_logits(output: Any, weights: torch.dtype) -> Tensor:
    """Returns the logits of a network's output, at least in float32: float64 if the weights are.

    However coarse the forward was, losses and searches are not. Raises UsageError if there is no reading.
    """
    logits = logits_of(output, torch.is_tensor)
    if not logits.is_floating_point():
        raise UsageError(f"model: expected floating logits; received {logits.dtype}, as argmax returns")
    fine: Tensor = logits.to(torch.float64 if weights is torch.float64 else torch.float32)
    if is_one_logit(fine.shape):
        fine = torch.cat((torch.zeros_like(fine), fine), dim=1)
    return torch.threshold(fine, FLOOR, FLOOR)  # a clamp's gradient takes three operations


def callers_autocast(kind: str) -> AbstractContextManager[None]:
    """The caller's autocast without its cache, whose weights may lack a gradient or a later perturbation.

    Raises UsageError if it is to float16.
    """
    if not (torch.amp.is_autocast_available(kind) and torch.is_autocast_enabled(kind)):
        return nullcontext()
    if (dtype := torch.get_autocast_dtype(kind)) is torch.float16:
        raise UsageError(HALF)
    return torch.autocast(kind, dtype, cache_enabled=False)


def forward(precision: str, device: torch.device, logits: Callable[[], Tensor]) -> Tensor:
    """Logits computed in this precision."""
    if precision == "bf16":
        with torch.autocast(device.type, torch.bfloat16):
            return logits()
    with backward_context(precision):
        return logits()


def backward_context(precision: str) -> AbstractContextManager[None]:
    """Context for a backward pass; the backward pass of autocast needs none."""
    return _in_tensor_float_32() if precision == "tf32" else nullcontext()


@contextmanager
def evaluating(precision: str, device: str) -> Iterator[None]:
    """Context in which all products are in this precision, fp32 or tf32; the one before holds again after it.

    Raises DeviceError if the device does not support it.
    """
    check_precision("precision", precision, torch.device(device))
    with backward_context(precision):
        yield


def in_precision(classifier: Any, precision: str) -> Network:
    """The classifier with its forwards in this precision."""

    def logits(precision: str, x: Tensor, mode: Mode, dropout: bool) -> Tensor:
        return forward(precision, classifier.device, partial(classifier.logits, x, mode, dropout=dropout))

    return cast(Network, classifier if precision == "fp32" else SearchNetwork(precision, logits))


class SearchNetwork:
    """A learner's network for the search for examples: its precision also holds for the gradients of pixels."""

    def __init__(self, precision: str, forward: Forward) -> None:
        self._precision, self._forward = precision, forward
        self.ops = cast(Ops, SimpleNamespace(**{**vars(torch_ops), "vjp": self._vjp}))

    def logits(self, x: Tensor, mode: Mode, *, dropout: bool = False) -> Tensor:
        return self._forward(self._precision, x, mode, dropout)

    def _vjp(self, fn: Callable[..., Tensor], *xs: Tensor) -> tuple[Tensor, Pullback]:
        value, pullback = torch_ops.vjp(fn, *xs)

        def pullback_in_precision(cotangent: Any) -> tuple[Tensor, ...]:
            with backward_context(self._precision):
                return pullback(cotangent)

        return value, pullback_in_precision
