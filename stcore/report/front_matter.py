"""Front matter of a model card: the YAML that the hub reads."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from stcore import zoo
from stcore.report.gathered import GatheredRun
from stcore.report.phrases import radius
from stcore.report.summary import chance_warning, figures
from stcore.results import names
from stcore.runs.plan import Plan

HUB_DATASETS = {"cifar10": "uoft-cs/cifar10", "cifar100": "uoft-cs/cifar100", "svhn": "ufldl-stanford/svhn"}
"""The published data sets' names on the hub."""


def front_matter(run: GatheredRun, plan: Plan, checkpoint: str) -> dict[str, Any]:
    """The card's metadata. A run's licence is left unknown: whoever publishes the weights chooses it."""
    data, kind = names.data(plan.data.dataset), plan.data.dataset.partition(":")[0]
    hub = _hub_dataset(plan)
    metrics = [
        {
            "type": "accuracy",
            "name": _metric_name(what, plan),
            "value": round(100 * score["accuracy"], 2),
            "verified": False,
        }
        for what, score in figures(run, checkpoint).items()
    ]
    return {
        "license": "unknown" if run.card is None else run.card.licence.lower(),
        "library_name": "stcore",
        **({} if any(chance_warning(run, checkpoint)) else {"pipeline_tag": "image-classification"}),
        "tags": ["adversarial-robustness", "adversarial-training", plan.method.name, plan.model.name],
        **({} if hub is None else {"datasets": [hub]}),
        "metrics": ["accuracy"],
        "model-index": [_entry(run.file_name, hub or kind, data, metrics)],
    }


def zoo_results(card: zoo.Card) -> dict[str, Any]:
    """The entry of the model index for a network of the zoo."""
    data = card.config["dataset"].partition(":")[0]
    metrics = [
        {
            "type": "accuracy",
            "name": "accuracy"
            if attack == "natural"
            else f"robust accuracy, {names.attack_in_words(attack)}, {radius(card.epsilon, card.norm)}",
            "value": round(100 * score["correct"] / score["total"], 2),
            "verified": False,
        }
        for attack, score in card.accuracies.items()
    ]
    return _entry(card.name, HUB_DATASETS.get(data, data), names.data(data), metrics)


def _entry(name: str, data: str, data_in_words: str, metrics: list[dict[str, Any]]) -> dict[str, Any]:
    """An entry of the model index."""
    return {
        "name": name,
        "results": [
            {
                "task": {"type": "image-classification", "name": "Image classification"},
                "dataset": {"type": data, "name": data_in_words, "split": "test"},
                "metrics": metrics,
            }
        ],
    }


def _metric_name(what: str, plan: Plan) -> str:
    """The metric's name with its radius, unless `what`, from an evaluation at another one, already has it."""
    if what == "natural":
        return "accuracy"
    if what.startswith("corruptions"):
        return what.replace("corruptions", "mean corruption accuracy", 1)
    return f"robust accuracy, {what}" + ("" if "ε" in what else f", {radius(plan.evaluation.epsilon, plan.norm)}")


def _hub_dataset(plan: Plan) -> str | None:
    kind, _, name = plan.data.dataset.partition(":")
    return name if kind == "hub" else HUB_DATASETS.get(kind)


def yaml(content: Any, indent: str = "") -> Iterator[str]:
    """The lines of YAML: dicts and lists in block style, scalars in JSON, which is valid YAML."""
    items = content.items() if isinstance(content, dict) else ((None, item) for item in content)
    for name, item in items:
        lead = indent + ("- " if name is None else f"{name}:")
        if not isinstance(item, (dict, list)):
            yield f"{lead}{'' if name is None else ' '}{json.dumps(item, ensure_ascii=False)}"
        elif name is None:
            first, *rest = yaml(item, indent + "  ")
            yield indent + "- " + first.lstrip()
            yield from rest
        else:
            yield lead
            yield from yaml(item, indent + "  ")
