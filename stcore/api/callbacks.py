"""Callbacks of a training run."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from stcore.api.run import Run


class Callback(Protocol):
    """What `stcore.train(…, callbacks=[…])` calls. Inherit from it, and write the methods that you need.

    They are called in the training process, between steps: the run waits for them. An exception ends the run.
    """

    def on_begin(self, run: Run) -> None:
        """Called once data and network are loaded, before the first step, also of a resumed run."""

    def on_epoch(self, row: Mapping[str, Any]) -> None:
        """Called after each epoch with its metrics, a line of metrics.jsonl."""

    def on_step(self, step: int, metrics: Mapping[str, float]) -> None:
        """Called every ten steps, when the metrics come to the host anyway.

        step: steps since the start of the run.   metrics: means over the images of the epoch so far.
        """

    def on_end(self, result: Mapping[str, Any]) -> None:
        """Called when the run is finished, with the content of result.json."""
