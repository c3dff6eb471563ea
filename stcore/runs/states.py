"""The states that a run goes on from after a kill: the last two, each whole or told as damaged.

state/00000012-000340.safetensors    epoch 12, 340 steps done; its metadata holds where training stands, what the
                                     numbers depend on, and the sum that says that nothing was damaged
state/good.safetensors               with --on-trouble rollback, what a rollback goes back to
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from stcore.base.files import sweep, writing
from stcore.base.weights_file import load_weights, save_weights
from stcore.errors import UsageError
from stcore.protocols import Array
from stcore.training.state import State

FOLDER, KEPT, GOOD = "state", 2, "good.safetensors"
FORMAT = "stcore-state-1"


class RunStates:
    """A run's states.

    every: seconds between two within an epoch.   about: what the numbers depend on beside the settings, such as
    the number of threads.
    """

    def __init__(self, run: Path, every: float, about: Mapping[str, Any]) -> None:
        self._folder = run / FOLDER
        self._every, self._about = every, dict(about)
        self._last = time.monotonic()

    def due(self) -> bool:
        """Whether it is time for another."""
        return time.monotonic() - self._last >= self._every

    def keep(self, state: State) -> None:
        """Writes it, and drops those before the one before it, and later ones, which a rollback has undone.
        UsageError where that is not possible; what was kept stays."""
        under_way = state.progress["under_way"]
        name = f"{under_way['epoch']:08}-{under_way['steps']:06}.safetensors"
        self._write(name, state)
        files = self._files()
        undone = [path for path in files if path.name > name]
        for old in [*undone, *files[len(undone) + KEPT :]]:
            old.unlink(missing_ok=True)
        self._last = time.monotonic()

    def keep_good(self, state: State) -> None:
        """Writes what a rollback goes back to, in place of the one before."""
        self._write(GOOD, state)

    def good(self, warn: Callable[[str], None]) -> State | None:
        """What was kept so; None where nothing was, or, as is said, it is damaged."""
        path = self._folder / GOOD
        if not path.is_file():
            return None
        try:
            return read(path)[0]
        except UsageError as error:
            warn(f"{error}; no rollback will go back to it")
            return None

    def _write(self, name: str, state: State) -> None:
        with writing(self._folder):
            self._folder.mkdir(exist_ok=True)
        place = json.dumps({"place": state.progress, "about": self._about})
        about = {"format": FORMAT, "place": place, "sha256": checksum(state.arrays, place)}
        save_weights(self._folder / name, state.arrays, about)

    def latest(self, warn: Callable[[str], None]) -> State | None:
        """The last one that is whole; None where none was kept yet.

        Says what is damaged, and what is otherwise now. UsageError where all are damaged.
        """
        files = self._files()
        for path in files:
            try:
                state, about = read(path)
            except UsageError as error:
                warn(f"{error}; going on from the one before it")
                continue
            for name in {**about, **self._about}:
                then, now = about.get(name), self._about.get(name)
                if then != now:
                    warn(
                        f"the run was begun with {name} = {then}, and goes on with {now}: its numbers may part "
                        "from those of a run without a break"
                    )
            return state
        if files:
            raise UsageError(f"resume: expected a whole state in {self._folder}; all are damaged. Start a new run")
        return None

    def clear(self) -> None:
        """Nothing goes on from a finished run; what a kill left half-written goes, too."""
        for path in [*self._files(), self._folder / GOOD]:
            path.unlink(missing_ok=True)
        sweep(self._folder)
        if self._folder.is_dir() and not any(self._folder.iterdir()):
            self._folder.rmdir()

    def _files(self) -> list[Path]:
        """The newest first."""
        return sorted(self._folder.glob("[0-9]*.safetensors"), reverse=True)


def read(path: Path) -> tuple[State, dict[str, Any]]:
    """A state with what it depended on; UsageError unless the file is as it was written."""
    arrays, metadata = load_weights(path)
    place = metadata.get("place", "")
    if metadata.get("format") != FORMAT or metadata.get("sha256") != checksum(arrays, place):
        raise UsageError(f"state: {path} is damaged: its contents are not what its checksum says")
    content = json.loads(place)
    return State(arrays, content["place"]), content["about"]


def checksum(arrays: Mapping[str, Array], place: str) -> str:
    """SHA-256 of names, types, shapes and values, and of the place."""
    digest = hashlib.sha256(place.encode())
    for name in sorted(arrays):
        array = np.ascontiguousarray(arrays[name])
        digest.update(f"{name} {array.dtype.str} {array.shape}".encode())
        digest.update(array.reshape(-1).view(np.uint8).data)
    return digest.hexdigest()
