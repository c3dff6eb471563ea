"""Settings for networks that `torch.compile` wraps."""

from __future__ import annotations

import sys
from contextlib import AbstractContextManager, nullcontext
from typing import Any


def keep_saved_tensors() -> AbstractContextManager[Any]:
    """Context for forwards and backward passes: one forward supports several backward passes.

    By default torch.compile lets the first backward pass overwrite the saved tensors and refuses a second. A
    network that was differentiated under that default must be compiled again.
    """
    config = sys.modules.get("torch._functorch.config")  # present only if something is compiled
    return nullcontext() if config is None else config.patch(donated_buffer=False)
