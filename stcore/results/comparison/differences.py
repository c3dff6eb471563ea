"""Reasons why runs cannot be compared with a preset: settings, data, differences among the runs."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

from stcore.errors import UsageError
from stcore.measured import Measured
from stcore.runs.known_presets import Known
from stcore.runs.plan import make_plan
from stcore.runs.record import Record

IMMATERIAL = (
    *("backend", "seed", "device", "threads", "compile", "eval_batch_size", "attacks", "preset"),
    *("image_column", "label_column", "ema"),  # averaged weights are checkpoints of their own
)
"""Settings in which a run may differ from the preset. Of a path, only the kind before the colon is compared."""

PUBLISHED = {"cifar10": (50_000, 10_000), "cifar100": (50_000, 10_000), "svhn": (73_257, 26_032)}
"""The archives that hold the paper's pixels, with the sizes of their training and test sets."""

EXTRA = 500_000
"""The number of pseudo-labelled images of RST."""


def reasons(preset: Known, records: Sequence[Record]) -> list[str]:
    """All reasons, a sentence each. Raises UsageError for a run whose config is not a valid plan."""
    wanted, found = complete(preset.settings), [_settings(record) for record in records]
    if isinstance(preset, Measured):  # its images are known, whatever the run calls them
        settings = [_different_settings(wanted, its, "the preset") for its in found]
        data = [_other_data(preset, record) for record in records]
    else:
        settings = [[*_other_dataset(wanted, its), *_different_settings(wanted, its, "the row")] for its in found]
        data = [_unpublished_data(*pair) for pair in zip(records, found, strict=True)]
    return [
        *(reason for listed in (*settings, *data) for reason in listed),
        *_differences_among_runs(records, found),
        *(f"{record.name} is unfinished: it has no result" for record in records if record.result is None),
    ]


def complete(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Every setting that matters, with a plan's defaults filled in; of data sets, the kind alone."""
    plan = make_plan({name: value for name, value in settings.items() if name != "preset"}).flat()
    for name in ("dataset", "extra_data"):
        if isinstance(plan.get(name), str):
            plan[name] = plan[name].partition(":")[0]
    left_out = {*IMMATERIAL, *_unused(plan)}
    return {name: value for name, value in plan.items() if name not in left_out and value is not None}


def _settings(record: Record) -> dict[str, Any]:
    try:
        return complete(record.config)
    except UsageError as error:
        raise UsageError(f"run: {record.name} was not made by this version of stcli train: {error}") from error


def _unused(plan: Mapping[str, Any]) -> set[str]:
    """Settings that have no effect in this plan."""
    unused = set() if plan["schedule"] == "step" else {"drops"}
    unused |= set() if plan.get("init") == "gaussian" else {"noise_std"}
    unused |= set() if plan.get("rwp") is not None else {"rwp_steps", "rwp_threshold"}
    return unused | (set() if plan.get("divergence") == "symmetric_kl" else {"stop_gradient_targets"})


def _different_settings(wanted: Mapping[str, Any], found: Mapping[str, Any], whose: str) -> list[str]:
    """Each setting but the data set that differs from the preset's.

    Settings that only another method has are not listed.   whose: what the preset is called.
    """
    same_method = wanted["method"] == found["method"]
    names = [name for name in {**wanted, **found} if same_method or (name in wanted and name in found)]
    return [
        f"{name}: {whose} has {_show(wanted.get(name))}, the run {_show(found.get(name))}"
        for name in names
        if name != "dataset" and not _same(wanted.get(name), found.get(name))
    ]


def _other_dataset(wanted: Mapping[str, Any], found: Mapping[str, Any]) -> list[str]:
    """Another kind of data set than the row's."""
    kind = found["dataset"]
    if kind == wanted["dataset"]:
        return []
    unknown = "" if kind in PUBLISHED else ", whose pixels are not known to be the published ones"
    return [f"dataset: the row has {wanted['dataset']}, the run {kind}{unknown}"]


def _other_data(preset: Measured, record: Record) -> list[str]:
    """Splits of other sizes than the preset's, and other test images."""
    if record.environment is None:
        return [_unknown_data(record)]
    listed, parts = [], record.environment.get("data", {})
    for part, wanted in preset.data.items():
        found = parts.get(part, {})
        if found.get("images") != wanted["images"]:
            listed.append(
                f"data: the preset's {part} set has {wanted['images']} images, the run's {found.get('images')}"
            )
        elif part == "test" and found.get("sha256") != wanted["sha256"]:
            listed.append("data: the run's test images are not the preset's")
    return listed


def _unpublished_data(record: Record, settings: Mapping[str, Any]) -> list[str]:
    """Splits whose sizes differ from the published ones, unless the settings shorten them."""
    if record.environment is None:
        return [_unknown_data(record)]
    listed, sizes = [], PUBLISHED.get(settings["dataset"])
    parts = record.environment.get("data", {})
    if sizes is not None and settings["select"] == "test":
        for part, whole in zip(("train", "test"), sizes, strict=True):
            images = parts.get(part, {}).get("images")
            if images != whole and f"{part}_size" not in settings:
                listed.append(f"data: the published {part} set has {whole} images, the run's {images}")
    if "extra_data" in settings and (images := parts.get("extra", {}).get("images")) != EXTRA:
        listed.append(f"data: the published extra data has {EXTRA} images, the run's {images}")
    return listed


def _unknown_data(record: Record) -> str:
    return f"the data of {record.name} are not known: it has no environment.json"


def _differences_among_runs(records: Sequence[Record], found: Sequence[Mapping[str, Any]]) -> list[str]:
    """Settings and data in which the runs differ from each other, and seeds that occur twice."""
    first, listed = found[0], []
    names = {name: None for settings in found for name in settings}
    varied = [name for name in names if any(not _same(first.get(name), other.get(name)) for other in found)]
    if varied:
        listed.append(f"the runs differ from each other in {', '.join(varied)}")
    data = {json.dumps(record.environment.get("data"), sort_keys=True) for record in records if record.environment}
    if len(data) > 1:
        listed.append("the runs differ from each other in their data")
    seeds = [record.config.get("seed", 0) for record in records]
    twice = sorted({seed for seed in seeds if seeds.count(seed) > 1})
    if twice:
        listed.append(f"the runs are not independent: seed {', '.join(map(str, twice))} occurs more than once")
    return listed


def _same(one: Any, other: Any) -> bool:
    """Whether two settings are equal; numbers to the digits one types (0.0313725 is 8/255, 0.031 is not)."""
    if isinstance(one, (tuple, list)) and isinstance(other, (tuple, list)):
        return len(one) == len(other) and all(map(_same, one, other))
    if isinstance(one, float) and isinstance(other, (int, float)):
        return math.isclose(one, other, rel_tol=1e-5)
    return bool(one == other)


def _show(value: Any) -> str:
    if isinstance(value, (tuple, list)):
        return "(" + ", ".join(map(_show, value)) + ")"
    if value is None:
        return "none"
    return f"{value:.6g}" if isinstance(value, float) else str(value)
