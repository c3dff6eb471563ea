"""Changes to the settings of a file.

A run's config.toml holds every setting, chosen ones and those that followed from others. A change drops what
followed from the old value: another ε drops step size and evaluation ε; another norm drops ε too; another number
of epochs drops what began half-way; another method drops the old one's settings; another preset, or a data set
with a preset of its own, drops the recipe and the method's settings.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from stcore import presets
from stcore.paper import PRESETS as PAPER
from stcore.runs.known_presets import settings_of
from stcore.runs.plan import WRAPPERS, of_methods, stale


def over(base: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """The file's settings with the changes, without what they drop. A change to the same value is none."""
    gone = stale(base, changes)
    before, after = base.get("preset"), _preset(base, changes)
    if before is not None and after != before:
        gone |= {"preset"} | ((_decided(before) | _decided(after)) - _kept(base, after))
    return {**{name: value for name, value in base.items() if name not in gone}, **changes}


def _preset(base: Mapping[str, Any], changes: Mapping[str, Any]) -> str | None:
    """The preset after the changes: a data set of another kind brings its own, but for a row of the paper."""
    before = base.get("preset")
    if "preset" in changes or "dataset" not in changes or "dataset" not in base or before in PAPER:
        preset: str | None = changes.get("preset", before)
        return preset
    kind = presets.default_preset(changes["dataset"])
    return before if kind == presets.default_preset(base["dataset"]) else kind


def _decided(preset: str | None) -> set[str]:
    """The settings that a preset determines; none for an unknown one, which is refused when it is looked up."""
    if (row := settings_of(preset)) is not None:
        return {*row, *of_methods(), *WRAPPERS}
    return {"eval_epsilon", *presets.RECIPES[preset], *of_methods()} if preset in presets.RECIPES else set()


def _kept(base: Mapping[str, Any], preset: str | None) -> set[str]:
    """The settings that stay under another preset: method and data set, or for a row the place of its data."""
    row = settings_of(preset)
    if row is None:
        return {"method", "dataset"}
    same = presets.default_preset(base.get("dataset", "digits")) == presets.default_preset(row["dataset"])
    return {name for name, stays in (("dataset", same), ("extra_data", "extra_data" in row)) if stays}
