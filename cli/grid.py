"""Points of a sweep: all combinations of settings, from words and a file."""

from __future__ import annotations

import itertools
import re
import typing
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

from stcore.base.checks import did_you_mean
from stcore.base.files import read_toml
from stcore.cli.options import TrainOptions
from stcore.cli.own_settings import with_settings
from stcore.cli.training_plan import NOT_SETTINGS
from stcore.errors import UsageError
from stcore.methods import METHODS
from stcore.runs.known_presets import matching
from stcore.runs.known_presets import names as preset_names
from stcore.runs.plan import Plan

Point: TypeAlias = Mapping[str, Any]
"""A value per varied setting: a word of the command line, or a TOML value."""

_FIXED = {**dict.fromkeys(NOT_SETTINGS, "the sweep's own"), "seed": "by --seeds 1..7", "device": "by --devices"}
_SWITCH = {"true": True, "yes": True, "false": False, "no": False}


def points(vary: Sequence[str], file: str | None, method: str | None = None) -> list[Point]:
    """All points in order; the last setting varies fastest.

    vary: words `name=value,value`.   file: a TOML file, or None.   method: of the runs, if it does not vary.
    Raises UsageError for an unknown setting, one without a value, or one given twice.
    """
    of_words = [_from_word(word) for word in vary]
    whole, *grids = _from_file(Path(file)) if file is not None else [{}]
    everywhere = [*whole.items(), *of_words]
    pairs = [*everywhere, *(pair for grid in grids for pair in grid.items())]
    types = _types(method, *(str(value) for name, values in pairs if name == "method" for value in values))
    factors: dict[str, list[Any]] = {}
    for name, values in everywhere:
        _add(factors, name, values, types)
    found: list[Point] = []
    for grid in grids or [{}]:
        own = dict(factors)
        for name, values in grid.items():
            _add(own, name, values, types)
        found += [dict(zip(own, point, strict=True)) for point in itertools.product(*own.values())]
    if found == [{}]:
        raise UsageError("vary: expected settings, such as --vary beta=1,2,4, or --grid FILE; received none")
    return found


def words(point: Point, method: str | None = None) -> list[str]:
    """The flags of `stcli train` for a point.   method: as for `points`."""
    types = _types(point.get("method", method))
    return [word for name, value in point.items() for word in _flag(name, value, types.get(name))]


def label(point: Point, plan: Plan) -> str:
    """The name of a point's run, independent of the order of its settings: method=st,beta=6."""
    flat = {**plan.flat(), "preset": plan.preset}
    said = [f"{name}={_show(flat.get(name))}" for name in _types(plan.method.name) if name in point]
    return ",".join(said)


def _types(*names: str | None) -> dict[str, Any]:
    """The settings of training with their types; a method that is not known adds none, and is refused later."""
    known = (name for name in names if name is not None and (":" in name or name in METHODS.names()))
    return typing.get_type_hints(with_settings(TrainOptions, *known))


def _from_word(word: str) -> tuple[str, list[Any]]:
    name, equals, values = word.partition("=")
    if not equals:
        raise UsageError(f"vary: expected a setting and its values, such as beta=1,2,4; received {word!r}")
    return name.strip().replace("-", "_"), [value.strip() for value in values.split(",")]


def _from_file(path: Path) -> list[dict[str, list[Any]]]:
    """The settings of all grids, then those of each grid."""
    content = read_toml(path)
    grids = content.pop("grid", [])
    if not isinstance(grids, list) or not all(isinstance(grid, dict) for grid in grids):
        raise UsageError(f"{path}: grid: expected tables [[grid]]; received {grids!r}")
    return [
        {name: values if isinstance(values, list) else [values] for name, values in table.items()}
        for table in [content, *grids]
    ]


def _add(factors: dict[str, list[Any]], name: str, values: Sequence[Any], types: Mapping[str, Any]) -> None:
    if name in _FIXED:
        raise UsageError(f"vary: expected a setting of training; received {name}, which is {_FIXED[name]}")
    if name not in types:
        known = ", ".join(known for known in types if known not in _FIXED)
        raise UsageError(
            f"vary: expected a setting of training; received {name!r}; known are {known}"
            + did_you_mean(name, types)
        )
    if name in factors:
        raise UsageError(f"vary: expected {name} once; received it twice. Put all its values into one list")
    if not values or "" in values:
        received = ",".join(map(str, values))
        raise UsageError(f"vary: expected values of {name}, such as {name}=1,2; received {received!r}")
    factors[name] = [one for value in values for one in _rows(name, value)]


def _rows(name: str, value: Any) -> list[Any]:
    """For `preset` those below a name, such as the rows of a table; else the value itself."""
    below = name == "preset" and any(row.startswith(f"{value}/") for row in preset_names())
    return [row.name for row in matching(value)] if below else [value]


def _flag(name: str, value: Any, kind: Any) -> list[str]:
    flag = "--" + name.replace("_", "-")
    if kind is bool:
        on = _SWITCH.get(str(value).lower())
        if on is None:
            raise UsageError(f"vary: expected yes or no for {name}; received {value!r}")
        return [flag if on else flag.replace("--", "--no-", 1)]
    if isinstance(value, list):
        return [flag, *map(str, value)]
    return [f"{flag}={value}"]


def _show(value: Any) -> str:
    if isinstance(value, (tuple, list)):
        return "+".join(map(_show, value)) or "none"
    if isinstance(value, bool) or value is None:
        return {True: "yes", False: "no", None: "none"}[value]
    shown = f"{value:g}" if isinstance(value, float) else str(value).replace(",", "+")
    return re.sub(r"[^\w.+-]", "-", shown)  # a folder name cannot hold a slash
