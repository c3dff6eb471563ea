"""Examples of a run to look at, found on its checkpoint now; or why there are none."""

from __future__ import annotations

import dataclasses

import numpy as np

from stcore.analysis.examples import KINDS, Result, Settings, compute, one_per_class
from stcore.analysis.subject import Subject
from stcore.base.progress import Progress
from stcore.base.weights_file import load_weights
from stcore.errors import DataError, DeviceError, UsageError
from stcore.report.blocks import Block, Picture, Pictures, Text
from stcore.report.gathered import GatheredRun
from stcore.report.phrases import radius
from stcore.runs.checkpoint_evaluation import CheckpointEvaluation
from stcore.runs.plan import Plan
from stcore.runs.preparation import set_up
from stcore.runs.record import data_of

IMAGES = 4
"""So many, of as many classes, fit a page."""


def examples_of(run: GatheredRun, progress: Progress) -> tuple[Block, ...]:
    """The pictures of the best checkpoint, or of the last where the run has no best yet; a sentence where there
    can be none, for a report is worth having without."""
    name = next((name for name in ("best", "last") if name in run.weights), None)
    if run.plan is None or name is None:
        return (Text("No examples: the run has no weights that this version of stcore can load.", "note"),)
    try:
        subject = _subject(run, run.plan, name)
    except (DataError, UsageError, DeviceError) as error:
        return (Text(f"No examples could be found here and now: {error}", "note"),)
    settings = dataclasses.replace(
        Settings.at(run.plan.evaluation.epsilon, run.plan.norm), epsilon=run.plan.evaluation.epsilon
    )
    result = compute([subject], settings, progress=progress)
    return (Text(_about(result, run.plan, name)), Pictures((_picture(run, result),)))


def _subject(run: GatheredRun, plan: Plan, checkpoint: str) -> Subject:
    weights, about = load_weights(run.path / f"{checkpoint}.safetensors")
    without = dataclasses.replace(plan, evaluation=dataclasses.replace(plan.evaluation, attacks=()))
    work = CheckpointEvaluation(set_up(without, about))
    test = work.test
    known = data_of(run.record).get("test", {}).get("sha256")
    if known is not None and known != test.fingerprint():
        raise DataError(f"{plan.data.dataset} holds other test images than those that the run was judged on")
    work.load(weights)
    places = np.sort(one_per_class(test.labels, IMAGES, seed=0))
    shown = test.subset(places)
    names = test.class_names
    return Subject(
        checkpoint, work.classifier, shown.images, shown.labels, places, plan.method.name, class_names=names
    )


def _about(result: Result, plan: Plan, checkpoint: str) -> str:
    return (
        f"One test image of each of {len(result.labels)} classes, and what {result.settings.steps} steps within "
        f"{radius(plan.evaluation.epsilon, plan.norm)} make of it on the {checkpoint} checkpoint: adversarial "
        "examples increase the loss, collaborative ones lower it."
    )


def _picture(run: GatheredRun, result: Result) -> Picture:
    from stcore.figures.examples import draw

    model, count = result.models[0], len(result.labels)
    said = [
        f"{kind} images: {int((model.predicted[kind] == result.labels).sum())} of {count} classified correctly, "
        f"mean cross-entropy {model.losses[kind].mean():.3g}"
        for kind in KINDS
    ]
    return Picture(
        f"{run.name.replace('/', '-')}-examples",
        f"{count} test images with their perturbations and the results. {'; '.join(said)}.",
        "On the left: the checkpoint, which test image, and its true class. Below an image: its cross-entropy, "
        f"and the class that the network takes it for. Perturbations are shown times {result.amplification:.3g}. "
        f"{'; '.join(said)}.",
        lambda dark: draw(result, dark=dark),
        wide=True,
    )
