"""Images per second of a stream of JPEG shards, and of the same images in memory, under a training step.

    python benchmarks/streams.py [--images 1024] [--side 224] [--batch 32] [--waits 0.5 0.6 1 2] [--model resnet8]
        [--rounds 3] [--threads 1] [--out docs/results]

Two kinds of steps. Waiting, as the host waits for a step of a device: for the CPU time in which one thread makes
the batch, times each of --waits. And standard training of --model on this CPU, on 32 pixels, which competes with
the decoding for the cores. Beside the time: the most images that were decoded and not given out yet, counted.
Writes streams.md and .json.
"""

from __future__ import annotations

import argparse
import io
import statistics
import tarfile
import tempfile
import threading
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import rounds
import steps
from PIL import Image

from stcore import StandardConfig
from stcore.core.dispatch import load_backend
from stcore.data import Batches, ImageData, StreamBatches, StreamData, load_stream

SHARDS = 4
WORKERS = (0, 1, 2)
MEMORY = "memory"

Source = Batches | StreamBatches
Measured = dict[str, float]


def write(folder: Path, images: int, side: int) -> None:
    """Training shards, and one of a single test image: smooth random images as JPEG of quality 90."""
    rng = np.random.default_rng(0)
    for name in ("test-000000", *(f"train-{shard:06d}" for shard in range(SHARDS))):
        with tarfile.open(folder / f"{name}.tar", "w") as tar:
            for key in range(images // SHARDS if name.startswith("train") else 1):
                coarse = Image.fromarray(rng.integers(0, 256, (side // 4, side // 4, 3), np.uint8))
                jpeg = io.BytesIO()
                coarse.resize((side, side), Image.Resampling.BICUBIC).save(jpeg, "JPEG", quality=90)
                for suffix, content in (("jpg", jpeg.getvalue()), ("cls", str(key % 10).encode())):
                    member = tarfile.TarInfo(f"{key:06d}.{suffix}")
                    member.size = len(content)
                    tar.addfile(member, io.BytesIO(content))


class Counted(StreamData):
    """A stream that counts its images: the most that were decoded, or being decoded, and not given out yet."""

    lock = threading.Lock()
    decoded = given = most = 0

    def pixels(self, sample: Any) -> Any:
        with Counted.lock:
            Counted.decoded += 1
            Counted.most = max(Counted.most, Counted.decoded - Counted.given)
        return super().pixels(sample)


def sources(folder: Path, batch: int) -> dict[str, Source]:
    """The same images from memory, and from the stream by each number of decode workers."""
    train: Any = load_stream(folder).train
    images, labels, _ = zip(*StreamBatches(train, batch, 0, workers=0).epoch(0), strict=True)
    data = ImageData.from_arrays(np.concatenate(images), np.concatenate(labels), train.num_classes)
    counted = Counted(**vars(train))
    streams = {str(n): StreamBatches(counted, batch, 0, "crop-flip", workers=n) for n in WORKERS}
    return {MEMORY: Batches(data, batch, 0, "crop-flip"), **streams}


def epoch_of(batches: Source, step: Callable[[], Any]) -> Measured:
    """An epoch with a step after each batch: seconds, CPU seconds of all threads, the most images ahead."""
    Counted.decoded = Counted.given = Counted.most = 0
    begun, spent = time.perf_counter(), time.process_time()
    for batch in batches.epoch(1):
        with Counted.lock:
            Counted.given += len(batch.labels)
        step()
    return {
        "seconds": time.perf_counter() - begun,
        "cpu_seconds": time.process_time() - spent,
        "most_ahead": Counted.most,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=1024)
    parser.add_argument("--side", type=int, default=224)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--waits", type=float, nargs="+", default=[0.5, 0.6, 1.0, 2.0])
    parser.add_argument("--model", default="resnet8")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path, default=Path("docs/results"))
    args = parser.parse_args()

    backend = load_backend("torch")
    backend.use_threads(args.threads)
    backend.use_device("cpu")  # as `stcli` does
    train = steps.step_of(steps.learner_of("torch", args.model), StandardConfig(), args.batch)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write(folder, args.images, args.side)
        feeds = sources(folder, args.batch)
        alone = [epoch_of(feeds["0"], lambda: None)["cpu_seconds"] for _ in range(3)]
        decode = statistics.median(alone) / len(feeds["0"])  # seconds per batch
        waits = {f"waiting {k:g} × decode": partial(time.sleep, k * decode) for k in args.waits}
        runners = {
            f"{kind}/{feed}": partial(epoch_of, batches, step)
            for kind, step in {**waits, f"training {args.model}": train}.items()
            for feed, batches in feeds.items()
        }
        _, measured = rounds.in_turns(runners, args.rounds)
    cells = []
    for run, each in measured.items():
        kind, feed = run.split("/")
        seconds = {key: [one["seconds"] for one in measured[f"{kind}/{key}"]] for key in (MEMORY, feed)}
        middle, cpu = (statistics.median(one[unit] for one in each) for unit in ("seconds", "cpu_seconds"))
        share = rounds.said(rounds.ratio(seconds, MEMORY, feed))
        most = max(one["most_ahead"] for one in each)
        source = feed if feed == MEMORY else f"stream, {feed} workers"
        cells.append((kind, source, f"{args.images / middle:.0f}", share, f"{cpu:.2f}", most or "-"))
    rounds.publish(
        args.out,
        "streams",
        "A stream of JPEG shards against the same images in memory",
        f"{args.images} JPEGs of {args.side} × {args.side} pixels in {SHARDS} shards, batches of {args.batch}, "
        f"cropped and flipped. One thread makes a batch in {1000 * decode:.1f} ms of CPU time. N workers hold at "
        f"most N + 1 batches, {args.batch * args.side**2 * 3} bytes each. Medians of {args.rounds} rounds, "
        f"{args.threads} thread(s) for the training step.",
        rounds.command(parser, args),
        rounds.table(("step", "images from", "images/s", "/ memory", "CPU s", "most decoded ahead"), cells),
        {k: v for k, v in vars(args).items() if k != "out"},
        backend.versions(),
        decode_seconds_per_batch=decode,
        measured=measured,
    )


if __name__ == "__main__":
    main()
