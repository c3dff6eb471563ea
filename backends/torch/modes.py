"""One forward of a module in a given `Mode`; every module comes back as it was."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn
from torch.nn.modules.batchnorm import _NormBase

from stcore.protocols import Mode


@contextmanager
def in_mode(model: nn.Module, mode: Mode, dropout: bool) -> Iterator[None]:
    """Sets training flags and statistics tracking for `mode`, and restores them whatever happens.

    Where the root is in training mode, submodules in evaluation mode were frozen by the user and stay so;
    where the root is in evaluation mode, all follow `mode`.
    """
    before = [
        (module, module.training, getattr(module, "track_running_stats", None)) for module in model.modules()
    ]
    frozen = {module for module, training, _ in before if model.training and not training}
    try:
        for module, _, tracks in before:
            normalises = isinstance(module, _NormBase)
            on = mode is not Mode.EVAL and (normalises or dropout) and module not in frozen
            module.training = on
            if normalises and on and tracks and mode is Mode.BATCH:
                module.track_running_stats = False
        yield
    finally:
        for module, training, tracks in before:
            module.training = training
            if tracks is not None:
                module.track_running_stats = tracks
