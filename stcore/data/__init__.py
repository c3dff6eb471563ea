"""Data sets as uint8 images in memory, their splits, and the batches of an epoch. numpy only.

What decodes a source (scikit-learn, pyarrow, pillow) is imported when that source is loaded.
"""

from stcore.data.batches import Batch, Batches, in_order
from stcore.data.digits import load_digits
from stcore.data.images import ImageData, Splits
from stcore.data.parquet import load_parquet
from stcore.data.sources import load
from stcore.data.split import hold_out

__all__ = [
    "Batch",
    "Batches",
    "ImageData",
    "Splits",
    "hold_out",
    "in_order",
    "load",
    "load_digits",
    "load_parquet",
]
