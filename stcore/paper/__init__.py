"""The paper's tables as presets, one per row, with each setting's source and the published numbers.

`PRESETS` holds them by name, such as `table1/cifar10/st`.
"""

from stcore.paper.catalogue import PRESETS, find, matching
from stcore.paper.cost import estimated_cost
from stcore.paper.preset import Expected, Preset, Setting

__all__ = ["PRESETS", "Expected", "Preset", "Setting", "estimated_cost", "find", "matching"]
