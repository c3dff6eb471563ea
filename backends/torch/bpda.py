"""Another function's backward pass for layers of a module (see `stcore.attacks.bpda`), by forward hooks."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from stcore.attacks.bpda import Approximation, check_output, not_one_tensor
from stcore.errors import UsageError


def named_layers(model: nn.Module) -> list[tuple[str, nn.Module]]:
    """The modules inside a module with their dotted names. Raises UsageError if hooks do not reach them."""
    if isinstance(model, torch.jit.ScriptModule) or any(
        hasattr(each, "_orig_mod") or each._compiled_call_impl is not None for each in model.modules()
    ):
        raise UsageError(
            "model: expected a module whose layers run in Python; received one that is compiled or scripted. Give "
            "the module that it was made of"
        )
    return [(name, module) for name, module in model.named_modules() if name]


class _WithGradientOf(torch.autograd.Function):
    """The value, as if it had been computed as the approximation was."""

    @staticmethod
    def forward(ctx: Any, approximation: Tensor, value: Tensor) -> Tensor:
        return value.view_as(value)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        return gradients[0], None


@contextmanager
def bpda(model: nn.Module, layers: Sequence[tuple[str, nn.Module, Approximation | None]]) -> Iterator[nn.Module]:
    """Context in which these layers, each with the name that chose it, have other backward passes."""
    with ExitStack() as hooks:
        for name, layer, approximation in layers:
            handle = layer.register_forward_hook(_hook(name, approximation), with_kwargs=True)
            hooks.callback(handle.remove)
        yield model


def _hook(name: str, approximation: Approximation | None) -> Callable[..., Tensor | None]:
    def with_other_gradient(_: nn.Module, args: tuple[Any, ...], options: Any, output: Any) -> Tensor | None:
        inputs = [given for given in (*args, *options.values()) if isinstance(given, Tensor)]
        if len(inputs) != 1 or not isinstance(output, Tensor):
            raise not_one_tensor(name, output)
        through = inputs[0] if approximation is None else approximation(inputs[0])
        one, other = ((each.shape, str(each.dtype)) for each in (through, output))
        check_output(name, one, other, approximation is None)
        if not torch.is_grad_enabled():
            return None  # the output as it is
        changed: Tensor = _WithGradientOf.apply(through, output.detach())  # type: ignore[no-untyped-call]
        return changed

    return with_other_gradient
