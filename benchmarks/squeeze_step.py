"""How long one squeeze-training step takes: ours on torch and on Keras, against a plain implementation.

    python benchmarks/squeeze_step.py [--model resnet18] [--batch 32] [--steps 10] [--rounds 5] [--threads 1]

The engines take turns within each round, so a machine that slows down slows all of them; the ratios are taken
round by round and their median is printed with their range. `--json FILE` keeps the figures.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # idle threads of one engine must not spin beside another
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np
import plain_torch
import torch

import stcore
from stcore import models
from stcore.dispatch import available_backends, load_backend
from stcore.objective import training_step


def batch(size: int, side: int) -> tuple[np.ndarray, np.ndarray, list[np.ndarray]]:
    rng = np.random.default_rng(0)
    shape = (size, side, side, 3)
    noise = [rng.standard_normal(shape, np.float32) for _ in range(2)]
    return rng.random(shape, np.float32), rng.integers(0, 10, size), noise


def plain(args: argparse.Namespace, channels_last: bool = False) -> Callable[[], Any]:
    model = models.build(args.model, "torch", num_classes=10)
    if channels_last:
        model = model.to(memory_format=torch.channels_last)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9, weight_decay=5e-4)
    x, y, noise = batch(args.batch, 32)
    layout = (lambda t: t) if channels_last else torch.Tensor.contiguous
    x, *noise = (layout(torch.from_numpy(a).permute(0, 3, 1, 2)) for a in (x, *noise))
    labels = torch.from_numpy(y)
    return lambda: plain_torch.step(model, optimizer, x, labels, tuple(noise), steps=args.steps)


def ours(args: argparse.Namespace, name: str, channels_last: bool = True) -> Callable[[], Any]:
    backend = load_backend(name)
    model = models.build(args.model, name, num_classes=10)
    learner = backend.make_learner(model, backend.make_sgd(model, 0.01, 0.9, 5e-4, False))
    if channels_last:
        learner = backend.prepare_training(learner, "auto")
    config = stcore.SqueezeConfig(steps=args.steps)
    step = learner.compile(lambda x, y, noise: training_step(learner, config, x, y, noise))
    x, y, noise = batch(args.batch, 32)
    x, *noise = (learner.images(a) for a in (x, *noise))
    if name == "torch" and not channels_last:
        x, *noise = (t.contiguous() for t in (x, *noise))
    labels = learner.labels(y)
    return lambda: float(learner.ops.to_numpy(step(x, labels, tuple(noise)).loss))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="resnet18")
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()

    torch.set_num_threads(args.threads)
    engines = {
        "plain torch (34 forwards)": plain(args),
        "plain torch, channels-last": plain(args, channels_last=True),
        "ours, torch, channels-first": ours(args, "torch", channels_last=False),
        "ours, torch": ours(args, "torch"),
    }
    if "keras" in available_backends():
        load_backend("keras").use_threads(args.threads)
        engines["ours, keras (one tf.function)"] = ours(args, "keras")

    first, seconds = {}, {name: [] for name in engines}
    for name, run in engines.items():
        begun = time.perf_counter()
        run()
        first[name] = time.perf_counter() - begun
    for round_ in range(args.rounds):
        for name, run in engines.items():
            begun = time.perf_counter()
            run()
            seconds[name].append(time.perf_counter() - begun)
        print(f"round {round_ + 1}/{args.rounds} done", flush=True)

    def ratio(a: str, b: str) -> tuple[float, float, float]:
        every = sorted(x / y for x, y in zip(seconds[a], seconds[b], strict=True))
        return statistics.median(every), every[0], every[-1]

    reference, torch_engine = next(iter(engines)), "ours, torch"
    print(f"\n{args.model}, batch {args.batch}, K = {args.steps}, {args.threads} thread(s), {args.rounds} rounds")
    print(f"{'':32}{'median s':>9}{'/ plain':>22}{'/ ours, torch':>22}{'first step s':>14}")
    rows = {}
    for name in engines:
        to_plain, to_torch = ratio(name, reference), ratio(name, torch_engine)
        rows[name] = {
            "median_seconds": statistics.median(seconds[name]),
            "ratio_to_plain": to_plain,
            "ratio_to_ours_torch": to_torch,
            "first_step_seconds": first[name],
            "seconds": seconds[name],
        }
        cells = "".join(f"{m:>8.2f} [{low:.2f}..{high:.2f}]".rjust(22) for m, low, high in (to_plain, to_torch))
        print(f"{name:32}{rows[name]['median_seconds']:>9.2f}{cells}{first[name]:>14.1f}")
    if args.json:
        about = {"platform": platform.platform(), "torch": torch.__version__, "numpy": np.__version__}
        settings = {k: v for k, v in vars(args).items() if k != "json"}
        args.json.write_text(json.dumps({"settings": settings, "environment": about, "engines": rows}, indent=2))


if __name__ == "__main__":
    main()
