"""Cost of the data pipeline compared with training: batches from the host, and from images on the device.

    python benchmarks/pipeline.py [--backend torch] [--images 10000] [--batch 128] [--rounds 5] [--threads 1]
        [--out docs/results]

Measures an epoch of batches, shuffled, cropped, flipped and moved to the device, without training; and standard
training on the same batches, the cheapest method. Writes pipeline-BACKEND.md and .json.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Callable
from pathlib import Path

import numpy as np
import rounds
import steps

from stcore import StandardConfig
from stcore.core.dispatch import load_backend
from stcore.data import ImageData
from stcore.data.batches import Batches
from stcore.data.on_device import OnDevice
from stcore.data.resident import resident
from stcore.protocols import Learner


def epoch_of(batches: Batches, learner: Learner) -> Callable[[], float]:
    """Makes all batches of an epoch as tensors, and reads the last one to wait for the device."""

    def run() -> float:
        for batch in batches.epoch(1):
            images = batch.images
            last = images.tensor() if isinstance(images, OnDevice) else learner.images(images)
        return float(learner.ops.to_numpy(learner.ops.sum_all(last)))

    return run


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backend", choices=("torch", "keras"), default="torch")
    parser.add_argument("--model", default="resnet8")
    parser.add_argument("--images", type=int, default=10_000)
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path, default=Path("docs/results"))
    args = parser.parse_args()

    backend = load_backend(args.backend)
    backend.use_threads(args.threads)
    backend.use_device("cpu")  # as `stcli` does
    learner = steps.learner_of(args.backend, args.model)
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (args.images, 32, 32, 3), np.uint8)
    data = ImageData(pixels, rng.integers(0, 10, args.images), 10, "random")
    host = Batches(data, args.batch, 0, "crop-flip")
    device = resident(host, "on", 0, learner.resident)
    train = steps.step_of(learner, StandardConfig(), args.batch)
    count = args.images // args.batch
    runners = {
        "from the host": epoch_of(host, learner),
        "on the device": epoch_of(device, learner),
        "standard training": lambda: [train() for _ in range(count)][-1],
    }
    first, seconds = rounds.take_turns(runners, args.rounds)
    cells = []
    for name in runners:
        middle = statistics.median(seconds[name])
        ratio = rounds.said(rounds.ratio(seconds, name, "from the host"))
        cells.append((name, f"{middle:.3f}", f"{args.images / middle:.0f}", ratio, f"{first[name]:.2f}"))
    rounds.publish(
        args.out,
        f"pipeline-{args.backend}",
        f"Batches from the host and from the device: {args.backend}",
        f"{args.images} images of 32 × 32 × 3 in batches of {args.batch}, shuffled, cropped, flipped and "
        f"converted to the model's tensors; for comparison, standard training of {args.model}, the cheapest "
        f"method, on the same number of images. The device is a CPU, {args.threads} thread(s); medians of "
        f"{args.rounds} rounds.",
        rounds.command(parser, args),
        rounds.table(("batches", "s/epoch", "images/s", "/ from the host", "first epoch s"), cells),
        {k: v for k, v in vars(args).items() if k != "out"},
        backend.versions(),
        first=first,
        seconds=seconds,
    )


if __name__ == "__main__":
    main()
