"""Data that `stcore.train` takes as objects: arrays, loaders, and data sets of `stcore.data`."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from stcore.base.registry import GIVEN
from stcore.data.batches import Epochs
from stcore.data.download.registry import PUBLISHED
from stcore.data.images import ImageData, LoaderData, Splits
from stcore.data.loader import LoaderBatches, count_batches, first_batch, pairs, to_host
from stcore.data.pixels import count_classes
from stcore.data.readers.named import largest_label
from stcore.data.readers.sources import DATASETS
from stcore.data.split import VALIDATION, hold_out
from stcore.errors import DataError, UsageError
from stcore.evaluation.attack_names import named_attacks
from stcore.methods import described

OF_FILES = (
    "train_size",
    "validation_size",
    "test_size",
    "image_column",
    "label_column",
    "image_size",
    "skip_broken",
    "decode_workers",
)
"""Settings of data that are read from files."""
OF_BATCHES = ("batch_size", "augment", "mixup", "cutmix", "resident", "extra_data", "extra_fraction")
"""Settings of batches that a loader makes itself."""


class GivenData(NamedTuple):
    """Data as a plan and a run take them.

    settings: of the plan.   splits: None if the plan names the data set.   batches: a loader's own.
    note: what the user should know of the split.
    """

    settings: Mapping[str, Any]
    splits: Splits | None = None
    batches: Epochs | None = None
    note: str | None = None


def given_data(data: Any, validation: Any, test: Any, seed: int, settings: Mapping[str, Any]) -> GivenData:
    """The data of `stcore.train`; settings: those that the user gave. Arguments and errors as there."""
    if callable(data) and not isinstance(data, Iterable):
        name = DATASETS.name_of(data)
        data = DATASETS.find(name)() if name.startswith(f"{GIVEN}:") else name
    if isinstance(data, str | Path):
        _refuse_parts("a data set by name has parts of its own", validation, test)
        return GivenData({"dataset": named(data)})
    _refuse(settings, OF_FILES, "data that are handed over as objects")
    if isinstance(data, Splits):
        _refuse_parts("stcore.data.Splits have parts of their own", validation, test)
        return GivenData({"dataset": f"{GIVEN}:{data.train.name}"}, data)
    if isinstance(data, ImageData) or _is_pair(data):
        return _of_arrays(data, validation, test, settings.get("select", "val"))
    if not isinstance(data, Iterable) or isinstance(data, Mapping | np.ndarray):
        raise UsageError(
            "data: expected a data set's name, a folder, arrays (images, labels), a loader of batches (images, "
            f"labels) or stcore.data.ImageData or Splits; received a {type(data).__qualname__}"
        )
    _refuse(settings, OF_BATCHES, "a loader, which makes its own batches")
    return _of_loader(data, validation, test, settings.get("select", "val"), seed)


def of_parts(method: Any, settings: Mapping[str, Any]) -> dict[str, Any]:
    """The settings that name a method, and attacks, that were handed over as objects or by name."""
    found: dict[str, Any] = {}
    if isinstance(method, str):
        found["method"] = method
    elif method is not None:
        found["method"], own = described(method)
        for name in own:
            if name in settings:
                raise UsageError(
                    f"{name}: expected none beside a method that is an object, which has its own; received "
                    f"{settings[name]!r}. Leave it out, or give the method by name"
                )
        if own.pop("bounds", (0.0, 1.0)) != (0.0, 1.0):
            raise UsageError("bounds: expected (0.0, 1.0), the range of a run's pixels; received others")
        found |= own
    attacks = settings.get("attacks", "")
    if not isinstance(attacks, str):
        found["attacks"] = named_attacks(attacks)
    return found


def named(data: str | Path) -> str:
    """The data set's name; that of a folder is folder:DIR."""
    known = data in ("digits", *PUBLISHED) or str(data).partition(":")[0] in DATASETS.names()
    return str(data) if isinstance(data, str) and (known or not Path(data).is_dir()) else f"folder:{data}"


def _refuse_parts(why: str, validation: Any, test: Any) -> None:
    for name, part in (("validation", validation), ("test", test)):
        if part is not None:
            raise UsageError(f"{name}: expected none, since {why}; received a {type(part).__qualname__}")


def _refuse(settings: Mapping[str, Any], names: Iterable[str], of: str) -> None:
    for name in names:
        if name in settings:
            raise UsageError(f"{name}: expected none for {of}; received {settings[name]!r}. Leave it out")


def _is_pair(data: Any) -> bool:
    """Whether these are (images, labels), and not two batches of them."""
    return isinstance(data, tuple | list) and len(data) == 2 and not isinstance(data[0], tuple | list)


def _is_share(validation: Any) -> bool:
    return isinstance(validation, float | int | np.integer) and not isinstance(validation, bool)


def _of_arrays(data: Any, validation: Any, test: Any, select: str) -> GivenData:
    _check_select(select, validation, test)
    share = validation if _is_share(validation) else None
    held = None if share is not None else validation
    parts = _labelled({"data": data, "validation": held, "test": test})
    if held is None and select != "test":
        parts["data"], parts["validation"] = hold_out(parts["data"], VALIDATION if share is None else share)
    return _together(parts["data"], parts.get("validation"), parts.get("test"))


def _of_loader(data: Any, validation: Any, test: Any, select: str, seed: int) -> GivenData:
    name = type(data).__name__
    _check_select(select, validation, test)
    if _is_share(validation) or (validation is None and test is None):
        raise UsageError(
            f"validation: expected (images, labels) or another loader beside a {name}, from which nothing can be "
            f"held out; received {validation}"
        )
    parts = _labelled({"validation": validation, "test": test})
    images, labels = first_batch(data, name)
    steps = count_batches(data, name)
    sampler = getattr(data, "sampler", None)  # a DataLoader's, whose length is its number of examples
    examples = steps * len(labels) if sampler is None or data.drop_last else len(sampler)
    known = next(iter(parts.values()))
    train = LoaderData(images.shape[1:], known.num_classes, name, examples, known.class_names)
    found = _together(train, parts.get("validation"), parts.get("test"))
    settings = {**found.settings, "batch_size": len(labels), "augment": "none"}
    return found._replace(settings=settings, batches=LoaderBatches(data, train, seed))


def _check_select(select: str, validation: Any, test: Any) -> None:
    if select == "test" and (test is None or validation is not None):
        raise UsageError(
            "select: expected test images, and no validation images, with select = test; received "
            f"validation = {'none' if validation is None else 'some'}, test = {'none' if test is None else 'some'}"
        )


def _together(train: ImageData | LoaderData, validation: ImageData | None, test: ImageData | None) -> GivenData:
    """The splits; if one of the two is missing, the other serves as both."""
    name = {"dataset": f"{GIVEN}:{train.name}"}
    if validation is not None and test is not None:
        return GivenData(name, Splits(train, validation, test))
    only, kind = (validation, "validation") if test is None else (test, "test")
    if only is None:
        raise AssertionError  # the callers have checked it
    note = (
        f"the best epoch is chosen on the {len(only)} {kind} images that the result is of, so that its accuracies "
        "are optimistic: give both validation= and test="
    )
    return GivenData({**name, "select": "test"}, Splits(train, only, only), note=note)


def _labelled(parts: Mapping[str, Any]) -> dict[str, ImageData]:
    """The parts that are not None, with one number of classes and their names."""
    known = {name: part for name, part in parts.items() if isinstance(part, ImageData)}
    others = {name: part for name, part in parts.items() if part is not None and name not in known}
    arrays = {name: _host(part, name) for name, part in others.items()}
    names = next((part.class_names for part in known.values() if part.class_names is not None), None)
    count = max((part.num_classes for part in known.values()), default=0)
    if arrays and not count:
        largest = max(largest_label(labels) for _, labels in arrays.values())
        count = count_classes(largest, sum(len(labels) for _, labels in arrays.values()), "data")
    same = {name: dataclasses.replace(it, num_classes=count, class_names=names) for name, it in known.items()}
    return same | {
        name: ImageData.from_arrays(images, labels, count, "arrays" if name == "data" else name, names)
        for name, (images, labels) in arrays.items()
    }


def _host(part: Any, name: str) -> tuple[np.ndarray, np.ndarray]:
    """Images and labels on the host, of arrays or of all batches of a loader."""
    if _is_pair(part):
        return to_host(part[0], part[1], name)
    if not isinstance(part, Iterable) or isinstance(part, str | Mapping | np.ndarray):
        raise UsageError(
            f"{name}: expected (images, labels), a loader or stcore.data.ImageData"
            f"{', or a share such as 0.1' if name == 'validation' else ''}; received {part!r}"
        )
    batches = list(pairs(part, name))
    if not batches:
        raise DataError(f"{name}: expected at least one batch; received none")
    images, labels = zip(*batches, strict=True)
    return np.concatenate(images), np.concatenate(labels)
