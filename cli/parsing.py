"""From words and files to settings: defaults < preset < --config < flags."""

from __future__ import annotations

import contextlib
import dataclasses
import io
import typing
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import tyro

from stcore.base.files import read_toml
from stcore.errors import UsageError

Options = TypeVar("Options")


def number(text: str) -> float:
    """A number such as 0.03 or a fraction such as 8/255."""
    above, slash, below = text.partition("/")
    try:
        return float(above) / float(below) if slash else float(above)
    except (ValueError, ZeroDivisionError):
        raise ValueError(
            f"expected a number such as 0.03 or a fraction such as 8/255; received {text!r}"
        ) from None


def whole(text: str) -> int:
    """A whole number."""
    try:
        return int(text)
    except ValueError:
        raise ValueError(f"expected a whole number; received {text!r}") from None


def _one_word(parse: Callable[[str], Any], metavar: str) -> Any:
    """An option that takes one word, and whose default may be None."""
    return tyro.constructors.PrimitiveConstructorSpec(
        nargs=1,
        metavar=metavar,
        instance_from_str=lambda words: parse(words[0]),
        is_instance=lambda value: True,
        str_from_instance=lambda value: [
            "none" if value is None else f"{value:.6g}" if metavar == "NUMBER" else str(value)
        ],
    )


def _or_none(parse: Callable[[str], Any]) -> Callable[[str], Any]:
    """As `--help` shows a default of None: the word none."""
    return lambda text: None if text == "none" else parse(text)


Number = typing.Annotated[float, _one_word(number, "NUMBER")]
MaybeNumber = typing.Annotated[float | None, _one_word(_or_none(number), "NUMBER")]
Int = typing.Annotated[int, _one_word(whole, "INT")]
MaybeInt = typing.Annotated[int | None, _one_word(_or_none(whole), "INT")]
MaybeNumbers = typing.Annotated[
    tuple[float, ...] | None, _one_word(_or_none(lambda text: tuple(map(number, text.split(",")))), "NUMBER,…")
]
MaybeInts = typing.Annotated[
    tuple[int, ...] | None, _one_word(_or_none(lambda text: tuple(map(whole, text.split(",")))), "INT,…")
]
MaybeText = typing.Annotated[str | None, _one_word(_or_none(str), "STR")]


def parse(options: type[Options], args: Sequence[str], prog: str, default: Options | None = None) -> Options:
    """The options in `args`; wrong ones end in UsageError, `--help` prints and exits."""
    said = io.StringIO()
    try:
        with contextlib.redirect_stderr(said):
            parsed: Options = tyro.cli(options, args=list(args), prog=prog, default=default)  # type: ignore[assignment]
            return parsed
    except SystemExit as end:
        if not end.code:
            raise
        raise UsageError(_plain(said.getvalue(), prog)) from None


def _plain(box: str, prog: str) -> str:
    """The sentence inside the frame that the parser draws around an error."""
    frame = " │╭╮╰╯─┌┐└┘\t"
    lines = [line.strip(frame) for line in box.splitlines()]
    titles = ("Value error", "Parsing error", "Missing argument", "Unrecognized options", "Required options")
    kept: list[str] = []
    for line in lines:
        if line.startswith(("Argument helptext", "For full helptext")):
            break
        if line and line not in titles:
            kept.append(line)
    return " ".join([*kept, f"(see {prog} --help)"])


def named_in(args: Sequence[str], options: type[Any]) -> set[str]:
    """The names of the options that were given as flags."""
    flags = {arg.partition("=")[0].removeprefix("--").replace("-", "_") for arg in args if arg.startswith("--")}
    names = {field.name for field in dataclasses.fields(options)}
    return {name for name in names if name in flags or f"no_{name}" in flags}


def peek(args: Sequence[str], name: str) -> str | None:
    """The value of one flag, read before the others are parsed: presets and files decide their defaults."""
    flag = "--" + name.replace("_", "-")
    found = None
    for at, arg in enumerate(args):  # as the parser has it, the last one counts
        if arg == flag and at + 1 < len(args):
            found = args[at + 1]
        elif arg.startswith(flag + "="):
            found = arg.partition("=")[2]
    return found


def from_file(options: type[Any], path: Path) -> dict[str, Any]:
    """The options in a TOML file, checked against their types; UsageError names the key that is wrong."""
    from pydantic import ConfigDict, Field, ValidationError, create_model

    types = typing.get_type_hints(options)
    content = {name: _typed(value, types.get(name)) for name, value in read_toml(path).items()}
    # By another name than the option's: a model has attributes of its own, such as json.
    fields: dict[str, Any] = {
        f"option_{name}": (kind | None, Field(None, alias=name)) for name, kind in types.items()
    }
    file_options = create_model("FileOptions", __config__=ConfigDict(extra="forbid", strict=True), **fields)
    try:
        valid = file_options.model_validate(content)
    except ValidationError as error:
        first = error.errors()[0]
        key = str(first["loc"][0])
        if key not in types:
            raise UsageError(f"{path}: {key}: no such setting; known are {', '.join(types)}") from None
        expected = first["msg"].replace("Input should be", "expected")
        raise UsageError(f"{path}: {key}: {expected}; received {first['input']!r}") from None
    return {name: getattr(valid, f"option_{name}") for name in content}


def _typed(value: Any, kind: Any) -> Any:
    """What TOML has no type for: a list becomes a tuple, a text such as "8/255" a number."""
    if isinstance(value, list):
        of = next(iter(typing.get_args(kind)), None)  # of tuple[float, ...]
        return tuple(_typed(one, of) for one in value)
    if isinstance(value, str) and kind in (float, float | None):
        with contextlib.suppress(ValueError):
            return number(value)
    return value
