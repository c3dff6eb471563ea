"""Ranks of a command that torchrun starts: the first one prints."""

from __future__ import annotations

import os
import sys
from contextlib import AbstractContextManager, nullcontext

from stcore.base.interrupts import postponed
from stcore.base.ranks import launched
from stcore.errors import UsageError


def is_first() -> bool:
    """Whether this process writes files and prints."""
    return launched() == 1 or os.environ.get("RANK", "0") == "0"


def name() -> str:
    """The prefix of a message from another rank than the first."""
    return "" if is_first() else f"rank {os.environ['RANK']}: "


def check(command: str) -> None:
    """Raises UsageError for a command that does not share its work among ranks."""
    if launched() > 1 and command != "train":
        raise UsageError(
            f"expected one process for stcli {command}; a launcher started {launched()}. Run it without torchrun"
            + ("; --shard i/n shares the work" if command == "evaluate" else "")
        )


def heard() -> AbstractContextManager[None]:
    """Within this context a rank has time to report an error.

    The launcher sends SIGTERM as soon as one rank is gone, often before the others have said so.
    """
    return postponed() if launched() > 1 else nullcontext()


def speaks() -> bool:
    """Whether this process reports an error: the first rank, or, once the ranks have joined, the first to fail."""
    joined = sys.modules.get("torch.distributed")
    if launched() == 1 or joined is None or not joined.is_initialized():
        return is_first()
    from stcore.backends.torch.ranks import first_to_fail

    return first_to_fail()
