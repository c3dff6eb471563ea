"""CPU time of a squeeze step in two checkouts of the repository, in turns.

    python benchmarks/two_trees.py BEFORE [--model small-cnn] [--batch 128] [--side 8] [--steps 10] [--rounds 3]
        [--backend torch]

BEFORE is another checkout with its environment in BEFORE/.venv; this one's is the interpreter that runs. Every
round measures each in a process of its own, with one thread: the median of `--repeat` steps.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

HERE = Path(__file__).resolve().parents[1]
QUIET = {"OMP_NUM_THREADS": "1", "TF_CPP_MIN_LOG_LEVEL": "3"}


def measure(args: argparse.Namespace) -> float:
    """CPU seconds of one step, in this process, of the checkout `args.here`."""
    sys.path.insert(0, str(args.here / "benchmarks"))
    import steps

    from stcore import SqueezeConfig
    from stcore.core.dispatch import load_backend

    backend = load_backend(args.backend)
    backend.use_threads(1)
    backend.use_device("cpu")
    learner = steps.learner_of(args.backend, args.model, side=args.side)
    run = steps.step_of(learner, SqueezeConfig(steps=args.steps), args.batch, args.side)
    run()
    seconds = []
    for _ in range(args.repeat):
        begun = time.process_time()
        run()
        seconds.append(time.process_time() - begun)
    return statistics.median(seconds)


def measured_in(tree: Path, python: Path) -> float:
    """CPU seconds of one step, by a process in that checkout."""
    words = [str(python), __file__, *sys.argv[1:], "--here", str(tree)]
    said = subprocess.run(words, env={**os.environ, **QUIET}, stdout=subprocess.PIPE, text=True, check=True)
    return float(said.stdout.split()[-1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("before", type=Path)
    parser.add_argument("--backend", default="torch")
    parser.add_argument("--model", default="small-cnn")
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--side", type=int, default=8)
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--repeat", type=int, default=9)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--here", type=Path, help="measure this checkout in this process, and print the seconds")
    args = parser.parse_args()
    if args.here is not None:
        print(measure(args))
        return
    before, ratios = args.before.resolve(), []
    for _ in range(args.rounds):
        old = measured_in(before, before / ".venv" / "bin" / "python")
        new = measured_in(HERE, Path(sys.executable))
        ratios.append(new / old)
        print(f"before {old:.4f} s, now {new:.4f} s, ratio {new / old:.3f}", flush=True)
    print(f"now / before: {statistics.median(ratios):.3f} [{min(ratios):.3f}..{max(ratios):.3f}]")


if __name__ == "__main__":
    main()
