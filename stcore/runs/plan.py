"""The plan of a training run: every setting, resolved and checked."""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stcore import methods, models, presets
from stcore.base import checks
from stcore.base.registry import GIVEN, Registry
from stcore.core.divergences import DIVERGENCES
from stcore.core.objective import Objective
from stcore.data.readers.sources import DATASETS
from stcore.errors import UsageError
from stcore.evaluation.attack_names import ATTACKS, attack_of
from stcore.evaluation.unions import name_of, union_name
from stcore.methods import guided
from stcore.methods.balls import balls_of
from stcore.runs import known_presets
from stcore.runs.settings import TEACHING, Data, Evaluation, Method, Model, Optimisation, Runtime, options

PGD_NORMS = ("linf", "l2")
"""The norms of PGD, under which every epoch is evaluated."""
AUTO_PGD = "apgd20"
"""The attack after each epoch that also has l1."""
BALL = ("epsilon", "norm", "bounds")
"""The settings of every search, which a data set's recipe gives to each method alike."""
SEARCH = (*BALL, "step_size", "steps")
"""The same of a search in small steps."""
WRAPPERS = ("awp", "rwp", "perturbation_warmup", "rwp_steps", "rwp_threshold", "extra_data", "extra_fraction")
"""The settings that wrap a method."""
GROUPS: dict[str, type[Any]] = {
    "data": Data,
    "model": Model,
    "optimisation": Optimisation,
    "method": Method,
    "evaluation": Evaluation,
    "runtime": Runtime,
}
OWN = ("seed", "preset")
"""The settings of the plan itself."""


@dataclass(frozen=True)
class Plan:
    """What to train, on what, and how: every setting resolved.

    The groups check themselves; the plan checks what concerns several of them, and raises UsageError.
    """

    data: Data
    model: Model
    optimisation: Optimisation
    method: Method
    evaluation: Evaluation
    runtime: Runtime
    seed: int
    preset: str

    def __post_init__(self) -> None:
        checks.whole("seed", self.seed)
        if self.evaluation.select == "test" and self.data.validation_size is not None:
            raise UsageError("validation_size: nothing is held out with select = test; leave it out")
        self.evaluation.check_radius(self.norm)
        for attack in self.evaluation.attacks:
            attack_of(attack, self.evaluation.epsilon, self.norm)  # checks its settings
        replicas, epochs = self.runtime.replicas, self.optimisation.epochs
        if replicas is not None and self.optimisation.batch_size % replicas:
            raise UsageError(
                f"replicas: expected a divisor of the batch size {self.optimisation.batch_size}; "
                f"received {replicas}"
            )
        if self.method.perturbation_warmup > epochs:
            raise UsageError(
                f"perturbation_warmup: expected at most {epochs}, the number of epochs, or the perturbation "
                f"never acts; received {self.method.perturbation_warmup}. Give another, such as "
                "--perturbation-warmup 1"
            )
        if self.method.teacher == guided.AVERAGE and self.optimisation.ema is None:
            raise UsageError("teacher: expected ema beside teacher = average, such as --ema 0.995; received none")
        _ = self.objective  # checks its settings

    @property
    def objective(self) -> Objective:
        """The method with its settings, and its curriculum over the epochs if there is one."""
        return self.method.objective(self.optimisation.epochs)

    @property
    def units(self) -> int:
        """The cost of a training step, in forwards of the batch.

        A weight perturbation repeats the outer passes; gradient checkpointing adds a forward to each backward
        pass.
        """
        own, perturbation = self.objective.passes, self.method.perturbation
        ascents = perturbation.ascents if perturbation else 0
        backwards = own.input_backwards + own.weight_backwards * (1 + ascents)
        recomputed = backwards if self.runtime.gradient_checkpointing else 0
        return own.units + own.outer_units * ascents + recomputed

    @property
    def given(self) -> tuple[str, ...]:
        """Those that were handed to `stcore.train` as objects, by their options: no name brings them back."""
        names = {
            "model": self.model.name,
            "dataset": self.data.dataset,
            "optimizer": self.optimisation.optimizer,
        }
        return tuple(option for option, name in names.items() if models.is_given(name))

    @property
    def parts(self) -> list[tuple[Registry[Any], str]]:
        """The names of all parts, each with the registry that knows it."""
        divergences = (self.method.settings.get(name) for name in ("divergence", "inner_divergence"))
        return [
            (methods.METHODS, self.method.name),
            *((DIVERGENCES, name) for name in divergences if name is not None),
            *((ATTACKS, name) for name in self.evaluation.attacks),
            (DATASETS, self.data.dataset.partition(":")[0]),
            (models.MODELS, self.model.name),
        ]

    @property
    def bound(self) -> tuple[str, ...]:
        """The parts that this process alone knows, as objects that were handed over, beside network and data."""
        return tuple(n for _, n in self.parts if n.startswith(f"{GIVEN}:") and n != self.model.name)

    @property
    def packages(self) -> dict[str, str]:
        """The short names that installed packages bring → the package and its version."""
        return {name: registry.package(name) for registry, name in self.parts if registry.is_plug_in(name)}

    @property
    def norm(self) -> str:
        """The norm of the evaluation's attacks: by default that of training, if the method has one."""
        return self.evaluation.norm or usual_norm(self.method.settings)

    @property
    def trains_for_its_attacks(self) -> bool:
        """Whether the method trains on adversarial examples of a ball no smaller than that of the evaluation."""
        balls = [] if self.method.name == "collaborative" else balls_of(self.method.settings)
        return any(norm == self.norm and epsilon >= self.evaluation.epsilon for norm, epsilon in balls)

    def flat(self) -> dict[str, Any]:
        """The plan as the flat options that `make_plan` makes it from."""
        groups = [getattr(self, name) for name in GROUPS]
        flat = {option: getattr(group, name) for group in groups for option, name in options(group).items()}
        settings = {name: value for name, value in flat.pop("settings").items() if name != "bounds"}
        own = {name: getattr(self, name) for name in OWN}
        return {**flat, **own, **settings, "attacks": ",".join(self.evaluation.attacks)}


def plan_options() -> set[str]:
    """The options of a plan, without the settings of the methods."""
    return {name for group in GROUPS.values() for name in options(group)} - {"settings"} | set(OWN)


def of_methods(*others: str) -> set[str]:
    """The settings of all methods of stcore, and of others by name."""
    return {name for method in (*methods.METHODS, *others) for name in methods.fields(method)}


def usual_norm(settings: Mapping[str, Any]) -> str:
    """The norm of the evaluation's attacks after such a method: that of its first ball which PGD has."""
    return next((norm for norm, _ in balls_of(settings) if norm in PGD_NORMS), "linf")


def usual_radius(settings: Mapping[str, Any], norm: str) -> float | None:
    """The radius of these attacks, if the method trains in a ball of this norm."""
    return next((epsilon for own, epsilon in balls_of(settings) if own == norm), None)


def usual_choice(settings: Mapping[str, Any]) -> str:
    """The attack that chooses the best epoch: PGD-20, and of several balls, or of l1, Auto-PGD in all of them."""
    balls = balls_of(settings) if "balls" in settings else []
    members = [name_of(AUTO_PGD, norm, epsilon) for norm, epsilon in balls]
    return union_name(members) if len(members) > 1 else members[0] if members else "pgd20"


def stale(base: Mapping[str, Any], changes: Mapping[str, Any]) -> set[str]:
    """The settings that follow from the changed ones, and hold no longer. A change to the same value is none."""
    changed = {name for name in changes if name in base and changes[name] != base[name]}
    gone: set[str] = set()
    if "epsilon" in changed:
        gone |= {"step_size", "eval_epsilon"}
    if "norm" in changed:  # a radius means nothing in another norm
        gone |= {"epsilon", "step_size", "eval_epsilon"}
    if "balls" in changed:
        gone |= {"eval_epsilon", "select_by"}
    if "epochs" in changed:
        gone |= {"begin_epoch", "teacher_begin"}
    if "teacher" in changed or (changes.get("teacher") and base.get("teacher") is None):
        gone |= {*TEACHING}
    if "guidance" in changed:
        gone |= {*TEACHING} - {"guidance"}
    if "method" in changed:
        own = set(methods.fields(changes["method"]))
        both = SEARCH if "step_size" in own and "step_size" in base else BALL
        gone |= (of_methods(base["method"]) - (own & set(both))) | {"select_by"}
        gone |= {"eval_epsilon"} if base.get("norm") == "l2" and "norm" not in own else set()
        gone |= {"eval_epsilon"} if "balls" in base else set()
    optimizer = base.get("optimizer", "sgd")
    if changes.get("optimizer", optimizer) != optimizer:
        gone |= {"learning_rate", "weight_decay", "momentum", "nesterov", "betas", "decay_vectors"}
    if "model" in changed and base.get("pretrained"):
        gone |= {"pretrained", "normalize"}
    if {"awp", "rwp"} & set(changes):  # one for the other, or none
        none = changes.get("awp") is None and changes.get("rwp") is None
        gone |= {"awp", "rwp", "rwp_steps", "rwp_threshold"} | ({"perturbation_warmup"} if none else set())
    return gone


def _with_row(row: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """A preset's row of settings, overridden by the given ones; another ε keeps the row's ratio α/ε."""
    gone = stale(row, given)
    kept = {name: value for name, value in row.items() if name not in gone}
    scaled = "epsilon" in given and {"step_size", "epsilon"} <= row.keys()
    if scaled and "step_size" in gone and given.get("norm", row["norm"]) == row["norm"]:
        checks.number("epsilon", given["epsilon"])
        kept["step_size"] = given["epsilon"] * row["step_size"] / row["epsilon"]
    return {**kept, **given}


def make_plan(given: Mapping[str, Any]) -> Plan:
    """Completes the given flat settings from the preset's row, the data set's recipe and the method's defaults.

    Raises UsageError for a setting that is out of range, unknown, or not one of the chosen method's.
    """
    preset = given.get("preset")
    row = known_presets.settings_of(preset)
    if row is not None:
        given = _with_row(row, given)
    dataset, method = given.get("dataset", "digits"), given.get("method", "st")
    fields = methods.fields(method)
    if taken := plan_options() & set(fields):
        raise UsageError(
            f"method: expected {method} to have settings of its own; {', '.join(sorted(taken))} is one of every "
            "run. Rename it in the method"
        )
    recipe = preset if preset in presets.RECIPES else presets.default_preset(dataset)
    if row is None and preset not in (None, recipe):
        raise UsageError(
            f"preset: expected one of {', '.join(presets.RECIPES)}, or one that was run such as fast/digits, "
            f"or a row of the paper such as table1/cifar10/st (stcli presets lists them); received {preset!r}"
            + checks.did_you_mean(preset, (*presets.RECIPES, *known_presets.names()))
        )
    everything = of_methods(method)
    own = {name: _named(value) for name, value in given.items() if name in everything}
    rest = {name: value for name, value in given.items() if name not in everything}
    methods.check_fields(method, own)

    paper = presets.SQUEEZE[recipe]
    # another method's β is its own, and a single-step method's search
    shared = fields if method == "st" else SEARCH if "step_size" in fields else BALL
    settings = {name: getattr(paper, name) for name in fields if name in shared}
    given_recipe = presets.RECIPES[recipe]
    epochs = rest.get("epochs", given_recipe["epochs"])
    if "begin_epoch" in fields:
        settings["begin_epoch"] = math.ceil(epochs / 2)
    settings |= own
    if settings.get("norm") == "l2" and "epsilon" not in own:
        raise UsageError("epsilon: expected one with norm = l2; the presets' are for linf")
    if "epsilon" in own and "step_size" in set(fields) - set(own):
        checks.number("epsilon", own["epsilon"])
        settings["step_size"] = own["epsilon"] * paper.step_size / paper.epsilon  # the preset's ratio α/ε
    method_settings = dataclasses.asdict(methods.make_objective(method, settings))  # type: ignore[call-overload]
    eval_norm = rest.get("eval_norm") or usual_norm(method_settings)
    epsilon = usual_radius(method_settings, eval_norm) or settings.get("epsilon", paper.epsilon)
    choice = usual_choice(method_settings)
    usual = given_recipe.get("optimizer", "sgd")
    optimizer = str(rest.get("optimizer", usual))
    updates = presets.OPTIMIZERS.get(optimizer, presets.GIVEN_OPTIMIZER)
    if "warmup" in given_recipe:
        checks.whole("epochs", epochs, 1)
        given_recipe = given_recipe | {"warmup": given_recipe["warmup"] * epochs / given_recipe["epochs"]}
    complete = {
        "backend": "torch",
        "dataset": dataset,
        "method": method,
        "optimizer": optimizer,
        "schedule": "step",
        "eval_epsilon": epsilon,
        "eval_batch_size": 250,
        "attacks": tuple(dict.fromkeys(("fgsm", "pgd20", choice))),
        "select": "val",
        "select_by": choice,
        "seed": 0,
        "extra_fraction": 0.5 if rest.get("extra_data") else None,
        **_guidance(rest, epochs),
        **(updates | given_recipe if optimizer == usual else given_recipe | updates),
        **(presets.RWP[recipe] if rest.get("rwp") is not None else {}),
        **rest,
        "preset": preset or recipe,
        "settings": method_settings,
    }
    if complete["schedule"] != "step":
        if tuple(rest.get("drops", ())) not in ((), given_recipe["drops"]):
            raise UsageError(f"drops: expected none with schedule = {complete['schedule']}; only step has drops")
        complete["drops"] = ()
    if complete.get("pretrained") and "normalize" not in complete:
        complete["normalize"] = models.pretrained_normalization(complete["model"])
    known = plan_options() | {"settings"}
    for name in complete:
        if name not in known:
            raise UsageError(
                f"{name}: no such setting; known are {', '.join(sorted(known - {'settings'} | everything))}"
                + checks.did_you_mean(name, known - {"settings"} | everything)
            )
    if isinstance(complete["attacks"], str):
        complete["attacks"] = [name for name in complete["attacks"].split(",") if name]
    for name in _TUPLES:
        complete[name] = tuple(complete.get(name, ()))
    groups = {
        group: kind(**{field: complete[name] for name, field in options(kind).items() if name in complete})
        for group, kind in GROUPS.items()
    }
    return Plan(**groups, **{name: complete[name] for name in OWN})


_TUPLES = ("attacks", "drops", "betas", "early_steps", "ramp", "freeze", "teacher_share", "teacher_temperature")


def _guidance(given: Mapping[str, Any], epochs: int) -> dict[str, Any]:
    """What a teacher brings along, as published; nothing without one."""
    if (teacher := given.get("teacher")) is None:
        return {}
    of_average = teacher == guided.AVERAGE
    guidance = given.get("guidance") or ("adr" if of_average else "distillation")
    checks.choice("guidance", guidance, guided.GUIDANCE)
    return {
        "guidance": guidance,
        **guided.published(guidance, epochs),
        **({"ema": guided.DECAY} if of_average else {}),
    }


def _named(value: Any) -> Any:
    """A setting as the plan holds it: a divergence that is a function by its name, a list as a tuple."""
    if isinstance(value, list):
        return tuple(value)
    return DIVERGENCES.name_of(value) if callable(value) else value


def default_name(plan: Plan) -> str:
    """A run's folder name: data, network, method with its wrappers, backend, seed."""
    data = Path(plan.data.dataset.partition(":")[2] or plan.data.dataset).name
    wrapped = {
        "awp": plan.method.awp,
        "rwp": plan.method.rwp,
        plan.method.guidance or "": plan.method.teacher,
        "ema": plan.optimisation.ema,
        "extra": plan.data.extra_data,
    }
    around = "".join(f"-{name}" for name, value in wrapped.items() if value is not None)
    norm = "-l2" if plan.norm == "l2" else ""
    model, method = (name.removeprefix(f"{GIVEN}:") for name in (plan.model.name, plan.method.name))
    name = f"{data}-{model}-{method}{around}{norm}-{plan.runtime.backend}-seed{plan.seed}"
    return re.sub(r"[^\w.+-]", "-", name)  # not every file system takes the colon of timm:NAME
