"""`stcli evidence`: puts an evaluation's adversarial images and its claim into one sealed file."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import tyro

from stcore import errors
from stcore.api.evidence import make_evidence
from stcore.cli.console import make_console, say
from stcore.cli.parsing import MaybeText, parse
from stcore.evaluation.accuracy import percent
from stcore.results import names


@dataclass(frozen=True, kw_only=True)
class EvidenceOptions:
    """Put the adversarial images of a finished evaluation into one sealed file that others can replay.

    The file holds the images that were broken, as exact differences from those of the data, with labels, classes,
    attacks and distances, the settings, the claim, and the digests of weights, data and code.
    """

    evaluation: tyro.conf.Positional[Path]
    """The folder of an evaluation by stcli evaluate --save-examples, or a run's folder with one."""
    out: Path
    """The file to write."""
    checkpoint: MaybeText = None
    """Checkpoint of the run: best, last, best-ema or last-ema; by default best, or the only one evaluated."""
    with_weights: bool = False
    """Put the network into the file too; without it, the file names the weights by their digest."""
    weights: MaybeText = None
    """The network, if the evaluation does not lie in its run's folder: a run's folder, a weights file, zoo:NAME,
    hf://OWNER/NAME or a folder of stcli export hub."""
    dataset: MaybeText = None
    """The data set, if it moved, or if neither the run nor its name finds it."""
    json: bool = False
    """Print JSON instead of text."""


def main(args: Sequence[str]) -> int:
    """Writes the file and prints what it claims; returns the exit code."""
    options = parse(EvidenceOptions, args, "stcli evidence")
    found = make_evidence(
        options.evaluation,
        options.out,
        checkpoint=options.checkpoint,
        include_weights=options.with_weights,
        weights=options.weights,
        dataset=options.dataset,
    )
    if options.json:
        content = {"file": str(options.out), "seal": found.seal, **found.header, "weights": bool(found.weights)}
        print(json.dumps(content, indent=2))
        return errors.OK
    console, claim = make_console(), found.header["claim"]
    ball = f"{claim['norm']} ε = {names.radius(claim['epsilon'])}"
    broken = f"{claim['broken']} of {claim['images']} images broken, {ball}"
    say(console, f"{broken}: the robust accuracy is at most {percent(found.at_most)} %")
    for attack, count in Counter(found.names).most_common():
        say(console, f"  {count:>5}  {attack}")
    if found.header["left_out"]:
        say(console, f"{found.header['left_out']} images left out, whose adversarial ones are outside this ball")
    say(console, f"{options.out}: {options.out.stat().st_size:,} bytes, sealed {found.seal}")
    command = f"stcli replay {options.out}{'' if found.weights else ' --weights WEIGHTS'}"
    say(console, f"{command} verifies each; publish the seal beside the file")
    return errors.OK
