"""Kernels and operators of one eager training step, method by method.

    python benchmarks/kernels.py [--model resnet18] [--out docs/results]

PyTorch, on the meta device, whose tensors have no values: an operation that would read one raises. A kernel is an
operator that computes something; views, allocations and a profiler's marks are none. The steps are those of
`stcli train`: its optimizer, momentum, weight decay.
"""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import rounds
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from stcore import AWP, models
from stcore.core.dispatch import load_backend, make_learner
from stcore.core.objective import Objective, WeightPerturbation, training_step
from stcore.core.optimizers import SGD
from stcore.methods import METHODS
from stcore.protocols import Learner
from stcore.training.trainer import follow

NO_KERNEL = {
    *("view", "_unsafe_view", "reshape", "_reshape_alias", "t", "transpose", "permute", "expand", "unsqueeze"),
    *("squeeze", "slice", "select", "unbind", "split", "as_strided", "alias", "detach", "detach_"),
    *("empty", "empty_like", "new_empty", "empty_strided", "new_empty_strided"),
    *("_record_function_enter_new", "_record_function_exit"),
}
"""Views, allocations and marks of a profiler."""


LATE = 1000
"""An epoch in which every method makes all that it ever does."""


class _Count(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()
        self.counts: Counter[str] = Counter()

    def __torch_dispatch__(self, operation: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.counts[operation.overloadpacket.__name__] += 1
        return operation(*args, **(kwargs or {}))


def operators(run: Callable[[], Any]) -> Counter[str]:
    """The operators that a function calls, by name."""
    with _Count() as counted:
        run()
    return counted.counts


def kernels(run: Callable[[], Any]) -> Counter[str]:
    """The operators that a function calls and that compute something, by name."""
    return Counter({name: count for name, count in operators(run).items() if name not in NO_KERNEL})


def learner_and_batch(model: str, size: int = 2) -> tuple[Learner, tuple[torch.Tensor, torch.Tensor]]:
    """A learner as the command line makes it and `size` images of 32 × 32, on the meta device."""
    network = models.build(model, "torch", num_classes=10, device="meta")
    optimizer = load_backend("torch").make_optimizer(network, SGD(momentum=0.9, weight_decay=5e-4))
    x, y = torch.rand(size, 3, 32, 32, device="meta"), torch.zeros(size, dtype=torch.int64, device="meta")
    return make_learner(network, optimizer), (x, y)


def step_of(
    learner: Learner, objective: Objective, batch: Any, perturbation: WeightPerturbation | None = None
) -> Callable[[], Any]:
    """One training step of a late epoch; the first that was made has set up the optimizer."""
    noise = tuple(torch.randn_like(batch[0]) for _ in objective.noise_laws)
    phase = objective.phase(LATE)
    step = lambda: training_step(learner, objective, *batch, noise, phase, perturbation)  # noqa: E731
    step()
    return step


def passes(learner: Any, x: torch.Tensor, forwards: int, to_pixels: int, to_weights: int) -> int:
    """The kernels of these forward and backward passes alone, of a network in evaluation."""
    learner.model.eval()
    leaf = x.clone().requires_grad_()

    def forward() -> torch.Tensor:
        total: torch.Tensor = learner.model(leaf).sum()
        return total

    value = forward()
    back = kernels(lambda: torch.autograd.grad(value, leaf)).total()
    other = forward()
    whole = kernels(lambda: torch.autograd.grad(other, list(learner.model.parameters()))).total()
    one = kernels(forward).total()
    learner.model.train()
    return forwards * one + to_pixels * back + to_weights * whole


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="resnet18")
    parser.add_argument("--out", type=Path, default=Path("docs/results"))
    args = parser.parse_args()

    learner, batch = learner_and_batch(args.model)
    average = learner.copy()
    rows = {}
    for name, method in METHODS.items():
        objective = method.config(**method.defaults)
        step, cost = step_of(learner, objective, batch), objective.passes
        alone = passes(learner, batch[0], cost.forwards, cost.input_backwards, cost.weight_backwards)
        rows[name] = {"operators": operators(step).total(), "kernels": kernels(step).total(), "of_passes": alone}
    averaged = kernels(lambda: follow(average, learner, 0.999)).total()
    perturbed = kernels(step_of(learner, METHODS["st"].config(), batch, AWP(0.005))).total()
    rounds.publish(
        args.out,
        "kernels",
        "Kernels of one eager step",
        f"One training step of {args.model}, PyTorch, K = 10, each method's defaults, counted on the meta device "
        "(any value that were read would raise). A kernel is an operator that computes something. The averaged "
        f"weights add {averaged} to any step; AWP makes `st` one of {perturbed}, its own forwards and ways "
        "back included. Counted on",
        rounds.command(parser, args),
        rounds.table(
            ("method", "operators", "kernels", "of the passes alone", "beside them"),
            [
                (name, row["operators"], row["kernels"], row["of_passes"], row["kernels"] - row["of_passes"])
                for name, row in rows.items()
            ],
        ),
        {k: v for k, v in vars(args).items() if k != "out"},
        load_backend("torch").versions(),
        methods=rows,
        averaged_weights=averaged,
        awp=perturbed,
    )


if __name__ == "__main__":
    main()
