"""Taps between the layers of a module: a function of what each layer takes and returns, by forward hooks."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from stcore.protocols import Tap


@contextmanager
def tapped(model: nn.Module, tap: Tap) -> Iterator[None]:
    """Context in which every floating tensor that a layer takes first or returns passes through `tap`.

    Layers that TorchScript runs have none: it calls no hooks.
    """
    with ExitStack() as hooks:
        for name, module in model.named_modules():
            if not isinstance(module, torch.jit.ScriptModule):
                hooks.callback(module.register_forward_pre_hook(partial(_before, name, tap)).remove)
                hooks.callback(module.register_forward_hook(partial(_after, name, tap)).remove)
        yield


def _before(name: str, tap: Tap, _: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...]:
    return (tap(name, "input", args[0]), *args[1:]) if args and _is_floating(args[0]) else args


def _after(name: str, tap: Tap, _: nn.Module, args: tuple[Any, ...], output: Any) -> Any:
    return tap(name, "output", output) if _is_floating(output) else output


def _is_floating(value: Any) -> bool:
    return isinstance(value, Tensor) and value.is_floating_point()
