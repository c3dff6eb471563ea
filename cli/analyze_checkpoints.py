"""Networks for `stcli analyze`, loaded one after another with the same images."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from stcore.analysis.examples import one_per_class
from stcore.analysis.subject import Subject
from stcore.base.weights_file import load_weights
from stcore.cli.analyze_options import ExamplesOptions, OfCheckpoints, given
from stcore.cli.evaluation_plan import checkpoints, is_weights, plan_from
from stcore.cli.options import EvaluateOptions
from stcore.cli.quiet import load_quietly
from stcore.errors import UsageError
from stcore.protocols import Array
from stcore.runs.checkpoint_evaluation import CheckpointEvaluation
from stcore.runs.plan import Plan
from stcore.runs.preparation import set_up

CLASSES = 3  # `examples` draws one image of each


@dataclass(frozen=True)
class Target:
    """One network: its name, its weights file, and the plan that they follow."""

    name: str
    file: Path
    plan: Plan


def targets(names: dict[str, Path], options: OfCheckpoints) -> list[Target]:
    """The networks of runs and weights files by name, all in one framework: --backend, or that of the first."""
    found: list[Target] = []
    for name, run in names.items():
        asked = EvaluateOptions(
            run=run,
            backend=found[0].plan.runtime.backend if found else options.backend,
            model=options.model if run.is_file() else None,
            attacks="",
            checkpoint=options.checkpoint if is_weights(run) else options.checkpoint or "best",
            batch_size=options.batch_size,
            subset=getattr(options, "subset", None),
            device=options.device,
            dtype=options.dtype,
            threads=options.threads,
            dataset=options.dataset,
            image_size=options.image_size if run.is_file() else None,
        )
        (file,) = checkpoints(asked).values()
        found.append(Target(name, file, plan_from(asked)))
    return found


def settings_of(module: Any, found: list[Target], options: OfCheckpoints) -> Any:
    """The settings of the analysis: the options given, else the paper's in proportion to the runs' ε."""
    said = given(module.Settings, options)
    balls = {(target.plan.evaluation.epsilon, target.plan.norm) for target in found}
    epsilon, norm = found[0].plan.evaluation.epsilon, found[0].plan.norm
    if len(balls) > 1 and not {"epsilon", "budgets"} & said.keys():
        radius = "budgets" if hasattr(options, "budgets") else "epsilon"
        raise UsageError(
            f"{radius}: expected one, as the runs have several: "
            + ", ".join(f"{norm} {epsilon:.6g}" for epsilon, norm in sorted(balls))
        )
    return dataclasses.replace(module.Settings.at(said.get("epsilon", epsilon), norm), **said)


def subjects(found: list[Target], options: OfCheckpoints, record: dict[str, dict[str, Any]]) -> Iterator[Subject]:
    """Yields each network with its images, and adds its entry of the analysis' record to `record`."""
    loaded: dict[tuple[Any, ...], Any] = {}
    for target in found:
        plan = target.plan
        backend = load_quietly(plan.runtime.backend)
        source = (plan.data.dataset, plan.data.columns, plan.data.image_size, plan.data.test_size)
        weights, metadata = load_weights(target.file)
        setup = set_up(plan, metadata, loaded.get(source))
        work = CheckpointEvaluation(setup, getattr(options, "subset", None))
        loaded[source] = work.test
        work.load(weights)
        places = _chosen(work, options)
        record[target.name] = {
            "file": str(target.file),
            "method": metadata.get("method"),
            "epoch": metadata.get("epoch"),
            **work.identity(weights),
            "images": len(places),
            "versions": backend.versions(),
        }
        test = work.test
        yield Subject(
            target.name,
            work.classifier,
            test.images[places],
            test.labels[places],
            places,
            metadata.get("method"),
            plan.evaluation.batch_size,
            test.class_names,
        )


def _chosen(work: CheckpointEvaluation, options: OfCheckpoints) -> Array:
    """Indices of the selected images in the test split."""
    labels = work.test.labels
    images = getattr(options, "images", None)
    if images is not None:
        for name in ("classes", "seed") if isinstance(options, ExamplesOptions) else ("subset",):
            if getattr(options, name, None) is not None:
                raise UsageError(f"{name}, images: expected at most one of the two; received both")
        if not all(0 <= place < len(labels) for place in images) or len(set(images)) < len(images):
            raise UsageError(
                f"images: expected indices of the test split, 0 to {len(labels) - 1}, each once; received "
                + ",".join(map(str, images))
            )
        return np.array(images)
    if isinstance(options, ExamplesOptions):
        classes = CLASSES if options.classes is None else options.classes
        return one_per_class(labels, classes, options.seed or 0)
    return work.places[: options.usual] if getattr(options, "subset", None) is None else work.places
