"""`stcli demo`: trains three networks on digits, attacks them, and writes a report."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from rich.console import Console

from stcore import errors, zoo
from stcore.audit import Finding
from stcore.base import checks
from stcore.cli.console import make_console, make_progress, say
from stcore.cli.demo_phrases import doubts, seen, table
from stcore.cli.evaluate import Found, evaluated, folder_of
from stcore.cli.evaluation_plan import checkpoints, plan_from
from stcore.cli.jobs import Job
from stcore.cli.options import EvaluateOptions
from stcore.cli.parsing import Int, MaybeText, parse
from stcore.cli.quiet import load_quietly
from stcore.cli.report import tell
from stcore.core.dispatch import BACKENDS
from stcore.errors import UsageError
from stcore.evaluation.accuracy import Accuracy
from stcore.models.weights_files import read_weights, recorded_shape
from stcore.results.names import radius
from stcore.runs.plan import Plan, make_plan
from stcore.runs.preparation import set_up
from stcore.runs.record import read_record
from stcore.zoo import Card

METHODS = {
    "standard": "standard training, on the images as they are",
    "trades": "TRADES, which also trains on adversarial examples: neighbours that the network is most wrong about",
    "st": "squeeze training, which also trains on collaborative ones: neighbours that it is most right about",
}


@dataclass(frozen=True)
class DemoOptions:
    """Train three small networks on scikit-learn's digits, attack them and write a report: two minutes, offline.

    They learn by standard training, TRADES and squeeze training; PGD-20 and AutoAttack attack them within ε = 0.2.
    The same command resumes an interrupted demo.
    """

    backend: str = "torch"
    """The framework: torch or keras."""
    out: MaybeText = None
    """Folder for the runs and the report; by default stcore-demo-BACKEND in the working directory."""
    epochs: Int = 6
    """Epochs of each network."""
    images: Int = 100
    """Test images for AutoAttack."""
    zoo: MaybeText = None
    """Then attack networks that come with the package, on the test images of this data set: cifar10 (as stcli data
    fetch stores it), cifar10:DIR, parquet:DIR, or digits."""
    open: bool = False
    """Open the report in a browser."""


def main(args: Sequence[str]) -> int:
    """Trains, attacks and reports; returns the exit code."""
    options = parse(DemoOptions, args, "stcli demo")
    checks.choice("backend", options.backend, BACKENDS)
    checks.whole("images", options.images, 1)
    from stcore.report.writing import check_installed, check_out, write

    check_installed()  # before any work
    out = Path(options.out or f"stcore-demo-{options.backend}")
    networks = [] if options.zoo is None else networks_of(options.zoo, options.backend)
    jobs = [Job(method, out / method, (), plan_of(method, options), {}) for method in METHODS]
    for job in jobs:
        job.check_same([None])
    if out.is_dir():
        check_out(out / "report.html")
    console = make_console()
    tell_me = partial(say, console)
    tell_me(
        "Three small networks learn 1,200 digits of 8×8 grey pixels. Then an adversary may change every pixel by "
        "up to a fifth of the range from black to white (ε = 0.2), and the correct classifications are counted."
    )
    load_quietly(options.backend)
    for number, job in enumerate(jobs, start=1):
        tell_me(f"\n{number} of {len(jobs)}: {METHODS[job.name]}")
        if not trained(job, console):
            tell_me("interrupted: run the same command again to resume")
            return errors.INTERRUPTED
    tell_me(f"\nAutoAttack, the strongest attack, on the first {options.images} test images of each")
    scores: dict[str, dict[str, Accuracy]] = {}
    audits: dict[str, Sequence[Finding]] = {}
    for job in jobs:
        asked = EvaluateOptions(job.folder, attacks="autoattack", checkpoint="best", subset=str(options.images))
        if (found := attacked(asked, console)) is None:
            tell_me("interrupted: run the same command again to resume")
            return errors.INTERRUPTED
        own = (read_record(job.folder).result or {})["checkpoints"]["best"]
        scores[job.name] = {name: Accuracy.of_json(score) for name, score in own.items()}
        scores[job.name]["autoattack"] = found.assessed.accuracies["autoattack"]
        audits[job.name] = found.audit or ()
    tell_me("")
    console.print(table(scores, options.images))
    for sentence in (*seen(scores, options.images), *doubts(audits)):
        tell_me(sentence)
    if options.zoo is not None and not zoo_scene(options, networks, out, console):
        tell_me("interrupted: run the same command again to resume")
        return errors.INTERRUPTED
    tell_me("")
    report = write([job.folder for job in jobs], out / "report.html", progress=make_progress(console))
    tell(console, report, show=options.open)
    return errors.OK


def plan_of(method: str, options: DemoOptions) -> Plan:
    """A run of the digits recipe with fewer epochs; a standard network is chosen by natural accuracy."""
    settings = {"backend": options.backend, "method": method, "epochs": options.epochs, "attacks": "pgd20"}
    return make_plan({**settings, "select_by": "natural" if method == "standard" else "pgd20"})


def trained(job: Job, console: Console) -> bool:
    """Trains, resumes or finds a run finished; False after Ctrl-C."""
    from stcore.runs.training_run import RunOptions, run

    if job.finished:
        say(console, f"  trained before: {job.folder}")
        return True

    def on_row(row: Mapping[str, Any]) -> None:
        natural, robust = (100 * row[f"{name}_accuracy"] for name in ("natural", "pgd20"))
        say(
            console,
            f"  epoch {row['epoch']} of {job.plan.optimisation.epochs}: {natural:5.1f} % of held-out digits "
            f"correct, {robust:5.1f} % under attack",
        )

    run_options = RunOptions(resume=job.begun)
    return not run(job.plan, job.folder, make_progress(console), on_row=on_row, options=run_options).interrupted


def attacked(options: EvaluateOptions, console: Console) -> Found | None:
    """One network's accuracies and its audit; None after Ctrl-C."""
    from stcore.runs.checkpoint_evaluation import CheckpointEvaluation

    ((name, path),) = checkpoints(options).items()
    weights, metadata = read_weights(path)
    work = CheckpointEvaluation(set_up(plan_from(options), metadata), options.subset)
    base = folder_of(options, work, weights)
    found = evaluated(work, {name: weights}, base, options, console, make_progress(console))
    return None if found is None else found[name]


def networks_of(dataset: str, backend: str) -> list[Card]:
    """The networks of the package that take the images of a data set. Raises UsageError if there is none."""
    test = set_up(make_plan({"dataset": dataset, "backend": backend})).test
    fitting = (*test.image_shape, test.num_classes)
    cards = [zoo.read_card(name) for name in zoo.names()]
    shapes = {card.name: recorded_shape(read_weights(card.files["safetensors"])[1]) for card in cards}
    found = [card for card in cards if (shape := shapes[card.name]) and (*shape[0], shape[1]) == fitting]
    if not found:
        raise UsageError(
            f"zoo: expected data for a network of the package ({', '.join(shapes)}); {dataset} has images of "
            f"{test.image_shape} in {test.num_classes} classes"
        )
    return found


def zoo_scene(options: DemoOptions, networks: Sequence[Card], out: Path, console: Console) -> bool:
    """Attacks these networks and says what was found; False after Ctrl-C."""
    say(
        console,
        f"\nFrom the package: {', '.join(card.name for card in networks)}, on the first {options.images} test "
        f"images of {options.zoo}",
    )
    scores: dict[str, dict[str, Accuracy]] = {}
    for card in networks:
        asked = EvaluateOptions(
            Path(f"{zoo.PREFIX}{card.name}"),
            attacks="pgd20,autoattack",
            dataset=options.zoo,
            backend=options.backend,
            subset=str(options.images),
            out=str(out / "zoo" / card.name),
            audit=False,
        )
        if (found := attacked(asked, console)) is None:
            return False
        scores[card.name] = dict(found.assessed.accuracies)
    console.print(table(scores, options.images, "network"))
    for card in networks:
        these, recorded = scores[card.name]["autoattack"], card.accuracies["autoattack"]
        say(
            console,
            f"{card.name} withstands AutoAttack within {card.norm} ε = {radius(card.epsilon)} on "
            f"{these.value:.0%} of these, on {recorded['correct'] / recorded['total']:.1%} of the "
            f"{recorded['total']} of its card (stcli zoo show {card.name})",
        )
    return True
