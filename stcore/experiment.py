"""From a plan to a trained, selected and evaluated network in its run folder."""

from __future__ import annotations

import os
import platform
import time
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

import stcore
from stcore import data, models
from stcore.attack_names import apart, named
from stcore.attacks import Attack
from stcore.data import Batches, ImageData, MixedBatches, Splits
from stcore.data.batches import Epochs
from stcore.data.resident import resident
from stcore.data.stream_batches import StreamBatches
from stcore.data.stream_data import StreamData
from stcore.dispatch import load_backend
from stcore.errors import DataError, DeviceError, UsageError
from stcore.evaluation import Accuracy, Evaluator
from stcore.evaluation_report import as_json
from stcore.files import sweep
from stcore.final_evaluation import final_evaluation
from stcore.inspection import check_model
from stcore.plan import Plan
from stcore.progress import Progress, Silent
from stcore.protocols import Learner
from stcore.ranks import Alone, Ranks
from stcore.remedies import Remedies
from stcore.run_states import RunStates
from stcore.runs import ENVIRONMENT, RESULT, RunFolder, load_weights
from stcore.schedules import make_schedule
from stcore.training import Average, Schedules, State, Store, Trainer
from stcore.watchers import Watch

FORMAT = "stcore-weights-1"


@dataclass(frozen=True)
class Outcome:
    """How a run ended: accuracies on the test split by checkpoint and attack, and the checkpoints' epochs.

    Checkpoints are `best` and `last`, with averaged weights also `best-ema` and `last-ema`.
    """

    folder: Path
    scores: dict[str, dict[str, Accuracy]]
    checkpoints: dict[str, int]
    epochs: int
    interrupted: bool


@dataclass(frozen=True)
class Keeping:
    """What is asked of a run beside its settings: none of it changes its numbers.

    resume: go on from the state that the folder holds.   save_every: seconds between two states within an epoch.
    seconds: the time there is, after which the run stops as by Ctrl-C.   warn: told what is otherwise than it was.
    """

    resume: bool = False
    save_every: float = 300.0
    seconds: float | None = None
    warn: Callable[[str], None] = lambda text: None


@dataclass
class RunStore:
    """Writes the weights, the averaged ones too, the metrics and the states into the run folder."""

    folder: RunFolder
    states: RunStates
    learner: Learner
    average: Average | None
    about: Mapping[str, Any]
    on_row: Callable[[Mapping[str, Any]], None]

    def save(self, name: str, epoch: str) -> None:
        averaged = self.average is not None and name.endswith("-ema")
        model = self.average.evaluator.classifier if self.average and averaged else self.learner
        self.folder.write_weights(f"{name}.safetensors", model.weights(), {**self.about, "epoch": epoch})

    def log(self, row: Mapping[str, Any]) -> None:
        self.folder.append_metrics(row)
        self.on_row(row)

    def due(self) -> bool:
        return self.states.due()

    def keep(self, state: State) -> None:
        self.states.keep(state)

    def keep_good(self, state: State) -> None:
        self.states.keep_good(state)

    def rewind(self, state: State) -> None:
        self.folder.write_metrics(state.place["history"])
        self.states.keep(state)


class Unwritten:
    """What ranks other than the first keep: nothing."""

    def save(self, name: str, epoch: str) -> None:
        """Rank 0 has the same weights."""

    def log(self, row: Mapping[str, Any]) -> None:
        """And the same figures."""

    def due(self) -> bool:
        return False

    def keep(self, state: State) -> None:
        """It has what this rank draws from, too."""

    def keep_good(self, state: State) -> None:
        """Nor this."""

    def rewind(self, state: State) -> None:
        """And nothing is forgotten."""


def run(
    plan: Plan,
    out: Path,
    progress: Progress,
    on_row: Callable[[Mapping[str, Any]], None] = lambda row: None,
    on_begin: Callable[[], None] = lambda: None,
    keeping: Keeping = Keeping(),
) -> Outcome:
    """Trains by `run_on` as one process, or as one of the ranks that a launcher started, of which the first writes
    and speaks. DeviceError where another rank is lost."""
    check_norm(plan)
    first = os.environ.get("RANK", "0") == "0"
    if not keeping.resume and first:
        RunFolder.check_free(out)
    backend, device = prepare(plan)
    ranks: Ranks = backend.join_ranks(device)
    if ranks.rank:
        progress, on_row, on_begin = Silent(), lambda row: None, lambda: None
        keeping = replace(keeping, warn=lambda text: None)
    try:
        outcome = run_on(plan, ranks.gather(out)[0], progress, on_row, on_begin, keeping, backend, device, ranks)
    except Exception as error:
        if not ranks.lost(error):
            raise
        raise DeviceError(
            "ranks: another one is gone; the launcher says how it ended. Go on from the last state by stcli train "
            f"--resume {out}"
        ) from error
    ranks.leave()
    return outcome


def run_on(
    plan: Plan,
    out: Path,
    progress: Progress,
    on_row: Callable[[Mapping[str, Any]], None],
    on_begin: Callable[[], None],
    keeping: Keeping,
    backend: Any,
    device: str,
    ranks: Ranks,
) -> Outcome:
    """Trains, selects, and evaluates the best and the last checkpoint on the test split; all lands in `out`.

    A run that was stopped, by whatever, goes on with `keeping.resume`: the weights, metrics and choices are then
    those of a run without a break.
    on_begin: called when all that was asked for has been found to be there.   on_row: with each epoch's metrics.
    """
    started = datetime.now(UTC)
    until = None if keeping.seconds is None else time.monotonic() + keeping.seconds
    splits = load_data(plan)
    selection = selection_of(plan, splits)
    extra = None if plan.extra_data is None else data.load_extra(plan.extra_data)
    batches = batches_of(plan, splits.train, extra)
    states = RunStates(out, keeping.save_every, dependencies(plan, backend, device) | {"ranks": ranks.count})
    state = states.latest(keeping.warn) if keeping.resume else None
    learner = build_learner(plan, backend, device, splits, keeping.warn, resumed=state is not None)
    learner = ranks.join(learner)
    batches = resident(batches, plan.resident, backend.free_memory(device), learner.resident)
    if not keeping.resume and not ranks.rank:
        RunFolder.create(out)
    ranks.gather(None)  # it is there
    folder = RunFolder(out)
    surroundings = environment(backend, device, splits, extra)
    if keeping.resume:
        check_data(folder, surroundings)
    on_begin()
    if not keeping.resume and not ranks.rank:
        folder.write_config(plan.flat())
        folder.write_json(ENVIRONMENT, surroundings)

    average = average_of(plan, learner)
    keeper: Store = Unwritten()
    if not ranks.rank:
        keeper = RunStore(folder, states, learner, average, about(plan, splits), on_row)
    trainer = make_trainer(plan, learner, average, batches, selection, keeper, progress, until, ranks)
    trainer.remedies = remedies_of(plan, selection, keeping.warn)
    if state is not None:
        trainer.recall(state)
        trainer.remedies.good = states.good(keeping.warn)
    if keeping.resume and not ranks.rank:
        sweep(out)
        folder.write_metrics(trainer.history)  # without the lines of epochs that are made again
    trainer.run()
    finished = len(trainer.history)
    checkpoints = {"best": trainer.best[1], "last": finished}
    if average is not None:
        checkpoints |= {"best-ema": average.best[1], "last-ema": finished}
    if trainer.interrupted:
        return Outcome(out, {}, checkpoints, finished, interrupted=True)

    scores = final_evaluation(plan, learner, splits.test, out, checkpoints, progress, until, ranks)
    if scores is None:
        return Outcome(out, {}, checkpoints, finished, interrupted=True)
    if ranks.rank:
        return Outcome(out, scores, checkpoints, finished, interrupted=False)
    folder.write_json(
        RESULT,
        {
            "split": "test",
            "images": len(splits.test),
            "epsilon": plan.eval_epsilon,
            "selected_on": f"{plan.select_by}@{plan.select}",
            "best_epoch": trainer.best[1],
            "epochs": finished,
            "checkpoint_epochs": checkpoints,
            "checkpoints": {name: as_json(accuracies) for name, accuracies in scores.items()},
            **trainer.remedies.told(trainer.history),
            "started": started.isoformat(timespec="seconds"),
            "seconds": round((datetime.now(UTC) - started).total_seconds(), 1),
        },
    )
    states.clear()
    return Outcome(out, scores, checkpoints, finished, interrupted=False)


def check_norm(plan: Plan) -> None:
    """UsageError where no epoch could be judged."""
    if plan.norm == "l1":
        raise UsageError(
            "eval_norm: expected linf or l2 in training, whose epochs are judged by PGD; received l1. Evaluate in "
            "l1 by stcli evaluate"
        )


def average_of(plan: Plan, learner: Learner) -> Average | None:
    """The averaged weights that the plan asks for, which start as the learner's are."""
    if plan.ema is None:
        return None
    return Average(Evaluator(learner.twin(), monitors(plan), plan.seed), plan.ema)


def monitors(plan: Plan) -> dict[str, Attack]:
    """The attacks after each epoch, by name."""
    watched = [name for name in ("pgd20", plan.select_by) if name != "natural"]
    return apart(named(watched, plan.eval_epsilon, plan.norm))[0]


def make_trainer(
    plan: Plan,
    learner: Learner,
    average: Average | None,
    batches: Epochs,
    selection: ImageData,
    store: Store,
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
        schedules=Schedules(plan.epochs, plan.learning_rate, make_schedule(plan.schedule, plan.drops)),
        seed=plan.seed,
        store=store,
        progress=progress,
        eval_batch_size=plan.eval_batch_size,
        until=until,
        accumulate=plan.accumulate,
        ranks=ranks,
    )


def remedies_of(plan: Plan, selection: ImageData, warn: Callable[[str], None]) -> Remedies:
    """What the plan does about trouble, which is looked for in the figures of this selection."""
    chance = float(selection.class_counts().max()) / len(selection)
    watch = Watch(len(selection), selection.num_classes, chance, plan.trains_for_its_attacks)
    return Remedies(watch, plan.on_trouble, warn)


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
    then = (folder.read_json(ENVIRONMENT) or {}).get("data", {})
    for part, known in now["data"].items():
        if then.get(part) != known:
            raise DataError(
                f"resume: expected the {part} data that the run was begun with, {then.get(part)}; "
                f"received {known}. Name their place by --dataset"
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
        plan.searched_in,
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


def about(plan: Plan, splits: Splits) -> dict[str, Any]:
    """What a weights file says of itself."""
    height, width, channels = splits.train.image_shape
    return {
        "format": FORMAT,
        "stcore": stcore.__version__,
        "model": plan.model,
        "num_classes": splits.train.num_classes,
        "image_shape": f"{height}x{width}x{channels}",
        "normalize": models.normalization.canonical(plan.normalize),
        "method": plan.method,
        "backend": plan.backend,
    }


def environment(backend: Any, device: str, splits: Splits, extra: ImageData | None = None) -> dict[str, Any]:
    """What the numbers depend on beside the settings."""
    sets = {"train": splits.train, "validation": splits.validation, "test": splits.test}
    if extra is not None:
        sets["extra"] = extra
    return {
        "stcore": stcore.__version__,
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


def check_about(metadata: Mapping[str, str], plan: Plan, splits: Splits) -> None:
    """UsageError unless a weights file is of the plan's network."""
    models.check_weights(metadata, plan.backend, plan.normalize)
    for name in ("model", "num_classes", "image_shape"):
        expected = str(about(plan, splits)[name])
        if name in metadata and metadata[name] != expected:
            raise UsageError(f"weights: expected a checkpoint with {name} {expected}; received {metadata[name]}")
