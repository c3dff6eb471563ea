"""Forwards of a module in a given `Mode`; restores flags, and buffers that the mode must not write."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.modules.instancenorm import _InstanceNorm

from stcore.base.locks import lock_of
from stcore.errors import UsageError
from stcore.protocols import Mode

_statistical: weakref.WeakKeyDictionary[nn.Module, bool] = weakref.WeakKeyDictionary()
"""Of each module with `own_buffers`: whether it writes them in training, as a norm does."""


@contextmanager
def in_mode(model: nn.Module, mode: Mode, dropout: bool) -> Iterator[None]:
    """Sets training flags and statistics tracking for `mode`, and always restores them.

    If the root is in training mode, submodules in evaluation mode were frozen by the user and stay so; if the root
    is in evaluation mode, all follow `mode`. Normalisation layers are PyTorch's own and all that write their
    buffers in training, which `note_statistics` has noted.
    """
    with lock_of(model):
        yield from _in_mode(model, mode, dropout)


def _in_mode(model: nn.Module, mode: Mode, dropout: bool) -> Iterator[None]:
    modules = _modules(model)
    if mode is not Mode.EVAL and any(_kind(type(module)).fixed for module in modules):
        raise UsageError(
            "model: expected a module whose layers can be switched between training and evaluation; received "
            "TorchScript, which has them fixed. Give the module that it was made of; evaluation takes either"
        )
    trains, trial = model.training, mode is not Mode.EVAL
    changed: list[tuple[Any, str, Any]] = []

    def change(module: Any, name: str, before: Any, value: Any) -> None:
        changed.append((module, name, before))
        _set(module, name, value)

    try:
        for module in modules:
            normalises, training = _kind(type(module)).normalises, module.training
            on = trial and (normalises or dropout or _is_statistical(module))
            on = on and (training or not trains)  # else the user froze it
            if training != on:
                change(module, "training", training, on)
            if normalises and on and mode is Mode.BATCH and module.track_running_stats:
                change(module, "track_running_stats", True, False)
                if isinstance(module, _InstanceNorm):  # it ignores the flag and writes its statistics
                    change(module, "running_mean", module.running_mean, None)
                    change(module, "running_var", module.running_var, None)
        with in_copies(modules if mode is not Mode.TRAIN else [], own_buffers):
            yield
    finally:
        for module, name, before in changed:
            _set(module, name, before)


def _modules(model: nn.Module) -> list[Any]:
    """The model's modules, each once: in another order than `model.modules()`, and in a third of its time."""
    found: list[Any] = [model]
    seen = {model}
    for module in found:
        for child in module._modules.values():
            if child is not None and child not in seen:
                seen.add(child)
                found.append(child)
    return found


_FLAGS = ("training", "track_running_stats")


class _Kind(NamedTuple):
    """What a class of modules says of its instances.

    fixed: they cannot be switched.   normalises: PyTorch's own norms.   known: those that write no buffer in EVAL.
    plain: flags may be written past `nn.Module.__setattr__`, which takes a microsecond.
    """

    fixed: bool
    normalises: bool
    known: bool
    plain: bool


_kinds: dict[type[nn.Module], _Kind] = {}


def _kind(of: type[nn.Module]) -> _Kind:
    if (known := _kinds.get(of)) is not None:
        return known
    normalises = issubclass(of, _NormBase)
    _kinds[of] = _Kind(
        issubclass(of, torch.jit.ScriptModule),
        normalises,
        normalises and of.__module__.startswith("torch.nn.modules."),
        of.__setattr__ is nn.Module.__setattr__ and not any(map(partial(hasattr, of), _FLAGS)),
    )
    return _kinds[of]


def _set(module: Any, name: str, value: Any) -> None:
    if name in _FLAGS and _kind(type(module)).plain:
        module.__dict__[name] = value
    else:
        setattr(module, name, value)


def _is_statistical(module: nn.Module) -> bool:
    return bool(module._buffers) and _statistical.get(module, False)


def own_buffers(module: nn.Module) -> dict[str, Tensor]:
    """The buffers that a forward may write in any mode: all but those of PyTorch's own batch and instance norms.

    The user's modules have them, and any module under `spectral_norm`.
    """
    return {} if not module._buffers or _kind(type(module)).known else all_buffers(module)


def all_buffers(module: nn.Module) -> dict[str, Tensor]:
    """The buffers of a module itself, without its children's."""
    return {name: buffer for name, buffer in module._buffers.items() if buffer is not None}


@contextmanager
def in_copies(modules: Iterable[nn.Module], buffers: Callable[[nn.Module], dict[str, Tensor]]) -> Iterator[None]:
    """Context in which writes to these buffers go into copies.   buffers: those of one module."""
    kept = [(module._buffers, name, value) for module in modules for name, value in buffers(module).items()]
    try:
        for owner, name, value in kept:
            owner[name] = value.clone()
        yield
    finally:
        for owner, name, value in kept:
            owner[name] = value


def note_statistics(model: nn.Module, x: Tensor) -> None:
    """Notes which modules of the user's write their buffers in training, by one forward that leaves no trace.

    Their statistics are to be the batch's wherever a norm's are. Does nothing for modules that are known.
    """
    unknown = [module for module in _modules(model) if own_buffers(module) and module not in _statistical]
    if not unknown:
        return
    for module in unknown:
        _statistical[module] = False  # also if the trial fails: then no other is made
    devices = [x.device] if x.is_cuda else []
    flags = [(module, module.training) for module in model.modules()]
    with torch.no_grad(), torch.random.fork_rng(devices), in_copies(model.modules(), own_buffers):
        before = {module: dict(module._buffers) for module in unknown}
        copies = {module: {n: b.clone() for n, b in own_buffers(module).items()} for module in unknown}
        try:
            for module, _ in flags:
                module.training = not isinstance(module, _NormBase)
            with suppress(Exception):  # of the user's code, which the real forward raises again
                model(x)
        finally:
            for module, training in flags:
                module.training = training
        for module in unknown:
            _statistical[module] = any(
                module._buffers[name] is not before[module][name] or not torch.equal(getattr(module, name), copy)
                for name, copy in copies[module].items()
            )
