"""Gradient checkpointing: activations that the way back computes again, instead of their being kept."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from typing import Any

from torch import nn
from torch.utils.checkpoint import checkpoint

from stcore.backends.torch.modes import in_mode
from stcore.protocols import Mode

_CONTAINERS = (nn.Sequential, nn.ModuleList, nn.ModuleDict)


def blocks(model: nn.Module) -> list[nn.Module]:
    """What is computed again as a whole: the outermost modules, made of others, that a container lists.

    Those are the blocks of residual networks and transformers. Where there are none, it is the model itself:
    of several forwards of one step, the activations of one at a time are then there.
    """
    return list(dict.fromkeys(_listed(model, isinstance(model, _CONTAINERS)))) or [model]


def _listed(module: nn.Module, container: bool) -> list[nn.Module]:
    found: list[nn.Module] = []
    for child in module.children():
        if container and not isinstance(child, _CONTAINERS) and next(child.children(), None) is not None:
            found.append(child)
        else:
            found += _listed(child, isinstance(child, _CONTAINERS))
    return found


@contextmanager
def recomputed(model: nn.Module, mode: Mode, dropout: bool) -> Iterator[None]:
    """Around a forward in this mode: of each block its input alone is kept for the way back.

    What is computed again is the same, dropout's masks too, and writes no running statistics a second time.
    """

    def contexts(block: nn.Module) -> tuple[AbstractContextManager[None], AbstractContextManager[None]]:
        return nullcontext(), _Again(lambda: _again(model, block, mode, dropout))

    patched = [(block, vars(block).get("forward")) for block in blocks(model)]  # others may have set their own
    try:
        for block, _ in patched:
            again = partial(contexts, block)
            block.forward = partial(checkpoint, block.forward, use_reentrant=False, context_fn=again)
        yield
    finally:
        for block, own in patched:
            del block.forward
            if own is not None:
                block.forward = own


class _Again(AbstractContextManager[None]):
    """A context made anew each time: a search goes back by one forward more than once."""

    def __init__(self, make: Callable[[], AbstractContextManager[None]]) -> None:
        self._make = make

    def __enter__(self) -> None:
        self._within = self._make()
        self._within.__enter__()

    def __exit__(self, *error: Any) -> None:
        self._within.__exit__(*error)


@contextmanager
def _again(model: nn.Module, block: nn.Module, mode: Mode, dropout: bool) -> Iterator[None]:
    """The modules as in the first forward, which is over; what they write goes into copies."""
    with in_mode(model, mode, dropout):
        buffers = [
            (module._buffers, name, buffer)
            for module in block.modules()
            for name, buffer in module._buffers.items()
            if buffer is not None
        ]
        try:
            for owner, name, buffer in buffers:
                owner[name] = buffer.clone()
            yield
        finally:
            for owner, name, buffer in buffers:
                owner[name] = buffer
