"""Training section: the network, method, data and settings, and the selection of the best epoch."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from stcore.methods.balls import balls_of
from stcore.methods.guided import AVERAGE
from stcore.report.blocks import Block, Cell, Folded, Section, Table, Text
from stcore.report.gathered import GatheredRun
from stcore.report.phrases import listed, plural, radius, value
from stcore.report.reproduce import defaults
from stcore.results import names
from stcore.runs.plan import Plan
from stcore.runs.record import data_of
from stcore.training.schedules import TENTH

NO_PLAN = (
    "Another version of stcli train wrote these settings, and this version does not know all of them. They are "
    "listed as they are, without marking those that differ from the defaults."
)


def trained(run: GatheredRun, key: str) -> Section:
    """The training in words, then as tables."""
    blocks: list[Block] = []
    if run.plan is None:
        blocks += [Text(NO_PLAN, "note")]
    else:
        blocks += [Text(" ".join(sentences(run, run.plan))), *selection(run, run.plan), *origin(run)]
    settings = settings_table(run)
    marked = tuple(row for row in settings.rows if row[0].marked)
    if marked:
        preset = run.config.get("preset", "")
        blocks.append(Text(f"All settings are those of the preset {preset}, except the following."))
        blocks.append(Table(f"Settings that differ from the preset {preset}", settings.titles, marked))
    elif run.plan is not None:
        blocks.append(Text(f"All settings are those of the preset {run.config.get('preset', '')}."))
    blocks.append(Folded(f"All {len(settings.rows)} settings", (settings,)))
    blocks.append(Folded("Environment and data", tuple(surroundings(run))))
    return Section(key, "What was trained", tuple(blocks))


def sentences(run: GatheredRun, plan: Plan) -> Iterator[str]:
    """The most important settings in sentences."""
    size = run.weights.get(run.checkpoint, run.weights.get("last"))
    network = plan.model.name if size is None else f"{plan.model.name} ({size:,} parameters)"
    method = names.method_in_words(plan.method.name)
    yield (
        f"The network {network} was trained on {plan.data.dataset} with {plan.runtime.backend}; the method is "
        f"{method}."
    )
    own = plan.method.settings
    if plan.method.name != "standard" and "epsilon" in own:
        ball = radius(own["epsilon"], own.get("norm", "linf"))
        yield f"Each training step searched for examples within {ball}{_steps(own)}."
    if "balls" in own:
        balls = " or ".join(radius(epsilon, norm) for norm, epsilon in balls_of(own))
        yield (
            f"Each training step searched for examples within {balls}, drawn anew for each batch, in "
            f"{plural(own['steps'], 'step')} of Auto-PGD."
        )
    terms = {"beta": "the weight β", "divergence": "the divergence"}
    if parts := [f"{what} is {value(own[name])}" for name, what in terms.items() if name in own]:
        yield f"In the loss, {listed(parts)}."
    given = plan.optimisation
    yield (
        f"Training took {plural(given.epochs, 'epoch')} of {_optimizer(plan)} with batches of {given.batch_size} "
        f"images and a learning rate of {given.learning_rate:g}{_schedule(plan)}."
    )
    additions = {
        "adversarial weight perturbation": plan.method.awp,
        "robust weight perturbation": plan.method.rwp,
        "averaged weights with decay": given.ema,
        "mixup with α": plan.data.mixup,
        "CutMix with α": plan.data.cutmix,
        "a warm-up over epochs": given.warmup or None,
        "a factor of the learning rate from block to block": given.layer_decay,
        "gradients of at most the norm": given.clip_norm,
        "extra data with a share of each batch of": plan.data.extra_fraction,
    }
    if parts := [f"{what} {amount:g}" for what, amount in additions.items() if amount is not None]:
        yield f"Additions: {listed(parts)}."
    if plan.method.teacher is not None:
        of = "the run's averaged weights" if plan.method.teacher == AVERAGE else plan.method.teacher
        yield f"A teacher, {of}, guided it: {names.GUIDANCE[str(plan.method.guidance)]}."
    if given.freeze:
        yield f"The weights {listed(list(given.freeze))} were not trained."
    yield f"The seed is {plan.seed}."


def _steps(own: Mapping[str, Any]) -> str:
    """Number and length of the search's steps; methods of a single step count it in ε, others may have none."""
    length = own.get("step_size", own.get("step_scale", 0.0) * own["epsilon"])
    number = f", in {plural(own['steps'], 'step')}" if "steps" in own else ""
    return f"{number} of {names.radius(length)}" if number and length else number


def _optimizer(plan: Plan) -> str:
    given = plan.optimisation
    if "optimizer" in plan.given:
        return given.optimizer.partition(":")[2]
    if given.betas:
        own = f"AdamW (β {given.betas[0]:g} and {given.betas[1]:g}"
    else:
        own = f"SGD (momentum {given.momentum or 0:g}{', Nesterov' if given.nesterov else ''}"
    return f"{own}, weight decay {given.weight_decay or 0:g})"


def _schedule(plan: Plan) -> str:
    schedule, drops = plan.optimisation.schedule, plan.optimisation.drops
    if schedule == "step" and drops:
        factor = plan.optimisation.drop_factor
        how = "divided by ten" if factor == TENTH else f"times {factor:.3g}"
        return f", {how} after {listed([f'{100 * drop:.0f} %' for drop in drops])} of the epochs"
    return " with a cosine schedule" if schedule == "cosine" else ""


def origin(run: GatheredRun) -> Iterator[Text]:
    """Where the data of a network of the zoo come from, and the licences."""
    if run.card is not None:
        yield Text(f"{run.card.data_note} The licence of the weights is {run.card.licence}.")


def selection(run: GatheredRun, plan: Plan) -> Iterator[Text]:
    """The rule that selected the best epoch, if the report is about it."""
    if not run.checkpoint.startswith("best"):
        return
    images = data_of(run.record).get("validation" if plan.evaluation.select == "val" else "test", {}).get("images")
    number = "" if images is None else f" ({images:,} images)"
    attack = names.attack_in_words(plan.evaluation.select_by)
    rule = f"The best epoch is the one with the highest accuracy under {attack} on the "
    if plan.evaluation.select_by == "natural":
        rule = "The best epoch is the one with the highest natural accuracy on the "
    if plan.evaluation.select == "val":
        yield Text(f"{rule}validation images{number}, which were held out of training.")
    else:
        yield Text(
            f"{rule}TEST images{number}, which is the paper's rule. Its figures are optimistic, since the same "
            "images select the epoch and evaluate it.",
            "warning",
        )


def settings_table(run: GatheredRun) -> Table:
    """All settings beside the preset's; settings that differ are marked."""
    preset = run.config.get("preset", "")
    if run.plan is None:
        rows = [(Cell(name), Cell(value(setting))) for name, setting in run.config.items()]
        return Table("Settings", ("setting", "this run"), tuple(rows))
    usual = defaults(run.plan, preset)
    flat = {**run.plan.flat(), "preset": preset}
    rows3 = []
    for name, setting in sorted(flat.items()):
        differs = name != "preset" and usual.get(name) != setting
        rows3.append((Cell(name, marked=differs), Cell(value(setting), marked=differs), _usual(usual, name)))
    return Table("Settings", ("setting", "this run", "the preset"), tuple(rows3))


def _usual(usual: Mapping[str, Any], name: str) -> Cell:
    return Cell(value(usual[name]) if name in usual else "")


def surroundings(run: GatheredRun) -> Iterator[Block]:
    """Versions, device and data from environment.json."""
    environment = run.record.environment
    if environment is None:
        yield Text("The run has no environment.json, so its hardware, software and data are unknown.", "note")
        return
    packages = environment.get("packages", {})
    brought = [f"{package} ({name})" for name, package in packages.items()]
    plain = {name: it for name, it in environment.items() if name not in ("data", "packages")}
    plain |= {"packages": ", ".join(brought)} if brought else {}
    rows = [(Cell(name), Cell(value(it))) for name, it in plain.items()]
    yield Table("Hardware and software", ("", ""), tuple(rows))
    yield data(run)


def data(run: GatheredRun) -> Table:
    """Each split's size and fingerprint."""
    parts = [
        (
            Cell(part),
            Cell(f"{it['images']:,}" if "images" in it else "unknown"),
            Cell(it["sha256"] or "unknown, of a loader"),
        )
        for part, it in data_of(run.record).items()
    ]
    caption = f"Splits of {names.data(str(run.config.get('dataset')))}"
    return Table(caption, ("split", "images", "SHA-256 of images and labels"), tuple(parts))
