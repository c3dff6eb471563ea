"""Folded copies of a network for faster EVAL forwards."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any, cast

import torch
from torch import Tensor, fx, nn

_HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")


def candidates(model: nn.Module) -> Iterator[nn.Module]:
    """Faster copies of a module, the fastest first; the caller checks that they compute the same function.

    The first has its batch norms folded into the convolutions and linear layers before them; the second has
    channels-last weights only, which speed up convolutions whatever the layout of the pixels. Yields nothing for a
    module with hooks, which belong to the original module's forward, or for one that `torch.compile` wraps.
    """
    if any(_is_bound(module) for module in model.modules()):
        return
    for change in (_fused, lambda same: same):
        try:
            changed = _evaluated(_channels_last(change(_frozen_copy(model))))
        except Exception:  # tracing runs the module's own code on proxies instead of tensors
            continue
        yield changed


def _is_bound(module: Any) -> bool:
    """Whether the module must stay as it is: compiled, or with hooks."""
    compiled = hasattr(module, "_orig_mod") or module._compiled_call_impl is not None
    return compiled or any(getattr(module, name) for name in _HOOKS)


def copied(model: nn.Module) -> nn.Module:
    """A deep copy; what hooks computed in the last forward, as `weight_norm` does, loses its history."""
    computed = (
        value for module in model.modules() for value in vars(module).values() if isinstance(value, Tensor)
    )
    memo = {id(value): value.detach().clone() for value in computed if not value.is_leaf}
    return copy.deepcopy(model, memo)


def _frozen_copy(model: nn.Module) -> nn.Module:
    """A copy in evaluation mode, without weight gradients."""
    return _evaluated(copied(model).requires_grad_(False))


def _evaluated(model: nn.Module) -> nn.Module:
    """The model, with every module in evaluation mode: the user's `eval` may leave some out."""
    for module in model.modules():
        module.training = False
    return model


def _fused(model: nn.Module) -> nn.Module:
    from torch.fx.experimental.optimization import fuse  # not at the top: the import warns

    fused = cast(fx.GraphModule, fuse(model, inplace=True))
    for node in fused.graph.nodes:
        module, before = _module(fused, node), cast(Any, node.args[0] if node.args else None)
        linear = isinstance(_module(fused, before), nn.Conv2d | nn.Linear) and len(before.users) == 1
        mean = node.op == "call_method" and (node.target, node.args[1:], node.kwargs) == ("mean", ((2, 3),), {})
        if mean or (isinstance(module, nn.AdaptiveAvgPool2d) and module.output_size in (1, (1, 1))):
            node.op, node.target, node.args = "call_function", _pooled, (before, not mean)
        elif linear and (isinstance(module, nn.ReLU) or node.target in (torch.relu, nn.functional.relu)):
            # In place: no one else reads what the layer before returns, neither does its gradient.
            node.op, node.target, node.args, node.kwargs = "call_function", torch.relu_, (before,), {}
    fused.recompile()
    return fused


def _module(graph: fx.GraphModule, node: Any) -> nn.Module | None:
    """The module that a node of the graph calls."""
    calls = isinstance(node, fx.Node) and node.op == "call_module"
    return graph.get_submodule(str(node.target)) if calls else None


def _pooled(x: Tensor, keep_axes: bool) -> Tensor:
    """The mean over the pixels, (B, C, H, W) → (B, C) or (B, C, 1, 1), whose gradient is channels last.

    That of `mean` is channels first; a ReLU's gradient at a channels-last output then takes ten times as long.
    """
    mean = x.permute(0, 2, 3, 1).flatten(1, 2).mean(1)
    return mean[:, :, None, None] if keep_axes else mean


def _channels_last(model: nn.Module) -> nn.Module:
    converted: nn.Module = model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return converted
