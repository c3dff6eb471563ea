"""Model card of a run in the format of the Hugging Face hub: YAML front matter, then Markdown."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace

from stcore import models, zoo
from stcore.errors import UsageError
from stcore.report.blocks import Block, Code, Document, Folded, Part, Section, Text
from stcore.report.front_matter import front_matter, yaml, zoo_results
from stcore.report.gathered import GatheredRun
from stcore.report.markdown import markdown
from stcore.report.phrases import listed, percent, radius
from stcore.report.reproduce import reproduce
from stcore.report.results import corrupted, results
from stcore.report.summary import chance_warning, headline
from stcore.report.trained import data, trained
from stcore.results import names
from stcore.runs.plan import Plan


def card(run: GatheredRun, checkpoint: str | None = None, place: str | None = None) -> str:
    """The card of a checkpoint, by default the report's.

    place: where its network is loaded from; by default its weights file, or zoo:NAME.
    Raises UsageError if the run is unfinished or of another version.
    """
    if run.plan is None:
        raise UsageError(f"card: expected a run of this version of stcli train; received {run.path}. Train again")
    if run.result is None:
        raise UsageError(
            f"card: expected a finished run; {run.path} has no result. Resume it: stcli train --resume"
        )
    checkpoint = checkpoint or run.checkpoint
    place = place or (f"{checkpoint}.safetensors" if run.card is None else str(run.path))
    lines = ["---", *yaml(front_matter(run, run.plan, checkpoint)), "---", ""]
    document = _document(run, run.plan, checkpoint, place)
    return "\n".join(lines) + markdown(document, folder="")


def short_card(name: str, metadata: Mapping[str, str], place: str, of: zoo.Card | None = None) -> str:
    """The card of a network whose run is not here, as `card` writes it.   of: what is known of one of the zoo."""
    architecture, backends = metadata["model"], (metadata.get("backend", "torch"),)
    front = {
        "license": "unknown" if of is None else of.licence.lower(),
        "library_name": "stcore",
        "pipeline_tag": "image-classification",
        "tags": ["adversarial-robustness", architecture],
        **({} if of is None else {"metrics": ["accuracy"], "model-index": [zoo_results(of)]}),
    }
    blocks: list[Block] = [
        Text(f"{architecture}, {metadata['num_classes']} classes, {metadata['image_shape']} pixels.")
    ]
    if of is not None:
        accuracies = [
            f"{names.attack_in_words(attack)} {percent(score['correct'] / score['total'])} %"
            for attack, score in of.accuracies.items()
        ]
        blocks += [Text(f"{listed(accuracies)}, at {radius(of.epsilon, of.norm)}. {of.data_note}")]
        blocks += [Code("\n".join(of.commands), "sh")]
    for backend in backends if ":" in architecture else ("torch", "keras"):
        blocks.append(Code(loading(place, backend, architecture), "python"))
    document = Document(name, "", (), (Part("card", None, (Section("network", "The network", tuple(blocks)),)),))
    return "\n".join(["---", *yaml(front), "---", ""]) + markdown(document, folder="")


def _document(run: GatheredRun, plan: Plan, checkpoint: str, place: str) -> Document:
    """The body of the card."""
    sections = (
        Section("use", "Intended use", tuple(_use(run, plan, checkpoint))),
        Section("threat", "Threat model", tuple(_threat(plan))),
        _unfolded(results(run, "evaluation")),
        _unfolded(trained(run, "training")),
        Section("data", "Data", (data(run),)),
        Section("load", "How to load it", tuple(_load(plan, place))),
        _unfolded(reproduce(run, "reproduce")),
    )
    subtitle = f"{names.method_in_words(plan.method.name)} of {plan.model.name} on {names.data(plan.data.dataset)}"
    return Document(run.name, subtitle, headline([run]), (Part("card", None, sections),))


def _unfolded(section: Section) -> Section:
    """The section without its folded blocks: a card is short."""
    return replace(section, blocks=tuple(block for block in section.blocks if not isinstance(block, Folded)))


def _use(run: GatheredRun, plan: Plan, checkpoint: str) -> Iterator[Block]:
    if any(chance_warning(run, checkpoint)):
        yield Text("None: this network has learnt nothing (see above).", "warning")
        return
    yield Text(
        f"Classifying images like those of {names.data(plan.data.dataset)} whose pixels an adversary may have "
        "changed slightly, and as a baseline in research on robustness."
    )
    unknown = "other images or cameras"
    if not any(corrupted(run)):
        unknown = "other images, other cameras or natural corruptions"
    yield Text(
        f"Limits: it was evaluated on a single test split, which says nothing about {unknown}. Its robust "
        "accuracy is measured with known attacks and is therefore an upper bound. Do not rely on it if an error "
        "could harm anyone.",
        "note",
    )


def _threat(plan: Plan) -> Iterator[Block]:
    yield Text(
        "The adversary knows the network and its weights (white box). It may change every pixel of an image "
        f"within {radius(plan.evaluation.epsilon, plan.norm)}, for pixels in [0, 1], to obtain any wrong class "
        "(untargeted). Larger changes, other norms, patches, rotations and poisoned training data are excluded."
    )
    if "epsilon" not in plan.method.settings:
        yield Text(
            "The network was trained without adversarial examples: do not expect it to be robust.", "warning"
        )


def _load(plan: Plan, place: str) -> Iterator[Block]:
    frameworks = (plan.runtime.backend,) if models.is_third_party(plan.model.name) else ("torch", "keras")
    yield Text(
        f"{place} holds the weights for {listed(frameworks)}; loading it executes no code. The "
        "network takes pixels in [0, 1]: torch (B, C, H, W), Keras (B, H, W, C)."
    )
    if "model" in plan.given:
        yield Text(
            f"The network was handed over in Python, an object of the class {plan.model.name.partition(':')[2]}: "
            "make another, into which the weights are loaded. Publish that class with the weights.",
            "note",
        )
    elif models.is_third_party(plan.model.name):
        yield Text(
            f"The network is not one of stcore's own: {plan.model.name} must be importable to load the weights. "
            "Publish that module with the weights, or name its package.",
            "note",
        )
    for backend in frameworks:
        yield Code(loading(place, backend, plan.model.name), "python")


def loading(place: str, backend: str, model: str) -> str:
    """Python code that loads a network from its weights file, its folder or the hub."""
    trusted = (
        f', model="{model}"' if models.is_factory(model) else ", model=model" if models.is_given(model) else ""
    )
    return (
        "import stcore\n\n"
        f'network = stcore.load("{place}", backend="{backend}"{trusted})\n'
        "model = network.model  # network.predict(images), network.evaluate(…)"
    )
