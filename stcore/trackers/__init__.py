"""Trackers of a run by name: callbacks (`stcore.Callback`) that pass its metrics on to a tool.

A tracker is made without arguments. Its `on_begin` is given the run, whose `path` is the run's folder.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from stcore.base.registry import Registry, call
from stcore.errors import UsageError
from stcore.trackers.mlflow import MLflow
from stcore.trackers.tensorboard import TensorBoard
from stcore.trackers.wandb import Trackio, Wandb

EVENTS = ("on_begin", "on_epoch", "on_step", "on_end")
"""The methods of a tracker."""


def _accepted(part: Any, name: str) -> Callable[[], Any]:
    if not callable(part):
        raise UsageError(
            f"track: expected {name} to be a class or function that makes a tracker; received {part!r:.100}"
        )
    return lambda: call("track", name, part)


TRACKERS: Registry[Callable[[], Any]] = Registry(
    "track",
    "stcore.trackers",
    {"tensorboard": TensorBoard, "wandb": Wandb, "trackio": Trackio, "mlflow": MLflow},
    _accepted,
    "package.module:MyTracker",
)


def make_tracker(tracker: Any) -> Any:
    """The tracker of this name, or made by this class; another object is the tracker itself.

    Raises UsageError for an unknown name, and for what lacks one of `EVENTS`.
    """
    made = TRACKERS.find(tracker)() if isinstance(tracker, str | type) else tracker
    for name in EVENTS:
        if not callable(getattr(made, name, None)):
            raise UsageError(
                f"callbacks: expected objects with {name}, as stcore.Callback has it; received a "
                f"{type(made).__qualname__}. Inherit from stcore.Callback"
            )
    return made
