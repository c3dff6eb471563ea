"""`stcli`: finds the command, runs it, and turns what went wrong into one sentence and an exit code."""

from __future__ import annotations

import contextlib
import importlib
import keyword
import os
import sys
import traceback
from collections.abc import Sequence

from stcore import errors
from stcore.cli import ranks

COMMANDS = {
    "train": "train a network by squeeze training (or another method) and evaluate it",
    "plan": "say what a run will cost before it begins: passes, memory, hours, from a short probe",
    "sweep": "train a run for each point of a grid of settings; resumable",
    "evaluate": "evaluate the checkpoints of a run, or a weights file, under attack; resumable",
    "analyze": "the paper's figures from your own networks and runs, with the numbers behind them",
    "merge": "put the shards of an evaluation together",
    "presets": "list the rows of the paper's tables: settings with their sources, expected numbers, cost",
    "demo": "the first five minutes: train three networks on digits, attack them, see the report",
    "report": "runs as a page to look at (HTML), as Markdown, or as a model card",
    "table": "finished runs, and their seeds, in a table: Markdown, CSV, JSON or LaTeX",
    "verify": "do finished runs reproduce a row of the paper?",
    "pseudo-label": "let a trained network label images, as extra data for training",
    "import": "turn a released PyTorch checkpoint into a weights file for both frameworks",
    "export": "write a network and its evaluation as an entry for RobustBench",
    "data": "list, fetch, verify and import the published data sets; describe any data set",
    "doctor": "versions, devices, backends, and a self-test of a few seconds",
}

A_BUG = "this is a bug in stcore: please report it with the lines above"
HELP = f"""usage: stcli COMMAND [options]

{chr(10).join(f"  {name:<13} {what}" for name, what in COMMANDS.items())}

  stcli COMMAND --help lists a command's options. Start with: stcli train --backend torch

exit codes: 0 ok, 1 a bug, 2 usage, 3 data, 4 device or memory, 5 training diverged,
            130 interrupted (what was trained so far is saved)
"""


def main(args: Sequence[str] | None = None) -> int:
    """Runs one command; returns the exit code."""
    words = list(sys.argv[1:] if args is None else args)
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # what TensorFlow fails at, it also raises
    if not words or words[0] in ("-h", "--help", "help"):
        print(HELP, end="")
        return errors.OK if words else errors.UsageError.exit_code
    if words[0] == "--version":
        from stcore.base.version import __version__

        print(f"stcli {__version__}")
        return errors.OK
    try:
        if words[0] not in COMMANDS:
            raise errors.UsageError(f"expected a command among {', '.join(COMMANDS)}; received {words[0]!r}")
        ranks.check(words[0])
        module = words[0].replace("-", "_") + "_" * keyword.iskeyword(words[0])  # import_
        command = importlib.import_module(f"stcore.cli.{module}")
        code: int = command.main(words[1:])
        return code
    except SystemExit as end:  # --help has printed what was asked for
        return int(end.code or 0)
    except errors.StcoreError as error:
        return _say(str(error), error.exit_code)
    except KeyboardInterrupt:
        return _say("interrupted", errors.INTERRUPTED)
    except BrokenPipeError:  # the reader of a pipe has seen enough
        with contextlib.suppress(OSError):  # or Python complains once more at its end
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return errors.OK
    except Exception as error:
        if _is_of_memory(error):
            reason = str(error).splitlines()[0] if str(error) else "no reason given"
            return _say(f"out of memory: {reason}. Lower --batch-size", errors.DeviceError.exit_code)
        if isinstance(error, OSError) and error.strerror:
            reason = f"{error.filename or 'a file'} cannot be read or written ({error.strerror})"
            return _say(f"{reason}. Choose another place", errors.UsageError.exit_code)
        return _say(A_BUG, errors.BUG, before=traceback.format_exc())


def _is_of_memory(error: Exception) -> bool:
    """Whether the host's or a device's memory ran out, told without importing a framework."""
    names = {kind.__name__ for kind in type(error).__mro__}
    named = names & {"MemoryError", "OutOfMemoryError", "ResourceExhaustedError"}
    return bool(named) or (isinstance(error, RuntimeError) and "can't allocate memory" in str(error))


def _say(message: str, code: int, before: str = "") -> int:
    if ranks.speaks():
        print(f"{before}stcli: {ranks.name()}{message}", file=sys.stderr)
    return code


if __name__ == "__main__":
    sys.exit(main())
