"""`stcli sweep`: trains a run per point of a grid, resumably, and prints their table."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from stcore import errors
from stcore.base.checks import choice
from stcore.cli import cluster, optimize
from stcore.cli.grid import Point, label, points, words
from stcore.cli.jobs import Job
from stcore.cli.many import Trains, carry_out
from stcore.cli.options import SweepOptions, TrainOptions
from stcore.cli.own_settings import with_settings
from stcore.cli.parsing import named_in, parse, peek
from stcore.cli.seeds import DRY_RUN, check_together, jobs_of, own, parse_devices, parse_seeds, without
from stcore.cli.training_plan import plan_from
from stcore.errors import UsageError
from stcore.runs.folder import METRICS

CLUSTER = ("cluster", "cluster-option", "cluster_option")


def main(args: Sequence[str]) -> int:
    """Trains the sweep's runs; returns 0, the first failure's exit code, or 130 if interrupted."""
    options = parse(with_settings(SweepOptions, peek(args, "method")), args, "stcli sweep")
    if options.resume is not None:
        raise UsageError("resume: expected none, since a sweep resumes by itself; received it. Leave it out")
    check_together(args, several=True)
    devices = parse_devices(args)
    if options.optimize is not None:
        return _search(args, options, devices)
    jobs = asked_for(args, options)
    if options.dry_run:
        for job in jobs:
            job.check_same(devices)
        return _list(jobs, as_json=options.json)
    return carry_out(jobs, devices, options, _on_cluster(options, devices))


def asked_for(args: Sequence[str], options: SweepOptions) -> list[Job]:
    """Every run with its plan. Raises UsageError that names the point of an invalid run."""
    base = without(args, "vary", "grid", "trials", *CLUSTER, *DRY_RUN, "seeds", "devices")
    seeds = None if options.seeds is None else parse_seeds(options.seeds)
    found: dict[Path, Job] = {}
    method = peek(args, "method")
    for point in points(options.vary, options.grid, method):
        if fixed := set(point) & named_in(base, with_settings(TrainOptions, method)):
            raise UsageError(f"vary: expected no --{fixed.pop()} with its values; received both. Leave it out")
        for job in _of_point(point, base, seeds, method):
            if job.folder in found:
                raise UsageError(f"vary: expected each run once; received {job.name} twice")
            found[job.folder] = job
    return [
        replace(job, name=f"{number}/{len(found)} {job.name}")
        for number, job in enumerate(found.values(), start=1)
    ]


def _of_point(point: Point, base: Sequence[str], seeds: Sequence[int] | None, method: str | None) -> list[Job]:
    """The run of a point, or its runs over seeds."""
    given = words(point, method)
    try:
        plan, out, _ = plan_from([*base, *given])
    except UsageError as error:
        raise UsageError(f"{' '.join(given)}: {error}. No run was begun") from error
    if not out:
        raise UsageError("out: expected a folder for the sweep's runs; received none. Give --out DIR")
    name = label(point, plan)
    folder, args = Path(out) / name, (*own(base), *given)
    about = {"settings": {setting: plan.flat().get(setting) for setting in point}, "seed": plan.seed}
    if seeds is None:
        return [Job(name, folder, args, plan, about)]
    return [
        replace(job, name=f"{name} {job.name}", about={**about, **job.about})
        for job in jobs_of(seeds, folder, args, plan)
    ]


def _on_cluster(options: SweepOptions, devices: Sequence[str | None]) -> Trains | None:
    """What trains the runs as jobs of the cluster that is asked for."""
    if options.cluster is None:
        if options.cluster_option:
            raise UsageError("cluster_option: expected --cluster with it, such as slurm; received none")
        return None
    choice("cluster", options.cluster, cluster.KINDS)
    for flag, given in {"--devices": devices != (None,), "--max-hours": options.max_hours is not None}.items():
        if given:
            raise UsageError(f"cluster: expected no {flag} with it, which says where and how long; received both")
    kind, parameters, root = options.cluster, cluster.parameters(options.cluster_option), Path(str(options.out))
    return lambda jobs, say: cluster.train(jobs, kind, parameters, root, say)


def _search(args: Sequence[str], options: SweepOptions, devices: Sequence[str | None]) -> int:
    """The search that `--optimize` asks for."""
    for name in ("grid", "dry_run", "seeds", "cluster"):
        if getattr(options, name):
            flag = f"--{name.replace('_', '-')}"
            raise UsageError(f"optimize: expected no {flag} with it; received both. Leave one out")
    base = without(args, "vary", "optimize", "trials", "devices")
    plan, out, _ = plan_from(base)
    if not out:
        raise UsageError("out: expected a folder for the sweep's runs; received none. Give --out DIR")

    def job_of(point: Point) -> Job:
        (job,) = _of_point(point, base, None, peek(args, "method"))
        return job

    return optimize.main(options, plan, job_of, devices)


def _list(jobs: Sequence[Job], *, as_json: bool) -> int:
    states = [_state(job) for job in jobs]
    if as_json:
        said = [{**job.about, "run": str(job.folder), "state": how} for job, how in zip(jobs, states, strict=True)]
        print(json.dumps(said, indent=2))
        return errors.OK
    for job, how in zip(jobs, states, strict=True):
        print(f"[{job.name}] {how}: {job.folder}")
    return errors.OK


def _state(job: Job) -> str:
    if job.finished or not job.begun:
        return "finished" if job.finished else "to train"
    metrics = job.folder / METRICS
    epochs = len(metrics.read_text(encoding="utf-8").splitlines()) if metrics.is_file() else 0
    return f"resumes after {epochs} of {job.plan.optimisation.epochs} epochs"
