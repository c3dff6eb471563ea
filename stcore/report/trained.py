"""What was trained, on what, and how the best epoch was chosen."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from stcore.report.blocks import Block, Cell, Folded, Section, Table, Text
from stcore.report.gathered import GatheredRun
from stcore.report.phrases import METHODS, attack, listed, plural, radius, value
from stcore.report.settings import defaults
from stcore.results import names
from stcore.runs.plan import Plan
from stcore.runs.record import data_of

NO_PLAN = (
    "These settings were written by another version of stcli train, which this one does not know in full: they "
    "are listed as they stand, and what differs from the defaults is not marked."
)


def trained(run: GatheredRun, key: str) -> Section:
    """In words, then as tables."""
    blocks: list[Block] = []
    if run.plan is None:
        blocks += [Text(NO_PLAN, "note")]
    else:
        blocks += [Text(" ".join(sentences(run, run.plan))), *chosen(run, run.plan)]
    settings = settings_table(run)
    marked = tuple(row for row in settings.rows if row[0].marked)
    if marked:
        preset = run.config.get("preset", "")
        blocks.append(Text(f"What was not given was completed by the recipe {preset}."))
        blocks.append(Table(f"Settings other than the recipe {preset} has them", settings.titles, marked))
    elif run.plan is not None:
        blocks.append(Text(f"Every setting is as the recipe {run.config.get('preset', '')} has it."))
    blocks.append(Folded(f"All {len(settings.rows)} settings", (settings,)))
    blocks.append(Folded("Environment and data", tuple(surroundings(run))))
    return Section(key, "What was trained", tuple(blocks))


def sentences(run: GatheredRun, plan: Plan) -> Iterator[str]:
    """The settings that a reader asks for first."""
    size = run.weights.get("best", run.weights.get("last"))
    network = plan.model.name if size is None else f"{plan.model.name} ({size:,} weights)"
    method, backend = METHODS[plan.method.name], plan.runtime.backend
    yield f"The network {network} was trained by {method} on {plan.data.dataset}, with {backend}."
    own = plan.method.settings
    if plan.method.name != "standard":
        ball = f"the ball of {radius(own['epsilon'], own.get('norm', 'linf'))}"
        yield f"In every step examples were searched in {ball}, in {plural(own['steps'], 'step')} of " + (
            f"{names.radius(own['step_size'])}."
        )
    weight = {"beta": "the weight β", "divergence": "the divergence"}
    if said := [f"{what} is {value(own[name])}" for name, what in weight.items() if name in own]:
        yield f"In the loss {listed(said)}."
    sgd = plan.optimisation
    yield (
        f"It took {plural(sgd.epochs, 'epoch')} of SGD in batches of {sgd.batch_size} images, with a learning "
        f"rate of {sgd.learning_rate:g}{_schedule(plan)}, momentum {sgd.momentum:g} and weight decay "
        f"{sgd.weight_decay:g}."
    )
    around = {
        "adversarial weight perturbation": plan.method.awp,
        "robust weight perturbation": plan.method.rwp,
        "averaged weights with decay": plan.optimisation.ema,
        "extra data as a share of each batch of": plan.data.extra_fraction,
    }
    if said := [f"{what} {amount:g}" for what, amount in around.items() if amount is not None]:
        yield f"Beside it: {listed(said)}."
    yield f"The seed is {plan.seed}."


def _schedule(plan: Plan) -> str:
    if plan.optimisation.schedule == "step" and plan.optimisation.drops:
        drops = listed([f"{100 * drop:.0f} %" for drop in plan.optimisation.drops])
        return f", divided by ten after {drops} of the epochs"
    return " on a cosine" if plan.optimisation.schedule == "cosine" else ""


def chosen(run: GatheredRun, plan: Plan) -> Iterator[Text]:
    """How the best epoch was chosen."""
    images = data_of(run.record).get("validation" if plan.evaluation.select == "val" else "test", {}).get("images")
    number = "" if images is None else f" ({images:,} images)"
    rule = f"The best epoch is the one with the highest accuracy under {attack(plan.evaluation.select_by)} on the "
    if plan.evaluation.select_by == "natural":
        rule = "The best epoch is the one with the highest natural accuracy on the "
    if plan.evaluation.select == "val":
        yield Text(f"{rule}validation images{number}, which were held out of training.")
    else:
        yield Text(
            f"{rule}TEST images{number}: the paper's rule. Its figures are optimistic, since the images that "
            "chose the epoch are those that judge it.",
            "warning",
        )


def settings_table(run: GatheredRun) -> Table:
    """Every setting; those that differ from the recipe's marked, with the recipe's beside them."""
    preset = run.config.get("preset", "")
    if run.plan is None:
        rows = [(Cell(name), Cell(value(given))) for name, given in run.config.items()]
        return Table("Settings", ("setting", "this run"), tuple(rows))
    usual = defaults(run.plan, preset)
    flat = {**run.plan.flat(), "preset": preset}
    rows3 = []
    for name, given in sorted(flat.items()):
        other = name != "preset" and usual.get(name) != given
        rows3.append((Cell(name, marked=other), Cell(value(given), marked=other), _usual(usual, name)))
    return Table("Settings", ("setting", "this run", "by the recipe"), tuple(rows3))


def _usual(usual: Mapping[str, Any], name: str) -> Cell:
    return Cell(value(usual[name]) if name in usual else "")


def surroundings(run: GatheredRun) -> Iterator[Block]:
    """Versions, device and data, as environment.json has them."""
    environment = run.record.environment
    if environment is None:
        yield Text("The run has no environment.json: what it ran on is not known.", "note")
        return
    plain = {name: it for name, it in environment.items() if name != "data"}
    rows = [(Cell(name), Cell(value(it))) for name, it in plain.items()]
    yield Table("What it ran on", ("", ""), tuple(rows))
    yield data(run)


def data(run: GatheredRun) -> Table:
    """Each split's size and fingerprint."""
    parts = [
        (Cell(part), Cell(f"{it['images']:,}"), Cell(it["sha256"])) for part, it in data_of(run.record).items()
    ]
    caption = f"Splits of {names.data(str(run.config.get('dataset')))}"
    return Table(caption, ("split", "images", "SHA-256 of images and labels"), tuple(parts))
