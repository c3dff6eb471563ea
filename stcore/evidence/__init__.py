"""Evidence that others can check: adversarial images with their claim in one sealed file, and its replay.

`read` and `write` are the file, `from_evaluation` makes it of a finished evaluation, `replay` verifies every
success by one forward. `Refutation` tests a claimed accuracy on images in a random, recorded order.
"""

from __future__ import annotations

from stcore.evidence.building import from_evaluation
from stcore.evidence.file import Evidence, read, write
from stcore.evidence.replaying import Replay, replay

__all__ = ["Evidence", "Replay", "from_evaluation", "read", "replay", "write"]
