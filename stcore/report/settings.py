"""A run's settings beside those it would have had by itself, and the command that asks for them again."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from stcore.presets import default_preset
from stcore.runs.plan import Plan, make_plan

ALWAYS_SAID = ("backend", "dataset", "method")
"""What every run chooses, in the order of a command; all else has a default that follows from these."""


def asked_for(plan: Plan, preset: str) -> dict[str, Any]:
    """The settings to give beside `ALWAYS_SAID` and the preset for the plan to come out again.

    A setting may hold only because of another, such as a step size of ε: what a first guess leaves wrong is added.
    """
    wanted = {name: value for name, value in plan.flat().items() if name != "preset"}
    base = {**{name: wanted[name] for name in ALWAYS_SAID}, "preset": preset}
    given: dict[str, Any] = {}
    while missing := unlike(wanted, make_plan({**base, **given}).flat()):
        given |= missing
    return {name: given[name] for name in wanted if name in given}


def defaults(plan: Plan, preset: str) -> dict[str, Any]:
    """The settings of a run of which nothing was asked but `ALWAYS_SAID` and the preset."""
    flat = plan.flat()
    return make_plan({**{name: flat[name] for name in ALWAYS_SAID}, "preset": preset}).flat()


def unlike(wanted: Mapping[str, Any], found: Mapping[str, Any]) -> dict[str, Any]:
    """Those of the wanted settings that the found ones have otherwise."""
    return {name: value for name, value in wanted.items() if found.get(name) != value}


def train_command(plan: Plan, preset: str, out: str) -> str:
    """`stcli train` with the flags that make this plan."""
    flat = plan.flat()
    given = {name: flat[name] for name in ALWAYS_SAID}
    if preset != default_preset(plan.data.dataset):
        given["preset"] = preset
    given |= asked_for(plan, preset)
    words = [word for name, value in given.items() for word in flag(name, value)]
    return shlex.join(["stcli", "train", *words, "--out", out])


def flag(name: str, value: Any) -> list[str]:
    """A setting as words of a command."""
    dashed = name.replace("_", "-")
    if isinstance(value, bool):
        return [f"--{dashed}" if value else f"--no-{dashed}"]
    if isinstance(value, (tuple, list)):
        return [f"--{dashed}", *map(repr, value)]
    return [f"--{dashed}", "none" if value is None else str(value)]


def again(path: Path) -> str:
    """A new folder's name for the run to be made again in."""
    return f"{path.name or 'run'}-again"
