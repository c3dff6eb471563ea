"""`stcli replay`: verifies every success of an evidence file."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import tyro
from rich.console import Console

from stcore import errors
from stcore.api.evidence import replay
from stcore.cli.console import make_console, make_progress, say
from stcore.cli.parsing import Int, MaybeText, parse
from stcore.cli.quiet import quietly
from stcore.errors import UnconfirmedError
from stcore.evaluation.accuracy import percent
from stcore.evidence.replaying import MEANINGS, Replay
from stcore.results import names

LISTED = 20
"""Unconfirmed successes that are printed one by one; --json has all."""


@dataclass(frozen=True, kw_only=True)
class ReplayOptions:
    """Verify every success of an evidence file: in the ball, in range, and misclassified, by one forward each.

    Works on any machine, in either framework. Prints what is confirmed, what is not and why, and what a replay
    cannot confirm. Exit code 0: all is confirmed; 6: not all; 3: the file is damaged, or not the published one.
    """

    GROUPS = (("the network", "weights checkpoint backend model device batch_size"), ("the file", "seal dataset"))

    file: tyro.conf.Positional[Path]
    """The evidence file, of stcli evidence or stcli refute."""
    weights: MaybeText = None
    """The network: a run's folder, a weights file, zoo:NAME, hf://OWNER/NAME or a folder of stcli export hub. Not
    needed if the file holds it."""
    checkpoint: MaybeText = None
    """Checkpoint of a run: best (the default), last, best-ema or last-ema."""
    backend: MaybeText = None
    """torch or keras; by default the first that is installed, for a third-party network its own."""
    model: MaybeText = None
    """For a weights file of a package.module:factory network: that factory. A file alone never runs code. For a
    state dict of PyTorch (.pt, .pth): its network."""
    dataset: MaybeText = None
    """The data set, as stcli train takes it, if neither the weights' run nor its name finds it."""
    seal: MaybeText = None
    """The seal that was published with the file, or its first digits: another file is refused."""
    device: MaybeText = None
    """Where the network computes; by default torch's CPU, or where Keras puts it."""
    batch_size: Int = 250
    """Images per forward."""
    json: bool = False
    """Print JSON instead of text."""


def main(args: Sequence[str]) -> int:
    """Prints what was confirmed; returns the exit code. Raises UnconfirmedError if it is not all."""
    options = parse(ReplayOptions, args, "stcli replay")
    console = make_console(stderr=options.json)  # stdout holds only the JSON
    with quietly():
        found = replay(
            options.file,
            options.weights,
            dataset=options.dataset,
            seal=options.seal,
            checkpoint=options.checkpoint,
            backend=options.backend,
            model=options.model,
            device=options.device,
            batch_size=options.batch_size,
            progress=make_progress(console),
        )
    if options.json:
        print(json.dumps(found.as_json(), indent=2))
    else:
        _show(console, found)
    if not found.complete:
        missing = len(found.status) - found.confirmed
        raise UnconfirmedError(
            f"{missing} of {len(found.status)} successes are not confirmed here"
            if missing
            else "the order of the images, or the verdict, is not the recorded one"
        )
    return errors.OK


def _show(console: Console, found: Replay) -> None:
    claim = found.evidence.header["claim"]
    ball = f"{claim['norm']} ε = {names.radius(claim['epsilon'])}"
    say(console, f"sealed {found.evidence.seal}")
    say(console, f"confirmed: {found.confirmed} of {len(found.status)} successes, {ball}, one forward each")
    if found.other_class:
        say(console, f"  of these {found.other_class} as another wrong class than recorded")
    for reason, count in found.reasons.items():
        say(console, f"not confirmed: {count} {reason}: {MEANINGS[reason]}")
    for one in found.unconfirmed[:LISTED]:
        margin = "" if one["margin"] is None else f", margin {one['margin']:.2e}"
        say(console, f"  image {one['row']}: {one['reason']}{margin}")
    if len(found.unconfirmed) > LISTED:
        say(console, f"  and {len(found.unconfirmed) - LISTED} more: --json lists all")
    if found.restatement is None:
        known, more = f"{percent(found.at_most)} %", ", with the 95 % interval for others like them"
    else:
        known, more = f"{100 * found.at_most.value:.2f} %", f"; {found.restatement.sentence}"
    say(console, f"so on these {found.at_most.total} images the robust accuracy is at most {known}{more}")
    for note in found.not_checked:
        say(console, f"not checked: {note}")
