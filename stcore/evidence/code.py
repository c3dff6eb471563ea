"""Digest of the source code of stcore, which an evidence file records beside those of weights and data."""

from __future__ import annotations

import hashlib
from functools import cache
from importlib.util import find_spec
from pathlib import Path

from stcore.base.version import __version__

_ROOMS = ("backends", "models", "cli")
"""Packages of stcore that in the repository are folders beside it."""


@cache
def code() -> dict[str, str]:
    """The version, and the SHA-256 of all source files by name: the same from a wheel and from the repository."""
    files = dict(_files(Path(__file__).parents[1], "stcore"))
    for room in _ROOMS:
        spec = find_spec(f"stcore.{room}")
        for folder in (spec and spec.submodule_search_locations) or ():
            files |= _files(Path(folder), f"stcore/{room}")
    digest = hashlib.sha256()
    for name in sorted(files):
        digest.update(f"{name} {hashlib.sha256(files[name].read_bytes()).hexdigest()}\n".encode())
    return {"stcore": __version__, "sha256": digest.hexdigest()}


def _files(folder: Path, name: str) -> dict[str, Path]:
    return {f"{name}/{path.relative_to(folder).as_posix()}": path for path in folder.rglob("*.py")}
