"""One command in several processes, as torchrun starts them: one of them speaks."""

from __future__ import annotations

import os
import sys

from stcore.base.ranks import launched
from stcore.errors import UsageError


def is_first() -> bool:
    """Whether this is the process that writes and speaks."""
    return launched() == 1 or os.environ.get("RANK", "0") == "0"


def name() -> str:
    """Which of several processes speaks, where it is not the first."""
    return "" if is_first() else f"rank {os.environ['RANK']}: "


def check(command: str) -> None:
    """UsageError for a command that several processes would each do for themselves."""
    if launched() > 1 and command != "train":
        raise UsageError(
            f"expected one process for stcli {command}; a launcher started {launched()}. Run it without torchrun"
            + ("; --shard i/n shares the work" if command == "evaluate" else "")
        )


def speaks() -> bool:
    """Whether this process is to say what went wrong: the first, and once they are joined the first to fail."""
    joined = sys.modules.get("torch.distributed")
    if launched() == 1 or joined is None or not joined.is_initialized():
        return is_first()
    from stcore.backends.torch.ranks import first_to_fail

    return first_to_fail()
