"""Parses options from words and files: defaults < preset < --config < flags."""

from __future__ import annotations

import contextlib
import dataclasses
import io
import os
import re
import typing
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import tyro

from stcore import errors
from stcore.base import checks
from stcore.base.files import read_toml
from stcore.cli.help import help_text, options_of
from stcore.errors import UsageError

Options = TypeVar("Options")

_STRANGERS = {
    "accumulate": "accumulation-steps grad-accum gradient-accumulation gradient-accumulation-steps",
    "attacks": "attack",
    "augment": "aug augmentation data-augmentation transform",
    "awp": "awp-gamma",
    "backend": "framework",
    "batch-size": "bs batch b mini-batch train-batch-size",
    "beta": "lambda lam trades-beta reg",
    "checkpoint": "ckpt",
    "compile": "jit torch-compile",
    "dataset": "data data-dir data-path data-root dataset-path root",
    "device": "gpu gpus gpu-id gpu-ids cuda",
    "drops": "milestones lr-milestones lr-steps decay-epochs",
    "ema": "ema-decay swa weight-averaging",
    "epochs": "epoch num-epochs n-epochs max-epochs nepochs",
    "epsilon": "eps radius perturbation-budget",
    "eval-batch-size": "test-batch-size val-batch-size",
    "gradient-checkpointing": "grad-checkpointing activation-checkpointing",
    "init-weights": "ckpt checkpoint finetune from-checkpoint load weights",
    "learning-rate": "lr base-lr initial-lr eta",
    "max-hours": "hours time-limit",
    "method": "algorithm algo loss",
    "model": "arch architecture backbone model-name net network",
    "norm": "lp ord p threat threat-model",
    "on-trouble": "early-stopping patience",
    "optimizer": "opt optim optimiser",
    "out": "dir exp-name log-dir logdir o output output-dir outdir save save-dir save-path",
    "precision": "amp bf16 fp16 half mixed-precision tf32",
    "resume": "continue restart",
    "save-every": "save-freq save-interval",
    "schedule": "lr-schedule lr-scheduler scheduler",
    "seed": "manual-seed random-seed",
    "select-by": "metric monitor",
    "step-size": "alpha eps-iter eps-step pgd-step-size stepsize",
    "steps": "attack-iters attack-steps iters k max-iter nb-iter num-iter num-steps pgd-steps",
    "subset": "limit n-ex num-examples num-samples",
    "sync-batch-norm": "sync-bn syncbn",
    "tensorboard": "log tb",
    "test-size": "limit num-examples num-samples",
    "threads": "nthreads num-threads",
    "weight-decay": "decay l2 wd",
}
OPTION_ALIASES: dict[str, tuple[str, ...]] = {}
for _name, _others in _STRANGERS.items():
    for _other in _others.split():
        OPTION_ALIASES[_other] = (*OPTION_ALIASES.get(_other, ()), _name)
"""What other tools call an option → our names for it; a command suggests the first that it has."""

INSTEAD = {
    "workers num-workers n-workers loader-workers j": "Batches are made in the training process, so there are no "
    "workers; --threads sets its CPU threads, --decode-workers those that decode a stream",
    "distributed ddp world-size local-rank": "torchrun starts one process per device; see --sync-batch-norm",
    "wandb mlflow trackio": "--track takes their names",
    "num-classes classes n-classes": "The --dataset determines the number of classes",
    _STRANGERS["steps"] + " steps step-size " + _STRANGERS["step-size"]: "The name in --attacks fixes an attack's "
    "steps, such as pgd20 or pgd100",
}
"""What other tools call an option that has no counterpart → what to do instead, if the command has its options."""


def whole(text: str) -> int:
    """A whole number."""
    try:
        return int(text)
    except ValueError:
        raise ValueError(f"expected a whole number; received {text!r}") from None


def _one_word(parse: Callable[[str], Any], metavar: str) -> Any:
    """The type of an option that takes one word and may have the default None."""
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
    """Also parses the word none, as `--help` shows a default of None."""
    return lambda text: None if text == "none" else parse(text)


Number = typing.Annotated[float, _one_word(checks.fraction, "NUMBER")]
MaybeNumber = typing.Annotated[float | None, _one_word(_or_none(checks.fraction), "NUMBER")]
Int = typing.Annotated[int, _one_word(whole, "INT")]
MaybeInt = typing.Annotated[int | None, _one_word(_or_none(whole), "INT")]
MaybeNumbers = typing.Annotated[
    tuple[float, ...] | None,
    _one_word(_or_none(lambda text: tuple(map(checks.fraction, text.split(",")))), "NUMBER,…"),
]
MaybeInts = typing.Annotated[
    tuple[int, ...] | None, _one_word(_or_none(lambda text: tuple(map(whole, text.split(",")))), "INT,…")
]
MaybeText = typing.Annotated[str | None, _one_word(_or_none(str), "TEXT")]


def parse(options: type[Options], args: Sequence[str], prog: str, default: Options | None = None) -> Options:
    """The options in `args`; `--help` prints and exits.

    Raises UsageError for an unknown option or a value of the wrong type.
    """
    if "--help" in args or "-h" in args:
        print(help_text(options, prog, default), end="")
        raise SystemExit(errors.OK)
    _check_names(args, options, prog)
    said = io.StringIO()
    try:
        with contextlib.redirect_stderr(said), _wide_terminal():
            names = (tyro.conf.PositionalMetavarFromFieldName,)
            parsed = tyro.cli(options, args=list(args), prog=prog, default=default, config=names)
            return typing.cast(Options, parsed)
    except SystemExit as end:
        if not end.code:
            raise
        raise UsageError(_plain(said.getvalue(), prog)) from None


def _check_names(args: Sequence[str], options: type[Any], prog: str) -> None:
    known = [flag for option in options_of(options) for flag in option.flags]
    for arg in args:
        flag = arg.partition("=")[0].replace("_", "-")
        if flag.startswith("--") and flag not in known:
            raise UsageError(f"Unrecognized options: {flag}{_hint(flag, known)} (see {prog} --help)")


def _hint(flag: str, known: Sequence[str]) -> str:
    """What to write instead of an unknown option."""
    name = flag.removeprefix("--")
    if not any(f"--{ours}" in known for ours in OPTION_ALIASES.get(name, ())):
        for strangers, instead in INSTEAD.items():
            if name in strangers.split() and all(one in known for one in re.findall(r"--[a-z-]+", instead)):
                return f". {instead}"
    names = [one.removeprefix("--") for one in known]
    return checks.did_you_mean(name, names, OPTION_ALIASES).replace("mean '", "mean '--")


@contextlib.contextmanager
def _wide_terminal() -> Iterator[None]:
    """The parser draws its errors as wide as the terminal says, and in one of few columns it never ends."""
    before = os.environ.get("COLUMNS")
    os.environ["COLUMNS"] = "1000"
    try:
        yield
    finally:
        if before is None:
            del os.environ["COLUMNS"]
        else:
            os.environ["COLUMNS"] = before


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
    found = None
    for at, arg in enumerate(args):  # the last one counts, as for the parser
        flag, equals, value = arg.partition("=")
        if flag.replace("_", "-") == "--" + name.replace("_", "-"):
            found = value if equals else args[at + 1] if at + 1 < len(args) else found
    return found


def from_file(options: type[Any], path: Path) -> dict[str, Any]:
    """The options in a TOML file, checked against their types. Raises UsageError that names the wrong key."""
    from pydantic import ConfigDict, Field, ValidationError, create_model

    types = typing.get_type_hints(options)
    content = {name: _typed(value, types.get(name)) for name, value in read_toml(path).items()}
    # Aliased, since a pydantic model has attributes of its own, such as json.
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
            hint = checks.did_you_mean(key, types)
            raise UsageError(f"{path}: {key}: no such setting; known are {', '.join(types)}{hint}") from None
        expected = first["msg"].replace("Input should be", "expected")
        raise UsageError(f"{path}: {key}: {expected}; received {first['input']!r}") from None
    return {name: getattr(valid, f"option_{name}") for name in content}


def _typed(value: Any, kind: Any) -> Any:
    """Converts what TOML has no type for: a list to a tuple, a text such as "8/255" to a number."""
    if isinstance(value, list):
        of = next(iter(typing.get_args(kind)), None)  # of tuple[float, ...]
        return tuple(_typed(one, of) for one in value)
    if isinstance(value, str) and kind in (float, float | None):
        with contextlib.suppress(ValueError):
            return checks.fraction(value)
    return value


def act(actions: Mapping[str, Callable[[Sequence[str]], int]], text: str, args: Sequence[str]) -> int:
    """Runs the action that the first word names, or prints the help text; returns the exit code."""
    if not args or args[0] in ("-h", "--help"):
        print(text, end="")
        return errors.OK if args else UsageError.exit_code
    if args[0] not in actions:
        hint = checks.did_you_mean(args[0], actions)
        raise UsageError(f"expected an action among {', '.join(actions)}; received {args[0]!r}{hint}")
    return actions[args[0]](args[1:])
