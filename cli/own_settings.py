"""Options of a command for the settings of a plug-in's method, which are not known before it is named."""

from __future__ import annotations

import dataclasses
import typing
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

from stcore import methods
from stcore.base.files import read_toml
from stcore.cli.help import TEXT, texts_of
from stcore.cli.options import TrainOptions
from stcore.cli.parsing import Int, MaybeInt, MaybeNumber, MaybeText, Number, from_file
from stcore.errors import UsageError
from stcore.runs.plan import of_methods

Options = TypeVar("Options")

_TYPES: dict[Any, Any] = {
    bool: bool,
    int: Int,
    float: Number,
    str: str,
    int | None: MaybeInt,
    float | None: MaybeNumber,
    str | None: MaybeText,
    tuple[int, ...]: tuple[Int, ...],
    tuple[float, ...]: tuple[Number, ...],
    tuple[str, ...]: tuple[str, ...],
}
"""Type of a setting → type of its option."""


def with_settings(kind: type[Options], *names: str | None) -> type[Options]:
    """The options with those settings of these methods that stcore's own methods lack, in a section for each.

    A setting's text is the docstring below its field. Methods of stcore and None add nothing.
    Raises UsageError for an unknown method, a setting of a type that no option has, or one with the name of an
    option of another meaning.
    """
    for name in names:
        if name is not None and name not in methods.METHODS:
            kind = _extended(kind, name)  # type: ignore[arg-type]  # a class is hashable
    return kind


@cache
def _extended(kind: type[Any], name: str) -> type[Any]:
    config, defaults = methods.METHODS.find(name)
    hints, texts = typing.get_type_hints(config), texts_of(config)  # type: ignore[arg-type]  # a class is hashable
    known, shared = {field.name: field for field in dataclasses.fields(kind)}, of_methods()
    new: list[tuple[str, Any, Any]] = []
    for field in dataclasses.fields(config):
        if field.name in shared or (field.name in known and TEXT in known[field.name].metadata):
            continue
        if field.name in known:
            raise UsageError(
                f"method: expected {name} to have settings of its own; its {field.name} has the name of an option "
                "of another meaning. Rename it in the method"
            )
        option = _TYPES.get(hints[field.name])
        if option is None:
            raise UsageError(
                f"method: expected each setting of {name} to be a bool, int, float or str, one of the last three "
                f"or None, or a tuple of one kind; {field.name} is {hints[field.name]}"
            )
        text = texts.get(field.name, f"A setting of {name}.")
        value = defaults.get(field.name, field.default)
        new.append((field.name, option, dataclasses.field(default=value, metadata={TEXT: text})))
    groups = getattr(kind, "GROUPS", ())
    if new:
        groups = (*groups, (f"only of {name}", " ".join(field for field, *_ in new)))
    namespace = {"__doc__": kind.__doc__, "GROUPS": groups}
    return dataclasses.make_dataclass(kind.__name__, new, bases=(kind,), namespace=namespace, frozen=True)


def read_settings(path: Path) -> dict[str, Any]:
    """The settings in a run's config.toml, or in a file like it. Raises UsageError that names the wrong key."""
    method = read_toml(path).get("method")
    return from_file(with_settings(TrainOptions, method if isinstance(method, str) else None), path)
