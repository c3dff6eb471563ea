"""Registry of the parts that a user names: methods, attacks, divergences, data sets, networks, trackers.

A part has one of four names:

- a short name of stcore: `st`;
- a short name of an installed package, by an entry point of the registry's group, such as `stcore.methods`;
- an import path, `package.module:name`, of an installed package or of a file in the working directory;
- `given:NAME`, of an object that was handed over and that no import brings back: this process alone knows it.

A short name of stcore wins over one of a package. Nothing is imported before it is named.
"""

from __future__ import annotations

import importlib
import inspect
import os
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import cache
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from stcore.base.checks import did_you_mean
from stcore.errors import StcoreError, UsageError

if TYPE_CHECKING:  # `import stcore` is quicker without the reader of packages
    from importlib.metadata import EntryPoint

T = TypeVar("T")
GIVEN = "given"
"""What stands before the colon in the name of an object that was handed over."""
FORM = "package.module:name"
_DOTTED = r"[^\W\d]\w*(\.[^\W\d]\w*)*"


class Registry(Mapping[str, T], Generic[T]):
    """The parts of one kind. As a mapping it holds those of stcore alone; `names` and `find` know all.

    kind: the option that names a part.   group: of the entry points.   built_in: stcore's own, by name.
    accept: checks what a name leads to and returns it as a part; called with the object and its name, it raises
        UsageError.   form: of the names beside the short ones, for errors.
    """

    def __init__(
        self,
        kind: str,
        group: str,
        built_in: Mapping[str, T],
        accept: Callable[[Any, str], T],
        form: str = FORM,
    ) -> None:
        self.kind, self.group, self._built_in, self._accept, self.form = kind, group, built_in, accept, form
        self._found: dict[str, T] = {}
        self._given: dict[str, Any] = {}

    def __getitem__(self, name: str) -> T:
        return self._built_in[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._built_in)

    def __len__(self) -> int:
        return len(self._built_in)

    def names(self) -> tuple[str, ...]:
        """The short names: stcore's own, then those of installed packages."""
        return (*self, *(name for name in plug_ins(self.group) if name not in self))

    def is_plug_in(self, name: str) -> bool:
        """Whether this is the short name of an installed package's part."""
        return name not in self and name in plug_ins(self.group)

    def package(self, name: str) -> str:
        """The package that brings this short name, with its version."""
        return package_of(plug_ins(self.group)[name][0])

    def find(self, name: Any, option: str | None = None) -> T:
        """The part of this name; an object that is no name is the part itself.

        option: that named it, if another than the kind.
        Raises UsageError if there is none, or if its package cannot be imported.
        """
        if not isinstance(name, str):
            return self._accept(name, type(name).__name__)
        if name in self:
            return self[name]
        if name not in self._found:  # once: an import inside a traced function is not for AutoGraph
            self._found[name] = self._accept(self._object(name, option or self.kind), name)
        return self._found[name]

    def name_of(self, part: Any, name: str | None = None) -> str:
        """The name that brings this object back; `given:NAME` if none does in another process.

        name: the NAME, by default the object's own or its class's. A definition that is made again replaces the
            earlier one of its NAME; objects that differ are numbered.
        """
        if (own := next((name for name, one in self.items() if one is part), None)) is not None:
            return own
        if (path := import_path(part)) is not None:
            return path
        name = numbered = f"{GIVEN}:{name or getattr(part, '__name__', type(part).__name__)}"
        if "<" not in getattr(part, "__qualname__", "<"):
            self._given[name] = part
            self._found.pop(name, None)
        count = 1
        while self._given.setdefault(numbered, part) != part:
            count += 1
            numbered = f"{name}-{count}"
        return numbered

    def unknown(self, name: str, option: str | None = None) -> UsageError:
        """The error about a name that is none of these."""
        names = self.names()
        return UsageError(
            f"{option or self.kind}: expected one of {', '.join(names)}, or {self.form}; received {name!r}"
            + did_you_mean(name.partition(":")[0], names)
        )

    def _object(self, name: str, option: str) -> Any:
        if name.startswith(f"{GIVEN}:"):
            if name in self._given:
                return self._given[name]
            _, _, said = name.partition(":")
            raise UsageError(
                f"{option}: {said} was handed over as an object in another process, and no "
                f"name brings it back; hand it over again in Python, or put it into a module, as {FORM}"
            )
        if ":" in name:
            return imported(option, name, self.names(), self.form)
        points = plug_ins(self.group).get(name, ())
        if not points:
            raise self.unknown(name, option)
        if len(points) > 1:
            claims = " and ".join(f"{package_of(point)} ({point.value})" for point in points)
            raise UsageError(f"{option}: {claims} both call a part {name}. Name the one you mean as {FORM}")
        try:
            return points[0].load()
        except (Exception, SystemExit) as error:  # a module may raise anything
            raise UsageError(
                f"{option}: {name} of the package {package_of(points[0])} cannot be imported from "
                f"{points[0].value} ({type(error).__name__}: {error}). Mend the package, or remove it"
            ) from error


@cache
def plug_ins(group: str) -> Mapping[str, tuple[EntryPoint, ...]]:
    """The entry points of installed packages in a group by name, read once; nothing of theirs is imported."""
    from importlib.metadata import entry_points

    found: dict[str, tuple[EntryPoint, ...]] = {}
    for point in sorted(entry_points(group=group), key=lambda point: point.name):
        if re.fullmatch(r"[\w.-]+", point.name):  # others could not be written in a command
            found[point.name] = (*found.get(point.name, ()), point)
    return found


def package_of(point: EntryPoint) -> str:
    """The package of an entry point, with its version."""
    return f"{point.dist.name} {point.dist.version}" if point.dist is not None else "an unknown package"


def is_import_path(name: str) -> bool:
    """Whether the name has the form package.module:name."""
    return re.fullmatch(f"{_DOTTED}:{_DOTTED}", name) is not None and not name.startswith(f"{GIVEN}:")


def import_path(part: Any) -> str | None:
    """The name package.module:name that brings an object back; None if there is none."""
    module, name = getattr(part, "__module__", None), getattr(part, "__qualname__", None)
    if module is None or name is None or module == "__main__":
        return None
    item: Any = sys.modules.get(module)
    for piece in name.split("."):
        item = getattr(item, piece, None)
    return f"{module}:{name}" if item is part else None


def imported(kind: str, name: str, known: Iterable[str] = (), form: str = FORM) -> Any:
    """What package.module:name leads to; the module is installed or in the working directory.

    kind, known, form: of the error: what was named, the short names that it may have been, and what was expected.
    Raises UsageError if the module cannot be imported or lacks the name.
    """
    source, _, member = name.partition(":")
    if not is_import_path(name):
        raise UsageError(f"{kind}: expected {form}; received {name!r}{did_you_mean(source, known)}")
    if os.getcwd() not in sys.path and "" not in sys.path:  # a console script's sys.path lacks it
        sys.path.append(os.getcwd())
    try:
        item: Any = importlib.import_module(source)
    except (Exception, SystemExit) as error:  # a module may raise anything
        raise UsageError(
            f"{kind}: {source} cannot be imported ({type(error).__name__}: {error}). Expected {form}, its package "
            f"installed or its module in the working directory{did_you_mean(source, known)}"
        ) from error
    for part in member.split("."):
        if not hasattr(item, part):
            raise UsageError(f"{kind}: {source} has no {member}; expected {form}")
        item = getattr(item, part)
    return item


def call(kind: str, name: str, factory: Callable[..., Any], **arguments: Any) -> Any:
    """Calls a factory with those of the arguments that its signature accepts.

    Raises UsageError that names the factory if it raises anything.
    """
    known = tuple(arguments)
    try:
        parameters = inspect.signature(factory).parameters.values()
        if not any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters):
            accepted = {p.name for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)}
            arguments = {key: value for key, value in arguments.items() if key in accepted}
        return factory(**arguments)
    except StcoreError:
        raise
    except Exception as error:
        said = ", ".join(f"{key}={value!r}" for key, value in arguments.items())
        raise UsageError(
            f"{kind}: {name}({said}) raised {type(error).__name__}: {error}. It is called with "
            f"{' and '.join(known)}, as far as its signature accepts them"
        ) from error
