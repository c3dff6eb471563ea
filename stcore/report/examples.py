"""Examples section: adversarial and collaborative examples on a run's checkpoint, or why there are none."""

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
"""The number of images, each of another class."""


def examples_of(run: GatheredRun, progress: Progress) -> tuple[Block, ...]:
    """Pictures on the report's checkpoint, or on the last if there is no best one yet.

    If there can be no examples, a note says why; the rest of the report does not need them.
    """
    name = next((name for name in (run.checkpoint, "last") if name in run.weights), None)
    if run.plan is None or name is None:
        return (Text("No examples: the run has no weights that this version of stcore can load.", "note"),)
    try:
        subject = _subject(run, run.plan, name)
    except (DataError, UsageError, DeviceError) as error:
        return (Text(f"No examples: they could not be computed. {error}", "note"),)
    settings = dataclasses.replace(
        Settings.at(run.plan.evaluation.epsilon, run.plan.norm), epsilon=run.plan.evaluation.epsilon
    )
    result = compute([subject], settings, progress=progress)
    return (Text(_explanation(result, run.plan, name)), Pictures((_picture(run, result),)))


def _subject(run: GatheredRun, plan: Plan, checkpoint: str) -> Subject:
    weights, metadata = load_weights(run.files[checkpoint])
    if run.card is not None:  # whose fingerprint is of the whole test split
        plan = dataclasses.replace(plan, data=dataclasses.replace(plan.data, test_size=None))
    without = dataclasses.replace(plan, evaluation=dataclasses.replace(plan.evaluation, attacks=()))
    work = CheckpointEvaluation(set_up(without, metadata))
    test = work.test
    known = data_of(run.record).get("test", {}).get("sha256")
    if known is not None and known != test.fingerprint():
        raise DataError(f"{plan.data.dataset} holds other test images than those of the run's evaluation")
    work.load(weights)
    chosen = np.sort(one_per_class(test.labels, IMAGES, seed=0))
    shown = test.subset(chosen)
    names = test.class_names
    return Subject(
        checkpoint, work.classifier, shown.images, shown.labels, chosen, plan.method.name, class_names=names
    )


def _explanation(result: Result, plan: Plan, checkpoint: str) -> str:
    return (
        f"One test image of each of {len(result.labels)} classes, with its adversarial and collaborative "
        f"examples on the {checkpoint} checkpoint: {result.settings.steps} steps within "
        f"{radius(plan.evaluation.epsilon, plan.norm)} that increase (adversarial) or decrease (collaborative) "
        "the loss."
    )


def _picture(run: GatheredRun, result: Result) -> Picture:
    from stcore.figures.examples import draw

    model, count = result.models[0], len(result.labels)
    described = [
        f"{kind} images: {int((model.predicted[kind] == result.labels).sum())} of {count} classified correctly, "
        f"mean cross-entropy {model.losses[kind].mean():.3g}"
        for kind in KINDS
    ]
    return Picture(
        f"{run.file_name}-examples",
        f"{count} test images with their perturbations and the resulting examples. {'; '.join(described)}.",
        "On the left: the checkpoint, the test image's number and its true class. Below each image: its "
        f"cross-entropy and the predicted class. Perturbations are multiplied by {result.amplification:.3g}. "
        f"{'; '.join(described)}.",
        lambda dark: draw(result, dark=dark),
        wide=True,
    )
