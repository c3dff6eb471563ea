"""AutoAttack (Croce and Hein, 2020): attacks one after the other, each on what withstood those before it."""

from __future__ import annotations

from stcore.autoattack.attack import AutoAttack
from stcore.autoattack.cascade import Cascade
from stcore.autoattack.records import Records
from stcore.autoattack.versions import VERSIONS, Stage, stages

__all__ = ["VERSIONS", "AutoAttack", "Cascade", "Records", "Stage", "stages"]
