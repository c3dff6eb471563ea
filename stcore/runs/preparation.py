"""The way from a plan to its parts: backend, data, batches, network, trainer."""

from __future__ import annotations

import os
import platform
import time
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np

from stcore import data, models
from stcore.base.machine import processor
from stcore.base.progress import Progress
from stcore.base.ranks import Alone, Ranks
from stcore.base.version import __version__
from stcore.core.dispatch import load_backend
from stcore.core.objective import Objective, draws
from stcore.core.validation import check_model
from stcore.data import Batches, ImageData, MixedBatches, Splits
from stcore.data.batches import Epochs
from stcore.data.mixing import MixingBatches
from stcore.data.readers.shards import NOTHING, Known
from stcore.data.readers.sources import load_test
from stcore.data.resident import resident
from stcore.data.streams.batches import StreamBatches
from stcore.data.streams.dataset import StreamData
from stcore.errors import DataError, UsageError
from stcore.evaluation.attack_names import Evaluated, attacks_by_name, split
from stcore.evaluation.evaluator import Evaluator
from stcore.methods.guided import AVERAGE, Guided
from stcore.models.weights_files import read_weights, recorded_shape
from stcore.protocols import Classifier, Learner
from stcore.runs.folder import ENVIRONMENT, WORKING_FOLDER, RunFolder
from stcore.runs.plan import Plan
from stcore.runs.store import check_weights_metadata
from stcore.runs.teacher import Teacher, read_teacher
from stcore.training.collapse import CollapseWatch
from stcore.training.diagnosis import Diagnosis
from stcore.training.recovery import FailurePolicy
from stcore.training.schedules import BY_STEP, make_schedule
from stcore.training.state import TrainingStore
from stcore.training.trainer import Average, Schedules, Trainer


@dataclass(frozen=True, eq=False)
class Given:
    """What `stcore.train` was given as objects: a network and its optimizer, data, the batches of a loader."""

    model: Any = None
    optimizer: Any = None
    splits: Splits | None = None
    batches: Epochs | None = None


NOTHING_GIVEN = Given()
"""Everything is what the plan names."""

FEW = 50
"""Validation images below which a run says that there are few: their 95 % interval is wider than ± 14 points."""


@dataclass(frozen=True, eq=False)
class Setup:
    """A plan with its backend and device, and its parts: each is loaded when it is first used, and once.

    weights_metadata: of the weights file that will be loaded, if any. If it records the network's shape, the
        network has that shape.
    loaded: the test images, if they are in memory already.   given: objects in place of what the plan names.
    """

    plan: Plan
    backend: Any
    device: str
    weights_metadata: Mapping[str, str] = field(default_factory=dict)
    loaded: ImageData | None = None
    given: Given = NOTHING_GIVEN

    @cached_property
    def splits(self) -> Splits:
        """All of the data set; with `select = test` nothing is held out of the training set, as in the paper."""
        if self.given.splits is not None:
            return self.given.splits
        given = self.plan.data
        return data.load(
            given.dataset,
            validation="test" if self.plan.evaluation.select == "test" else None,
            columns=given.columns,
            image_size=given.image_size,
            skip_broken=given.skip_broken,
            train_size=given.train_size,
            validation_size=given.validation_size,
            test_size=given.test_size,
        )

    @cached_property
    def test(self) -> ImageData:
        """The test images; UsageError if the weights to load are of a network for other images."""
        test = self.loaded or self._test()
        check_weights_metadata(self.weights_metadata, self.plan, test)
        return test

    def _test(self) -> ImageData:
        """The test images alone, if they or the weights say the shape of the whole set; else of all parts."""
        if "splits" in vars(self) or self.given.splits is not None:
            return self.splits.test
        shape, given = recorded_shape(self.weights_metadata), self.plan.data
        test = load_test(
            given.dataset,
            NOTHING if shape is None else Known(num_classes=shape[1], channels=shape[0][-1]),
            columns=given.columns,
            image_size=given.image_size,
            skip_broken=given.skip_broken,
            test_size=given.test_size,
        )
        in_colour = test.image_shape[-1] == 3  # so are all parts
        return test if shape is not None or (test.class_names and in_colour) else self.splits.test

    @cached_property
    def selection(self) -> ImageData:
        """The images that the best epoch is chosen on; DataError if there are none."""
        selection = self.splits.validation if self.plan.evaluation.select == "val" else self.splits.test
        if selection is None:
            raise DataError(
                f"{self.plan.data.dataset}: expected validation shards, on which the best epoch is chosen; "
                "received none. Add validation-*.tar, or choose on the test set by --select test"
            )
        return selection

    @cached_property
    def extra(self) -> ImageData | None:
        """The extra data, if the plan names some."""
        name = self.plan.data.extra_data
        return None if name is None else data.load_extra(name)

    @cached_property
    def batches(self) -> Epochs:
        """The batches of the training set, with the extra data and mixup or CutMix, on the host."""
        plan, batches = self.plan.data, self._unmixed
        if plan.mixup is None and plan.cutmix is None:
            return batches
        (height, width, _), classes = self.splits.train.image_shape, self.splits.train.num_classes
        return MixingBatches(batches, classes, (height, width), self.plan.seed, plan.mixup, plan.cutmix)

    @property
    def _unmixed(self) -> Epochs:
        """The batches with the extra data."""
        if self.given.batches is not None:
            return self.given.batches
        plan, train, extra = self.plan, self.splits.train, self.extra
        size, augment = plan.optimisation.batch_size, plan.data.augment
        if isinstance(train, StreamData):
            if extra is not None:
                raise UsageError(
                    "extra_data: expected none beside a stream; received some. Put it into the shards"
                )
            return StreamBatches(train, size, plan.seed, augment, workers=plan.data.decode_workers)  # type: ignore[arg-type]
        if plan.data.decode_workers is not None:
            raise UsageError(
                f"decode_workers: expected none for {plan.data.dataset}, whose images are decoded before "
                f"training; received {plan.data.decode_workers}. Leave the option out: it is for stream:DIR"
            )
        if extra is None or plan.data.extra_fraction is None:
            return Batches(train, size, plan.seed, augment)  # type: ignore[arg-type]
        return MixedBatches(train, extra, plan.data.extra_fraction, size, plan.seed, augment)  # type: ignore[arg-type]

    def check_data(self) -> None:
        """Loads all data, and raises DataError or UsageError if they do not fit the plan."""
        _ = self.splits, self.selection, self.extra, self.batches

    def batches_of(self, learner: Learner) -> Epochs:
        """The batches for this learner: from images on its device if `resident` says so or they fit."""
        free = self.backend.free_memory(self.device)
        return resident(self.batches, self.plan.data.resident, free, learner.resident)

    @property
    def network_shape(self) -> tuple[tuple[int, int, int], int]:
        """The shape (H, W, C) of the network's images, and the number of its classes."""
        known = recorded_shape(self.weights_metadata)
        return known or (self.test.image_shape, self.test.num_classes)

    def network(self, *, pretrained: bool = False) -> Any:
        """A new network with its initial weights, or with the published ones; the given one as it is."""
        if (model := self.given.model) is not None:
            return model.to(self.device) if self.plan.runtime.backend == "torch" else model
        (height, width, channels), num_classes = self.network_shape
        plan = self.plan
        return models.build(
            plan.model.name,
            plan.runtime.backend,  # type: ignore[arg-type]
            num_classes=num_classes,
            in_channels=channels,
            image_size=(height, width),
            seed=plan.seed,
            dtype=plan.runtime.dtype,
            device=self.device if plan.runtime.backend == "torch" else None,
            normalize=plan.model.normalize,
            pretrained=pretrained,
        )

    def classifier(self) -> Classifier:
        """A new network to load weights into."""
        classifier: Classifier = self.backend.make_classifier(self.network())
        return classifier

    def doubt_of_selection(self) -> str | None:
        """What is said where so few images choose the best epoch that chance does, and nobody asked for so few."""
        validation = self.splits.validation
        if (
            self.plan.evaluation.select == "test"
            or validation is None
            or self.plan.data.validation_size is not None
        ):
            return None
        count = len(validation)
        if count >= FEW:
            return None
        return (
            f"best is chosen on {count} validation images: each is {100 / count:.0f} points of accuracy. "
            "Add some, or rely on the last epoch"
        )

    def learner(self, warn: Callable[[str], None] = warnings.warn, *, resumed: bool = False) -> Learner:
        """A new network with its optimizer, from its initial weights or those that the plan names.

        warn: is given what of these weights is left out.   resumed: a state of the run will replace the weights,
            so that those the plan names are not read, and may be missing.
        """
        plan, backend = self.plan, self.backend
        model = self.network(pretrained=plan.model.pretrained and not resumed)
        if plan.runtime.sync_batch_norm:
            model = backend.synchronised(model, self.device)
        optimizer = self.given.optimizer or backend.make_optimizer(model, plan.optimisation.updates)
        learner: Learner = backend.prepare_training(
            backend.make_learner(model, optimizer),
            plan.runtime.compile,
            plan.runtime.precision,
            plan.runtime.search_precision,
            plan.runtime.gradient_checkpointing,
        )
        num_classes = self.splits.train.num_classes
        if plan.model.init_weights is not None and not resumed:
            weights, metadata = read_weights(plan.model.init_weights, model)
            models.check_weights(metadata, plan.runtime.backend, plan.model.normalize)
            if plan.model.new_head:
                weights, head = models.with_new_head(weights, learner.weights(), num_classes)
                warn(f"new head: {', '.join(head)} start afresh")
            learner.load_weights(weights)
        check_model(learner, learner.images(self.splits.test.images[:2]), num_classes)
        return learner

    def average(self, learner: Learner) -> Average | None:
        """The averaged weights that the plan asks for; they start as the learner's."""
        decay = self.plan.optimisation.ema
        if decay is None:
            return None
        return Average(monitor(learner.copy(), self.plan), decay)

    def teacher(self, folder: Path | None = None) -> Teacher | None:
        """The teacher from a file that the plan names, or that a run's folder keeps; None for none."""
        plan = self.plan
        if plan.method.teacher in (None, AVERAGE):
            return None
        train = self.splits.train
        device = {"device": self.device} if plan.runtime.backend == "torch" else {}
        return read_teacher(
            plan.method.teacher,
            folder,
            (train.image_shape, train.num_classes),
            plan.runtime.backend,
            dtype=plan.runtime.dtype,
            **device,
        )

    def objective(self, average: Average | None, teacher: Teacher | None) -> Objective:
        """The plan's objective, with its teacher if it has one."""
        plan = self.plan
        objective = plan.method.objective(plan.optimisation.epochs, self.splits.train.num_classes)
        if not isinstance(objective, Guided):
            return objective
        if teacher is not None:
            network = self.backend.make_classifier(teacher.network)
        elif average is not None:
            network = average.evaluator.classifier
        else:
            return objective
        asked = self.backend.in_precision(network, plan.runtime.search_precision)
        return replace(objective, teacher=asked)

    def trainer(
        self,
        learner: Learner,
        average: Average | None,
        teacher: Teacher | None,
        batches: Epochs,
        store: TrainingStore,
        progress: Progress,
        until: float | None = None,
        ranks: Ranks = Alone(),
    ) -> Trainer:
        """The plan's training of this learner, at its start; until: the end of its time by `time.monotonic`."""
        plan = self.plan
        return Trainer(
            learner=learner,
            objective=self.objective(average, teacher),
            perturbation=plan.method.perturbation,
            average=average,
            batches=batches,
            selection=self.selection,
            evaluator=monitor(learner, plan),
            select_by=plan.evaluation.select_by,
            schedules=schedules_of(plan),
            seed=plan.seed,
            store=store,
            progress=progress,
            eval_batch_size=plan.evaluation.batch_size,
            until=until,
            accumulate=plan.optimisation.accumulate,
            clip_norm=plan.optimisation.clip_norm,
            noise=plan.runtime.noise,
            ranks=ranks,
            watch=self.watch(learner),
            capture=self._capture(learner),
            ahead=self.given.batches is None,  # a loader reads ahead by workers of its own
        )

    def watch(self, learner: Learner) -> CollapseWatch | None:
        """What looks for a collapse within an epoch, if the method trains for the attacks of the evaluation."""
        if not self.plan.trains_for_its_attacks:
            return None
        return CollapseWatch(learner, self.selection, self.chance, self.plan.seed)

    @property
    def chance(self) -> float:
        """The accuracy of a constant answer on the selection."""
        return float(self.selection.class_counts().max()) / len(self.selection)

    def _capture(self, learner: Learner) -> Callable[[Objective], Objective]:
        """Makes a method's search a CUDA graph, if the plan wants that. Raises DeviceError for other devices."""
        if not self.plan.runtime.cuda_graph:
            return lambda objective: objective
        if draws(self.plan.objective):
            raise UsageError(
                f"cuda_graph: expected a method with one search in an epoch; received {self.plan.method.name}, "
                "which draws one for each step. Leave the option out"
            )
        capture = partial(self.backend.CapturedSearch, learner=learner)
        capture(self.plan.objective)  # refuses a device before anything is written
        return capture

    def failure_policy(self, warn: Callable[[str], None]) -> FailurePolicy:
        """The plan's failure policy, which reads the metrics on the selection."""
        selection = self.selection
        diagnosis = Diagnosis(len(selection), selection.num_classes, self.chance, self.plan.trains_for_its_attacks)
        return FailurePolicy(diagnosis, self.plan.optimisation.on_trouble, warn)

    def environment(self) -> dict[str, Any]:
        """What the numbers depend on beside the settings."""
        sets = {"train": self.splits.train, "validation": self.splits.validation, "test": self.splits.test}
        if self.extra is not None:
            sets["extra"] = self.extra
        return {
            "stcore": __version__,
            "python": platform.python_version(),
            "numpy": np.__version__,
            **self.backend.versions(),
            **({"packages": packages} if (packages := self.plan.packages) else {}),
            "platform": platform.platform(),
            "processor": processor(),
            "cpus": os.cpu_count(),
            "threads": self.backend.threads(),
            WORKING_FOLDER: os.getcwd(),
            "device": self.device,
            "data": {
                part: {"images": len(split), "sha256": split.fingerprint()}
                for part, split in sets.items()
                if split
            },
            "written": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        }

    def dependencies(self) -> dict[str, Any]:
        """What bit-equality depends on beside settings and data; a resumed run reports what differs."""
        return {
            "device": self.device,
            "threads": self.backend.threads(),
            "deterministic": self.plan.runtime.deterministic,
            **self.backend.versions(),
            **self.plan.packages,
        }


def set_up(
    plan: Plan,
    weights_metadata: Mapping[str, str] | None = None,
    loaded: ImageData | None = None,
    given: Given = NOTHING_GIVEN,
) -> Setup:
    """Chooses backend and device, before the framework makes its first tensor; loads nothing yet.

    weights_metadata: of the weights file to evaluate.   loaded: its test images.   given: see `Setup`.
    Raises UsageError for a network that the backend does not have, DeviceError for a device that is not there.
    """
    if given.model is None:
        models.check_name(plan.model.name, plan.runtime.backend)
    backend = load_backend(plan.runtime.backend)
    if plan.runtime.threads is not None:
        backend.use_threads(plan.runtime.threads)
    if plan.runtime.deterministic:
        backend.use_determinism()
    device = backend.use_device(plan.runtime.device)
    if plan.runtime.replicas is not None:
        backend.use_replicas(plan.runtime.replicas)
    return Setup(plan, backend, device, weights_metadata or {}, loaded, given)


def check_norm(plan: Plan) -> None:
    """UsageError if no epoch could be evaluated: PGD, the attack after each epoch, has no l1 and no l0."""
    if plan.norm in ("l1", "l0"):
        raise UsageError(
            f"eval_norm: expected linf or l2 in training, whose epochs are judged by PGD; received {plan.norm}. "
            f"Evaluate in {plan.norm} by stcli evaluate"
        )


def check_same_data(folder: RunFolder, now: Mapping[str, Any]) -> None:
    """DataError unless the data are those that the run began with."""
    recorded = folder.read_json(ENVIRONMENT)
    if recorded is None:  # killed before it was written, so before any training
        return
    then = recorded.get("data", {})
    for part, known in now["data"].items():
        if then.get(part) != known:
            raise DataError(
                f"resume: expected the {part} data that the run was begun with, {then.get(part)}; "
                f"received {known}. Name their place by --dataset, or hand over the same images"
            )


def schedules_of(plan: Plan) -> Schedules:
    """The plan's learning rates."""
    given = plan.optimisation
    schedule = make_schedule(given.schedule, given.drops, given.drop_factor)
    by_step = given.schedule in BY_STEP or given.warmup > 0
    return Schedules(given.epochs, given.learning_rate, schedule, by_step, given.warmup)


def monitors(plan: Plan) -> dict[str, Evaluated]:
    """The attacks after each epoch, by name, and their unions."""
    watched = [name for name in ("pgd20", plan.evaluation.select_by) if name != "natural"]
    found = attacks_by_name(watched, plan.evaluation.epsilon, plan.norm)
    split(found).check_by_batch("select_by", "quick after each epoch", unions=True)
    return found


def monitor(classifier: Classifier, plan: Plan) -> Evaluator:
    """What evaluates a classifier after each epoch."""
    parts = split(monitors(plan))
    return Evaluator(classifier, parts.by_batch, plan.seed, unions=parts.unions)
