"""Composition of a report from its sections."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from stcore.report.audits import audits
from stcore.report.blocks import Block, Document, Part, Section
from stcore.report.compared import differences, side_by_side
from stcore.report.curves import together, training_curves
from stcore.report.gathered import GatheredRun
from stcore.report.history import history
from stcore.report.phrases import listed
from stcore.report.reproduce import reproduce
from stcore.report.results import results
from stcore.report.robustness import robustness
from stcore.report.summary import headline
from stcore.report.trained import trained
from stcore.results import names

Examples = Mapping[str, Sequence[Block]]


def document(runs: Sequence[GatheredRun], examples: Examples) -> Document:
    """The report of one run, or of several: first their comparison, then a part per run.

    examples: for each run's name, the pictures of its examples or the reason why there are none. A run without an
    entry gets no such section.
    """
    parts = [] if len(runs) == 1 else [comparison(runs)]
    parts += [single_run(run, "" if len(runs) == 1 else f"run-{n}-", examples) for n, run in enumerate(runs, 1)]
    if len(runs) == 1:
        title = runs[0].name
        subtitle = _subtitle(runs[0])
    else:
        title = f"{len(runs)} runs compared"
        subtitle = listed([run.name for run in runs])
    return Document(title, subtitle, headline(runs), tuple(parts))


def comparison(runs: Sequence[GatheredRun]) -> Part:
    """The comparison of all runs."""
    sections = [side_by_side(runs, "side-by-side"), *together(runs, "curves"), differences(runs, "differences")]
    return Part("together", "All runs", tuple(sections))


def single_run(run: GatheredRun, prefix: str, examples: Examples) -> Part:
    """The sections of one run. prefix: of their anchors."""
    sections = [
        results(run, f"{prefix}results"),
        *robustness(run, f"{prefix}robustness"),
        trained(run, f"{prefix}trained"),
        *training_curves(run, f"{prefix}curves"),
    ]
    if run.name in examples:
        sections.append(Section(f"{prefix}examples", "Examples", tuple(examples[run.name])))
    sections += [
        audits(run, f"{prefix}audit"),
        *history(run, f"{prefix}history"),
        reproduce(run, f"{prefix}reproduce"),
    ]
    return Part(f"{prefix}run", run.name if prefix else None, tuple(sections))


def _subtitle(run: GatheredRun) -> str:
    config = run.config
    method = names.method_in_words(str(config.get("method")))
    return (
        f"{method} of {config.get('model')} on {names.data(str(config.get('dataset')))}, {config.get('backend')}"
    )
