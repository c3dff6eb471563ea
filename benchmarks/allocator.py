"""Effect of keeping freed memory in the process: time, page faults and peak memory of a step. PyTorch.

    python benchmarks/allocator.py [--cases resnet18:32 resnet18:128] [--steps 10] [--rounds 3]
        [--threads 1] [--out docs/results]

Each variant runs in its own process, and they take turns: the plain step of `plain_torch.py` and ours, both with
glibc's default settings and with freed memory kept, as `stcli` sets it on a CPU; and ours in Keras on TensorFlow.
A case is NETWORK:BATCH. Writes allocator.md and .json.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Callable
from pathlib import Path
from typing import Any

import rounds
import steps
from workers import Worker, serve, take_turns

from stcore import SqueezeConfig
from stcore.core.dispatch import load_backend

PLAIN, LEFT, KEPT, KERAS = "plain", "ours", ", freed memory kept", "ours, keras"
WAYS = (PLAIN, PLAIN + KEPT, LEFT, LEFT + KEPT, KERAS)


def measure(args: argparse.Namespace, case: str) -> dict[str, dict[str, Any]]:
    """For each variant: medians of a step's time and memory, and ratios of times."""
    given = {"cases": case, "steps": args.steps, "threads": args.threads}
    ways = {name: Worker(__file__, {**given, "way": name}, {}) for name in WAYS}
    _, answers = take_turns(ways, args.rounds)
    seconds = {name: [answer["seconds"] for answer in each] for name, each in answers.items()}
    return {
        name: {
            "median_seconds": statistics.median(seconds[name]),
            "ratio_to_plain": rounds.ratio(seconds, name, PLAIN),
            "ratio_to_ours": rounds.ratio(seconds, name, LEFT),
            "page_faults": statistics.median(answer["page_faults"] for answer in each),
            "peak_mib": max(answer["peak_mib"] for answer in each),
            "seconds": seconds[name],
        }
        for name, each in answers.items()
    }


def step(args: argparse.Namespace) -> Callable[[], Any]:
    """The step of the given case and variant."""
    network, _, batch = args.cases[0].partition(":")
    name = "keras" if args.way == KERAS else "torch"
    backend = load_backend(name)
    backend.use_threads(args.threads)
    if args.way.endswith(KEPT):
        backend.use_device("cpu")
    if args.way.startswith(PLAIN):
        return steps.plain(network, int(batch), args.steps)
    return steps.step_of(steps.learner_of(name, network), SqueezeConfig(steps=args.steps), int(batch))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", nargs="+", default=["resnet18:32", "resnet18:128"])
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path, default=Path("docs/results"))
    parser.add_argument("--way", choices=WAYS, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.way:
        serve(step(args))
        return

    found = {case: measure(args, case) for case in args.cases}
    cells = [
        (
            *case.split(":"),
            name,
            f"{row['median_seconds']:.2f}",
            rounds.said(row["ratio_to_plain"]),
            rounds.said(row["ratio_to_ours"]),
            f"{row['page_faults']:.0f}",
            f"{row['peak_mib']:.0f}",
        )
        for case, rows in found.items()
        for name, row in rows.items()
    ]
    rounds.publish(
        args.out,
        "allocator",
        "Keeping freed memory",
        "One squeeze-training step on a CPU, float32: in PyTorch, a plain step with the released code's forward "
        "passes and our step, each with glibc's default allocator settings and with freed memory kept, as "
        f"`stcli` does; and in Keras. All compute the same numbers. K = {args.steps}, {args.threads} thread(s), "
        f"each in its own process, taking turns; medians of {args.rounds} rounds, ratios round by round.",
        rounds.command(parser, args, "way"),
        rounds.table(("network", "batch", "step", "s", "/ plain", "/ ours", "page faults", "peak MiB"), cells),
        {name: value for name, value in vars(args).items() if name not in ("out", "way")},
        load_backend("torch").versions() | load_backend("keras").versions(),
        cases=found,
    )


if __name__ == "__main__":
    main()
