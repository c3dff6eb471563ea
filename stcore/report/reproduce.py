"""The commands that make a run, and its evaluations, again."""

from __future__ import annotations

import shlex
from collections.abc import Iterator

from stcore.data.download.registry import PUBLISHED
from stcore.report.blocks import Block, Code, Folded, Section, Text
from stcore.report.gathered import GatheredRun, LaterEvaluation
from stcore.report.settings import again, flag, train_command
from stcore.runs.folder import CONFIG

SAME = (
    "On a CPU, with the same versions and number of threads, the figures come out the same. Elsewhere rounding "
    "differs, training carries it on, and they agree as two seeds do."
)


def reproduce(run: GatheredRun, key: str) -> Section:
    """As flags, and as the file of all settings."""
    blocks: list[Block] = [Code("\n".join(map(in_lines, commands(run)))), Text(SAME)]
    config = (run.path / CONFIG).read_text(encoding="utf-8")
    blocks.append(
        Folded(
            f"Or save this as {CONFIG}, and give stcli train --config {CONFIG}", (Code(config.rstrip(), "toml"),)
        )
    )
    return Section(key, "How to reproduce", tuple(blocks))


def commands(run: GatheredRun) -> Iterator[str]:
    """In their order."""
    out, plan = again(run.path), run.plan
    if plan is None:
        yield shlex.join(["stcli", "train", "--config", str(run.path / CONFIG), "--out", out])
    else:
        if plan.data.dataset in PUBLISHED:
            yield f"stcli data fetch {plan.data.dataset}"
        yield train_command(plan, run.config.get("preset", plan.preset), out)
    for one in run.evaluations:
        if not one.other:
            yield evaluate_command(run, one, out)


def in_lines(command: str, width: int = 88) -> str:
    """A command over several lines where one is too short for it, each flag together with its value."""
    lines = [""]
    for word in map(shlex.quote, shlex.split(command)):
        if word.startswith("--") and len(lines[-1]) > width - 24:
            lines.append("   ")
        lines[-1] = f"{lines[-1]} {word}" if lines[-1] else word
    return " \\\n".join(lines)


def evaluate_command(run: GatheredRun, one: LaterEvaluation, out: str) -> str:
    """The one that asked for this evaluation."""
    about, plan = one.about, run.plan
    words = ["stcli", "evaluate", out, "--checkpoint", one.checkpoint, "--attacks", ",".join(about["attacks"])]
    usual = {} if plan is None else {"epsilon": plan.evaluation.epsilon, "norm": plan.norm, "seed": plan.seed}
    usual |= (
        {}
        if plan is None
        else {"backend": plan.runtime.backend, "dtype": plan.runtime.dtype, "subset": None, "shard": None}
    )
    for name in ("epsilon", "norm", "backend", "dtype", "seed", "subset", "shard"):
        if about[name] is not None and usual.get(name) != about[name]:
            words += flag(name, about[name])
    return shlex.join(words)
