"""Notes below a table of runs: what its figures are, and which rows are not comparable."""

from __future__ import annotations

from collections.abc import Callable

from stcore.results.tables.table import Row, RunTable
from stcore.runs.record import FinishedRun


def notes(table: RunTable) -> list[str]:
    """The table's description, then its warnings."""
    return [f"{table.checkpoint} checkpoint, test split; {'; '.join(intervals(table))}", *warnings(table)]


def warnings(table: RunTable) -> list[str]:
    """Reasons why figures are optimistic, not comparable, or incomplete; a sentence each."""
    listed = []
    if table.checkpoint.startswith("best") and any(run.plan.evaluation.select == "test" for run in _runs(table)):
        listed.append("best was selected on the TEST split (the paper's rule): its figures are optimistic")
    for what, value_of in _COMPARED.items():
        listed += _not_comparable(table, what, value_of)
    for number, row in enumerate(table.rows, start=1):
        listed += [f"row {number}: {reason}" for reason in _doubts(table, row)]
    return listed


def intervals(table: RunTable) -> list[str]:
    """The kinds of intervals in the table: over seeds, over images, or both."""
    figures = [figure for row in table.rows for attack in table.attacks if (figure := row.figure(attack))]
    kinds = {
        "mean ± 95 % t-interval over seeds": any(figure.seeds > 1 for figure in figures),
        "a single run with its 95 % Clopper–Pearson interval [low, high] over images": any(
            figure.seeds == 1 for figure in figures
        ),
    }
    return [kind for kind, there in kinds.items() if there]


def _test_data(run: FinishedRun) -> str:
    test = run.data.get("test", {})
    return f"{test.get('images', 'an unknown number of')} test images ({str(test.get('sha256', 'unknown'))[:8]})"


_COMPARED: dict[str, Callable[[FinishedRun], str]] = {
    "test data": _test_data,
    "the attacks' ε": lambda run: f"{run.plan.norm} ε = {run.plan.evaluation.epsilon:.4g}",
    "the selection of the best epoch": lambda run: (
        f"{run.plan.evaluation.select_by} on {run.plan.evaluation.select}"
    ),
}


def same_task(table: RunTable) -> bool:
    """Whether all rows have the same test images and the same attack budget."""
    return all(
        len({_COMPARED[what](row.runs[0]) for row in table.rows}) == 1 for what in ("test data", "the attacks' ε")
    )


def _not_comparable(table: RunTable, what: str, value_of: Callable[[FinishedRun], str]) -> list[str]:
    """A warning if rows differ in this value. The runs of one row share it."""
    if what == "the selection of the best epoch" and not table.checkpoint.startswith("best"):
        return []
    found: dict[str, list[str]] = {}
    for number, row in enumerate(table.rows, start=1):
        found.setdefault(value_of(row.runs[0]), []).append(str(number))
    if len(found) == 1:
        return []
    listed = "; ".join(f"{value} in row {', '.join(numbers)}" for value, numbers in found.items())
    return [f"not comparable: the rows differ in {what}: {listed}"]


def _doubts(table: RunTable, row: Row) -> list[str]:
    twice = sorted({seed for seed in row.seeds if row.seeds.count(seed) > 1})
    doubts = [f"seed {', '.join(map(str, twice))} occurs more than once: not independent"] if twice else []
    partly = [a for a in table.attacks if (figure := row.figure(a)) and figure.seeds < len(row.runs)]
    return doubts + [f"{attack} of {row.figure(attack).seeds} of {len(row.runs)} runs" for attack in partly]  # type: ignore[union-attr]


def _runs(table: RunTable) -> list[FinishedRun]:
    return [run for row in table.rows for run in row.runs]
