"""Every preset by its name."""

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
"""One for each row of the paper's tables, its curves, and the models of its text: `table1/cifar10/st`, …"""


def find(name: str) -> Preset:
    """The preset of this name; UsageError names those close to it."""
    if name not in PRESETS:
        raise _unknown(name)
    return PRESETS[name]


def matching(prefix: str = "") -> list[Preset]:
    """The preset of this name, or all below it: `table1`, `table1/cifar10`. UsageError where there is none."""
    below = prefix.rstrip("/") + "/" if prefix else ""
    found = [preset for name, preset in PRESETS.items() if name == prefix or name.startswith(below)]
    if not found:
        raise _unknown(prefix)
    return found


def _unknown(name: str) -> UsageError:
    hint = did_you_mean(name, PRESETS, at_most=3)
    return UsageError(f"preset: expected a row of the paper (stcli presets lists them); received {name!r}{hint}")
