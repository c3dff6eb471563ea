"""How long one squeeze-training step takes: ours on torch and on Keras, against a plain implementation.

    python benchmarks/squeeze_step.py [--model resnet18] [--batch 32] [--steps 10] [--rounds 5] [--threads 1]

`exact` steps have the plain step's numbers, equal in float64 (tests/test_benchmarks.py); the others are stated
variants of it. `--json FILE` keeps the figures.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Callable
from pathlib import Path
from typing import Any

import plain_torch
import rounds
import steps
import torch

import stcore
from stcore import models
from stcore.dispatch import available_backends, load_backend

PLAIN, OURS = "plain torch (34 forwards)", "ours, torch"


def plain(args: argparse.Namespace, channels_last: bool = False) -> Callable[[], Any]:
    model = models.build(args.model, "torch", num_classes=10)
    if channels_last:
        model = model.to(memory_format=torch.channels_last)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9, weight_decay=5e-4)
    learner = load_backend("torch").make_learner(model, optimizer)
    pixels, labels = steps.images(args.batch)
    generator = torch.Generator().manual_seed(0)
    layout = (lambda t: t) if channels_last else torch.Tensor.contiguous
    x = layout(learner.images(pixels))
    noise = [layout(torch.randn(x.shape, generator=generator).to(memory_format=torch.channels_last)) for _ in "ab"]
    y = learner.labels(labels)
    return lambda: plain_torch.step(model, optimizer, x, y, tuple(noise), steps=args.steps)


def ours(args: argparse.Namespace, backend: str = "torch", steps_: int | None = None, **prepared: Any) -> Any:
    config = stcore.SqueezeConfig(steps=args.steps if steps_ is None else steps_)
    return steps.step_of(steps.learner_of(backend, args.model, **prepared), config, args.batch)


def engines(args: argparse.Namespace) -> dict[str, tuple[str, Callable[[], Any]]]:
    """By name: whether its numbers are the plain step's, and the step."""
    half = max(1, args.steps // 2)
    variants: dict[str, dict[str, Any]] = {
        "bf16 search": {"inner_precision": "bf16"},
        "bf16": {"precision": "bf16", "inner_precision": "bf16"},
        f"K = {half}": {"steps_": half},
        f"bf16, K = {half}": {"precision": "bf16", "inner_precision": "bf16", "steps_": half},
    }
    found = {
        PLAIN: ("exact", plain(args)),
        "plain torch, channels-last": ("exact", plain(args, channels_last=True)),
    }
    for backend in available_backends():
        load_backend(backend).use_threads(args.threads)
        found[f"ours, {backend}"] = ("exact", ours(args, backend))
        for name, changes in variants.items() if args.variants else ():
            found[f"ours, {backend}, {name}"] = (name, ours(args, backend, **changes))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="resnet18")
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument(
        "--variants", action="store_true", help="also those whose numbers are not the plain step's"
    )
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()

    found = engines(args)
    first, seconds = rounds.take_turns({name: run for name, (_, run) in found.items()}, args.rounds)
    print(
        f"\n{args.model}, batch {args.batch}, K = {args.steps}, {args.threads} thread(s), {args.rounds} rounds\n"
    )
    print("| engine | numbers | median s | / plain | / ours, torch | first step s |\n|---|---|---|---|---|---|")
    rows = {}
    for name, (numbers, _) in found.items():
        middle = statistics.median(seconds[name])
        to_plain, to_torch = rounds.ratio(seconds, name, PLAIN), rounds.ratio(seconds, name, OURS)
        rows[name] = {
            "numbers": numbers,
            "median_seconds": middle,
            "ratio_to_plain": to_plain,
            "ratio_to_ours_torch": to_torch,
            "first_step_seconds": first[name],
            "seconds": seconds[name],
        }
        cells = f"{middle:.2f} | {rounds.said(to_plain)} | {rounds.said(to_torch)} | {first[name]:.1f}"
        print(f"| {name} | {numbers} | {cells} |")
    if args.json:
        settings = {k: v for k, v in vars(args).items() if k != "json"}
        rounds.keep(args.json, settings, load_backend("torch").versions(), engines=rows)


if __name__ == "__main__":
    main()
