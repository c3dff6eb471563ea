"""`stcli refute`: tests a claimed robust accuracy on images in a random, recorded order."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import tyro
from rich.console import Console

from stcore import errors
from stcore.base import checks
from stcore.base.interrupts import Interrupt
from stcore.cli.console import make_console, make_progress, say
from stcore.cli.evaluation_plan import checkpoints, is_weights, located, plan_from
from stcore.cli.options import EvaluateOptions
from stcore.cli.parsing import Int, MaybeInt, MaybeNumber, MaybeText, Number, parse
from stcore.cli.quiet import load_quietly
from stcore.errors import UsageError
from stcore.evidence.file import read, write
from stcore.evidence.refuting import Refutation
from stcore.evidence.sampling import UNDECIDED, Claim
from stcore.models.weights_files import read_weights
from stcore.protocols import Array
from stcore.runs.checkpoint_evaluation import CheckpointEvaluation
from stcore.runs.folder import CHECKPOINTS
from stcore.runs.preparation import set_up
from stcore.runs.store import check_weights_metadata

_OF_DATA = ("subset", "checkpoint", "dataset", "model", "image_size")
_SHARED = ("norm", "seed", *_OF_DATA, "backend", "device", "dtype", "batch_size", "threads")
"""Options that `stcli evaluate` has too."""


@dataclass(frozen=True, kw_only=True)
class RefuteOptions:
    """Test a claimed robust accuracy, and stop as soon as it is refuted or supported, or the time is over.

    Images are looked at in a random, recorded order; passes go where they decide, as an audit suggests.
    Refuted: too many of these images were broken, each by an image in the file, for the claim to hold; the file
    replays. Supported: against these attacks alone, and not proved. The same command, run again, resumes.
    """

    GROUPS = (
        ("the claim", "claim norm confidence tolerance seed subset"),
        ("what it is about", "checkpoint dataset model image_size"),
        ("output and time", "out hours save_every json"),
        ("runtime", "backend device dtype batch_size threads"),
    )

    run: tyro.conf.Positional[Path]
    """A run's folder, a .safetensors or PyTorch file, zoo:NAME (stcli zoo list), a folder of stcli export hub, or
    hf://OWNER/NAME; all but a run and zoo:NAME need --dataset. A run's folder runs the code of the import paths in
    its config.toml."""
    claim: str
    """ACCURACY@EPSILON, such as 0.52@8/255: at least this share of the test images withstands every change within
    ε, for pixels in [0, 1]."""
    out: Path
    """The evidence file to write; one of the same claim that is not decided is continued."""
    norm: MaybeText = None
    """linf, l2 or l1; by default the run's."""
    hours: MaybeNumber = None
    """Stop after this many hours; by default only a verdict ends it."""
    seed: Int = 0
    """Seed of the order of the images and of the attacks' noise. Fix it beforehand: who tries several draws until
    one refutes."""
    confidence: Number = 0.95
    """Of either verdict, at whatever moment it comes."""
    tolerance: Number = 0.02
    """Supported: no more than this is missing from the claimed accuracy, under these attacks."""
    subset: MaybeText = None
    """The claim is about the first N test images (N), or about images A to B (A:B); by default about all."""
    checkpoint: MaybeText = None
    """Checkpoint of a run: best (the default), last, best-ema or last-ema."""
    dataset: MaybeText = None
    """The data set, if it moved since training; required for a weights file."""
    model: MaybeText = None
    """For a weights file of a package.module:factory network: that factory. A file alone never runs code. For a
    state dict of PyTorch (.pt, .pth): its network."""
    image_size: MaybeInt = None
    """For a weights file: resize and crop all images to squares of this side in pixels, as in training."""
    backend: MaybeText = None
    """torch or keras; by default the one that trained."""
    device: str = "auto"
    """auto, cpu, cuda[:N] or mps (torch); cpu, gpu[:N] or, on JAX, tpu[:N] (keras)."""
    dtype: MaybeText = None
    """float32 or float64; by default the run's."""
    batch_size: MaybeInt = None
    """Images under attack at one time; by default the run's --eval-batch-size."""
    threads: MaybeInt = None
    """CPU threads."""
    save_every: Number = 30.0
    """Seconds between saves: at most this much work is lost to a kill."""
    json: bool = False
    """Print JSON instead of text."""


def main(args: Sequence[str]) -> int:
    """Works until there is a verdict, or the time is over, or Ctrl-C; returns the exit code."""
    options = parse(RefuteOptions, args, "stcli refute")
    checks.number("save_every", options.save_every)
    if options.hours is not None:
        checks.number("hours", options.hours)
    claim = Claim.parse(options.claim, confidence=options.confidence, tolerance=options.tolerance)
    if options.out.is_dir() or not options.out.absolute().parent.is_dir():
        raise UsageError(f"out: expected a file in an existing folder; received {options.out}")
    until = None if options.hours is None else time.monotonic() + 3600 * options.hours
    evaluation, weights = _evaluation(options, claim)
    console = make_console(stderr=options.json)  # stdout holds only the JSON
    with evaluation.context(), Interrupt(until) as interrupt:
        evaluation.load(weights)
        work = Refutation(
            evaluation.classifier,
            evaluation.test,
            evaluation.places,
            replace(claim, norm=evaluation.plan.norm),
            evaluation.identity(weights),
            batch_size=evaluation.plan.evaluation.batch_size,
        )
        if options.out.is_file():
            work.resume(read(options.out))
            say(console, f"resumes: {options.out}, {len(work.rung)} images looked at")
        saver = _Saver(work, options.out, options.save_every)
        standing = work.run(make_progress(console), interrupt.came, saver.when_due)
        saver.save()
        over = until is not None and time.monotonic() >= until
        pressed = interrupt.came() and not over
    if options.json:
        print(json.dumps({**standing.as_json(), "passes": work.passes, "file": str(options.out)}, indent=2))
    else:
        _show(console, work, options.out)
    if standing.verdict == UNDECIDED and pressed:
        say(console, f"interrupted: kept in {options.out}; run the same command again to resume")
        return errors.INTERRUPTED
    return errors.OK


def _evaluation(options: RefuteOptions, claim: Claim) -> tuple[CheckpointEvaluation, Mapping[str, Array]]:
    """The network and the test images, as `stcli evaluate` finds them, and the weights."""
    of = EvaluateOptions(
        run=located(options.run),
        attacks="autoattack",
        epsilon=claim.epsilon,
        **{name: getattr(options, name) for name in _SHARED},
    )
    if not is_weights(of.run) and of.checkpoint is None:
        of = replace(of, checkpoint=CHECKPOINTS[0])
    (file,) = checkpoints(of).values()
    plan = plan_from(of)
    load_quietly(plan.runtime.backend)
    weights, metadata = read_weights(file)
    evaluation = CheckpointEvaluation(set_up(plan, metadata), options.subset)
    check_weights_metadata(metadata, plan, evaluation.test)
    return evaluation, weights


class _Saver:
    """Writes the evidence so far, when it is time."""

    def __init__(self, work: Refutation, path: Path, every: float) -> None:
        self._work, self._path, self._every, self._last = work, path, every, time.monotonic()

    def when_due(self) -> None:
        if time.monotonic() - self._last >= self._every:
            self.save()

    def save(self) -> None:
        write(self._path, self._work.evidence())
        self._last = time.monotonic()


def _show(console: Console, work: Refutation, path: Path) -> None:
    standing = work.standing
    say(console, standing.sentence)
    if work.warned:
        say(console, f"the audit warns of: {', '.join(work.warned)}; the attacks are in the order that suits it")
    for attack, passes in work.passes.items():
        fell = sum(it.attack == attack for it in work.broken.values())
        say(console, f"  {passes:>11,} passes  {attack}{f', broke {fell}' if fell else ''}")
    say(console, f"{path}: stcli replay verifies each of {standing.broken} broken images, and the order")
