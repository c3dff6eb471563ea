"""Snapshots: arrays by name, some under a common prefix, and whether they fit what is to take them up."""

from __future__ import annotations

from collections.abc import Mapping

from stcore.errors import UsageError
from stcore.protocols import Array


def part(snapshot: Mapping[str, Array], prefix: str) -> dict[str, Array]:
    """What stands under a prefix, by the rest of its name."""
    return {name.removeprefix(prefix): array for name, array in snapshot.items() if name.startswith(prefix)}


def check_snapshot(snapshot: Mapping[str, Array], expected: Mapping[str, tuple[int, ...]]) -> None:
    """UsageError unless the snapshot holds arrays of just these names and shapes."""
    for name in [*expected, *snapshot]:
        want, got = expected.get(name), snapshot[name].shape if name in snapshot else None
        if want != got:
            raise UsageError(
                f"state: expected {name} of shape {want}; received {got}. It is of another network or optimizer: "
                "resume with the settings it was begun with"
            )
