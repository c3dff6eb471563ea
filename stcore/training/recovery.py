"""Failure policy: warn, stop early, or roll back with a tenth of the learning rate."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from stcore.errors import DivergedError
from stcore.training.diagnosis import NATURAL, ROBUST, Diagnosis, Trouble
from stcore.training.state import Restorable, State

ON_TROUBLE = ("warn", "stop", "rollback")
ROLLBACKS = 2
"""The number of rollbacks; the next trouble stops the run."""
SLOWER = 0.1
"""The factor of the learning rate at each rollback, for the rest of training."""


@dataclass
class FailurePolicy:
    """Diagnoses a trainer's epochs and acts on trouble.

    diagnosis: the rules; with None only a non-finite loss is trouble.
    policy: `warn` continues (but a non-finite loss ends the run by DivergedError), `stop` ends training early,
        `rollback` restores the good state with a tenth of the learning rate, at most twice.
    warn: is given each kind of trouble once, and each stop and rollback.

    The good state is that after the best epoch so far, by robust accuracy (natural if the method does not train
    for it), among those without trouble whose natural accuracy is above chance; before there is one, the initial
    state.
    A rollback drops the rows of the epochs that it undoes; the next row records it under `rolled_back`.
    Decisions are part of the trainer's state, and the store keeps the good state, so that a resumed run decides
    the same.
    """

    diagnosis: Diagnosis | None = None
    policy: str = "warn"
    warn: Callable[[str], None] = lambda text: None
    stopped: str | None = None
    rollbacks: list[dict[str, Any]] = field(default_factory=list)
    good: State | None = None

    @property
    def factor(self) -> float:
        """The factor of the learning rate after the rollbacks so far."""
        return float(SLOWER ** len(self.rollbacks))

    def progress(self) -> dict[str, Any]:
        """The policy's part of the trainer's state; `restore` restores it."""
        return {"stopped": self.stopped, "rollbacks": self.rollbacks}

    def restore(self, progress: Mapping[str, Any]) -> None:
        """Restores what `progress` returned."""
        self.stopped, self.rollbacks = progress["stopped"], list(progress["rollbacks"])

    def summary(self, history: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        """The policy's part of the result: each trouble with its first epoch, rollbacks, why training stopped."""
        first = {kind: row["epoch"] for row in reversed(history) for kind in row.get("trouble", {})}
        content = {"trouble": dict(sorted(first.items())), "rollbacks": self.rollbacks, "stopped": self.stopped}
        return {name: value for name, value in content.items() if value}

    def begin(self, trainer: Restorable) -> None:
        """Called before the first epoch."""
        if self.policy == "rollback" and not trainer.history and trainer.at_start:
            self._keep(trainer)

    def mark(self, history: Sequence[dict[str, Any]]) -> None:
        """Adds the diagnosis to the last row, and the rollbacks just before it."""
        row = history[-1]
        if undone := [one for one in self.rollbacks if one["to"] == row["epoch"] - 1]:
            row["rolled_back"] = undone
        if found := self.diagnosis(history) if self.diagnosis is not None else []:
            row["trouble"] = {trouble.kind: trouble.said for trouble in found}

    def act(self, trainer: Restorable) -> None:
        """Called after an epoch is evaluated and logged."""
        *earlier, row = trainer.history
        known = {kind for one in earlier for kind in one.get("trouble", {})}
        for kind, said in row.get("trouble", {}).items():
            if kind not in known:
                self.warn(said)
        if self.policy == "rollback" and self._is_good(trainer.history):
            self._keep(trainer)
        if self.policy != "warn" and "trouble" in row:
            self._end_or_go_back(trainer, Trouble(*next(iter(row["trouble"].items()))), row["epoch"])

    def diverged(self, trainer: Restorable, error: DivergedError, epoch: int) -> None:
        """Called after a non-finite loss; raises the error again unless the policy stops or rolls back."""
        can_go_back = self.policy == "rollback" and len(self.rollbacks) < ROLLBACKS
        if self.policy == "warn" or not (trainer.history or can_go_back):
            kept = "the checkpoints of the epochs before are kept" if trainer.history else "no epoch was finished"
            raise DivergedError(f"{error}. Training stopped: {kept}") from error
        self.warn(str(error))
        self._end_or_go_back(trainer, Trouble("nan", str(error)), epoch)

    def _keep(self, trainer: Restorable) -> None:
        self.good = trainer.state()
        trainer.store.keep_good(self.good)

    def _is_good(self, history: Sequence[Mapping[str, Any]]) -> bool:
        if self.diagnosis is None:
            return True
        measure = ROBUST if self.diagnosis.robust else NATURAL
        good = [row for row in history if "trouble" not in row and self.diagnosis.learns(row)]
        return bool(good) and good[-1] is history[-1] and good[-1][measure] == max(row[measure] for row in good)

    def _end_or_go_back(self, trainer: Restorable, trouble: Trouble, epoch: int) -> None:
        if self.good is None or len(self.rollbacks) == ROLLBACKS:
            after = f" after {len(self.rollbacks)} rollbacks" if self.rollbacks else ""
            self.stopped = f"{trouble.kind} in epoch {epoch}{after}"
            self.warn(f"training stops early: {self.stopped}")
            return
        undone = self.rollbacks
        trainer.go_back(self.good)
        back = trainer.history[-1]["epoch"] if trainer.history else 0
        self.rollbacks = [*undone, {"trouble": trouble.kind, "epoch": epoch, "to": back, "said": trouble.said}]
        trainer.keep(trainer.store.rewind)
        to = f"the end of epoch {back}" if back else "the start"
        self.warn(
            f"rollback {len(self.rollbacks)} of {ROLLBACKS}, from epoch {epoch}: back to {to}, at {self.factor:g} "
            "of the learning rate"
        )
