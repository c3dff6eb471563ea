"""The same network in fewer operations, for EVAL forwards alone."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

import torch
from torch import nn

_HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")


def candidates(model: nn.Module) -> Iterator[nn.Module]:
    """Copies of a module that should be faster, the fastest first; whether they are its equal is yet to be seen.

    First one whose batch norms are folded into the convolutions and linear layers before them, then one in another
    layout only: convolutions of channels-last weights compute so, whatever the layout of the pixels. None of a
    module that has hooks, which want their own module's forward, or that `torch.compile` has taken over.
    """
    if any(_is_bound(module) for module in model.modules()):
        return
    for change in (_fused, lambda same: same):
        try:
            changed = _laid_out(change(_frozen(model)))
        except Exception:  # tracing runs the module's own code, on what is no tensor
            continue
        yield changed


def _is_bound(module: Any) -> bool:
    compiled = hasattr(module, "_orig_mod") or module._compiled_call_impl is not None
    return compiled or any(getattr(module, name) for name in _HOOKS)


def _frozen(model: nn.Module) -> nn.Module:
    """A copy in evaluation mode, without gradients of weights."""
    model = copy.deepcopy(model).requires_grad_(False)
    for module in model.modules():
        module.training = False
    return model


def _fused(model: nn.Module) -> nn.Module:
    from torch.fx.experimental.optimization import fuse  # not above: importing it gives a warning

    return fuse(model, inplace=True)


def _laid_out(model: nn.Module) -> nn.Module:
    laid_out: nn.Module = model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return laid_out
