"""The probe of a run: measures its parts on its own data, before the run."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Mapping
from typing import Any

from stcore.base.interrupts import Interrupt
from stcore.base.snapshots import part
from stcore.costs.bench import Bench
from stcore.costs.measured import Images, Measured, Network
from stcore.costs.stopwatch import Spent
from stcore.protocols import Array
from stcore.runs.plan import Plan
from stcore.runs.preparation import check_norm, set_up

FOR_TRAINING = 0.6  # of the probe's time; the rest is for evaluation


def probe(
    plan: Plan, begun: Spent, seconds: float = 30.0, on_begin: Callable[[], None] = lambda: None
) -> Measured:
    """Measures what the run of this plan would take.

    begun: when the process began.   seconds: time limit of the measurements; a step and a batch of each kind run
    in any case.   on_begin: called once data, weights and device are loaded.
    Raises what the run would raise in its first steps, and KeyboardInterrupt after Ctrl-C or SIGTERM.
    """
    check_norm(plan)
    setup = set_up(plan)
    setup.check_data()
    learner = setup.learner(lambda text: None)
    batches = setup.batches_of(learner)
    setup.environment()
    average = setup.average(learner)
    start_up = Spent.now() - begun
    train = setup.splits.train
    sizes = batches.examples, len(setup.selection), len(setup.test)
    with Interrupt() as interrupt:
        on_begin()
        bench = Bench(setup, batches, learner, average, interrupt)
        phases = tuple(bench.phases(FOR_TRAINING * seconds))
        choosing, final, one_pass = bench.evaluations((1 - FOR_TRAINING) * seconds)
        return Measured(
            images=Images(*sizes, train.image_shape, train.num_classes),
            network=network_of(bench, setup.device),
            start_up=start_up,
            phases=phases,
            choosing=choosing,
            final=final,
            one_pass=one_pass,
            saving=bench.saving(),
        )


def network_of(bench: Bench, device: str) -> Network:
    """The sizes of the network and its optimizer, and the peak of memory so far."""
    costs: Any = importlib.import_module(f"stcore.backends.{bench.plan.runtime.backend}.probing")
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
        forward_flops=costs.forward_flops(bench.learner, bench.setup.test.images[:1]),
    )


def _bytes(arrays: Mapping[str, Array]) -> int:
    return sum(array.nbytes for array in arrays.values())


def _peak_of_process() -> int | None:
    """The peak of the process's resident memory; None if the system does not report it."""
    if sys.platform == "win32":
        return None
    import resource

    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most if sys.platform == "darwin" else 1024 * most  # which others count in KiB
