"""`stcli pseudo-label`: labels images with a trained network."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tyro

from stcore import errors, models
from stcore.base import checks
from stcore.base.progress import stretch
from stcore.base.weights_file import load_weights
from stcore.cli.console import make_console, make_progress
from stcore.cli.own_settings import read_settings
from stcore.cli.parsing import Int, MaybeInt, MaybeText, Number, parse
from stcore.cli.quiet import load_quietly
from stcore.data import load_unlabelled, save_arrays
from stcore.errors import UsageError
from stcore.evaluation import pseudo_labels
from stcore.protocols import Classifier
from stcore.runs.folder import CHECKPOINTS, CONFIG, RunFolder
from stcore.runs.plan import make_plan
from stcore.runs.preparation import set_up


@dataclass(frozen=True)
class PseudoLabelOptions:
    """Label images with a trained network, and write them as extra data for `stcli train`."""

    run: tyro.conf.Positional[Path]
    """The run's folder, as `stcli train` leaves it."""
    data: str
    """The images: npz:FILE or ti500k:FILE; their labels, if any, are ignored."""
    out: Path
    """The .npz file to write; `stcli train --extra-data npz:FILE` reads it."""
    checkpoint: str = "best"
    """Checkpoint: best, last, best-ema or last-ema."""
    min_confidence: Number = 0.0
    """Leave out images whose most probable class has a smaller probability."""
    per_class: MaybeInt = None
    """Keep this many of each class, the most confident ones; 50000 in the published set."""
    backend: MaybeText = None
    """torch or keras; by default the one that trained."""
    batch_size: Int = 250
    """Images per batch."""
    device: str = "auto"
    """auto, cpu, cuda[:N] or mps (torch); cpu, gpu[:N] or, on JAX, tpu[:N] (keras)."""
    threads: MaybeInt = None
    """CPU threads."""


def main(args: Sequence[str]) -> int:
    """Labels as the arguments say; returns the exit code."""
    options = parse(PseudoLabelOptions, args, "stcli pseudo-label")
    folder = RunFolder.open(options.run)
    checks.choice("checkpoint", options.checkpoint, CHECKPOINTS)
    if options.out.suffix != ".npz" or not options.out.parent.is_dir() or options.out.exists():
        raise UsageError(f"out: expected a new .npz file in an existing folder; received {options.out}")
    weights, about = load_weights(folder.path / f"{options.checkpoint}.safetensors")
    images = load_unlabelled(options.data).images
    shape = "x".join(map(str, images.shape[1:]))
    if shape != about["image_shape"]:
        raise UsageError(f"data: expected images of {about['image_shape']}, as the run's; received {shape}")
    classifier = load_classifier(options, folder, about)
    classifier.load_weights(weights)

    console = make_console()
    progress = make_progress(console)
    with stretch(progress, "label", len(images)):
        labels, confidence = pseudo_labels.label(classifier, images, options.batch_size, progress.advance)
    places = pseudo_labels.keep(labels, confidence, options.min_confidence, options.per_class)
    num_classes = int(about["num_classes"])
    save_arrays(
        options.out, images[places], labels[places], confidence=confidence[places], num_classes=num_classes
    )
    counts = np.bincount(labels[places], minlength=num_classes)
    console.print(f"{len(places)} of {len(images)} images → {options.out}", soft_wrap=True)
    console.print(f"of each class: {', '.join(map(str, counts))}", soft_wrap=True)
    console.print(f"  stcli train --extra-data npz:{options.out} --extra-fraction 0.5 …", soft_wrap=True)
    return errors.OK


def load_classifier(options: PseudoLabelOptions, folder: RunFolder, about: Mapping[str, str]) -> Classifier:
    """The checkpoint's network, built from its file's metadata."""
    settings: dict[str, Any] = read_settings(folder.path / CONFIG)
    settings["dataset"] = folder.located(settings.get("dataset", "digits"))
    settings |= {"device": options.device, "threads": options.threads}
    plan = make_plan(settings | ({} if options.backend is None else {"backend": options.backend}))
    load_quietly(plan.runtime.backend)
    models.check_weights(about, plan.runtime.backend, plan.model.normalize)
    return set_up(plan, about).classifier()
