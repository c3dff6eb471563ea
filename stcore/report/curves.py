"""Training curves section: accuracies, losses and the share of collaborative examples over the epochs."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any, TypeAlias

from stcore.analysis import curves, losses, ratio
from stcore.analysis.logs import Course
from stcore.errors import UsageError
from stcore.report.blocks import Block, Picture, Pictures, Section, Text
from stcore.report.gathered import GatheredRun
from stcore.report.phrases import listed, percent
from stcore.results.names import attack_in_words

LONGEST = 32  # characters of a name that fit above a figure
Paths: TypeAlias = Mapping[str, Path]


def together(runs: Sequence[GatheredRun], key: str) -> list[Section]:
    """The accuracies of all runs in one figure; no section if no run has a finished epoch."""
    return _section(key, _named(runs), {"accuracies": of_accuracies})


def training_curves(run: GatheredRun, key: str) -> list[Section]:
    """All curves of one run; no section if it has no finished epoch."""
    drawn = {"accuracies": of_accuracies, "losses": of_losses}
    if run.config.get("method") in ratio.LOGGED_BY:
        drawn["the share of collaborative examples"] = of_ratio
    return _section(key, _named([run]), drawn)


def _named(runs: Sequence[GatheredRun]) -> Paths:
    """The folders of runs with a finished epoch, by their names in the figure."""
    labels: dict[str, Path] = {}
    for number, run in enumerate(runs, start=1):
        if run.rows:
            label = in_figure(run.name)
            labels[f"{number}: {label}" if label in labels else label] = run.path
    return labels


def in_figure(name: str) -> str:
    """The name shortened to fit a column, with dollar signs escaped: matplotlib reads them as formulas."""
    short = name if len(name) <= LONGEST else f"{name[: LONGEST // 2]}…{name[-LONGEST // 2 + 1 :]}"
    return short.replace("$", r"\$")


def _section(key: str, paths: Paths, drawn: Mapping[str, Callable[[str, Paths], Picture]]) -> list[Section]:
    if not paths:
        return []
    pictures: list[Picture] = []
    missing: list[Block] = []
    for what, picture in drawn.items():
        try:
            pictures.append(picture(f"{key}-{what.replace(' ', '-')}", paths))
        except UsageError as reason:
            missing.append(Text(f"No figure of {what}: {reason}", "note"))
    blocks = [Pictures(tuple(pictures)), *missing] if pictures else missing
    return [Section(key, "Training, epoch by epoch", tuple(blocks))]


def of_accuracies(name: str, paths: Paths) -> Picture:
    """Natural and robust accuracy over the epochs."""
    result = curves.compute(paths, curves.Settings())
    under = f"under {attack_in_words(result.attack)}"
    described = [
        f"{_plain(one.label)}: natural {_from_to(one.natural, percent, ' %')}; {under} "
        f"{_from_to(one.robust, percent, ' %')}, highest {percent(max(one.robust.mean))} % in epoch "
        f"{one.robust.epochs[one.robust.mean.index(max(one.robust.mean))]}"
        for one in result.curves
    ]
    caption = (
        f"Natural accuracy and accuracy {under} on the {result.split} images after each epoch; these accuracies "
        "select the best epoch."
    )
    return _picture(name, "stcore.figures.curves", result, "accuracies over the epochs", described, caption)


def of_losses(name: str, paths: Paths) -> Picture:
    """Cross-entropies of the points in training."""
    result = losses.compute(paths, losses.Settings())
    described = [
        f"{kind.role} {_from_to(kind.loss, lambda loss: f'{loss:.3g}', ' nats')}"
        for panel in result.panels
        for kind in panel.kinds
    ]
    roles = listed([kind.role for kind in result.panels[0].kinds])
    caption = (
        f"Mean cross-entropy of the {roles} images in training; shaded: ± {result.settings.shade:g} standard "
        "deviations over the epoch's images."
    )
    return _picture(name, "stcore.figures.losses", result, "losses over the epochs", described, caption)


def of_ratio(name: str, paths: Paths) -> Picture:
    """The share of collaborative points among those that the search found."""
    result = ratio.compute(paths, ratio.Settings())
    described = [_from_to(one.share, percent, " %") for one in result.shares]
    caption = "Share of collaborative points in training: found points whose loss is below that of their image."
    return _picture(
        name, "stcore.figures.ratio", result, "the share of collaborative examples", described, caption
    )


def _picture(name: str, module: str, result: Any, what: str, described: Sequence[str], caption: str) -> Picture:
    def draw(dark: bool) -> Any:
        return import_module(module).draw(result, dark=dark)  # imports matplotlib only if a figure is drawn

    return Picture(name, f"Line chart of {what}. {'. '.join(described)}.", caption, draw)


def _from_to(course: Course, show: Callable[[float], str], unit: str) -> str:
    first, last = show(course.mean[0]), show(course.mean[-1])
    return f"from {first}{unit} in epoch {course.epochs[0]} to {last}{unit} in epoch {course.epochs[-1]}"


def _plain(label: str) -> str:
    return label.replace(r"\$", "$")
