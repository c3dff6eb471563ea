"""Gradient checkpointing: the backward pass recomputes activations instead of keeping them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from typing import Any

from torch import nn
from torch.utils.checkpoint import checkpoint

from stcore.backends.torch.modes import all_buffers, in_copies, in_mode
from stcore.protocols import Mode

_CONTAINERS = (nn.Sequential, nn.ModuleList, nn.ModuleDict)


def blocks(model: nn.Module) -> list[nn.Module]:
    """The modules that are recomputed as a whole: the outermost composite modules that a container lists.

    Those are the blocks of residual networks and transformers. Without any, it is the model itself: of several
    forwards in one step, only one holds its activations at a time.
    """
    return list(dict.fromkeys(_composite_children(model, isinstance(model, _CONTAINERS)))) or [model]


def _composite_children(module: nn.Module, container: bool) -> list[nn.Module]:
    modules: list[nn.Module] = []
    for child in module.children():
        if container and not isinstance(child, _CONTAINERS) and next(child.children(), None) is not None:
            modules.append(child)
        else:
            modules += _composite_children(child, isinstance(child, _CONTAINERS))
    return modules


@contextmanager
def checkpointed(model: nn.Module, mode: Mode, dropout: bool) -> Iterator[None]:
    """Context for a forward in this mode: each block keeps only its input for the backward pass.

    The recomputation gives the same numbers, dropout masks included, and updates no running statistics again.
    """

    def contexts(block: nn.Module) -> tuple[AbstractContextManager[None], AbstractContextManager[None]]:
        return nullcontext(), _Reusable(lambda: _recomputation(model, block, mode, dropout))

    patched = [(block, vars(block).get("forward")) for block in blocks(model)]  # an instance may have its own
    try:
        for block, _ in patched:
            context_fn = partial(contexts, block)
            block.forward = partial(checkpoint, block.forward, use_reentrant=False, context_fn=context_fn)
        yield
    finally:
        for block, own in patched:
            del block.forward
            if own is not None:
                block.forward = own


class _Reusable(AbstractContextManager[None]):
    """A context that is made again on each entry: a search runs several backward passes through one forward."""

    def __init__(self, make: Callable[[], AbstractContextManager[None]]) -> None:
        self._make = make

    def __enter__(self) -> None:
        self._current = self._make()
        self._current.__enter__()

    def __exit__(self, *error: Any) -> None:
        self._current.__exit__(*error)


@contextmanager
def _recomputation(model: nn.Module, block: nn.Module, mode: Mode, dropout: bool) -> Iterator[None]:
    """The modes of the finished first forward; writes to buffers go into copies."""
    with in_mode(model, mode, dropout), in_copies(block.modules(), all_buffers):
        yield
