"""Data sets as uint8 images in memory, their splits, and the batches of an epoch. numpy only.

What decodes a source (scikit-learn, scipy, pyarrow, pillow) is imported when that source is loaded, and what
fetches one (pooch) when it is fetched.
"""

from stcore.data.batches import Batch, Batches, in_order
from stcore.data.cifar import load_cifar10, load_cifar100
from stcore.data.digits import load_digits
from stcore.data.extra import Unlabelled, load_extra, load_unlabelled
from stcore.data.fetching import fetch
from stcore.data.folder import load_folder
from stcore.data.hub import load_hub
from stcore.data.images import ImageData, Splits
from stcore.data.mixed import MixedBatches
from stcore.data.npy import load_npy
from stcore.data.npz import load_npz
from stcore.data.parquet import load_parquet
from stcore.data.rows import Rows
from stcore.data.safetensors import load_safetensors
from stcore.data.saving import save_arrays, save_npy
from stcore.data.sources import load
from stcore.data.split import hold_out
from stcore.data.stored import data_folder, import_file, verify
from stcore.data.stream import load_stream
from stcore.data.stream_batches import StreamBatches
from stcore.data.stream_data import StreamData
from stcore.data.svhn import load_svhn
from stcore.data.ti500k import convert_ti500k

__all__ = [
    "Batch",
    "Batches",
    "ImageData",
    "MixedBatches",
    "Rows",
    "Splits",
    "StreamBatches",
    "StreamData",
    "Unlabelled",
    "convert_ti500k",
    "data_folder",
    "fetch",
    "hold_out",
    "import_file",
    "in_order",
    "load",
    "load_cifar10",
    "load_cifar100",
    "load_digits",
    "load_extra",
    "load_folder",
    "load_hub",
    "load_npy",
    "load_npz",
    "load_parquet",
    "load_safetensors",
    "load_stream",
    "load_svhn",
    "load_unlabelled",
    "save_arrays",
    "save_npy",
    "verify",
]
