"""Networks as files of other programs: the targets of `stcli export`, and the Hugging Face hub."""

from stcore.export.description import BESIDE, INSIDE, PREPROCESSING, Description, Network
from stcore.export.targets import TARGETS, Exported, Target, export

__all__ = [
    "BESIDE",
    "INSIDE",
    "PREPROCESSING",
    "TARGETS",
    "Description",
    "Exported",
    "Network",
    "Target",
    "export",
]
