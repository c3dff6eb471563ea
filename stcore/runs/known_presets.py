"""The presets that give every setting: recipes that were run, and the paper's rows."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeAlias

from stcore import measured
from stcore.base.checks import did_you_mean
from stcore.errors import UsageError
from stcore.measured import Measured
from stcore.paper import PRESETS as PAPER
from stcore.paper import Preset

Known: TypeAlias = Measured | Preset


def names() -> tuple[str, ...]:
    """All names."""
    return (*measured.names(), *PAPER)


def settings_of(name: str | None) -> Mapping[str, Any] | None:
    """The settings of the preset of this name; None if it is none of these. Raises as `stcore.measured.read`."""
    return _get(name).settings if name in names() else None


def find(name: str) -> Known:
    """The preset of this name. Raises UsageError, with similar names, if there is none."""
    if name not in names():
        raise _unknown(name)
    return _get(name)


def matching(prefix: str = "") -> list[Known]:
    """The preset of this name, or all under a prefix such as `fast`, `table1` or `table1/cifar10`.

    Raises UsageError if there is none.
    """
    below = prefix.rstrip("/") + "/" if prefix else ""
    found = [_get(name) for name in names() if name == prefix or name.startswith(below)]
    if not found:
        raise _unknown(prefix)
    return found


def _get(name: Any) -> Known:
    return PAPER[name] if name in PAPER else measured.read(name)


def _unknown(name: str) -> UsageError:
    hint = did_you_mean(name, names(), at_most=3)
    return UsageError(
        "preset: expected one that was run, such as fast/digits, or a row of the paper (stcli presets lists them)"
        f"; received {name!r}{hint}"
    )
