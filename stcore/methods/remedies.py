"""What a method changes after a collapse: a longer search, from noise, that stays in the ball."""

from __future__ import annotations

import dataclasses
from typing import Any

from stcore.core.objective import Objective
from stcore.methods.curriculum import Curriculum

LONGEST = 2
"""The most steps of a search that collapses for want of steps."""


def is_short(search: Any) -> bool:
    """Whether the settings are those of a search in so few steps that it may collapse."""
    return 0 < getattr(search, "steps", 0) <= LONGEST


def after_collapse(objective: Any) -> Objective | None:
    """The method with twice as many steps, from noise as wide as the ball at least and projected to it.

    None if its search is longer than that which collapses so, or if it has none. de Jorge et al. (2022) compare
    these remedies.
    """
    if isinstance(objective, Curriculum):
        stages = [(first, after_collapse(stage) or stage) for first, stage in objective.stages]
        changed = any(new is not old for (_, new), (_, old) in zip(stages, objective.stages, strict=True))
        return dataclasses.replace(objective, stages=tuple(stages)) if changed else None
    if hasattr(objective, "objective"):  # a wrapper
        within = after_collapse(objective.objective)
        return within and dataclasses.replace(objective, objective=within)
    if not is_short(objective):
        return None
    changes: dict[str, Any] = {"steps": 2 * objective.steps}
    if hasattr(objective, "start_scale"):
        changes |= {"start_scale": max(1.0, objective.start_scale), "project": True}
    elif objective.init == "natural":
        changes |= {"init": "uniform"}
    return dataclasses.replace(objective, **changes)  # type: ignore[no-any-return]
