"""A training run, said in full: every setting resolved, checked and ready to be written down."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from typing import Any

from stcore import checks, methods, presets
from stcore.attacks import PRESETS as ATTACKS
from stcore.errors import UsageError
from stcore.objective import Objective
from stcore.schedules import SCHEDULES

SELECT = ("val", "test")


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
    device: str = "auto"
    dtype: str = "float32"
    compile: str = "auto"
    threads: int | None = None
    train_size: int | None = None
    validation_size: int | None = None
    test_size: int | None = None
    image_column: str | None = None
    label_column: str | None = None
    init_weights: str | None = None

    def __post_init__(self) -> None:
        checks.whole("epochs", self.epochs, 1)
        checks.whole("batch_size", self.batch_size, 2)  # batch statistics of one image are no statistics
        checks.whole("eval_batch_size", self.eval_batch_size, 1)
        checks.whole("seed", self.seed)
        for name in ("learning_rate", "momentum", "weight_decay"):
            checks.number(name, getattr(self, name))
        if self.nesterov and not self.momentum:
            raise UsageError("nesterov: expected a momentum above 0; received 0")
        if self.select == "test" and self.validation_size is not None:
            raise UsageError("validation_size: nothing is held out with select = test; leave it out")
        checks.number("eval_epsilon", self.eval_epsilon, high=1.0 if self.norm == "linf" else math.inf)
        checks.choice("schedule", self.schedule, SCHEDULES)
        for drop in self.drops:
            checks.number("drops (shares of the epochs)", drop, high=1.0)
        checks.choice("augment", self.augment, ("none", "crop-flip"))
        checks.choice("select", self.select, SELECT)
        checks.choice("dtype", self.dtype, ("float32", "float64"))
        checks.choice("compile", self.compile, ("auto", "on", "off"))
        for attack in self.attacks:
            checks.choice("attacks", attack, ATTACKS)
        checks.choice("select_by", self.select_by, ("natural", *ATTACKS))
        if self.threads is not None:
            checks.whole("threads", self.threads, 1)
        if (self.image_column is None) != (self.label_column is None):
            raise UsageError("image_column, label_column: expected both or neither")

    @property
    def objective(self) -> Objective:
        """The method with its settings."""
        return methods.make_objective(self.method, self.settings)

    @property
    def norm(self) -> str:
        """The norm of the evaluation's attacks: the training's, where the method has one."""
        return str(self.settings.get("norm", "linf"))

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


def make_plan(given: dict[str, Any]) -> Plan:
    """Settings that were given, completed: the preset's recipe, then the method's settings for its data set.

    UsageError for a setting that is out of range, unknown, or not one of the chosen method's.
    """
    dataset, method = given.get("dataset", "digits"), given.get("method", "st")
    checks.choice("method", method, methods.METHODS)
    preset = given.get("preset") or presets.default_preset(dataset)
    checks.choice("preset", preset, presets.RECIPES)
    everything = {name for known in methods.METHODS for name in methods.fields(known)}
    own = {name: value for name, value in given.items() if name in everything}
    rest = {name: value for name, value in given.items() if name not in everything}
    methods.check_fields(method, own)

    paper = presets.SQUEEZE[preset]
    settings = {
        name: getattr(paper, name) for name in methods.fields(method) if hasattr(paper, name) and name != "init"
    }
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
        **presets.RECIPES[preset],
        **rest,
        "preset": preset,
        "settings": dataclasses.asdict(methods.make_objective(method, settings)),  # type: ignore[call-overload]
    }
    known = {field.name for field in dataclasses.fields(Plan)}
    for name in complete:
        if name not in known:
            raise UsageError(
                f"{name}: no such setting; known are {', '.join(sorted(known - {'settings'} | everything))}"
            )
    if isinstance(complete["attacks"], str):
        complete["attacks"] = [name for name in complete["attacks"].split(",") if name]
    for name in ("attacks", "drops"):
        complete[name] = tuple(complete[name])
    return Plan(**complete)
