"""Failure policy: warn, stop early, or roll back with a tenth of the learning rate or a longer search."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from stcore.core.objective import Objective
from stcore.errors import DivergedError
from stcore.methods.remedies import after_collapse
from stcore.training.diagnosis import COLLAPSE, NATURAL, ROBUST, Diagnosis, Trouble
from stcore.training.state import Restorable, State

ON_TROUBLE = ("warn", "stop", "rollback")
ROLLBACKS = 2
"""The number of rollbacks; the next trouble stops the run."""
SLOWER = 0.1
"""The factor of the learning rate at each rollback, for the rest of training."""
LONGER = "longer search"
"""The remedy of a rollback that leaves the learning rate as it was."""


class Abandoned(Exception):
    """An epoch is given up in its middle, since it is in trouble."""

    def __init__(self, trouble: Trouble) -> None:
        super().__init__(trouble.said)
        self.trouble = trouble


@dataclass
class FailurePolicy:
    """Diagnoses a trainer's epochs and acts on trouble.

    diagnosis: the rules; with None only a non-finite loss is trouble.
    policy: `warn` continues (but a non-finite loss ends the run by DivergedError), `stop` ends training early,
        `rollback` restores the good state, at most twice, and continues with a tenth of the learning rate; after a
        collapse of a search in one or two steps, with twice as many.
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
        return float(SLOWER ** sum(one.get("remedy") != LONGER for one in self.rollbacks))

    def remedied(self, objective: Objective) -> Objective:
        """The method after the rollbacks so far."""
        for rollback in self.rollbacks:
            if rollback.get("remedy") == LONGER:
                objective = after_collapse(objective) or objective
        return objective

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

    def mark(self, history: Sequence[dict[str, Any]], seen: Mapping[str, str]) -> None:
        """Adds the diagnosis to the last row, the trouble seen in its epoch, and the rollbacks just before it."""
        row = history[-1]
        if undone := [one for one in self.rollbacks if one["to"] == row["epoch"] - 1]:
            row["rolled_back"] = undone
        found = self.diagnosis(history) if self.diagnosis is not None else []
        if trouble := {**{one.kind: one.said for one in found}, **seen}:
            row["trouble"] = trouble

    def seen(self, history: Sequence[Mapping[str, Any]], seen: dict[str, str], trouble: Trouble) -> None:
        """Called in the middle of an epoch; adds the trouble to what was `seen` in it, and warns of a new kind."""
        if trouble.kind not in {*seen, *_kinds(history)}:
            self.warn(trouble.said)
        seen.setdefault(trouble.kind, trouble.said)

    def gives_up(self, trainer: Restorable) -> bool:
        """Whether trouble in the middle of an epoch ends it: there must be a state or an epoch to go back to."""
        can_go_back = self.policy == "rollback" and len(self.rollbacks) < ROLLBACKS and self.good is not None
        return can_go_back or (self.policy != "warn" and bool(trainer.history))

    def abandoned(self, trainer: Restorable, trouble: Trouble, epoch: int) -> None:
        """Called after an epoch that was given up."""
        self._end_or_go_back(trainer, trouble, epoch)

    def act(self, trainer: Restorable, seen: Mapping[str, str]) -> None:
        """Called after an epoch is evaluated and logged.   seen: the trouble it was warned of in the epoch."""
        *earlier, row = trainer.history
        known = {*seen, *_kinds(earlier)}
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
        longer = after_collapse(trainer.method) if trouble.kind == COLLAPSE else None
        trainer.go_back(self.good)
        back = trainer.history[-1]["epoch"] if trainer.history else 0
        remedy = f"{SLOWER:g} of the learning rate" if longer is None else LONGER
        record = {"trouble": trouble.kind, "epoch": epoch, "to": back, "said": trouble.said, "remedy": remedy}
        self.rollbacks = [*undone, record]
        trainer.keep(trainer.store.rewind)
        to = f"the end of epoch {back}" if back else "the start"
        self.warn(
            f"rollback {len(self.rollbacks)} of {ROLLBACKS}, from epoch {epoch}: back to {to}, "
            + (f"at {self.factor:g} of the learning rate" if longer is None else "with twice the steps of search")
        )


def _kinds(rows: Sequence[Mapping[str, Any]]) -> set[str]:
    """The kinds of trouble that these epochs had."""
    return {kind for row in rows for kind in row.get("trouble", {})}
