"""images.csv: of data that were read from files, which of them the run trained, chose and tested on."""

from __future__ import annotations

import csv
import io
from pathlib import Path

from stcore.base.files import write_file
from stcore.data import ImageData, Splits

IMAGES = "images.csv"
COLUMNS = ("file", "part", "class", "reason")
"""part: train, validation, test, or left out, with the reason."""


def write_images(folder: Path, splits: Splits) -> None:
    """Writes the list into a run's folder, a row for each file; nothing for data that are not read from files."""
    parts = {"train": splits.train, "validation": splits.validation, "test": splits.test}
    known = {name: part for name, part in parts.items() if isinstance(part, ImageData) and part.files is not None}
    if not known:
        return
    text = io.StringIO()
    rows = csv.writer(text, lineterminator="\n")
    rows.writerow(COLUMNS)
    for name, part in known.items():
        names = part.class_names or tuple(map(str, range(part.num_classes)))
        files = () if part.files is None else part.files
        rows.writerows((file, name, names[label], "") for file, label in zip(files, part.labels, strict=True))
    reasons = dict.fromkeys(reason for part in known.values() for reason in part.left_out)
    for reason in reasons:
        file, _, what = reason.partition(": ")
        rows.writerow((file, "left out", "", what))
    write_file(folder / IMAGES, text.getvalue())
