"""The rooms of the package: their order, read from docs/architecture.md, and the imports between them.

python docs/_ext/rooms.py      prints rooms, floors, sizes, arrows and circles
"""

from __future__ import annotations

import ast
import functools
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "architecture.md"
TOP_LEVEL = ("backends", "models", "cli")
"""Rooms that are folders of the repository, beside stcore/."""


class Import(NamedTuple):
    """One import within the package: file and line, the module that imports, the module that is imported."""

    place: str
    importer: str
    imported: str

    @property
    def rooms(self) -> tuple[str, str]:
        return room(self.importer), room(self.imported)


def floors() -> dict[str, int]:
    """Each room with its floor, from the table of the page."""
    rows = re.findall(r"^\| (\d+) \| `(\w+)` \|", PAGE.read_text(encoding="utf-8"), re.M)
    return {name: int(floor) for floor, name in rows}


def modules() -> dict[str, Path]:
    """Each module of the package by its name, such as `core.losses`; the face is the empty name."""
    found = {}
    for folder in ("stcore", *TOP_LEVEL):
        for path in (ROOT / folder).rglob("*.py"):
            parts = path.relative_to(ROOT / "stcore" if folder == "stcore" else ROOT).with_suffix("").parts
            found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def room(module: str) -> str:
    """The room of a module: the first part of its name."""
    return module.partition(".")[0]


@functools.cache
def imports() -> tuple[Import, ...]:
    """Every import of one module of the package by another, at any depth of the code."""
    return tuple(_imports())


def _imports() -> Iterator[Import]:
    known = modules()
    for importer, path in sorted(known.items()):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            for name in names(node):
                imported = name.removeprefix("stcore").removeprefix(".")
                while imported not in known:  # a name within a module
                    imported = imported.rpartition(".")[0]
                yield Import(f"{path.relative_to(ROOT)}:{node.lineno}", importer, imported)


def names(node: ast.AST) -> list[str]:
    """The dotted names of the package that an import statement asks for."""
    if isinstance(node, ast.Import):
        asked = [alias.name for alias in node.names]
    elif isinstance(node, ast.ImportFrom) and not node.level:
        asked = [f"{node.module}.{alias.name}" for alias in node.names]
    else:
        return []
    return [name for name in asked if room(name) == "stcore"]


def circles() -> list[list[str]]:
    """Groups of modules that import each other, directly or through others (Tarjan, 1972).

    A package's `__init__` counts with what it imports, but importing a module does not count as importing the
    `__init__` above it.
    """
    arrows: dict[str, set[str]] = {}
    for one in imports():
        arrows.setdefault(one.importer, set()).add(one.imported)
    index: dict[str, int] = {}
    low: dict[str, int] = {}
    stack: list[str] = []
    found: list[list[str]] = []

    def visit(module: str) -> None:
        index[module] = low[module] = len(index)
        stack.append(module)
        for other in sorted(arrows.get(module, ())):
            if other not in index:
                visit(other)
                low[module] = min(low[module], low[other])
            elif other in stack:
                low[module] = min(low[module], index[other])
        if low[module] == index[module]:
            group = []
            while True:
                group.append(stack.pop())
                if group[-1] == module:
                    break
            if len(group) > 1:
                found.append(sorted(group))

    for module in sorted(arrows):
        if module not in index:
            visit(module)
    return found


def main() -> None:
    floor_of, known = floors(), modules()
    arrows = {one.rooms for one in imports() if one.rooms[0] and one.rooms[0] != one.rooms[1]}
    for floor in sorted(set(floor_of.values()), reverse=True):
        for name in sorted(name for name, its in floor_of.items() if its == floor):
            paths = [path for module, path in known.items() if room(module) == name]
            lines = sum(path.read_text(encoding="utf-8").count("\n") for path in paths)
            below = sorted((to for of, to in arrows if of == name), key=lambda to: -floor_of.get(to, 0))
            print(f"{floor:3} {name:11} {len(paths):3} files {lines:6} lines  → {', '.join(below)}")
    upward = [one for one in imports() if one.rooms in arrows and floor_of[one.rooms[0]] <= floor_of[one.rooms[1]]]
    root = list((ROOT / "stcore").glob("*.py"))
    print(
        f"{len(floor_of)} rooms on {len(set(floor_of.values()))} floors, {len(arrows)} arrows, {len(upward)} "
        f"upward, {len(circles())} circles; {len(root)} modules at the root of stcore/"
    )


if __name__ == "__main__":
    main()
