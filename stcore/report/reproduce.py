"""Reproduction section: the commands that repeat a run and its evaluations."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping
from typing import Any

from stcore.data.download.registry import PUBLISHED
from stcore.evaluation.unions import without_members
from stcore.presets import default_preset
from stcore.report.blocks import Block, Code, Folded, Section, Text
from stcore.report.gathered import GatheredRun, LaterEvaluation
from stcore.runs.folder import CONFIG, as_toml
from stcore.runs.plan import Plan, make_plan
from stcore.runs.record import data_of

SAME = (
    "On a CPU with the same versions and number of threads, the figures come out the same. Elsewhere, rounding "
    "differs and training amplifies it: the figures then agree as those of two seeds do."
)

ALWAYS_GIVEN = ("backend", "dataset", "method")
"""The settings that every command gives, in this order; all others have defaults that follow from them."""


def reproduce(run: GatheredRun, key: str) -> Section:
    """The commands, and the file with all settings."""
    if run.plan is not None and run.plan.given:
        return Section(key, "How to reproduce", tuple(in_python(run, run.plan)))
    blocks: list[Block] = [Code("\n".join(map(in_lines, commands(run)))), Text(SAME)]
    title = f"Or save this as {CONFIG} and run stcli train --config {CONFIG}"
    blocks.append(Folded(title, (Code(as_toml(run.config).rstrip(), "toml"),)))
    return Section(key, "How to reproduce", tuple(blocks))


def in_python(run: GatheredRun, plan: Plan) -> Iterator[Block]:
    """The call that repeats a run whose network or data were handed over as objects."""
    objects = {
        "model": f"model, an object of the class {plan.model.name.partition(':')[2]}",
        "dataset": f"data, {plan.data.dataset.partition(':')[2]}",
        "optimizer": f"optimizer, {plan.optimisation.optimizer.partition(':')[2]}",
    }
    yield Text(f"In Python, with the same {' and the same '.join(objects[name] for name in plan.given)}:")
    preset = run.config.get("preset", plan.preset)
    determined = {"model": ("model", "backend", "dtype"), "dataset": ("dataset", "select"), "optimizer": ()}
    left_out = {"model", "dataset", "method", *plan.given}
    left_out |= {name for option in plan.given for name in determined[option]}
    if data_of(run.record).get("train", {}).get("sha256") is None:  # a loader's own
        left_out |= {"batch_size", "augment"}
    settings = {"preset": preset, "backend": plan.runtime.backend, **options_of(plan, preset)}
    words = [
        "model" if "model" in plan.given else repr(plan.model.name),
        "data" if "dataset" in plan.given else repr(plan.data.dataset),
        repr(plan.method.name),
        *(["validation=…", "test=…"] if "dataset" in plan.given else []),
        *(["optimizer=optimizer"] if "optimizer" in plan.given else []),
        *(f"{name}={value!r}" for name, value in settings.items() if name not in left_out),
    ]
    yield Code(f"import stcore\n\nstcore.train({', '.join(words)})", "python")
    yield Text(SAME)


def commands(run: GatheredRun) -> Iterator[str]:
    """The commands in order: download, training, evaluations."""
    out, plan = f"{run.path.name or 'run'}-again", run.plan
    if run.card is not None:
        yield from run.card.commands
    elif plan is None:
        yield shlex.join(["stcli", "train", "--config", str(run.path / CONFIG), "--out", out])
    else:
        if plan.data.dataset in PUBLISHED:
            yield f"stcli data fetch {plan.data.dataset}"
        yield train_command(plan, run.config.get("preset", plan.preset), out)
    for one in run.evaluations:
        if not one.mismatch:
            yield evaluate_command(run, one, out)


def in_lines(command: str, width: int = 88) -> str:
    """The command, broken into lines before options if it is long; an option and its value stay together."""
    lines = [""]
    for word in map(shlex.quote, shlex.split(command)):
        if word.startswith("--") and len(lines[-1]) > width - 24:
            lines.append("   ")
        lines[-1] = f"{lines[-1]} {word}" if lines[-1] else word
    return " \\\n".join(lines)


def train_command(plan: Plan, preset: str, out: str) -> str:
    """The `stcli train` command of this plan."""
    flat = plan.flat()
    given = {name: flat[name] for name in ALWAYS_GIVEN}
    if preset != default_preset(plan.data.dataset):
        given["preset"] = preset
    given |= options_of(plan, preset)
    words = [word for name, value in given.items() for word in option(name, value)]
    return shlex.join(["stcli", "train", *words, "--out", out])


def options_of(plan: Plan, preset: str) -> dict[str, Any]:
    """The settings that reproduce the plan, beside `ALWAYS_GIVEN` and the preset.

    A default may follow from another setting, as the step size does from ε. So settings that still differ are
    added until the plan is the same.
    """
    wanted = {name: value for name, value in plan.flat().items() if name != "preset"}
    base = {**{name: wanted[name] for name in ALWAYS_GIVEN}, "preset": preset}
    given: dict[str, Any] = {}
    while missing := different(wanted, make_plan({**base, **given}).flat()):
        given |= missing
    return {name: given[name] for name in wanted if name in given}


def defaults(plan: Plan, preset: str) -> dict[str, Any]:
    """The settings of a run for which only `ALWAYS_GIVEN` and the preset are given."""
    flat = plan.flat()
    return make_plan({**{name: flat[name] for name in ALWAYS_GIVEN}, "preset": preset}).flat()


def different(wanted: Mapping[str, Any], found: Mapping[str, Any]) -> dict[str, Any]:
    """The wanted settings that `found` lacks or has with another value."""
    return {name: value for name, value in wanted.items() if found.get(name) != value}


def option(name: str, value: Any) -> list[str]:
    """The words of a command-line option."""
    dashed = name.replace("_", "-")
    if isinstance(value, bool):
        return [f"--{dashed}" if value else f"--no-{dashed}"]
    if isinstance(value, (tuple, list)):
        return [f"--{dashed}", *map(repr, value)]
    return [f"--{dashed}", "none" if value is None else str(value)]


def evaluate_command(run: GatheredRun, one: LaterEvaluation, out: str) -> str:
    """The `stcli evaluate` command of this evaluation."""
    identity, plan = one.identity, run.plan
    attacks = ",".join(without_members(identity["attacks"]))
    of = [out, "--checkpoint", one.checkpoint] if run.card is None else [str(run.path)]
    words = ["stcli", "evaluate", *of, "--attacks", attacks]
    if any("Published(" in settings for settings in identity["attacks"].values()):
        words += option("corrupted", "FOLDER")
    usual = {} if plan is None else {"epsilon": plan.evaluation.epsilon, "norm": plan.norm, "seed": plan.seed}
    usual |= (
        {}
        if plan is None
        else {"backend": plan.runtime.backend, "dtype": plan.runtime.dtype, "subset": None, "shard": None}
    )
    for name in ("epsilon", "norm", "backend", "dtype", "precision", "bpda", "seed", "subset", "shard"):
        if identity.get(name) is not None and usual.get(name) != identity[name]:
            words += option(name, identity[name])
    return shlex.join(words)
