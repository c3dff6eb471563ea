"""A report's parts in their order."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from stcore.report.audits import audits
from stcore.report.blocks import Block, Document, Part, Section
from stcore.report.compared import differences, side_by_side
from stcore.report.curves import together, training_curves
from stcore.report.gathered import GatheredRun
from stcore.report.phrases import METHODS, listed
from stcore.report.reproduce import reproduce
from stcore.report.results import results
from stcore.report.summary import headline
from stcore.report.trained import trained
from stcore.report.troubles import course
from stcore.results import names

Examples = Mapping[str, Sequence[Block]]


def document(runs: Sequence[GatheredRun], examples: Examples) -> Document:
    """The report of one run, or of several: those side by side first, then each by itself.

    examples: by run, the pictures of its examples or why there are none; a run without an entry says nothing.
    """
    parts = [] if len(runs) == 1 else [comparison(runs)]
    parts += [alone(run, "" if len(runs) == 1 else f"run-{n}-", examples) for n, run in enumerate(runs, 1)]
    if len(runs) == 1:
        title = runs[0].name
        subtitle = _what(runs[0])
    else:
        title = f"{len(runs)} runs compared"
        subtitle = listed([run.name for run in runs])
    return Document(title, subtitle, headline(runs), tuple(parts))


def comparison(runs: Sequence[GatheredRun]) -> Part:
    """All runs together."""
    sections = [side_by_side(runs, "side-by-side"), *together(runs, "curves"), differences(runs, "differences")]
    return Part("together", "All runs", tuple(sections))


def alone(run: GatheredRun, prefix: str, examples: Examples) -> Part:
    """One run; prefix: of its anchors."""
    sections = [
        results(run, f"{prefix}results"),
        trained(run, f"{prefix}trained"),
        *training_curves(run, f"{prefix}curves"),
    ]
    if run.name in examples:
        sections.append(Section(f"{prefix}examples", "Examples", tuple(examples[run.name])))
    sections += [
        audits(run, f"{prefix}audit"),
        course(run, f"{prefix}course"),
        reproduce(run, f"{prefix}reproduce"),
    ]
    return Part(f"{prefix}run", run.name if prefix else None, tuple(sections))


def _what(run: GatheredRun) -> str:
    config = run.config
    method = METHODS.get(str(config.get("method")), str(config.get("method")))
    return (
        f"{method} of {config.get('model')} on {names.data(str(config.get('dataset')))}, {config.get('backend')}"
    )
