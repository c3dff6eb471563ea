"""Weights and plan of an evaluation, from the options of `stcli evaluate`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from stcore import models, zoo
from stcore.api.loading import hub_folder
from stcore.base import checks
from stcore.cli.options import BracketOptions, EvaluateOptions
from stcore.cli.own_settings import read_settings
from stcore.data.readers.sources import side_of
from stcore.errors import UsageError
from stcore.evaluation.unions import with_fast
from stcore.models.weights_files import is_torch, read_weights, recorded_shape
from stcore.runs.folder import CHECKPOINTS, CONFIG, RunFolder
from stcore.runs.plan import Plan, make_plan, usual_norm


def located(run: Path) -> Path:
    """The weights file of a folder in the hub's layout, or of hf://OWNER/NAME; anything else as it is."""
    folder = hub_folder(run)
    if folder is None:
        return run
    from stcore.export.hub import WEIGHTS

    return folder / WEIGHTS


def is_weights(run: Path) -> bool:
    """Whether the argument names one weights file, a path or zoo:NAME, instead of a run's folder."""
    return zoo.find(run) is not None or run.is_file()


def checkpoints(options: EvaluateOptions | BracketOptions) -> Mapping[str, Path]:
    """The weights files to evaluate, by name: the named file, or the run's checkpoints."""
    if is_weights(options.run):
        if options.weights is not None or options.checkpoint is not None:
            raise UsageError("weights, checkpoint: expected neither with a weights file; leave them out")
        path = zoo.weights_path(options.run)
        return {path.stem: path}
    folder = RunFolder.open(options.run)
    if options.weights is not None:
        return {Path(options.weights).name: Path(options.weights)}
    if options.checkpoint is not None:
        checks.choice("checkpoint", options.checkpoint, CHECKPOINTS)
    names = CHECKPOINTS if options.checkpoint is None else (options.checkpoint,)
    found = {name: folder.path / f"{name}.safetensors" for name in names}
    found = {name: path for name, path in found.items() if path.is_file()}
    if not found:
        raise UsageError(
            f"run: {folder.path} holds neither {' nor '.join(f'{name}.safetensors' for name in names[:2])}: "
            "it was stopped before its first epoch"
        )
    return found


def plan_from(options: EvaluateOptions | BracketOptions) -> Plan:
    """The plan of the run, or of the zoo's network, with the changes of the options; for a weights file the plan
    from its metadata."""
    attacks = options.attacks
    if options.fast:
        attacks = ",".join(map(with_fast, options.attacks.split(",")))
        if attacks == options.attacks:
            raise UsageError(f"fast: expected autoattack among the attacks; received {attacks}")
    changes: dict[str, Any] = {
        "backend": options.backend,
        "attacks": attacks,
        "eval_epsilon": options.epsilon,
        "eval_norm": options.norm,
        "eval_batch_size": options.batch_size,
        "dataset": options.dataset,
        "dtype": options.dtype,
        "seed": options.seed,
        "device": options.device,
        "threads": options.threads,
    }
    changes = {name: value for name, value in changes.items() if value is not None}
    card = zoo.find(options.run)
    if card is None and options.run.is_file():
        settings = of_weights(options)
    else:
        if options.model is not None:
            raise UsageError("model: expected none with a run, whose config names it; leave it out")
        if options.image_size is not None:
            raise UsageError("image_size: expected none with a run, whose config names it; leave it out")
        settings = of_run(options.run) if card is None else dict(card.config)
        if "threads" not in changes:
            settings.pop("threads", None)
        if options.subset is not None:  # counts from all test images, not from the run's
            settings.pop("test_size", None)
    checks.choice("backend", changes.get("backend", settings["backend"]), ("torch", "keras"))
    norm = settings.get("eval_norm") or usual_norm(settings)
    if options.norm not in (None, norm) and options.epsilon is None:
        raise UsageError(f"epsilon: expected one with norm = {options.norm}; the run's is for {norm}")
    return make_plan({**settings, **changes})


def of_run(run: Path) -> dict[str, Any]:
    """The settings of a run's config. Raises UsageError if it is damaged."""
    with RunFolder.open(run).explaining():
        settings = read_settings(run / CONFIG)
    if missing := {"backend", "model", "dataset"} - settings.keys():
        raise UsageError(f"run: {run / CONFIG} is damaged: it lacks {', '.join(sorted(missing))}")
    settings["dataset"] = RunFolder.open(run).located(settings["dataset"])
    return settings


def of_weights(options: EvaluateOptions | BracketOptions) -> dict[str, Any]:
    """The settings from a weights file's metadata. Raises UsageError if --dataset is missing."""
    _, about = read_weights(options.run)
    if options.dataset is None:
        raise UsageError("dataset: expected the data to evaluate a weights file on, such as cifar10:DIR")
    if is_torch(options.run) and options.model is not None:
        about = {"model": options.model, "backend": options.backend or "torch"}
    elif "model" not in about:
        raise UsageError(
            f"weights: {options.run} does not say which network it is of. Evaluate it as --weights of its run, "
            "import it by stcli import, or, if torch.save wrote it, give --model"
        )
    elif options.model != (about["model"] if models.is_factory(about["model"]) else None):
        raise UsageError(
            f"model: {options.run} is of {about['model']}; received {options.model or 'none'}. Give --model for a "
            "package.module:factory that you trust, as its code is run, and for no other network"
        )
    shape = recorded_shape(about)
    return {
        "backend": about.get("backend", "torch"),
        "dataset": options.dataset,
        "model": about["model"],
        "normalize": about.get("normalize", "none"),
        "image_size": options.image_size or side_of(options.dataset, shape and shape[0]),
        "method": "standard",
    }
