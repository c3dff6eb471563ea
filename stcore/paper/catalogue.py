"""The catalogue of presets by name."""

from __future__ import annotations

from stcore.base.checks import did_you_mean
from stcore.errors import UsageError
from stcore.paper import printed, unprinted
from stcore.paper.preset import Preset

PRESETS: dict[str, Preset] = {
    preset.name: preset
    for rows in (
        printed.table1,
        printed.table2,
        printed.table3,
        printed.table4,
        printed.table5,
        printed.table6,
        unprinted.figure4,
        unprinted.figure9,
        unprinted.figure10,
        unprinted.appendix_c,
    )
    for preset in rows()
}
"""A preset for each row of the paper's tables, each of its curves, and each model that its text mentions."""


def find(name: str) -> Preset:
    """The preset of this name. Raises UsageError, with similar names, if there is none."""
    if name not in PRESETS:
        raise _unknown(name)
    return PRESETS[name]


def matching(prefix: str = "") -> list[Preset]:
    """The preset of this name, or all under a prefix such as `table1` or `table1/cifar10`.

    Raises UsageError if there is none.
    """
    below = prefix.rstrip("/") + "/" if prefix else ""
    found = [preset for name, preset in PRESETS.items() if name == prefix or name.startswith(below)]
    if not found:
        raise _unknown(prefix)
    return found


def _unknown(name: str) -> UsageError:
    hint = did_you_mean(name, PRESETS, at_most=3)
    return UsageError(f"preset: expected a row of the paper (stcli presets lists them); received {name!r}{hint}")
