"""Presets of the paper's rows: settings, the source of each setting, and the expected accuracies.

`PRESETS` maps names such as `table1/cifar10/st` to presets.
"""

from stcore.paper.catalogue import PRESETS
from stcore.paper.cost import estimated_cost
from stcore.paper.preset import Expected, Preset, Setting

__all__ = ["PRESETS", "Expected", "Preset", "Setting", "estimated_cost"]
