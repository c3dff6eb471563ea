"""Forwards of a module in a given `Mode`; all flags are restored afterwards."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import nn
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.modules.instancenorm import _InstanceNorm

from stcore.protocols import Mode


@contextmanager
def in_mode(model: nn.Module, mode: Mode, dropout: bool) -> Iterator[None]:
    """Sets training flags and statistics tracking for `mode`, and always restores them.

    If the root is in training mode, submodules in evaluation mode were frozen by the user and stay so; if the root
    is in evaluation mode, all follow `mode`.
    """
    modules: list[Any] = list(model.modules())
    before = [(module, module.training, getattr(module, "track_running_stats", None)) for module in modules]
    frozen = {module for module, training, _ in before if model.training and not training}
    hidden = []
    try:
        for module, _, tracks in before:
            normalises = isinstance(module, _NormBase)
            on = mode is not Mode.EVAL and (normalises or dropout) and module not in frozen
            module.training = on
            if normalises and on and tracks and mode is Mode.BATCH:
                module.track_running_stats = False
                if isinstance(module, _InstanceNorm):  # it ignores the flag and writes its statistics
                    hidden.append((module, module.running_mean, module.running_var))
                    module.running_mean = module.running_var = None
        yield
    finally:
        for module, mean, variance in hidden:
            module.running_mean, module.running_var = mean, variance
        for module, training, tracks in before:
            module.training = training
            if tracks is not None:
                module.track_running_stats = tracks
