"""What a network needs that `torch.compile` has taken over."""

from __future__ import annotations

import sys
from contextlib import AbstractContextManager, nullcontext
from typing import Any


def kept() -> AbstractContextManager[Any]:
    """Around its forwards and ways back: what a forward saves outlives the first way back.

    By default torch.compile lets that one overwrite it, and refuses a second. A network that already went back to
    its own pixels by such a graph must be compiled anew.
    """
    config = sys.modules.get("torch._functorch.config")  # only there where something is compiled
    return nullcontext() if config is None else config.patch(donated_buffer=False)
