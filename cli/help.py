"""The text of `stcli COMMAND --help`, from a dataclass of options: their names, types, docstrings and defaults."""

from __future__ import annotations

import ast
import dataclasses
import inspect
import itertools
import shutil
import textwrap
import typing
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import tyro

from stcore.base.registry import Registry

WIDEST, NARROWEST = 100, 24
"""Columns: a wider terminal has margins, and a narrower one breaks the lines itself."""
TEXT = "text"
"""The entry of a field's metadata that holds its text, if no docstring below it does."""
INDENT = 26
"""Column at which an option's text begins; below twice as many columns it begins on a line of its own."""


@dataclass(frozen=True)
class Option:
    """One option of a command.

    kind: bool, tuple, or another type.   metavar: what stands for its value.   default: None also for a required
    option.
    """

    name: str
    text: str
    kind: Any
    metavar: str
    default: Any
    required: bool
    positional: bool

    @property
    def flags(self) -> list[str]:
        """--name, and --no-name of a switch; empty for a positional argument."""
        word = self.name.replace("_", "-")
        return [] if self.positional else [f"--{word}", f"--no-{word}"] if self.kind is bool else [f"--{word}"]

    @property
    def invocation(self) -> str:
        """As it is written in a command: `--epsilon NUMBER`, `--fast, --no-fast`, `RUN`."""
        if self.positional:
            return self.metavar
        return ", ".join(self.flags) if self.kind is bool else f"{self.flags[0]} {self.metavar}"

    @property
    def shown_default(self) -> str:
        """(default: 0.1), or nothing if the text says it."""
        if self.required or (self.default is None and "default" in self.text):
            return ""
        return f"(default: {_shown(self.default)})"


def options_of(kind: type[Any], default: Any = None) -> list[Option]:
    """The options of a dataclass, in its order. default: an instance that holds the defaults to show."""
    hints, texts = typing.get_type_hints(kind, include_extras=True), texts_of(kind)  # type: ignore[arg-type]  # a class is hashable
    found = []
    for field in dataclasses.fields(kind):
        required = field.default is dataclasses.MISSING
        value = getattr(default, field.name) if default is not None else None if required else field.default
        types = list(_unwrapped(hints[field.name]))
        positional = any(tyro.conf.Positional in getattr(one, "__metadata__", ()) for one in types)
        text = field.metadata.get(TEXT) or texts.get(field.name, "")
        metavar = _metavar(field.name, types, positional)
        found.append(Option(field.name, text, _base(types), metavar, value, required, positional))
    return found


def help_text(kind: type[Any], prog: str, default: Any = None) -> str:
    """What `PROG --help` prints, as wide as the terminal.

    The class attribute GROUPS, if any, holds the sections: (title, names of options separated by spaces). Options
    in no group come first. REGISTRIES holds the registry of what an option names, whose plug-ins are listed.
    """
    width = min(max(shutil.get_terminal_size().columns, NARROWEST), WIDEST)
    options = {option.name: option for option in options_of(kind, default)}
    grouped = {title: [options[name] for name in names.split()] for title, names in getattr(kind, "GROUPS", ())}
    rest = [option for option in options.values() if not any(option in some for some in grouped.values())]
    arguments = [option for option in rest if option.positional]
    sections = {"arguments": arguments, "options": [one for one in rest if one not in arguments], **grouped}

    needed = [option.invocation for option in options.values() if option.required and not option.positional]
    usage = " ".join([f"usage: {prog}", *(option.metavar for option in arguments), *needed, "[options]"])
    lines = [*_filled(usage, width, "", "    "), ""]
    for paragraph in inspect.cleandoc(kind.__doc__ or "").split("\n\n"):
        lines += [*_filled(paragraph, width), ""]
    for title, members in sections.items():
        if members:
            lines += [*_filled(f"{title}:", width)]
            for option in members:
                added = _of_packages(getattr(kind, "REGISTRIES", {}).get(option.name))
                lines += _entry(option.invocation, f"{option.text} {added}{option.shown_default}", width)
            lines.append("")
    lines += _entry("-h, --help", "Show this help.", width)
    return "\n".join(lines) + "\n"


def _of_packages(registry: Registry[Any] | None) -> str:
    """What installed packages add to an option's names."""
    added = [] if registry is None else [name for name in registry.names() if name not in registry]
    return f"From installed packages: {', '.join(added)}. " if added else ""


def _entry(invocation: str, text: str, width: int) -> Iterator[str]:
    """An option's lines: its text beside it, or below it where it is long or the terminal narrow."""
    indent = INDENT if width >= 2 * INDENT else 4
    beside = len(invocation) + 4 <= indent
    first = f"  {invocation}".ljust(indent) if beside else " " * indent
    if not beside:
        yield from _filled(invocation, width, "  ", "    ")
    yield from _filled(text, width, first, " " * indent)


def _filled(text: str, width: int, first: str = "", rest: str = "") -> list[str]:
    return textwrap.wrap(
        text,
        width,
        initial_indent=first,
        subsequent_indent=rest,
        break_long_words=False,
        break_on_hyphens=False,
    )


def _unwrapped(hint: Any) -> Iterator[Any]:
    """A type, and what it annotates."""
    yield hint
    while hasattr(hint, "__metadata__"):
        hint = hint.__origin__
        yield hint


def _base(types: Sequence[Any]) -> Any:
    return typing.get_origin(types[-1]) or types[-1]


def _metavar(name: str, types: Sequence[Any], positional: bool) -> str:
    many = _base(types) is tuple
    for one in types:
        for spec in getattr(one, "__metadata__", ()):
            if isinstance(spec, tyro.constructors.PrimitiveConstructorSpec) and not positional:
                return spec.metavar
    if positional:
        return f"{name.removesuffix('s').upper()}…" if many else name.upper()
    if many:
        (item, *_) = typing.get_args(types[-1])
        return f"{_metavar(name, list(_unwrapped(item)), False)}…"
    return {"Path": "PATH", "str": "TEXT"}.get(getattr(types[-1], "__name__", ""), "VALUE")


@cache
def texts_of(kind: type[Any]) -> dict[str, str]:
    """The docstring below each field, of base classes too; none of a class without source."""
    found: dict[str, str] = {}
    for base in reversed(kind.__mro__):
        if not dataclasses.is_dataclass(base):
            continue
        try:
            source = inspect.getsource(base)
        except (OSError, TypeError):  # made while the program runs
            continue
        (body,) = (one for one in ast.parse(textwrap.dedent(source)).body if isinstance(one, ast.ClassDef))
        for field, text in itertools.pairwise(body.body):
            match field, text:
                case ast.AnnAssign(target=ast.Name(id=name)), ast.Expr(value=ast.Constant(value=str(words))):
                    found[name] = " ".join(words.split())
    return found


def _shown(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, tuple):
        return " ".join(map(_shown, value)) or "none"
    return "none" if value is None else str(value)
