"""Adds a preset that was run: the settings of finished runs over seeds, and what was measured of them.

    python benchmarks/preset_add.py NAME RUN... [--checkpoint last] [--evaluation FOLDER...] [--dataset cifar10]

NAME is fast/ and the published name of the data, such as fast/digits. Each RUN is the folder of a finished run;
they may differ in their seed alone. PGD-20 and AutoAttack of the checkpoint come from the runs, from later
evaluations in their folders (stcli evaluate RUN --checkpoint last --attacks autoattack), and from those that
--evaluation names (folders with evaluation.json): of the whole test split or its first images, the largest number
that all runs have.
--dataset is the published name of data that the runs read from a folder. Every fact is read from the folders; a
preset of the same name is replaced.
"""

from __future__ import annotations

import argparse
import dataclasses
import shlex
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from zoo_add import portable

from stcore import measured
from stcore.base.files import write_json
from stcore.base.weights_file import load_weights
from stcore.errors import StcoreError, UsageError
from stcore.evaluation.folder import read_identity, read_result
from stcore.measured import Measured
from stcore.report.gathered import GatheredRun, LaterEvaluation, gather
from stcore.report.reproduce import train_command
from stcore.results.comparison import compare
from stcore.runs.evaluation_identity import fingerprint
from stcore.runs.plan import Plan, make_plan
from stcore.runs.record import data_of

NEEDED = ("natural", "pgd20", "autoattack")
"""What every preset has."""
MACHINE = (
    "processor",
    "cpus",
    "threads",
    "device",
    "stcore",
    "python",
    "numpy",
    "torch",
    "keras",
    "tensorflow",
    "jax",
)
"""The entries of environment.json that say where a run was trained."""


def add(
    name: str, runs: Sequence[Path], checkpoint: str, evaluations: Sequence[Path], dataset: str | None
) -> Measured:
    """Writes the preset and returns it. Raises UsageError for folders that do not fit."""
    gathered = _joined(sorted(gather(runs), key=lambda run: run.config.get("seed", 0)), checkpoint, evaluations)
    known = [portable(run, dataset) for run in gathered]
    plans = [run.plan for run, _ in known if run.plan is not None]
    data = plans[0].data.dataset
    if name != f"{measured.KIND}/{data}":
        raise UsageError(f"name: expected {measured.KIND}/{data}, after the data of the runs; received {name!r}")
    settings = _settings(plans[0])
    _check_settings(settings, plans)
    machines = [_machine(run) for run in gathered]
    if any(machine != machines[0] for machine in machines):
        raise UsageError("runs: expected all of one machine, with one number of threads; they differ")
    accuracies = _accuracies([run.counts(checkpoint) for run in gathered])
    made = Measured(
        name=name,
        settings=settings,
        checkpoint=checkpoint,
        seeds=tuple(plan.seed for plan in plans),
        accuracies=accuracies,
        seconds=tuple(round(sum(row["seconds"] for row in run.rows), 1) for run in gathered),
        machine=machines[0],
        data=data_of(gathered[0].record),
        commands=tuple(_commands(name, plans, checkpoint, accuracies)),
    )
    against = compare(made, [run.record for run in gathered]).reasons
    if against:
        raise UsageError(f"runs: expected finished runs that differ in their seed alone; {'; '.join(against)}")
    write_json(measured.file_of(name), dataclasses.asdict(made))
    return made


def _joined(runs: Sequence[GatheredRun], checkpoint: str, folders: Sequence[Path]) -> list[GatheredRun]:
    """The runs, each with the evaluations of its checkpoint. Raises UsageError for an evaluation of no run."""
    prints = {
        fingerprint(load_weights(run.path / f"{checkpoint}.safetensors")[0]): run
        for run in runs
        if checkpoint in run.weights and run.plan is not None
    }
    for folder in folders:
        identity = read_identity(folder)
        run = prints.get(identity["weights"])
        if run is None:
            raise UsageError(
                f"evaluation: expected one of the runs' checkpoint {checkpoint}; {folder} has other weights"
            )
        threat, its = (run.plan.norm, run.plan.evaluation.epsilon), (identity["norm"], identity["epsilon"])
        if threat != its:
            raise UsageError(
                f"evaluation: expected the runs' threat model, {threat[0]} {threat[1]:g}; {folder} is of {its[0]} "
                f"{its[1]:g}"
            )
        later = LaterEvaluation(folder, folder.name, checkpoint, identity, read_result(folder), "")
        prints[identity["weights"]] = dataclasses.replace(run, evaluations=(*run.evaluations, later))
    joined = {run.path: run for run in prints.values()}
    return [joined.get(run.path, run) for run in runs]


def _settings(plan: Plan) -> dict[str, Any]:
    """All settings of the plan but the machine's, the seed, and what is not set."""
    flat = {name: value for name, value in plan.flat().items() if name not in measured.NOT_SETTINGS}
    return {name: value for name, value in flat.items() if value is not None and value != ()}


def _check_settings(settings: Mapping[str, Any], plans: Sequence[Plan]) -> None:
    """UsageError unless these settings, with those that are left out, make each of the plans."""
    for plan in plans:
        wanted = plan.flat()
        left_out = {name: wanted[name] for name in measured.NOT_SETTINGS if name in wanted}
        made = make_plan(
            {**settings, **{k: v for k, v in left_out.items() if v is not None and k != "preset"}}
        ).flat()
        if differ := [name for name in wanted if name != "preset" and made.get(name) != wanted[name]]:
            raise UsageError(
                f"runs: expected runs that differ in their seed alone; they differ in {', '.join(differ)}"
            )
    if "test_size" in settings:
        raise UsageError(
            "runs: expected ones with the whole test split; received test_size. Train again without it"
        )


def _machine(run: GatheredRun) -> dict[str, Any]:
    """Processor, cores, threads, device and versions. Raises UsageError if the run did not keep them."""
    kept = run.record.environment or {}
    if missing := {"processor", "threads"} - kept.keys():
        raise UsageError(
            f"run: expected one whose environment.json names its {' and '.join(sorted(missing))}: {run.path}"
        )
    return {name: kept[name] for name in MACHINE if name in kept}


def _accuracies(counts: Sequence[Mapping[str, Mapping[int, int]]]) -> dict[str, dict[str, Any]]:
    """By attack the counts of all runs on as many images as all have."""
    found = {}
    for attack in counts[0]:
        if totals := set.intersection(*(set(of_run.get(attack, ())) for of_run in counts)):
            found[attack] = {"correct": [of_run[attack][max(totals)] for of_run in counts], "total": max(totals)}
    if missing := [attack for attack in NEEDED if attack not in found]:
        raise UsageError(f"runs: expected accuracies of each under {', '.join(missing)}, on the same images")
    return found


def _commands(
    name: str, plans: Sequence[Plan], checkpoint: str, accuracies: Mapping[str, Mapping[str, Any]]
) -> list[str]:
    """The commands of all runs, and of the evaluation of each."""
    seeds, out = [plan.seed for plan in plans], f"runs/{name.replace('/', '-')}"
    seedless = dataclasses.replace(plans[0], seed=0)
    train = train_command(seedless, plans[0].data.dataset, out)
    later = [attack for attack in accuracies if attack not in ("natural", *plans[0].evaluation.attacks)]
    by_total: dict[int, list[str]] = {}
    for attack in later:
        by_total.setdefault(accuracies[attack]["total"], []).append(attack)
    whole = accuracies["natural"]["total"]
    found = [f"{train} --seed {seeds[0]}" if len(seeds) == 1 else f"{train} --seeds {','.join(map(str, seeds))}"]
    for seed in seeds:
        run = out if len(seeds) == 1 else f"{out}/seed{seed}"
        for total, attacks in by_total.items():
            words = ["stcli", "evaluate", run, "--checkpoint", checkpoint, "--attacks", ",".join(attacks)]
            found.append(shlex.join([*words, *(["--subset", str(total)] if total < whole else [])]))
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name")
    parser.add_argument("runs", type=Path, nargs="+")
    parser.add_argument("--checkpoint", default="last")
    parser.add_argument("--evaluation", type=Path, nargs="+", default=[])
    parser.add_argument("--dataset")
    args = parser.parse_args()
    try:
        made = add(args.name, args.runs, args.checkpoint, args.evaluation, args.dataset)
    except StcoreError as error:
        print(f"preset_add: {error}", file=sys.stderr)
        return error.exit_code
    print(f"{made.name}: {made.minutes:.1f} minutes, {measured.file_of(made.name)}")
    for attack, score in made.accuracies.items():
        print(f"  {attack}: {', '.join(map(str, score['correct']))} of {score['total']}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
