"""The states that a run resumes from: the last two, with checksums.

state/00000012-000340.safetensors    epoch 12, 340 steps done; its metadata holds the progress of training, what
                                     the numbers depend on, and the checksum
state/good.safetensors               with --on-trouble rollback, the state that a rollback restores
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

    every: seconds between two states within an epoch.   about: what the numbers depend on beside the settings,
    such as the number of threads.
    """

    def __init__(self, run: Path, every: float, about: Mapping[str, Any]) -> None:
        self._folder = run / FOLDER
        self._every, self._about = every, dict(about)
        self._last = time.monotonic()

    def due(self) -> bool:
        """Whether it is time for another state."""
        return time.monotonic() - self._last >= self._every

    def keep(self, state: State) -> None:
        """Writes the state; keeps the one before it, and deletes older ones and those that a rollback undid.

        Raises UsageError if that is not possible; earlier states then stay.
        """
        under_way = state.progress["under_way"]
        name = f"{under_way['epoch']:08}-{under_way['steps']:06}.safetensors"
        self._write(name, state)
        files = self._files()
        undone = [path for path in files if path.name > name]
        for old in [*undone, *files[len(undone) + KEPT :]]:
            old.unlink(missing_ok=True)
        self._last = time.monotonic()

    def keep_good(self, state: State) -> None:
        """Writes the state that a rollback restores, in place of the last one."""
        self._write(GOOD, state)

    def good(self, warn: Callable[[str], None]) -> State | None:
        """The state that a rollback restores; None if there is none, or, with a warning, if it is damaged."""
        path = self._folder / GOOD
        if not path.is_file():
            return None
        try:
            return read(path)[0]
        except UsageError as error:
            warn(f"{error}; no rollback will restore it")
            return None

    def _write(self, name: str, state: State) -> None:
        with writing(self._folder):
            self._folder.mkdir(exist_ok=True)
        place = json.dumps({"place": state.progress, "about": self._about})
        about = {"format": FORMAT, "place": place, "sha256": checksum(state.arrays, place)}
        save_weights(self._folder / name, state.arrays, about)

    def latest(self, warn: Callable[[str], None]) -> State | None:
        """The last undamaged state; None if there is no state yet.

        warn: is given what is damaged, and what the state depended on that differs now.
        Raises UsageError if all states are damaged.
        """
        files = self._files()
        for path in files:
            try:
                state, about = read(path)
            except UsageError as error:
                warn(f"{error}; resuming from the one before it")
                continue
            for name in {**about, **self._about}:
                then, now = about.get(name), self._about.get(name)
                if then != now:
                    warn(
                        f"the run was begun with {name} = {then}, and resumes with {now}: its numbers may differ "
                        "from those of a run without a break"
                    )
            return state
        if files:
            raise UsageError(f"resume: expected a whole state in {self._folder}; all are damaged. Start a new run")
        return None

    def clear(self) -> None:
        """Deletes all states of a finished run, and temporary files that a kill left."""
        for path in [*self._files(), self._folder / GOOD]:
            path.unlink(missing_ok=True)
        sweep(self._folder)
        if self._folder.is_dir() and not any(self._folder.iterdir()):
            self._folder.rmdir()

    def _files(self) -> list[Path]:
        """All states, the newest first."""
        return sorted(self._folder.glob("[0-9]*.safetensors"), reverse=True)


def read(path: Path) -> tuple[State, dict[str, Any]]:
    """A state with what it depended on; UsageError if the file is damaged."""
    arrays, metadata = load_weights(path)
    place = metadata.get("place", "")
    if metadata.get("format") != FORMAT or metadata.get("sha256") != checksum(arrays, place):
        raise UsageError(f"state: {path} is damaged: its contents are not what its checksum says")
    content = json.loads(place)
    return State(arrays, content["place"]), content["about"]


def checksum(arrays: Mapping[str, Array], place: str) -> str:
    """SHA-256 of names, types, shapes and values, and of the progress."""
    digest = hashlib.sha256(place.encode())
    for name in sorted(arrays):
        array = np.ascontiguousarray(arrays[name])
        digest.update(f"{name} {array.dtype.str} {array.shape}".encode())
        digest.update(array.reshape(-1).view(np.uint8).data)
    return digest.hexdigest()
