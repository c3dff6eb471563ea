"""A training run, said in full: every setting resolved, checked and ready to be written down."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from stcore import methods, models, presets
from stcore.base import checks
from stcore.core.objective import Objective, WeightPerturbation
from stcore.core.perturbation import AWP, RWP
from stcore.data.augment import AUGMENT
from stcore.data.resident import RESIDENT
from stcore.errors import UsageError
from stcore.evaluation.attack_names import MONITORS, attack_of
from stcore.methods.step_curriculum import with_step_curriculum
from stcore.paper import PRESETS as PAPER
from stcore.training.recovery import ON_TROUBLE
from stcore.training.schedules import SCHEDULES

SELECT = ("val", "test")
PRECISIONS = ("fp32", "tf32", "bf16")
BALL = ("epsilon", "step_size", "steps", "norm", "bounds")
"""The settings of every search, which a data set's recipe gives to each method alike."""
WRAPPERS = ("awp", "rwp", "perturbation_warmup", "rwp_steps", "rwp_threshold", "extra_data", "extra_fraction")
"""What stands around a method."""


@dataclass(frozen=True)
class Plan:
    """What to train, on what, and how. The method's own settings are `settings`; all else is flat."""

    backend: str
    dataset: str
    method: str
    settings: dict[str, Any]
    model: str
    epochs: int
    batch_size: int
    learning_rate: float
    schedule: str
    drops: tuple[float, ...]
    momentum: float
    nesterov: bool
    weight_decay: float
    augment: str
    eval_epsilon: float
    eval_batch_size: int
    attacks: tuple[str, ...]
    select: str
    select_by: str
    seed: int
    preset: str
    eval_norm: str | None = None
    device: str = "auto"
    dtype: str = "float32"
    precision: str = "fp32"
    inner_precision: str | None = None
    gradient_checkpointing: bool = False
    accumulate: int = 1
    sync_batch_norm: bool = False
    replicas: int | None = None
    compile: str = "auto"
    threads: int | None = None
    deterministic: bool = False
    on_trouble: str = "warn"
    resident: str = "auto"
    train_size: int | None = None
    validation_size: int | None = None
    test_size: int | None = None
    image_column: str | None = None
    label_column: str | None = None
    image_size: int | None = None
    normalize: str = "none"
    pretrained: bool = False
    init_weights: str | None = None
    new_head: bool = False
    awp: float | None = None
    rwp: float | None = None
    perturbation_warmup: int = 0
    rwp_steps: int | None = None
    rwp_threshold: float | None = None
    ema: float | None = None
    early_steps: tuple[str, ...] = ()
    extra_data: str | None = None
    extra_fraction: float | None = None

    def __post_init__(self) -> None:
        checks.whole("epochs", self.epochs, 1)
        checks.whole("batch_size", self.batch_size, 2)  # batch statistics of one image are no statistics
        checks.whole("accumulate", self.accumulate, 1)
        if 2 * self.accumulate > self.batch_size:
            raise UsageError(
                f"accumulate: expected at most {self.batch_size // 2} parts of a batch of {self.batch_size}, each "
                f"of two images, since one has no batch statistics; received {self.accumulate}"
            )
        if self.sync_batch_norm and self.backend != "torch":
            raise UsageError(
                "sync_batch_norm: expected none with keras, whose batch norms over several devices see the whole "
                "batch; received it. Leave it out"
            )
        checks.whole("eval_batch_size", self.eval_batch_size, 1)
        checks.whole("seed", self.seed)
        for name in ("learning_rate", "momentum", "weight_decay"):
            checks.number(name, getattr(self, name))
        if self.nesterov and not self.momentum:
            raise UsageError("nesterov: expected a momentum above 0; received 0")
        if self.select == "test" and self.validation_size is not None:
            raise UsageError("validation_size: nothing is held out with select = test; leave it out")
        if self.eval_norm is not None:
            checks.choice("eval_norm", self.eval_norm, ("linf", "l2", "l1"))
        checks.number("eval_epsilon", self.eval_epsilon, high=1.0 if self.norm == "linf" else math.inf)
        checks.choice("schedule", self.schedule, SCHEDULES)
        for drop in self.drops:
            checks.number("drops (shares of the epochs)", drop, high=1.0)
        checks.choice("augment", self.augment, AUGMENT)
        checks.choice("select", self.select, SELECT)
        checks.choice("on_trouble", self.on_trouble, ON_TROUBLE)
        checks.choice("resident", self.resident, RESIDENT)
        checks.choice("dtype", self.dtype, ("float32", "float64"))
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
        for attack in self.attacks:
            attack_of(attack, self.eval_epsilon, self.norm)  # whose settings are checked as it is made
        checks.choice("select_by", self.select_by, ("natural", *MONITORS))
        if self.threads is not None:
            checks.whole("threads", self.threads, 1)
        if self.replicas is not None:
            checks.whole("replicas", self.replicas, 1)
            if self.backend == "torch":
                raise UsageError(
                    f"replicas: expected none with torch, which has a process for each device; received "
                    f"{self.replicas}. Start it by torchrun --nproc-per-node={self.replicas} $(which stcli) train"
                )
            if self.batch_size % self.replicas:
                raise UsageError(
                    f"replicas: expected a divisor of the batch size {self.batch_size}; received {self.replicas}"
                )
        if self.awp is not None and self.rwp is not None:
            raise UsageError("awp, rwp: expected at most one of the two weight perturbations; received both")
        if self.perturbation_warmup and self.awp is None and self.rwp is None:
            raise UsageError("perturbation_warmup: expected awp or rwp beside it; received neither")
        if self.perturbation_warmup > self.epochs:
            raise UsageError(
                f"perturbation_warmup: expected at most {self.epochs}, the number of epochs, or the perturbation "
                f"never acts; received {self.perturbation_warmup}. Give another, such as --perturbation-warmup 1"
            )
        if self.rwp is None and (self.rwp_steps is not None or self.rwp_threshold is not None):
            raise UsageError("rwp_steps, rwp_threshold: expected rwp beside them; received none")
        _ = self.objective, self.perturbation  # whose settings are checked as it is made
        if self.ema is not None:
            checks.number("ema", self.ema, high=1.0)
        if self.extra_data is None and self.extra_fraction is not None:
            raise UsageError("extra_fraction: expected extra_data beside it; received none")
        if self.extra_data is not None and self.extra_fraction is None:
            raise UsageError("extra_data: expected extra_fraction beside it, such as 0.5; received none")
        models.normalization.parse(self.normalize)
        if self.pretrained and (":" not in self.model or models.is_factory(self.model)):
            raise UsageError(
                f"pretrained: expected timm:NAME or keras.applications:NAME, whose weights are published; "
                f"received {self.model}. Start from a file by init_weights"
            )
        if self.pretrained and self.init_weights is not None:
            raise UsageError("pretrained, init_weights: expected at most one of the two; received both")
        if self.new_head and self.init_weights is None:
            raise UsageError("new_head: expected init_weights beside it; received none")
        if self.image_size is not None:
            checks.whole("image_size", self.image_size, 1)
        if (self.image_column is None) != (self.label_column is None):
            raise UsageError("image_column, label_column: expected both or neither")

    @property
    def search_precision(self) -> str:
        """The precision of the search for examples: by default that of the outer forwards."""
        return self.inner_precision or self.precision

    @property
    def objective(self) -> Objective:
        """The method with its settings, and fewer inner steps at first where that is asked for."""
        return with_step_curriculum(
            methods.make_objective(self.method, self.settings), self.early_steps, self.epochs
        )

    @property
    def perturbation(self) -> WeightPerturbation | None:
        """What is done to the weights in each step, if anything."""
        if self.awp is not None:
            return AWP(self.awp, self.perturbation_warmup)
        if self.rwp is not None:
            told = {"steps": self.rwp_steps, "threshold": self.rwp_threshold}
            known = {name: value for name, value in told.items() if value is not None}
            return RWP(self.rwp, self.perturbation_warmup, **known)  # type: ignore[arg-type]
        return None

    @property
    def units(self) -> int:
        """What a training step costs, in forwards of the batch; a weight perturbation repeats the outer passes,
        gradient checkpointing adds a forward to each way back.
        """
        own = self.objective.passes
        ascents = self.perturbation.ascents if self.perturbation else 0
        back = own.input_backwards + own.weight_backwards * (1 + ascents)
        again = back if self.gradient_checkpointing else 0
        return own.units + own.outer_units * ascents + again

    @property
    def norm(self) -> str:
        """The norm of the evaluation's attacks: by default the training's, where the method has one."""
        return self.eval_norm or str(self.settings.get("norm", "linf"))

    @property
    def trains_for_its_attacks(self) -> bool:
        """Whether the method trains on adversarial examples of a ball no smaller than that of the evaluation."""
        searches = self.method not in ("standard", "collaborative") and self.settings["norm"] == self.norm
        return searches and bool(self.settings["epsilon"] >= self.eval_epsilon)

    @property
    def columns(self) -> tuple[str, str] | None:
        """The names of the image and label columns, where they were given."""
        if self.image_column is None or self.label_column is None:
            return None
        return self.image_column, self.label_column

    def flat(self) -> dict[str, Any]:
        """The plan as the flat options that make it again."""
        named = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        settings = named.pop("settings")
        settings = {name: value for name, value in settings.items() if name != "bounds"}
        return {**named, **settings, "attacks": ",".join(self.attacks)}


def of_methods() -> set[str]:
    """The settings of all methods."""
    return {name for method in methods.METHODS for name in methods.fields(method)}


def stale(base: Mapping[str, Any], changes: Mapping[str, Any]) -> set[str]:
    """What settings hold only because of what is changed; a change to what was there already is none."""
    changed = {name for name in changes if name in base and changes[name] != base[name]}
    gone: set[str] = set()
    if "epsilon" in changed:
        gone |= {"step_size", "eval_epsilon"}
    if "norm" in changed:  # a radius means nothing in another norm
        gone |= {"epsilon", "step_size", "eval_epsilon"}
    if "epochs" in changed:
        gone |= {"begin_epoch"}
    if "method" in changed and changes["method"] in methods.METHODS:
        own = set(methods.fields(changes["method"]))
        gone |= (of_methods() - (own & set(BALL))) | {"select_by"}
        gone |= {"eval_epsilon"} if base.get("norm") == "l2" and "norm" not in own else set()
    if "model" in changed and base.get("pretrained"):
        gone |= {"pretrained", "normalize"}
    if {"awp", "rwp"} & set(changes):  # one for the other, or none
        none = changes.get("awp") is None and changes.get("rwp") is None
        gone |= {"awp", "rwp", "rwp_steps", "rwp_threshold"} | ({"perturbation_warmup"} if none else set())
    return gone


def _with_row(row: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """A row of the paper's under what is given; with another ε, its own ratio α/ε."""
    gone = stale(row, given)
    kept = {name: value for name, value in row.items() if name not in gone}
    if "epsilon" in given and "step_size" in gone and given.get("norm", row["norm"]) == row["norm"]:
        checks.number("epsilon", given["epsilon"])
        kept["step_size"] = given["epsilon"] * row["step_size"] / row["epsilon"]
    return {**kept, **given}


def make_plan(given: Mapping[str, Any]) -> Plan:
    """Settings that were given, completed: a row of the paper's, the data set's recipe, the method's defaults.

    UsageError for a setting that is out of range, unknown, or not one of the chosen method's.
    """
    preset = given.get("preset")
    if preset in PAPER:
        given = _with_row(PAPER[preset].settings, given)
    dataset, method = given.get("dataset", "digits"), given.get("method", "st")
    checks.choice("method", method, methods.METHODS)
    recipe = preset if preset in presets.RECIPES else presets.default_preset(dataset)
    if preset not in (None, recipe, *PAPER):
        raise UsageError(
            f"preset: expected one of {', '.join(presets.RECIPES)}, or a row of the paper such as "
            f"table1/cifar10/st (stcli presets lists them); received {preset!r}"
            + checks.did_you_mean(preset, (*presets.RECIPES, *PAPER))
        )
    everything = of_methods()
    own = {name: value for name, value in given.items() if name in everything}
    rest = {name: value for name, value in given.items() if name not in everything}
    methods.check_fields(method, own)

    paper = presets.SQUEEZE[recipe]
    shared = methods.fields("st") if method == "st" else BALL  # another method's β is its own
    settings = {name: getattr(paper, name) for name in methods.fields(method) if name in shared}
    if "begin_epoch" in methods.fields(method):
        settings["begin_epoch"] = math.ceil(rest.get("epochs", presets.RECIPES[recipe]["epochs"]) / 2)
    settings |= own
    if settings.get("norm") == "l2" and "epsilon" not in own:
        raise UsageError("epsilon: expected one with norm = l2; the presets' are for linf")
    if "epsilon" in own and "step_size" not in own:
        checks.number("epsilon", own["epsilon"])
        settings["step_size"] = own["epsilon"] * paper.step_size / paper.epsilon  # the preset's ratio α/ε
    epsilon = settings.get("epsilon", paper.epsilon)
    complete = {
        "backend": "torch",
        "dataset": dataset,
        "method": method,
        "schedule": "step",
        "momentum": 0.9,
        "nesterov": False,
        "weight_decay": 5e-4,
        "eval_epsilon": epsilon,
        "eval_batch_size": 250,
        "attacks": ("fgsm", "pgd20"),
        "select": "val",
        "select_by": "pgd20",
        "seed": 0,
        "extra_fraction": 0.5 if rest.get("extra_data") else None,
        **presets.RECIPES[recipe],
        **(presets.RWP[recipe] if rest.get("rwp") is not None else {}),
        **rest,
        "preset": preset or recipe,
        "settings": dataclasses.asdict(methods.make_objective(method, settings)),  # type: ignore[call-overload]
    }
    if complete["schedule"] != "step":
        if tuple(rest.get("drops", ())) not in ((), presets.RECIPES[recipe]["drops"]):
            raise UsageError(f"drops: expected none with schedule = {complete['schedule']}; only step has drops")
        complete["drops"] = ()
    if complete.get("pretrained") and "normalize" not in complete:
        complete["normalize"] = models.pretrained_normalization(complete["model"])
    known = {field.name for field in dataclasses.fields(Plan)}
    for name in complete:
        if name not in known:
            raise UsageError(
                f"{name}: no such setting; known are {', '.join(sorted(known - {'settings'} | everything))}"
            )
    if isinstance(complete["attacks"], str):
        complete["attacks"] = [name for name in complete["attacks"].split(",") if name]
    for name in ("attacks", "drops", "early_steps"):
        complete[name] = tuple(complete.get(name, ()))
    return Plan(**complete)
