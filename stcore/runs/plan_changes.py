"""Changes over a file's settings.

A run's own config.toml holds every setting, those that were chosen and those that followed from others. What
follows from a setting that is changed is no longer meant, and goes: with another ε its step size and evaluation ε,
with another norm ε too, with another number of epochs what began half-way, with another method the old one's
settings, with another preset, or a data set that brings one, the recipe and the method's settings.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from stcore import presets
from stcore.paper import PRESETS as PAPER
from stcore.runs.plan import WRAPPERS, of_methods, stale


def over(base: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """The file's settings but for what went, and the changes. A change to what was there already is none."""
    gone = stale(base, changes)
    before, after = base.get("preset"), _preset(base, changes)
    if before is not None and after != before:
        gone |= {"preset"} | ((_decided(before) | _decided(after)) - _kept(base, after))
    return {**{name: value for name, value in base.items() if name not in gone}, **changes}


def _preset(base: Mapping[str, Any], changes: Mapping[str, Any]) -> str | None:
    """The preset after the changes: a data set of another kind brings its own, but not in place of a row's."""
    before = base.get("preset")
    if "preset" in changes or "dataset" not in changes or "dataset" not in base or before in PAPER:
        preset: str | None = changes.get("preset", before)
        return preset
    kind = presets.default_preset(changes["dataset"])
    return before if kind == presets.default_preset(base["dataset"]) else kind


def _decided(preset: str | None) -> set[str]:
    """The settings that a preset decides; none of an unknown one, which is refused where it is looked up."""
    if preset in PAPER:
        return {*PAPER[preset].settings, *of_methods(), *WRAPPERS}
    return {"eval_epsilon", *presets.RECIPES[preset], *of_methods()} if preset in presets.RECIPES else set()


def _kept(base: Mapping[str, Any], preset: str | None) -> set[str]:
    """What stays under another preset: a recipe leaves method and data set, a row where data of its kind lie."""
    if preset not in PAPER:
        return {"method", "dataset"}
    row = PAPER[preset].settings
    same = presets.default_preset(base.get("dataset", "digits")) == presets.default_preset(row["dataset"])
    return {name for name, stays in (("dataset", same), ("extra_data", "extra_data" in row)) if stays}
