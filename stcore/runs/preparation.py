"""What a run needs before its first step: backend, data, batches, a learner, and what the numbers depend on."""

from __future__ import annotations

import os
import platform
import time
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from stcore import data, models
from stcore.attacks import Attack
from stcore.base.progress import Progress
from stcore.base.ranks import Alone, Ranks
from stcore.base.version import __version__
from stcore.base.weights_file import load_weights
from stcore.core.dispatch import load_backend
from stcore.core.validation import check_model
from stcore.data import Batches, ImageData, MixedBatches, Splits
from stcore.data.batches import Epochs
from stcore.data.streams.batches import StreamBatches
from stcore.data.streams.dataset import StreamData
from stcore.errors import DataError, UsageError
from stcore.evaluation.attack_names import attacks_by_name, split_cascades
from stcore.evaluation.evaluator import Evaluator
from stcore.protocols import Learner
from stcore.runs.folder import ENVIRONMENT, RunFolder
from stcore.runs.plan import Plan
from stcore.training.diagnosis import Diagnosis
from stcore.training.recovery import FailurePolicy
from stcore.training.schedules import BY_STEP, make_schedule
from stcore.training.state import TrainingStore
from stcore.training.trainer import Average, Schedules, Trainer


def check_norm(plan: Plan) -> None:
    """UsageError where no epoch could be judged."""
    if plan.norm == "l1":
        raise UsageError(
            "eval_norm: expected linf or l2 in training, whose epochs are judged by PGD; received l1. Evaluate in "
            "l1 by stcli evaluate"
        )


def prepare(plan: Plan) -> tuple[Any, str]:
    """The backend's package and the device's name, chosen before the framework makes its first tensor."""
    models.check_name(plan.model, plan.backend)
    backend = load_backend(plan.backend)
    if plan.threads is not None:
        backend.use_threads(plan.threads)
    if plan.deterministic:
        backend.use_determinism()
    device = backend.use_device(plan.device)
    if plan.replicas is not None:
        backend.use_replicas(plan.replicas)
    return backend, device


def load_data(plan: Plan) -> Splits:
    """The plan's data set; with `select = test` nothing is held out of the training set, as in the paper."""
    return data.load(
        plan.dataset,
        validation="test" if plan.select == "test" else None,
        columns=plan.columns,
        image_size=plan.image_size,
        train_size=plan.train_size,
        validation_size=plan.validation_size,
        test_size=plan.test_size,
    )


def selection_of(plan: Plan, splits: Splits) -> ImageData:
    """The part that the best epoch is chosen on; DataError where there is none."""
    selection = splits.validation if plan.select == "val" else splits.test
    if selection is None:
        raise DataError(
            f"{plan.dataset}: expected validation shards, on which the best epoch is chosen; received none. Add "
            "validation-*.tar, or choose on the test set by --select test"
        )
    return selection


def batches_of(plan: Plan, train: ImageData | StreamData, extra: ImageData | None) -> Epochs:
    """The training set's batches, with the extra data mixed in where there is some."""
    if isinstance(train, StreamData):
        if extra is not None:
            raise UsageError("extra_data: expected none beside a stream; received some. Put it into the shards")
        return StreamBatches(train, plan.batch_size, plan.seed, plan.augment)  # type: ignore[arg-type]
    if extra is None or plan.extra_fraction is None:
        return Batches(train, plan.batch_size, plan.seed, plan.augment)  # type: ignore[arg-type]
    return MixedBatches(
        train,
        extra,
        plan.extra_fraction,
        plan.batch_size,
        plan.seed,
        plan.augment,  # type: ignore[arg-type]
    )


def build_model(plan: Plan, device: str, splits: Splits, *, pretrained: bool = False) -> Any:
    """The plan's network with its initial weights, or with the published ones."""
    height, width, channels = splits.train.image_shape
    return models.build(
        plan.model,
        plan.backend,  # type: ignore[arg-type]
        num_classes=splits.train.num_classes,
        in_channels=channels,
        image_size=(height, width),
        seed=plan.seed,
        dtype=plan.dtype,
        device=device if plan.backend == "torch" else None,
        normalize=plan.normalize,
        pretrained=pretrained,
    )


def build_learner(
    plan: Plan,
    backend: Any,
    device: str,
    splits: Splits,
    warn: Callable[[str], None] = warnings.warn,
    *,
    resumed: bool = False,
) -> Learner:
    """The network with its optimizer, from its initial weights or those the plan names.

    warn: told what of these is not taken.   resumed: the weights that the plan names are not read, which may be
    gone by now, since a run's state takes their place.
    """
    model = build_model(plan, device, splits, pretrained=plan.pretrained and not resumed)
    if plan.sync_batch_norm:
        model = backend.synchronised(model, device)
    optimizer = backend.make_sgd(model, plan.learning_rate, plan.momentum, plan.weight_decay, plan.nesterov)
    learner: Learner = backend.prepare_training(
        backend.make_learner(model, optimizer),
        plan.compile,
        plan.precision,
        plan.search_precision,
        plan.gradient_checkpointing,
    )
    if plan.init_weights is not None and not resumed:
        weights, metadata = load_weights(Path(plan.init_weights))
        models.check_weights(metadata, plan.backend, plan.normalize)
        if plan.new_head:
            weights, head = models.with_new_head(weights, learner.weights(), splits.train.num_classes)
            warn(f"new head: {', '.join(head)} start afresh")
        learner.load_weights(weights)
    check_model(learner, learner.images(splits.test.images[:2]), splits.train.num_classes)
    return learner


def environment(backend: Any, device: str, splits: Splits, extra: ImageData | None = None) -> dict[str, Any]:
    """What the numbers depend on beside the settings."""
    sets = {"train": splits.train, "validation": splits.validation, "test": splits.test}
    if extra is not None:
        sets["extra"] = extra
    return {
        "stcore": __version__,
        "python": platform.python_version(),
        "numpy": np.__version__,
        **backend.versions(),
        "platform": platform.platform(),
        "cpus": os.cpu_count(),
        "device": device,
        "data": {
            part: {"images": len(split), "sha256": split.fingerprint()} for part, split in sets.items() if split
        },
        "written": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
    }


def dependencies(plan: Plan, backend: Any, device: str) -> dict[str, Any]:
    """What bit-equality depends on beside settings and data; a resumed run says what has become otherwise."""
    return {
        "device": device,
        "threads": backend.threads(),
        "deterministic": plan.deterministic,
        **backend.versions(),
    }


def check_data(folder: RunFolder, now: Mapping[str, Any]) -> None:
    """DataError unless the data are those that the run was begun with."""
    recorded = folder.read_json(ENVIRONMENT)
    if recorded is None:  # killed before it was written, so before anything was trained
        return
    then = recorded.get("data", {})
    for part, known in now["data"].items():
        if then.get(part) != known:
            raise DataError(
                f"resume: expected the {part} data that the run was begun with, {then.get(part)}; "
                f"received {known}. Name their place by --dataset"
            )


def make_trainer(
    plan: Plan,
    learner: Learner,
    average: Average | None,
    batches: Epochs,
    selection: ImageData,
    store: TrainingStore,
    progress: Progress,
    until: float | None = None,
    ranks: Ranks = Alone(),
) -> Trainer:
    """The plan's training of this learner, at its start; until: the end of its time by `time.monotonic`."""
    return Trainer(
        learner=learner,
        objective=plan.objective,
        perturbation=plan.perturbation,
        average=average,
        batches=batches,
        selection=selection,
        evaluator=Evaluator(learner, monitors(plan), plan.seed),
        select_by=plan.select_by,
        schedules=schedules_of(plan),
        seed=plan.seed,
        store=store,
        progress=progress,
        eval_batch_size=plan.eval_batch_size,
        until=until,
        accumulate=plan.accumulate,
        ranks=ranks,
    )


def schedules_of(plan: Plan) -> Schedules:
    """The plan's learning rates."""
    schedule = make_schedule(plan.schedule, plan.drops)
    return Schedules(plan.epochs, plan.learning_rate, schedule, plan.schedule in BY_STEP)


def average_of(plan: Plan, learner: Learner) -> Average | None:
    """The averaged weights that the plan asks for, which start as the learner's are."""
    if plan.ema is None:
        return None
    return Average(Evaluator(learner.copy(), monitors(plan), plan.seed), plan.ema)


def monitors(plan: Plan) -> dict[str, Attack]:
    """The attacks after each epoch, by name."""
    watched = [name for name in ("pgd20", plan.select_by) if name != "natural"]
    return split_cascades(attacks_by_name(watched, plan.eval_epsilon, plan.norm))[0]


def failure_policy_of(plan: Plan, selection: ImageData, warn: Callable[[str], None]) -> FailurePolicy:
    """What the plan does about trouble, which is looked for in the figures of this selection."""
    chance = float(selection.class_counts().max()) / len(selection)
    diagnosis = Diagnosis(len(selection), selection.num_classes, chance, plan.trains_for_its_attacks)
    return FailurePolicy(diagnosis, plan.on_trouble, warn)
