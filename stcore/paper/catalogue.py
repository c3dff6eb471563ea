"""The catalogue of presets by name."""

from __future__ import annotations

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
