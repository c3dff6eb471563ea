"""The plan of `stcli train` from its arguments, and the names that the commands print for it."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

from stcore import errors
from stcore.cli.options import TrainOptions
from stcore.cli.own_settings import read_settings, with_settings
from stcore.cli.parsing import named_in, parse, peek
from stcore.runs.folder import CONFIG, RunFolder
from stcore.runs.plan import Plan, make_plan
from stcore.runs.plan_changes import over
from stcore.runs.states import MOVABLE
from stcore.runs.training_run import RunOptions
from stcore.trackers import make_tracker, tensorboard

KEEPING = ("resume", "save_every", "max_hours", "track", "tensorboard")  # do not change the numbers
FLAGS = ("seeds", "devices", "json", *KEEPING)  # not in a file: they concern one invocation
NOT_SETTINGS = ("config", "out", *FLAGS)

Options = TypeVar("Options", bound=TrainOptions)


def plan_from(args: Sequence[str]) -> tuple[Plan, str | None, TrainOptions]:
    """The plan, the output folder and all options, from the arguments and the file that --config names."""
    return asked(args, TrainOptions, "stcli train")


def asked(args: Sequence[str], kind: type[Options], prog: str) -> tuple[Plan, str | None, Options]:
    """`plan_from` for another command that takes these options."""
    config = peek(args, "config")
    file = read_settings(Path(config)) if config is not None else {}
    if given := [name for name in FLAGS if name in file]:
        raise errors.UsageError(f"{config}: {given[0]}: expected as a flag, not in a file. Leave it out there")
    early = {name: value for name in ("dataset", "method", "preset") if (value := peek(args, name)) is not None}
    method = early.get("method", file.get("method"))
    kind = with_settings(kind, method)
    try:
        shown = _defaults(kind, make_plan(_settings(over(file, early))))
    except errors.UsageError:  # flags may complete the file
        shown = _defaults(kind, make_plan(early))
    options = parse(kind, args, prog, default=shown)
    flags = {name: getattr(options, name) for name in named_in(args, with_settings(TrainOptions, method))}
    return make_plan(_settings(over(file, flags))), flags.get("out", file.get("out")), options


def resumed(args: Sequence[str]) -> tuple[Plan, Path, TrainOptions]:
    """The plan of a resumed run, its folder, and the options given."""
    folder = RunFolder.open(Path(peek(args, "resume") or ""))
    config = folder.path / CONFIG
    with folder.explaining():
        settings = _settings(read_settings(config))
        settings["dataset"] = folder.located(settings.get("dataset", "digits"))
        begun = make_plan(settings)
    kind = with_settings(TrainOptions, begun.method.name)
    options = parse(kind, args, "stcli train", default=_defaults(kind, begun))
    named = named_in(args, kind)
    if strange := named - {*KEEPING, *MOVABLE, "json"}:
        raise errors.UsageError(
            f"resume: expected no settings with it but {', '.join(MOVABLE)}, since the run has its own; "
            f"received {', '.join(sorted(strange))}. Start a new run by --config {config}"
        )
    moved = {name: getattr(options, name) for name in MOVABLE if name in named}
    return make_plan({**settings, **moved}), folder.path, options


def run_options_from(options: TrainOptions, warn: Callable[[str], None]) -> RunOptions:
    """The run's options that are not settings."""
    return RunOptions.of(
        options.resume is not None, options.save_every, options.max_hours, lambda text: warn(f"note: {text}")
    )


def trackers_of(options: TrainOptions, folder: Path | None = None) -> list[Any]:
    """The trackers that are asked for, and TensorBoard's if the run in `folder` began with it.

    Raises UsageError for an unknown one, or one that misses its package.
    """
    names = [name for name in (options.track or "").split(",") if name]
    if options.tensorboard or (folder is not None and (folder / tensorboard.FOLDER).is_dir()):
        names.append("tensorboard")
    return [make_tracker(name) for name in dict.fromkeys(names)]


def _settings(given: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in given.items() if name not in NOT_SETTINGS}


def _defaults(kind: type[Options], plan: Plan) -> Options:
    names = {field.name for field in dataclasses.fields(kind)}
    return kind(**{name: value for name, value in plan.flat().items() if name in names})
