"""A tracker that writes a line of text for each epoch."""

from collections.abc import Mapping
from typing import Any

from stcore import Callback, Run


class Lines(Callback):
    """Writes lines.txt into the run's folder; a resumed run continues it."""

    def on_begin(self, run: Run) -> None:
        self.path = run.path / "lines.txt"

    def on_epoch(self, row: Mapping[str, Any]) -> None:
        with self.path.open("a") as file:
            file.write(f"epoch {row['epoch']}: loss {row['loss']:.3f}\n")
