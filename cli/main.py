"""`stcli`: runs a command and turns errors into one sentence and an exit code."""

from __future__ import annotations

import contextlib
import importlib
import keyword
import os
import sys
import traceback
import warnings
from collections.abc import Iterator, Sequence
from typing import Any

from stcore import errors
from stcore.base import checks
from stcore.cli import ranks, streams

COMMANDS = {
    "train": "train a classifier by squeeze training (or another method) and evaluate it",
    "plan": "forecast what a run will cost, by a short probe: passes, memory, hours",
    "sweep": "train a run for each point of a grid of settings; resumable",
    "evaluate": "evaluate the checkpoints of a run, or a weights file, under attack; resumable",
    "bracket": "bound robust accuracy from below by a proof and from above by attacks; resumable",
    "analyze": "draw the paper's figures from your own networks and runs, with their numbers",
    "merge": "join the shards of an evaluation, or its threat models to a union",
    "evidence": "put an evaluation's adversarial images and its claim into one sealed file",
    "replay": "verify every success of an evidence file by one forward an image",
    "refute": "test a claimed robust accuracy, in as few passes as decide it; resumable",
    "presets": "list the presets: recipes that were run, and the rows of the paper's tables",
    "demo": "train three small networks on digits, attack them and write a report, in minutes",
    "report": "report runs as an HTML page, as Markdown or as a model card",
    "table": "put finished runs and their seeds into a table: Markdown, CSV, JSON or LaTeX",
    "verify": "compare finished runs with a preset that was run, or a row of the paper",
    "pseudo-label": "label images with a trained network, as extra training data",
    "import": "convert a published PyTorch checkpoint to a weights file for both frameworks",
    "predict": "classify photos with a trained network",
    "export": "write a network for other programs: ONNX, TFLite, the Hugging Face hub, RobustBench …",
    "push": "upload a network to the Hugging Face hub",
    "data": "list, fetch, verify and import published data sets; describe any data set",
    "zoo": "list the networks that come with the package, or show the card of one",
    "doctor": "show versions, devices and backends, and run a self-test of a few seconds",
    "completion": "print a completion script for bash, zsh or fish",
}

A_BUG = "this is a bug in stcore: please report it with the lines above"
HELP = f"""usage: stcli COMMAND [options]

Adversarially robust image classifiers: squeeze training and its family, in PyTorch and Keras.

commands:
{chr(10).join(f"  {name:<13} {what}" for name, what in COMMANDS.items())}

  stcli COMMAND --help    the options of a command
  stcli --version         the version

To begin: stcli demo, or stcli train --backend torch.
To complete commands and options by the tab key: stcli completion --help.

exit codes: 0 ok, 1 a bug, 2 usage, 3 data, 4 device or memory, 5 training diverged,
            6 evidence not confirmed, 130 interrupted (the state is saved)
"""


def main(args: Sequence[str] | None = None) -> int:
    """Runs one command; returns its exit code."""
    with ranks.heard(), streams.lasting() as output:
        code = _run(list(sys.argv[1:] if args is None else args))
        output.flush()
        if output.lost:
            code = _say(f"what it printed is not complete ({output.lost})", code or errors.UsageError.exit_code)
    return code


def _run(words: list[str]) -> int:
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # TensorFlow also raises what it logs
    if not words or words[0] in ("-h", "--help", "help"):
        print(HELP, end="")
        return errors.OK if words else errors.UsageError.exit_code
    if words[0] == "--version":
        from stcore.base.version import __version__

        print(f"stcli {__version__}")
        return errors.OK
    try:
        if words[0] not in COMMANDS:
            hint = checks.did_you_mean(words[0], COMMANDS)
            raise errors.UsageError(f"expected a command among {', '.join(COMMANDS)}; received {words[0]!r}{hint}")
        ranks.check(words[0])
        module = words[0].replace("-", "_") + "_" * keyword.iskeyword(words[0])  # import_
        command = importlib.import_module(f"stcore.cli.{module}")
        with _notes():
            code: int = command.main(words[1:])
        return code
    except SystemExit as end:  # after --help
        return int(end.code or 0)
    except errors.StcoreError as error:
        return _say(str(error), error.exit_code)
    except KeyboardInterrupt:
        return _say("interrupted", errors.INTERRUPTED)
    except Exception as error:
        if _is_of_memory(error):
            reason = str(error).splitlines()[0] if str(error) else "no reason given"
            return _say(f"out of memory: {reason}. Lower --batch-size", errors.DeviceError.exit_code)
        if isinstance(error, OSError) and error.strerror:
            reason = f"{error.filename or 'a file'} cannot be read or written ({error.strerror})"
            return _say(f"{reason}. Choose another place", errors.UsageError.exit_code)
        return _say(A_BUG, errors.BUG, before=traceback.format_exc())


@contextlib.contextmanager
def _notes() -> Iterator[None]:
    """Prints our own warnings as notes, without the place in the code that Python adds."""
    with warnings.catch_warnings():
        show = warnings.showwarning

        def say(message: Any, category: Any, *place: Any, **more: Any) -> None:
            if issubclass(category, errors.BrokenImageWarning | errors.CacheWarning):
                print(f"note: {message}", file=sys.stderr)
            else:
                show(message, category, *place, **more)

        warnings.showwarning = say
        warnings.simplefilter("always", errors.BrokenImageWarning)
        warnings.simplefilter("default", errors.CacheWarning)  # once for all parts of a set
        yield


def _is_of_memory(error: Exception) -> bool:
    """Whether the host's or a device's memory ran out; imports no framework."""
    names = {kind.__name__ for kind in type(error).__mro__}
    named = names & {"MemoryError", "OutOfMemoryError", "ResourceExhaustedError"}
    return bool(named) or (isinstance(error, RuntimeError) and "can't allocate memory" in str(error))


def _say(message: str, code: int, before: str = "") -> int:
    if ranks.speaks():
        print(f"{before}stcli: {ranks.name()}{message}", file=sys.stderr)
    return code


if __name__ == "__main__":
    sys.exit(main())
