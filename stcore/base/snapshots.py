"""Snapshots: arrays by name, and the check that they fit before they are restored."""

from __future__ import annotations

from collections.abc import Mapping

from stcore.errors import UsageError
from stcore.protocols import Array


def part(snapshot: Mapping[str, Array], prefix: str) -> dict[str, Array]:
    """Returns the arrays whose names start with a prefix, under the rest of their names."""
    return {name.removeprefix(prefix): array for name, array in snapshot.items() if name.startswith(prefix)}


def check_snapshot(snapshot: Mapping[str, Array], expected: Mapping[str, tuple[int, ...]]) -> None:
    """Raises UsageError unless the snapshot holds arrays of exactly these names and shapes."""
    for name in [*expected, *snapshot]:
        want, got = expected.get(name), snapshot[name].shape if name in snapshot else None
        if want != got:
            raise UsageError(
                f"state: expected {name} of shape {want}; received {got}. It belongs to another network or "
                "optimizer: resume with the settings the run was started with"
            )
