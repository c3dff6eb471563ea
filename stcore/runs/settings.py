"""The settings of a plan, in groups that check themselves.

A field has the name of its option (`stcli train --batch-size`, the key in config.toml), or says that name in its
metadata. Every group raises UsageError for a setting that is out of range or does not fit the others of the group.
"""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass, field
from typing import Any

from stcore import methods, models
from stcore.base import checks
from stcore.core.objective import Objective, WeightPerturbation
from stcore.core.optimizers import SGD, AdamW
from stcore.core.perturbation import AWP, RWP
from stcore.data.augment import AUGMENT
from stcore.data.mixing import check_alphas
from stcore.data.resident import RESIDENT
from stcore.errors import UsageError
from stcore.evaluation.attack_names import check_monitor
from stcore.methods import guided
from stcore.methods.class_wise import class_wise
from stcore.methods.curriculum import with_curriculum
from stcore.training.noise import NOISE
from stcore.training.recovery import ON_TROUBLE
from stcore.training.schedules import SCHEDULES, TENTH

TEACHING = ("guidance", "teacher_share", "teacher_temperature", "teacher_weight", "teacher_begin")
"""The settings of a teacher."""
SELECT = ("val", "test")
PRECISIONS = ("fp32", "tf32", "bf16")
OPTIMIZERS = ("sgd", "adamw")
_NOT_OF = {"sgd": ("betas",), "adamw": ("momentum", "nesterov")}
_ALL_OF_OPTIMIZERS = ("momentum", "nesterov", "betas", "weight_decay", "layer_decay", "freeze")
"""The settings that an optimizer has not; those that one which was handed over brings itself."""


def options(group: Any) -> dict[str, str]:
    """The options of a group, or of its class: option → field."""
    return {it.metadata.get("option", it.name): it.name for it in dataclasses.fields(group)}


@dataclass(frozen=True)
class Data:
    """The data set, how much of it, and what joins it. `stcore.data.load` describes most of the fields."""

    dataset: str
    augment: str
    mixup: float | None = None
    cutmix: float | None = None
    train_size: int | None = None
    validation_size: int | None = None
    test_size: int | None = None
    image_column: str | None = None
    label_column: str | None = None
    image_size: int | None = None
    skip_broken: bool = False
    resident: str = "auto"
    decode_workers: int | None = None
    extra_data: str | None = None
    extra_fraction: float | None = None

    def __post_init__(self) -> None:
        checks.choice("augment", self.augment, AUGMENT)
        check_alphas(self.mixup, self.cutmix)
        checks.choice("resident", self.resident, RESIDENT)
        if self.decode_workers is not None:
            checks.whole("decode_workers", self.decode_workers)
        if self.extra_data is None and self.extra_fraction is not None:
            raise UsageError("extra_fraction: expected extra_data beside it; received none")
        if self.extra_data is not None and self.extra_fraction is None:
            raise UsageError("extra_data: expected extra_fraction beside it, such as 0.5; received none")
        if self.image_size is not None:
            checks.whole("image_size", self.image_size, 1)
        if (self.image_column is None) != (self.label_column is None):
            raise UsageError("image_column, label_column: expected both or neither")

    @property
    def columns(self) -> tuple[str, str] | None:
        """The names of the image and label columns, if they are given."""
        if self.image_column is None or self.label_column is None:
            return None
        return self.image_column, self.label_column


@dataclass(frozen=True)
class Model:
    """The network and the weights it starts from. `stcore.models.build` describes most of the fields."""

    name: str = field(metadata={"option": "model"})
    normalize: str = "none"
    pretrained: bool = False
    init_weights: str | None = None
    new_head: bool = False

    def __post_init__(self) -> None:
        models.normalization.parse(self.normalize)
        if self.pretrained and self.name.partition(":")[0] not in models.LIBRARIES:
            raise UsageError(
                f"pretrained: expected timm:NAME or keras.applications:NAME, whose weights are published; "
                f"received {self.name}. Start from a file by init_weights"
            )
        if self.pretrained and self.init_weights is not None:
            raise UsageError("pretrained, init_weights: expected at most one of the two; received both")
        if self.new_head and self.init_weights is None:
            raise UsageError("new_head: expected init_weights beside it; received none")


@dataclass(frozen=True)
class Optimisation:
    """Epochs, batches, and the updates of the weights."""

    epochs: int
    batch_size: int
    learning_rate: float
    schedule: str
    drops: tuple[float, ...]
    optimizer: str
    weight_decay: float | None
    momentum: float | None = None
    nesterov: bool = False
    drop_factor: float = TENTH
    betas: tuple[float, ...] = ()
    decay_vectors: bool = True
    layer_decay: float | None = None
    freeze: tuple[str, ...] = ()
    clip_norm: float | None = None
    warmup: float = 0.0
    accumulate: int = 1
    ema: float | None = None
    on_trouble: str = "warn"

    def __post_init__(self) -> None:
        checks.whole("epochs", self.epochs, 1)
        checks.whole("batch_size", self.batch_size, 2)  # one image has no batch statistics
        checks.whole("accumulate", self.accumulate, 1)
        if 2 * self.accumulate > self.batch_size:
            raise UsageError(
                f"accumulate: expected at most {self.batch_size // 2} parts of a batch of {self.batch_size}, each "
                f"of two images, since one has no batch statistics; received {self.accumulate}"
            )
        for name in ("learning_rate", "weight_decay", "momentum", "warmup"):
            if getattr(self, name) is not None:
                checks.number(name, getattr(self, name))
        if self.warmup > self.epochs:
            raise UsageError(f"warmup: expected at most {self.epochs}, all epochs; received {self.warmup:g}")
        if self.warmup and self.schedule == "one-cycle":
            raise UsageError(
                "warmup: expected none with schedule = one-cycle, which rises by itself; leave it out"
            )
        if self.clip_norm is not None:
            checks.number("clip_norm", self.clip_norm, low=1e-6)
        if self.layer_decay is not None:
            checks.number("layer_decay", self.layer_decay, high=1.0)
        self._check_optimizer()
        checks.choice("schedule", self.schedule, SCHEDULES)
        for drop in self.drops:
            checks.number("drops (shares of the epochs)", drop, high=1.0)
        checks.number("drop_factor", self.drop_factor, high=1.0)
        if self.drop_factor != TENTH and not self.drops:
            raise UsageError(
                f"drop_factor: expected drops beside it; received none, with {self.schedule}. Leave it out"
            )
        if self.ema is not None:
            checks.number("ema", self.ema, high=1.0)
        checks.choice("on_trouble", self.on_trouble, ON_TROUBLE)

    def _check_optimizer(self) -> None:
        if not models.is_given(self.optimizer):
            checks.choice("optimizer", self.optimizer, OPTIMIZERS)
        for name in _NOT_OF.get(self.optimizer, _ALL_OF_OPTIMIZERS):
            if getattr(self, name) not in (None, False, ()):
                raise UsageError(
                    f"{name}: expected none with optimizer = {self.optimizer}, which has no such setting or its "
                    f"own; received {getattr(self, name)}. Leave it out"
                )
        if self.nesterov and not self.momentum:
            raise UsageError("nesterov: expected a momentum above 0; received 0")
        if self.optimizer == "adamw" and len(self.betas) != 2:
            raise UsageError(f"betas: expected two numbers, such as 0.9 and 0.999; received {self.betas}")
        for beta in self.betas:
            checks.number("betas", beta, high=1.0)

    @property
    def updates(self) -> SGD | AdamW:
        """The optimizer with its settings."""
        shared: dict[str, Any] = {
            name: getattr(self, name) for name in ("learning_rate", "decay_vectors", "layer_decay", "freeze")
        } | {"weight_decay": self.weight_decay or 0.0}
        if self.optimizer == "adamw":
            return AdamW(**shared, betas=(self.betas[0], self.betas[1]))
        return SGD(**shared, momentum=self.momentum or 0.0, nesterov=self.nesterov)


@dataclass(frozen=True)
class Method:
    """The training method with its own `settings`, and the wrappers that every method takes."""

    name: str = field(metadata={"option": "method"})
    settings: dict[str, Any] = field(default_factory=dict)
    early_steps: tuple[str, ...] = ()
    ramp: tuple[str, ...] = ()
    awp: float | None = None
    rwp: float | None = None
    perturbation_warmup: int = 0
    rwp_steps: int | None = None
    rwp_threshold: float | None = None
    teacher: str | None = None
    guidance: str | None = None
    teacher_share: tuple[float, ...] = ()
    teacher_temperature: tuple[float, ...] = ()
    teacher_weight: float | None = None
    teacher_begin: int | None = None

    def __post_init__(self) -> None:
        if self.awp is not None and self.rwp is not None:
            raise UsageError("awp, rwp: expected at most one of the two weight perturbations; received both")
        if self.perturbation_warmup and self.awp is None and self.rwp is None:
            raise UsageError("perturbation_warmup: expected awp or rwp beside it; received neither")
        if self.rwp is None and (self.rwp_steps is not None or self.rwp_threshold is not None):
            raise UsageError("rwp_steps, rwp_threshold: expected rwp beside them; received none")
        _ = self.perturbation  # checks its settings
        self._check_guidance()

    def _check_guidance(self) -> None:
        given = [name for name in TEACHING if getattr(self, name) not in (None, ())]
        if self.teacher is None and given:
            raise UsageError(f"{', '.join(given)}: expected teacher beside it; received none")
        if self.teacher is None or self.guidance is None:
            return
        checks.choice("guidance", self.guidance, guided.GUIDANCE)
        own = guided.SETTINGS[self.guidance]
        if foreign := [name for name in given if name not in ("guidance", *own)]:
            raise UsageError(
                f"{', '.join(foreign)}: expected none with guidance = {self.guidance}, whose settings are "
                f"{' and '.join(own)}; leave it out"
            )

    def objective(self, epochs: int, classes: int | None = None) -> Objective:
        """The method with its settings, for this number of epochs, with its curriculum and guidance, if any.

        classes: their number, if the data are known (see `ClassWise`).
        """
        objective = methods.make_objective(self.name, self.settings)
        whole = class_wise(with_curriculum(objective, self.early_steps, self.ramp, epochs), classes)
        if self.teacher is None or self.guidance is None:
            return whole
        settings = {name: getattr(self, name) for name in guided.SETTINGS[self.guidance]}
        return guided.Guided(whole, guided.make_guidance(self.guidance, **settings), epochs)

    @property
    def perturbation(self) -> WeightPerturbation | None:
        """The weight perturbation of each step, if any."""
        if self.awp is not None:
            return AWP(self.awp, self.perturbation_warmup)
        if self.rwp is not None:
            given = {"steps": self.rwp_steps, "threshold": self.rwp_threshold}
            known = {name: value for name, value in given.items() if value is not None}
            return RWP(self.rwp, self.perturbation_warmup, **known)  # type: ignore[arg-type]
        return None


@dataclass(frozen=True)
class Evaluation:
    """The attacks of the final evaluation, and the choice of the best epoch."""

    attacks: tuple[str, ...]
    epsilon: float = field(metadata={"option": "eval_epsilon"})
    batch_size: int = field(metadata={"option": "eval_batch_size"})
    select: str
    select_by: str
    norm: str | None = field(default=None, metadata={"option": "eval_norm"})

    def __post_init__(self) -> None:
        checks.whole("eval_batch_size", self.batch_size, 1)
        if self.norm is not None:
            checks.choice("eval_norm", self.norm, ("linf", "l2", "l1", "l0"))
        checks.choice("select", self.select, SELECT)
        check_monitor(self.select_by)

    def check_radius(self, norm: str) -> None:
        """UsageError unless the radius is one of this norm."""
        checks.number("eval_epsilon", self.epsilon, high=1.0 if norm == "linf" else math.inf)


@dataclass(frozen=True)
class Runtime:
    """The framework, the device, and how it computes."""

    backend: str
    device: str = "auto"
    dtype: str = "float32"
    precision: str = "fp32"
    inner_precision: str | None = None
    gradient_checkpointing: bool = False
    sync_batch_norm: bool = False
    replicas: int | None = None
    noise: str = "host"
    compile: str = "auto"
    cuda_graph: bool = False
    threads: int | None = None
    deterministic: bool = False

    def __post_init__(self) -> None:
        if self.sync_batch_norm and self.backend != "torch":
            raise UsageError(
                "sync_batch_norm: expected none with keras, whose batch norms over several devices see the whole "
                "batch; received it. Leave it out"
            )
        checks.choice("dtype", self.dtype, ("float32", "float64"))
        checks.choice("noise", self.noise, NOISE)
        checks.choice("compile", self.compile, ("auto", "on", "off", "xla"))
        for name in ("precision", "inner_precision"):
            checks.choice(name, getattr(self, name) or self.precision, PRECISIONS)
        lowered = {self.precision, self.search_precision} - {"fp32"}
        if self.dtype == "float64" and lowered:
            raise UsageError(
                f"dtype: expected float32 with {' and '.join(sorted(lowered))}; received float64, whose precision "
                "they would throw away. Leave one of the two out"
            )
        if self.backend == "torch" and self.compile == "xla":
            raise UsageError("compile: expected auto, on or off with torch; received xla, Keras' own. Take on")
        if self.backend == "torch" and self.compile == "on" and self.gradient_checkpointing:
            raise UsageError(
                "gradient_checkpointing: expected none with compile = on, whose compiler chooses what to keep by "
                "itself; received both. Leave one of the two out"
            )
        if self.cuda_graph:
            self._check_cuda_graph()
        if self.threads is not None:
            checks.whole("threads", self.threads, 1)
        if self.replicas is not None:
            checks.whole("replicas", self.replicas, 1)
            if self.backend == "torch":
                raise UsageError(
                    f"replicas: expected none with torch, which has a process for each device; received "
                    f"{self.replicas}. Start it by torchrun --nproc-per-node={self.replicas} $(which stcli) train"
                )

    def _check_cuda_graph(self) -> None:
        """UsageError for what a search that is recorded as a CUDA graph cannot go with."""
        apart = {
            "backend = keras": self.backend != "torch",
            "compile = on": self.compile == "on",
            "gradient_checkpointing": self.gradient_checkpointing,
            "sync_batch_norm": self.sync_batch_norm,
        }
        if received := [name for name, given in apart.items() if given]:
            raise UsageError(
                f"cuda_graph: expected torch, without compile = on, gradient_checkpointing and sync_batch_norm; "
                f"received {' and '.join(received)}. Leave one of the two out"
            )

    @property
    def search_precision(self) -> str:
        """The precision of the search for examples: by default that of the outer forwards."""
        return self.inner_precision or self.precision
