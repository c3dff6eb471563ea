"""What a reader of a table of runs must know: what its figures are, and which rows they do not compare."""

from __future__ import annotations

from collections.abc import Callable

from stcore.results.tables.table import Row, RunTable
from stcore.runs.record import FinishedRun


def notes(table: RunTable) -> list[str]:
    """A sentence each."""
    return [_about(table), *warnings(table)]


def warnings(table: RunTable) -> list[str]:
    """Those that stand against taking the figures as they are."""
    said = []
    if table.checkpoint.startswith("best") and any(run.plan.evaluation.select == "test" for run in _runs(table)):
        said.append("best was selected on the TEST split (the paper's rule): its figures are optimistic")
    for what, value_of in _COMPARED.items():
        said += _apart(table, what, value_of)
    for number, row in enumerate(table.rows, start=1):
        said += [f"row {number}: {reason}" for reason in _doubts(table, row)]
    return said


def _about(table: RunTable) -> str:
    return f"{table.checkpoint} checkpoint, test split; {'; '.join(intervals(table))}"


def intervals(table: RunTable) -> list[str]:
    """What the figures' intervals are: of one seed, of several, or of both kinds."""
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
    "what selects the best epoch": lambda run: f"{run.plan.evaluation.select_by} on {run.plan.evaluation.select}",
}


def same_task(table: RunTable) -> bool:
    """Whether all rows were attacked alike on the same images."""
    return all(
        len({_COMPARED[what](row.runs[0]) for row in table.rows}) == 1 for what in ("test data", "the attacks' ε")
    )


def _apart(table: RunTable, what: str, value_of: Callable[[FinishedRun], str]) -> list[str]:
    """Whether rows differ in something without which their figures do not compare. Within a row none does."""
    if what.startswith("what selects") and not table.checkpoint.startswith("best"):
        return []
    found: dict[str, list[str]] = {}
    for number, row in enumerate(table.rows, start=1):
        found.setdefault(value_of(row.runs[0]), []).append(str(number))
    if len(found) == 1:
        return []
    said = "; ".join(f"{value} in row {', '.join(numbers)}" for value, numbers in found.items())
    return [f"not comparable, for the rows differ in {what}: {said}"]


def _doubts(table: RunTable, row: Row) -> list[str]:
    twice = sorted({seed for seed in row.seeds if row.seeds.count(seed) > 1})
    said = [f"seed {', '.join(map(str, twice))} is there more than once: not independent"] if twice else []
    partly = [a for a in table.attacks if (figure := row.figure(a)) and figure.seeds < len(row.runs)]
    return said + [f"{attack} of {row.figure(attack).seeds} of {len(row.runs)} runs" for attack in partly]  # type: ignore[union-attr]


def _runs(table: RunTable) -> list[FinishedRun]:
    return [run for row in table.rows for run in row.runs]
