"""A model card of one run, in the format of the Hugging Face hub: YAML front matter, then Markdown."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from stcore.errors import UsageError
from stcore.report.blocks import Block, Code, Document, Folded, Part, Section, Text
from stcore.report.chance import useless
from stcore.report.front_matter import front_matter, yaml
from stcore.report.gathered import GatheredRun
from stcore.report.markdown import markdown
from stcore.report.phrases import METHODS, listed, radius
from stcore.report.reproduce import reproduce
from stcore.report.results import results
from stcore.report.summary import headline
from stcore.report.trained import data, trained
from stcore.results import names
from stcore.runs.plan import Plan


def card(run: GatheredRun, checkpoint: str = "best") -> str:
    """The card of a finished run's checkpoint. UsageError where the run is not finished, or of another version."""
    if run.plan is None:
        raise UsageError(f"card: expected a run of this version of stcli train; received {run.path}. Train anew")
    if run.result is None:
        raise UsageError(f"card: expected a finished run; {run.path} has no result. Go on by stcli train --resume")
    lines = ["---", *yaml(front_matter(run, run.plan, checkpoint)), "---", ""]
    return "\n".join(lines) + markdown(_document(run, run.plan, checkpoint), folder="")


def _document(run: GatheredRun, plan: Plan, checkpoint: str) -> Document:
    """The body of the card."""
    sections = (
        Section("use", "Intended use", tuple(_use(run, plan, checkpoint))),
        Section("threat", "Threat model", tuple(_threat(plan))),
        _unfolded(results(run, "evaluation")),
        _unfolded(trained(run, "training")),
        Section("data", "Data", (data(run),)),
        Section("load", "How to load it", tuple(_load(plan, checkpoint))),
        _unfolded(reproduce(run, "reproduce")),
    )
    subtitle = f"{METHODS[plan.method.name]} of {plan.model.name} on {names.data(plan.data.dataset)}"
    return Document(run.name, subtitle, headline([run]), (Part("card", None, sections),))


def _unfolded(section: Section) -> Section:
    """Without what a report folds away: a card is short."""
    return replace(section, blocks=tuple(block for block in section.blocks if not isinstance(block, Folded)))


def _use(run: GatheredRun, plan: Plan, checkpoint: str) -> Iterator[Block]:
    if any(useless(run, checkpoint)):
        yield Text("None: as said above, this network has learnt nothing.", "warning")
        return
    yield Text(
        f"Classifying images like those of {names.data(plan.data.dataset)} where their pixels may have been "
        "changed a little by an adversary, and as a baseline in research on robustness."
    )
    yield Text(
        "Limits: it was judged on one test split alone, which says nothing of other images, of another camera, or "
        "of natural corruptions. Its robust accuracy is what known attacks left standing, an upper bound. It must "
        "not be relied on where an error harms anyone.",
        "note",
    )


def _threat(plan: Plan) -> Iterator[Block]:
    yield Text(
        "The adversary knows the network and its weights (white box), and may change every pixel of an image in "
        f"[0, 1] within {radius(plan.evaluation.epsilon, plan.norm)}, for the class to be wrong, whichever it is "
        "then. Larger changes, other norms, patches, rotations and poisoned training data were not considered."
    )
    if "epsilon" not in plan.method.settings:
        yield Text(
            "The network was trained without adversarial examples: it is not meant to be robust.", "warning"
        )


def _load(plan: Plan, checkpoint: str) -> Iterator[Block]:
    frameworks = (plan.runtime.backend,) if ":" in plan.model.name else ("torch", "keras")
    yield Text(
        f"{checkpoint}.safetensors holds the weights, for {listed(frameworks)}; nothing in it is executed. "
        "Networks take pixels in [0, 1]: torch (B, C, H, W), Keras (B, H, W, C)."
    )
    if ":" in plan.model.name:
        yield Text(
            f"The network is not one of stcore's own: {plan.model.name} has to be importable where it is loaded. "
            "Publish that module beside the weights, or name the package that it comes from.",
            "note",
        )
    for backend in frameworks:
        yield Code(loading(f"{checkpoint}.safetensors", backend), "python")


def loading(file: str, backend: str) -> str:
    """Python that rebuilds the network from its file."""
    return (
        "from pathlib import Path\n\n"
        "from stcore import models\n"
        "from stcore.runs.folder import load_weights\n\n"
        f'weights, about = load_weights(Path("{file}"))\n'
        'height, width, channels = map(int, about["image_shape"].split("x"))\n'
        "model = models.build(\n"
        '    about["model"],\n'
        f'    "{backend}",\n'
        '    num_classes=int(about["num_classes"]),\n'
        "    in_channels=channels,\n"
        "    image_size=(height, width),\n"
        '    normalize=about["normalize"],\n'
        ")\n"
        "models.load_weights(model, weights)" + ("\nmodel.eval()" if backend == "torch" else "")
    )
