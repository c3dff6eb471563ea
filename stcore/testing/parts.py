"""The contracts of a data set and of a tracker."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from stcore.api.run import Run
from stcore.data.images import ImageData, Splits
from stcore.data.readers.sources import DATASETS
from stcore.runs.plan import make_plan
from stcore.trackers import EVENTS, make_tracker


def check_dataset(load: Any, **options: Any) -> Splits:
    """Holds a data set to its contract, and returns it. Raises AssertionError that says what was expected.

    load: the function, or a name.   options: that it is called with, such as `place`.

    Images of bytes with integer labels in range, in parts of one shape and one number of classes; the same images
    each time; validation images; none of the test images among those to train on; images held out as asked.
    """
    function = DATASETS.find(load)
    splits, again = function(**options), function(**options)
    parts = {"train": splits.train, "validation": splits.validation, "test": splits.test}
    for name, part in parts.items():
        if not isinstance(part, ImageData):  # of a stream, or none
            continue
        images, labels = np.asarray(part.images), part.labels
        assert images.dtype == np.uint8 and images.ndim == 4, (
            f"{name}: expected uint8 (N, H, W, C); {images.dtype}"
        )
        assert len(images) == len(labels) > 0, (
            f"{name}: expected as many labels as images, and some; {len(labels)}"
        )
        assert labels.min() >= 0 and labels.max() < part.num_classes, f"{name}: expected labels in [0, classes)"
        other = getattr(again, name)
        assert part.fingerprint() == other.fingerprint(), (
            f"{name}: expected the same images each time; others came"
        )
    if isinstance(splits.train, ImageData):
        seen = {image.tobytes() for image in np.asarray(splits.train.images)}
        both = sum(image.tobytes() in seen for image in np.asarray(splits.test.images))
        assert both <= len(splits.test) / 10, f"test: expected other images than train's; {both} are in both"
        assert splits.validation is not None, "validation: expected images to choose the epoch on; received none"
    return splits


def check_tracker(tracker: Any) -> None:
    """Holds a tracker to its contract. Raises AssertionError that says what was expected.

    tracker: its class, made without arguments, or a name.

    It takes a run's events in their order, also of a run that is resumed, changes nothing of what it is given, and
    leaves the run's own files alone.
    """
    plan = make_plan({})
    rows = [{"epoch": epoch, "loss": 1 / epoch, "val_pgd20_accuracy": 0.5, "seconds": 1.0} for epoch in (1, 2, 3)]
    result = {"checkpoints": {"best": {"natural": {"correct": 9, "total": 10}}}, "epochs": 3}
    with tempfile.TemporaryDirectory(prefix="stcore-tracker-") as name:
        folder = Path(name)
        own = {"config.toml": "seed = 0\n", "metrics.jsonl": "{}\n"}
        for file, text in own.items():
            (folder / file).write_text(text)
        for resumed in (False, True):
            made = make_tracker(tracker)  # raises UsageError for what is no tracker
            made.on_begin(Run(None, plan.flat(), {}, path=folder))
            for row in rows[2:] if resumed else rows[:2]:
                given = dict(row)
                made.on_step(10 * row["epoch"], {"loss": row["loss"]})
                made.on_epoch(given)
                assert given == row, f"on_epoch: expected the row as it was; received {given}"
        made.on_end(dict(result))
        for file, text in own.items():
            assert (folder / file).read_text() == text, (
                f"expected the run's {file} as it was; the tracker changed it"
            )
    assert all(callable(getattr(made, event)) for event in EVENTS)
