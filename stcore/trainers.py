"""A plan's trainer: its learner, what is averaged, watched and done about trouble."""

from __future__ import annotations

from collections.abc import Callable

from stcore.attack_names import apart, named
from stcore.attacks import Attack
from stcore.data import ImageData
from stcore.data.batches import Epochs
from stcore.evaluation import Evaluator
from stcore.plan import Plan
from stcore.progress import Progress
from stcore.protocols import Learner
from stcore.ranks import Alone, Ranks
from stcore.remedies import Remedies
from stcore.schedules import BY_STEP, make_schedule
from stcore.training import Average, Schedules, Store, Trainer
from stcore.watchers import Watch


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
        schedules=schedules_of(plan),
        seed=plan.seed,
        store=store,
        progress=progress,
        eval_batch_size=plan.eval_batch_size,
        until=until,
        accumulate=plan.accumulate,
        ranks=ranks,
    )


def schedules_of(plan: Plan) -> Schedules:
    """The plan's learning rates."""
    schedule = make_schedule(plan.schedule, plan.drops)
    return Schedules(plan.epochs, plan.learning_rate, schedule, plan.schedule in BY_STEP)


def average_of(plan: Plan, learner: Learner) -> Average | None:
    """The averaged weights that the plan asks for, which start as the learner's are."""
    if plan.ema is None:
        return None
    return Average(Evaluator(learner.twin(), monitors(plan), plan.seed), plan.ema)


def monitors(plan: Plan) -> dict[str, Attack]:
    """The attacks after each epoch, by name."""
    watched = [name for name in ("pgd20", plan.select_by) if name != "natural"]
    return apart(named(watched, plan.eval_epsilon, plan.norm))[0]


def remedies_of(plan: Plan, selection: ImageData, warn: Callable[[str], None]) -> Remedies:
    """What the plan does about trouble, which is looked for in the figures of this selection."""
    chance = float(selection.class_counts().max()) / len(selection)
    watch = Watch(len(selection), selection.num_classes, chance, plan.trains_for_its_attacks)
    return Remedies(watch, plan.on_trouble, warn)
