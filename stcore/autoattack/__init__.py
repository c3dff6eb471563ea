"""AutoAttack (Croce and Hein, 2020): a cascade of attacks, each on the images still robust.

`AutoAttack` attacks one batch; `Cascade` a data set, step by step, with its state saved between steps; `stages`
lists a version's attacks.
"""

from __future__ import annotations

from stcore.autoattack.attack import AutoAttack
from stcore.autoattack.cascade import Cascade
from stcore.autoattack.records import Records
from stcore.autoattack.versions import VERSIONS, Stage, stages

__all__ = ["VERSIONS", "AutoAttack", "Cascade", "Records", "Stage", "stages"]
