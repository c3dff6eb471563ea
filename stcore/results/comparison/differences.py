"""What stands against comparing runs with a row: settings, data, and how the runs differ among themselves."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

from stcore.errors import UsageError
from stcore.paper.preset import Preset
from stcore.runs.plan import make_plan
from stcore.runs.record import Record

IMMATERIAL = (
    *("backend", "seed", "device", "threads", "compile", "eval_batch_size", "attacks", "preset"),
    *("image_column", "label_column", "ema"),  # averaged weights are checkpoints of their own
)
"""What a run may have otherwise than the row. Of paths, only the kind of the data set before the colon counts."""

PUBLISHED = {"cifar10": (50_000, 10_000), "cifar100": (50_000, 10_000), "svhn": (73_257, 26_032)}
"""The archives whose pixels are the paper's, with the sizes of their training and test sets."""

EXTRA = 500_000
"""The pseudo-labelled images of RST."""


def reasons(preset: Preset, records: Sequence[Record]) -> list[str]:
    """All of them, a sentence each; UsageError for a run whose config is no plan."""
    wanted, found = complete(preset.settings), [_settings(record) for record in records]
    return [
        *(reason for settings in found for reason in _unlike(wanted, settings)),
        *(reason for record, settings in zip(records, found, strict=True) for reason in _data(record, settings)),
        *_among_themselves(records, found),
        *(f"{record.name} is unfinished: it has no result" for record in records if record.result is None),
    ]


def complete(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Every setting that matters, those left out as a plan completes them; of data, the kind alone."""
    plan = make_plan({name: value for name, value in settings.items() if name != "preset"}).flat()
    for name in ("dataset", "extra_data"):
        if isinstance(plan.get(name), str):
            plan[name] = plan[name].partition(":")[0]
    left_out = {*IMMATERIAL, *_idle(plan)}
    return {name: value for name, value in plan.items() if name not in left_out and value is not None}


def _settings(record: Record) -> dict[str, Any]:
    try:
        return complete(record.config)
    except UsageError as error:
        raise UsageError(f"run: {record.name} was not made by this version of stcli train: {error}") from error


def _idle(plan: Mapping[str, Any]) -> set[str]:
    """Settings that nothing of this plan reads."""
    idle = set() if plan["schedule"] == "step" else {"drops"}
    idle |= set() if plan.get("init") == "gaussian" else {"noise_std"}
    idle |= set() if plan.get("rwp") is not None else {"rwp_steps", "rwp_threshold"}
    return idle | (set() if plan.get("divergence") == "symmetric_kl" else {"stop_gradient_targets"})


def _unlike(wanted: Mapping[str, Any], found: Mapping[str, Any]) -> list[str]:
    """Each setting that is not the preset's; another method's own settings are not listed."""
    same_method = wanted["method"] == found["method"]
    names = [name for name in {**wanted, **found} if same_method or (name in wanted and name in found)]
    kind = found["dataset"]
    against = [
        f"{name}: the row has {_show(wanted.get(name))}, the run {_show(found.get(name))}"
        for name in names
        if name != "dataset" and not _same(wanted.get(name), found.get(name))
    ]
    if kind != wanted["dataset"]:
        unknown = "" if kind in PUBLISHED else ", whose pixels are not known to be the published ones"
        against.insert(0, f"dataset: the row has {wanted['dataset']}, the run {kind}{unknown}")
    return against


def _data(record: Record, settings: Mapping[str, Any]) -> list[str]:
    """What the run's data say against it: their sizes, where the settings leave them whole."""
    if record.environment is None:
        return [f"{record.name} does not say what data it had: it has no environment.json"]
    against, sizes = [], PUBLISHED.get(settings["dataset"])
    parts = record.environment.get("data", {})
    if sizes is not None and settings["select"] == "test":
        for part, whole in zip(("train", "test"), sizes, strict=True):
            images = parts.get(part, {}).get("images")
            if images != whole and f"{part}_size" not in settings:
                against.append(f"data: the published {part} set has {whole} images, the run's {images}")
    if "extra_data" in settings and (images := parts.get("extra", {}).get("images")) != EXTRA:
        against.append(f"data: the published extra data has {EXTRA} images, the run's {images}")
    return against


def _among_themselves(records: Sequence[Record], found: Sequence[Mapping[str, Any]]) -> list[str]:
    """What the runs differ in, beside their seeds; and seeds that they do not differ in."""
    first, against = found[0], []
    names = {name: None for settings in found for name in settings}
    varied = [name for name in names if any(not _same(first.get(name), other.get(name)) for other in found)]
    if varied:
        against.append(f"the runs differ among themselves in {', '.join(varied)}")
    data = {json.dumps(record.environment.get("data"), sort_keys=True) for record in records if record.environment}
    if len(data) > 1:
        against.append("the runs differ among themselves in their data")
    seeds = [record.config.get("seed", 0) for record in records]
    twice = sorted({seed for seed in seeds if seeds.count(seed) > 1})
    if twice:
        against.append(f"the runs are not independent: seed {', '.join(map(str, twice))} is there more than once")
    return against


def _same(one: Any, other: Any) -> bool:
    """Equal; numbers, to what is typed of them (0.0313725 for 8/255, yet not 0.031)."""
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
