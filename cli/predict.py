"""`stcli predict`: classifies photos."""

from __future__ import annotations

import csv
import io
import json
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

from stcore import errors
from stcore.api.run import load
from stcore.base import checks
from stcore.cli.options import PredictOptions
from stcore.cli.parsing import parse
from stcore.cli.quiet import quietly
from stcore.errors import BrokenImageWarning

FORMATS = ("csv", "json")


def main(args: Sequence[str]) -> int:
    """Prints the classes; returns the exit code."""
    options = parse(PredictOptions, args, "stcli predict")
    checks.choice("format", options.format, FORMATS)
    with quietly():
        network = load(
            options.run,
            checkpoint=options.checkpoint,
            backend=options.backend,
            model=options.model,
            device=options.device,
        )
    photos = network.read_photos(options.images, skip_broken=options.skip_broken)
    for reason in photos.broken:
        warnings.warn(reason, BrokenImageWarning, stacklevel=1)
    with quietly():
        probabilities = network.probabilities(photos.images, batch_size=options.batch_size)
    names = network.class_names or tuple(map(str, range(probabilities.shape[1])))
    rows = [
        {
            "image": photo,
            "class": names[int(shares.argmax())],
            "probability": float(shares.max()),
            "probabilities": dict(zip(names, shares.tolist(), strict=True)),
        }
        for photo, shares in zip(photos.names, probabilities, strict=True)
    ]
    print(
        json.dumps(rows, indent=2, ensure_ascii=False) if options.format == "json" else _csv(rows, names), end=""
    )
    return errors.OK


def _csv(rows: Sequence[Mapping[str, Any]], names: Sequence[str]) -> str:
    """A line per photo: its class, the probability of that, and the probability of every class."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(["image", "class", "probability", *(f"p({name})" for name in names)])
    for row in rows:
        shares = (row["probability"], *row["probabilities"].values())
        writer.writerow([row["image"], row["class"], *(f"{share:.6f}" for share in shares)])
    return out.getvalue()
