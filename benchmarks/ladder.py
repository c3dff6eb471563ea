"""Images per second in squeeze training, rung by rung: from a plain float32 step to the fastest.

    python benchmarks/ladder.py [--device cpu] [--model resnet18] [--batch 128] [--steps 10] [--rounds 5]
        [--threads 1] [--profile FILE] [--out docs/results]

PyTorch on a CPU, or on a GPU with `--device cuda`; there float32 is strict, and TF32 has two rungs of its own. A
rung's share of the ceiling is its floating-point operations per second divided by those of one large bfloat16
matrix product, measured in the same run. `--profile` writes a profile of the last rung. The rungs before those
with another K change at most the rounding. Fewer inner steps are a different method:
docs/results/recipe-search-digits.md gives accuracy and time.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import rounds
import steps
import torch
from torch.utils.flop_counter import FlopCounterMode

from stcore import SqueezeConfig, models
from stcore.core.dispatch import load_backend

PLAIN = "plain, strict float32"
SIDE = {"cpu": 2048, "cuda": 8192}
"""The size of the matrices whose product is the ceiling."""
Rung = tuple[Callable[[], Any], int]
"""A step, and its work in forward passes."""


def plain(args: argparse.Namespace, tf32: bool = False) -> Rung:
    """A step with the released code's forward passes. tf32: TF32 convolutions, PyTorch's default."""
    step = steps.plain(args.model, args.batch, args.steps, device=args.device)

    def run() -> float:
        before, torch.backends.cudnn.allow_tf32 = torch.backends.cudnn.allow_tf32, tf32
        try:
            return step()
        finally:
            torch.backends.cudnn.allow_tf32 = before

    return (
        run,
        1 + 6 * args.steps + 9,
    )  # one without gradient; 3 forward and 3 backward per step; 3 that cost 3 each


def ours(args: argparse.Namespace, inner_steps: int | None = None, **prepared: str) -> Rung:
    config = SqueezeConfig(steps=args.steps if inner_steps is None else inner_steps)
    learner = steps.learner_of("torch", args.model, device=args.device, **prepared)
    return steps.step_of(learner, config, args.batch), config.passes.units


def rungs(args: argparse.Namespace) -> dict[str, Callable[[], Rung]]:
    """The rungs by name; up to bf16, each adds to the one before it."""
    half = max(1, args.steps // 2)
    bf16 = {"precision": "bf16", "inner_precision": "bf16"}
    cuda = args.device.startswith("cuda")
    return {
        PLAIN: lambda: plain(args),
        **({"plain, TF32 convolutions": lambda: plain(args, tf32=True)} if cuda else {}),
        "natural forwarded once, channels-last": lambda: ours(args),
        **({"TF32": lambda: ours(args, precision="tf32", inner_precision="tf32")} if cuda else {}),
        "bf16 in the search": lambda: ours(args, inner_precision="bf16"),
        "bf16": lambda: ours(args, **bf16),
        "bf16, compiled": lambda: ours(args, compile="on", **bf16),
        f"bf16, K = {half}": lambda: ours(args, half, **bf16),
        f"bf16, compiled, K = {half}": lambda: ours(args, half, compile="on", **bf16),
    }


def forward_operations(args: argparse.Namespace) -> int:
    """Floating-point operations of one image's forward pass."""
    model = models.build(args.model, "torch", num_classes=10)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model.eval()(torch.zeros(1, 3, 32, 32))
    return int(counter.get_total_flops())


def ceiling(args: argparse.Namespace) -> float:
    """Operations per second of a large bfloat16 matrix product, the best of ten."""
    side = SIDE["cuda" if args.device.startswith("cuda") else "cpu"]
    matrix = torch.randn(side, side, device=args.device, dtype=torch.bfloat16)
    best = 0.0
    for _ in range(10):
        begun = time.perf_counter()
        (matrix @ matrix)[0, 0].item()  # waits for the device
        best = max(best, 2 * side**3 / (time.perf_counter() - begun))
    return best


def profiled(run: Callable[[], Any]) -> str:
    """The profile of one step, by operation."""
    kinds = [torch.profiler.ProfilerActivity.CPU]
    if torch.cuda.is_available():
        kinds.append(torch.profiler.ProfilerActivity.CUDA)
    with torch.profiler.profile(activities=kinds) as profile:
        run()
    order = "self_cuda_time_total" if torch.cuda.is_available() else "self_cpu_time_total"
    return str(profile.key_averages().table(sort_by=order, row_limit=25, max_name_column_width=60))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--model", default="resnet18")
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--profile", type=Path)
    parser.add_argument("--out", type=Path, default=Path("docs/results"))
    args = parser.parse_args()

    backend = load_backend("torch")
    backend.use_threads(args.threads)
    args.device = backend.use_device(args.device)
    made = {name: make() for name, make in rungs(args).items()}
    first, seconds = rounds.take_turns({name: run for name, (run, _) in made.items()}, args.rounds)
    operations, most = forward_operations(args), ceiling(args)

    rows = {}
    for name, (_, units) in made.items():
        rate = args.batch / statistics.median(seconds[name])
        faster, share = rounds.ratio(seconds, PLAIN, name), rate * units * operations / most
        rows[name] = {
            "images_per_second": rate,
            "times_plain": faster,
            "share_of_ceiling": share,
            "first_step_seconds": first[name],
            "seconds": seconds[name],
        }
    if args.profile:
        args.profile.write_text(profiled(list(made.values())[-1][0]) + "\n")
    kind = args.device.partition(":")[0]
    rounds.publish(
        args.out,
        f"ladder-{kind}",
        f"Images per second, rung by rung: {kind}",
        f"Squeeze training of {args.model}, PyTorch, batches of {args.batch} of 32 × 32 × 3, K = {args.steps}; "
        f"{args.threads} thread(s), medians of {args.rounds} rounds, ratios round by round with their range. The "
        f"ceiling is one large bfloat16 matrix product, {most / 1e12:.2f} TFLOP/s; an image's forward pass is "
        f"{operations / 1e9:.2f} GFLOP. Device: {device_name(args.device)};",
        rounds.command(parser, args, "profile"),
        rounds.table(
            ("rung", "images/s", "times plain", "of the ceiling", "first step s"),
            [
                (
                    name,
                    f"{row['images_per_second']:.1f}",
                    rounds.said(row["times_plain"]),
                    f"{row['share_of_ceiling']:.0%}",
                    f"{row['first_step_seconds']:.1f}",
                )
                for name, row in rows.items()
            ],
        ),
        {k: v for k, v in vars(args).items() if k not in ("out", "profile")},
        backend.versions(),
        ceiling=most,
        forward_operations=operations,
        rungs=rows,
    )


def device_name(device: str) -> str:
    return torch.cuda.get_device_name(device) if device.startswith("cuda") else device


if __name__ == "__main__":
    main()
