"""The states that a run resumes from: the last two, with checksums.

state/00000012-000340.safetensors    epoch 12, 340 steps done; its metadata holds the progress of training, what
                                     the numbers depend on, and the checksum
state/good.safetensors               with --on-trouble rollback, the state that a rollback restores
"""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from stcore.base.files import as_plain, from_json, held, sweep, writing
from stcore.base.weights_file import digest, load_weights, save_weights
from stcore.errors import UsageError
from stcore.runs.folder import CONFIG
from stcore.training.state import State

FOLDER, KEPT, GOOD = "state", 2, "good.safetensors"
SETTINGS = "settings"  # the entry of what a state depends on
MOVABLE = ("dataset", "device", "threads", "resident", "decode_workers")
"""Settings that may change when a run is resumed."""
FORMAT = "stcore-state-1"


class RunStates:
    """A run's states.

    every: seconds between two states within an epoch.   about: what the numbers depend on beside the settings,
    such as the number of threads.   settings: the run's, which its states keep.
    """

    def __init__(
        self, run: Path, every: float, about: Mapping[str, Any], settings: Mapping[str, Any] | None = None
    ) -> None:
        self._folder = run / FOLDER
        self._every, self._about = every, dict(about)
        self._settings = as_plain(dict(settings or {}))
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
        place = json.dumps({"place": state.progress, "about": {**self._about, SETTINGS: self._settings}})
        save_weights(self._folder / name, state.arrays, {"format": FORMAT, "place": place})

    def latest(self, warn: Callable[[str], None]) -> State | None:
        """The last undamaged state; None if there is no state yet.

        warn: is given what is damaged, and what the state depended on that differs now.
        Raises UsageError if all states are damaged, or if a setting has changed since.
        """
        files = self._files()
        for path in files:
            try:
                state, about = read(path)
            except UsageError as error:
                warn(f"{error}; resuming from the one before it")
                continue
            self._check_settings(about.pop(SETTINGS, {}))
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

    def _check_settings(self, then: Mapping[str, Any]) -> None:
        """Raises UsageError unless the settings are those that the state was made with, as far as it has them."""
        for name in sorted(then.keys() & self._settings.keys() - {*MOVABLE}):
            was, now = then[name], self._settings[name]
            if was != now:
                raise UsageError(
                    f"resume: {self._folder.parent / CONFIG} was changed: its {name} is {now!r}, the run was "
                    f"trained with {was!r}. Restore it, or start a new run by --config"
                )

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


def tidy(run: Path) -> None:
    """Clears a finished run of what a kill at its very end left: states and temporary files."""
    with contextlib.suppress(UsageError), held(run):
        sweep(run)
        RunStates(run, 0.0, {}).clear()


def read(path: Path) -> tuple[State, dict[str, Any]]:
    """A state with what it depended on; UsageError if the file is damaged."""
    arrays, metadata = load_weights(path)
    place = metadata.get("place", "")
    old = metadata.get("sha256")  # of states before weights files had a checksum
    if metadata.get("format") != FORMAT or old not in (None, digest(place, arrays)):
        raise UsageError(f"state: {path} is damaged: its contents are not what its checksum says")
    content = from_json(place)
    return State(arrays, content["place"]), content["about"]
