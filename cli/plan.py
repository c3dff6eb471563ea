"""`stcli plan`: forecasts the cost of a run."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from stcore import errors
from stcore.api.display import title
from stcore.base import checks
from stcore.cli.console import make_console, say
from stcore.cli.options import PlanOptions
from stcore.cli.parsing import peek
from stcore.cli.quiet import load_quietly
from stcore.cli.seeds import check_together, parse_devices, parse_seeds, without
from stcore.cli.training_plan import asked, run_options_from, trackers_of
from stcore.costs.forecast import Forecast
from stcore.costs.stopwatch import Spent
from stcore.errors import UsageError
from stcore.runs.folder import RunFolder

PARTS = {
    "start_up": "start-up: imports, data, network",
    "warm_up": "first steps and batches: tracing, compiling",
    "training": "training",
    "choosing": "evaluation after each epoch",
    "saving": "saving states and weights",
    "final": "final evaluation of best and last",
    "autoattack": "AutoAttack on them, at most",
}


def main(args: Sequence[str]) -> int:
    """Probes as the arguments say, and prints the forecast; returns the exit code."""
    now = Spent.now()
    begun = now - Spent(now.cpu_seconds, now.cpu_seconds)  # so far the process has hardly waited
    check_together(args)
    if peek(args, "resume") is not None:
        raise UsageError("resume: expected a new run; received one that has begun. Leave it out")
    seeds, devices = parse_seeds(peek(args, "seeds") or "0"), parse_devices(args)
    plan, out, options = asked(without(args, "seeds", "devices"), PlanOptions, "stcli plan")
    checks.number("probe_seconds", options.probe_seconds)
    run_options = run_options_from(options, lambda text: None)
    if out is not None and len(seeds) == 1:
        RunFolder.check_free(Path(out))
    trackers_of(options)
    load_quietly(plan.runtime.backend)
    from stcore.costs.probe import probe

    console = make_console(stderr=options.json)
    measured = probe(plan, begun, options.probe_seconds, lambda: say(console, f"{title(plan)}: probing …"))
    forecast = Forecast(plan, measured, run_options.save_every)
    said = forecast.as_json()
    hours = math.ceil(len(seeds) / len(devices)) * said["hours"]
    said["runs"] = {"count": len(seeds), "hours": hours, "cpu_hours": len(seeds) * said["cpu_hours"]}
    if run_options.seconds:
        said["runs"]["jobs"] = math.ceil(3600 * hours / run_options.seconds)
    if options.json:
        print(json.dumps(said, indent=2))
    else:
        _show(console, said, perturbed=plan.method.perturbation is not None)
    return errors.OK


def _show(console: Console, said: Mapping[str, Any], *, perturbed: bool) -> None:
    images, passes, network = said["images"], said["passes"], said["network"]
    shape = "×".join(map(str, images["shape"]))
    say(
        console,
        f"data      {images['epoch']:,} images per epoch ({shape}, {images['classes']} classes) in "
        f"{images['steps_per_epoch']:,} steps, {images['steps']:,} in all; {images['selection']:,} to choose an "
        f"epoch on, {images['test']:,} to test on",
    )
    say(
        console,
        f"passes    a step: {passes['forwards']} forwards, {passes['input_backwards']} backward passes to the "
        f"pixels, {passes['weight_backwards']} to the weights; the cost of {passes['units']} forwards of the batch"
        + (", the weight perturbation included" if perturbed else ""),
    )
    flops = network["forward_flops"]
    say(
        console,
        f"network   {network['parameters']:,} parameters; "
        + (
            f"{_amount(flops)}FLOPs in an image's forward, {_amount(network['training_flops'])}FLOPs in training"
            if flops is not None
            else "FLOPs unknown"
        ),
    )
    averaged = f", averaged weights {_amount(network['average'])}B" if network["average"] else ""
    peak = f"{_amount(network['peak'])}B" if network["peak"] is not None else "unknown"
    say(
        console,
        f"memory    weights {_amount(network['weights'])}B, optimizer {_amount(network['optimizer'])}B{averaged}; "
        f"peak {peak} ({network['peak_of']})",
    )
    console.print(_phases(said["phases"]))
    console.print(_parts(said))
    runs = said["runs"]
    if runs["count"] > 1:
        say(console, f"{runs['count']} seeds: {runs['hours']:.3g} hours, {runs['cpu_hours']:.3g} of CPU time")
    if "jobs" in runs:
        say(
            console,
            f"with this --max-hours: {runs['jobs']} job{'s' * (runs['jobs'] > 1)}, each but the first by --resume",
        )
    for note in said["notes"]:
        say(console, f"note: {note}")


def _phases(phases: Sequence[Mapping[str, Any]]) -> Table:
    table = Table()
    for name in ("epochs", "s per step", "s per epoch, evaluated", "CPU s per epoch", "forwards per step"):
        table.add_column(name, justify="right", no_wrap=True)
    for phase in phases:
        many = f"{phase['epochs']} (from {phase['first_epoch']} on)" if len(phases) > 1 else str(phase["epochs"])
        step, epoch = phase["step"], phase["epoch"]
        table.add_row(
            many,
            f"{step['seconds']:.3g}",
            f"{epoch['seconds']:.3g}",
            f"{epoch['cpu_seconds']:.3g}",
            str(phase["units_per_step"]),
        )
    return table


def _parts(said: Mapping[str, Any]) -> Table:
    table = Table()
    table.add_column("", no_wrap=True)
    for name in ("seconds", "CPU seconds"):
        table.add_column(name, justify="right", no_wrap=True)
    for name, spent in said["parts"].items():
        table.add_row(PARTS[name], f"{spent['seconds']:,.1f}", f"{spent['cpu_seconds']:,.1f}")
    total = said["total"]
    table.add_section()
    table.add_row("a run", f"{total['seconds']:,.1f}", f"{total['cpu_seconds']:,.1f}")
    table.add_row("in hours", f"{said['hours']:,.3g}", f"{said['cpu_hours']:,.3g}")
    return table


def _amount(number: float) -> str:
    """A number with an SI prefix: 12.3 M."""
    prefixes = ("", "k", "M", "G", "T", "P", "E")
    power = min(len(prefixes) - 1, max(0, int(math.log10(max(number, 1)) // 3)))
    return f"{number / 1000**power:.3g} {prefixes[power]}"
