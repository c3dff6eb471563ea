"""Memory of one squeeze-training step in PyTorch, and its tensors saved for backward, against a plain step.

    python benchmarks/step_memory.py [--model resnet18] [--batch 32] [--steps 2] [--threads 1] [--out docs/results]

Each kind of step runs in its own process. Saved bytes are the peak of the tensors saved for a backward pass, in
the search and in the outer forward passes, without weights and with each storage counted once. Tensors that
gradient checkpointing recomputes are not among them, but are in the resident memory.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import plain_torch
import torch
from torch import Tensor, nn

from stcore import SqueezeConfig, models
from stcore.core.dispatch import load_backend
from stcore.core.objective import training_step
from stcore.core.optimizers import SGD

KINDS = ("plain", "ours", "ours, bf16", "ours, gradient checkpointing")
GLIBC = {"MALLOC_MMAP_THRESHOLD_": "1000000", "MALLOC_TRIM_THRESHOLD_": "0", "MALLOC_ARENA_MAX": "1"}
"""Freed memory returns to the system at once, so that the peak counts only live memory."""


class SavedBytes:
    """Context that counts the bytes saved for backward passes, and their peak."""

    def __init__(self, weights: Iterable[Tensor]) -> None:
        self.now = self.peak = 0
        self._weights = {t.untyped_storage().data_ptr() for t in weights}
        self._holders: Counter[int] = Counter()
        # Detached, since an output would keep alive the node that holds it.
        self._hooks = torch.autograd.graph.saved_tensors_hooks(
            lambda tensor: _Saved(self, tensor.detach()), lambda saved: saved.tensor
        )

    def __enter__(self) -> SavedBytes:
        self._hooks.__enter__()
        return self

    def __exit__(self, *error: object) -> None:
        self._hooks.__exit__(*error)

    def add(self, tensor: Tensor, holders: int) -> None:
        storage = tensor.untyped_storage()
        address = storage.data_ptr()
        if address in self._weights:
            return
        before = self._holders[address]
        self._holders[address] += holders
        if 0 in (before, before + holders):  # the first holder, or the last
            self.now += holders * storage.nbytes()
            self.peak = max(self.peak, self.now)


class _Saved:
    def __init__(self, saved: SavedBytes, tensor: Tensor) -> None:
        self.saved, self.tensor = saved, tensor
        saved.add(tensor, 1)

    def __del__(self) -> None:
        self.saved.add(self.tensor, -1)


def saved_bytes(model: nn.Module, step: Callable[[], Any]) -> int:
    """The peak of the bytes that a step saves for its backward passes."""
    with SavedBytes(model.state_dict().values()) as saved:
        step()
    return saved.peak


def step_of(kind: str, model: nn.Module, batch: int, steps: int, side: int = 32) -> Callable[[], Any]:
    """One step of this kind on random images of 10 classes."""
    rng, shape = np.random.default_rng(0), (batch, 3, side, side)
    x, *noise = (torch.from_numpy(rng.random(shape, np.float32)) for _ in range(3))
    y = torch.from_numpy(rng.integers(0, 10, batch))
    if kind == "plain":
        optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9, weight_decay=5e-4)
        return lambda: plain_torch.step(model, optimizer, x, y, tuple(noise), steps=steps)
    backend, precision = load_backend("torch"), "bf16" if "bf16" in kind else "fp32"
    learner = backend.make_learner(
        model, backend.make_optimizer(model, SGD(learning_rate=0.01, momentum=0.9, weight_decay=5e-4))
    )
    backend.prepare_training(learner, "off", precision, precision, "checkpointing" in kind)
    x, *noise = (t.to(memory_format=torch.channels_last) for t in (x, *noise))
    return lambda: training_step(learner, SqueezeConfig(steps=steps), x, y, tuple(noise))


def resident() -> int:
    """The peak resident memory of this process, in bytes."""
    return int(re.findall(r"VmHWM:\s+(\d+)", Path("/proc/self/status").read_text())[0]) * 1024


def measured(kind: str, args: argparse.Namespace) -> dict[str, int]:
    """Measures in this process: first the memory of two steps, then the saved bytes of a third."""
    torch.set_num_threads(args.threads)
    model = models.build(args.model, "torch", num_classes=10)
    step_of(kind, model, 2, args.steps)()
    before, step = resident(), step_of(kind, model, args.batch, args.steps)
    for _ in range(2):
        step()
    memory = resident()
    return {
        "saved_bytes": saved_bytes(model, step),
        "peak_resident_bytes": memory,
        "resident_growth": memory - before,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="resnet18")
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--steps", type=int, default=2)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path, default=Path("docs/results"))
    parser.add_argument("--kind", choices=KINDS, help="measure only this one, in this process")
    args = parser.parse_args()
    if args.kind:
        print(json.dumps(measured(args.kind, args)))
        return

    rows = {}
    for kind in KINDS:
        command = [sys.executable, *sys.argv, "--kind", kind]
        done = subprocess.run(command, capture_output=True, text=True, check=True, env=os.environ | GLIBC)
        rows[kind] = json.loads(done.stdout.splitlines()[-1])
        print(kind, rows[kind], flush=True)

    settings = {name: getattr(args, name) for name in ("model", "batch", "steps", "threads")}
    environment = {"platform": platform.platform(), "torch": torch.__version__}
    text = [
        "# The memory of a training step",
        "",
        f"One ST step of {args.model}, batch {args.batch}, K = {args.steps}, float32 weights, PyTorch "
        f"{torch.__version__} on the CPU, {args.threads} thread(s); by `benchmarks/step_memory.py`.",
        "",
        "| step | saved for backward, MiB | / plain | peak resident, MiB | above the idle process, MiB |",
        "|---|---:|---:|---:|---:|",
    ]
    for kind, row in rows.items():
        saved, peak, growth = (row[n] / 2**20 for n in ("saved_bytes", "peak_resident_bytes", "resident_growth"))
        ratio = row["saved_bytes"] / rows["plain"]["saved_bytes"]
        text.append(f"| {kind} | {saved:.1f} | {ratio:.3f} | {peak:.0f} | {growth:.0f} |")
    args.out.mkdir(parents=True, exist_ok=True)
    (args.out / "step-memory.md").write_text("\n".join(text) + "\n")
    report = {"settings": settings, "environment": environment, "steps": rows}
    (args.out / "step-memory.json").write_text(json.dumps(report, indent=2) + "\n")
    print("\n".join(text))


if __name__ == "__main__":
    main()
