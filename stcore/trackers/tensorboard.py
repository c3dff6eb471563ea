"""TensorBoard: writes each epoch's metrics as TensorBoard scalars.

Needs no framework: an event file is a sequence of protocol buffers.
"""

from __future__ import annotations

import importlib.util
import os
import socket
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from stcore.base.files import writing
from stcore.errors import UsageError

FOLDER = "tensorboard"


def check_installed() -> None:
    """Raises UsageError if the package is missing."""
    if importlib.util.find_spec("tensorboard") is None:
        raise UsageError("tensorboard: not installed; in the repository: pip install '.[tensorboard]'")


class TensorBoard:
    """Writes a run's metrics into its folder. A resumed run continues them."""

    def __init__(self) -> None:
        check_installed()

    def on_begin(self, run: Any) -> None:
        self._events = Events(run.path / FOLDER)

    def on_epoch(self, row: Mapping[str, Any]) -> None:
        self._events.write(row)

    def on_step(self, step: int, metrics: Mapping[str, float]) -> None:
        """Writes nothing: a point an epoch, as metrics.jsonl has."""

    def on_end(self, result: Mapping[str, Any]) -> None:
        """Writes nothing: each epoch is in its file already."""


class Events:
    """A run's event files in `folder`, one per training process.

    A resumed or rolled-back run writes some epochs again; TensorBoard then drops the earlier ones.
    """

    def __init__(self, folder: Path) -> None:
        check_installed()
        self._folder = folder
        self._path: Path | None = None
        self._last = 0

    def write(self, row: Mapping[str, Any]) -> None:
        """Writes an epoch's metrics, each number under its name at this epoch's step."""
        from tensorboard.compat.proto.event_pb2 import Event, SessionLog
        from tensorboard.compat.proto.summary_pb2 import Summary

        now, step = time.time(), row["epoch"]
        events = []
        started = Event(wall_time=now, step=step, session_log=SessionLog(status=SessionLog.START))
        if self._path is None:
            with writing(self._folder):
                self._folder.mkdir(exist_ok=True)
            # TensorBoard reads files by name: to the nanosecond, since a run may be resumed within a second.
            name = f"events.out.tfevents.{now:020.9f}.{socket.gethostname()}.{os.getpid()}"
            self._path = self._folder / name
            events = [Event(wall_time=now, file_version="brain.Event:2"), started]
        elif step <= self._last:
            events = [started]
        self._last = step
        values = [
            Summary.Value(tag=name, simple_value=value)
            for name, value in row.items()
            if isinstance(value, (int, float)) and name != "epoch"
        ]
        self._append([*events, Event(wall_time=now, step=step, summary=Summary(value=values))], self._path)

    @staticmethod
    def _append(events: list[Any], path: Path) -> None:
        from tensorboard.summary.writer.record_writer import RecordWriter

        with writing(path), path.open("ab") as file:
            writer = RecordWriter(file)
            for event in events:
                writer.write(event.SerializeToString())
