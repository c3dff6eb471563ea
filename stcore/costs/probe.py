"""Measures what a run's parts take, before the run: on its own data, by a network that nobody keeps."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Mapping
from typing import Any

from stcore import data
from stcore.base.interrupts import Interrupt
from stcore.base.snapshots import part
from stcore.costs.bench import Bench
from stcore.costs.measured import Images, Measured, Network
from stcore.costs.stopwatch import Spent
from stcore.data.resident import resident
from stcore.protocols import Array
from stcore.runs.plan import Plan
from stcore.runs.preparation import (
    average_of,
    batches_of,
    build_learner,
    check_norm,
    environment,
    load_data,
    prepare,
    selection_of,
)

FOR_TRAINING = 0.6  # of the probe's time; the rest is for evaluation


def probe(
    plan: Plan, begun: Spent, seconds: float = 30.0, on_begin: Callable[[], None] = lambda: None
) -> Measured:
    """What the run of this plan would take.

    begun: when the process began.   seconds: the time for what is measured; the least there is to it, a step and a
    batch of each kind, is done however long it takes.   on_begin: called when all that the run asks for has been
    found to be there.
    Raises what the run would raise by its first steps, and KeyboardInterrupt after Ctrl-C or SIGTERM.
    """
    check_norm(plan)
    backend, device = prepare(plan)
    splits = load_data(plan)
    selection = selection_of(plan, splits)
    extra = None if plan.extra_data is None else data.load_extra(plan.extra_data)
    batches = batches_of(plan, splits.train, extra)
    learner = build_learner(plan, backend, device, splits, lambda said: None)
    batches = resident(batches, plan.resident, backend.free_memory(device), learner.resident)
    environment(backend, device, splits, extra)
    average = average_of(plan, learner)
    start_up = Spent.now() - begun
    sizes = batches.examples, len(selection), len(splits.test)
    with Interrupt() as interrupt:
        on_begin()
        bench = Bench(plan, splits, selection, batches, learner, average, interrupt)
        phases = tuple(bench.phases(FOR_TRAINING * seconds))
        choosing, final, one_pass = bench.evaluations((1 - FOR_TRAINING) * seconds)
        return Measured(
            images=Images(*sizes, splits.train.image_shape, splits.train.num_classes),
            network=network_of(bench, importlib.import_module(f"stcore.backends.{plan.backend}.probing"), device),
            start_up=start_up,
            phases=phases,
            choosing=choosing,
            final=final,
            one_pass=one_pass,
            saving=bench.saving(),
        )


def network_of(bench: Bench, costs: Any, device: str) -> Network:
    """costs: the backend's `probing`."""
    optimizer = part(bench.learner.snapshot(), "optimizer/")
    average = {} if bench.average is None else bench.average.evaluator.classifier.weights()
    peak = costs.peak_bytes(device)
    return Network(
        parameters=costs.parameters(bench.learner),
        weights=_bytes(bench.learner.weights()),
        optimizer=_bytes(optimizer),
        average=_bytes(average),
        peak=_peak_of_process() if peak is None else peak,
        peak_of="process" if peak is None else device,
        forward_flops=costs.forward_flops(bench.learner, bench.splits.test.images[:1]),
    )


def _bytes(arrays: Mapping[str, Array]) -> int:
    return sum(array.nbytes for array in arrays.values())


def _peak_of_process() -> int | None:
    """The most memory the process has had resident; None where the system does not tell."""
    if sys.platform == "win32":
        return None
    import resource

    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most if sys.platform == "darwin" else 1024 * most  # which others count in KiB
