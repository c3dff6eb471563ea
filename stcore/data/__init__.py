"""Data sets as uint8 images, their splits, and the batches of an epoch. Needs numpy only.

`load(spec)` reads a data set by name; the `load_…` functions read one format each, and `fetch` downloads published
sets. Each returns `Splits` of `ImageData` (in memory, or `Rows` of a memory map) or `StreamData` (tar shards).
`Batches`, `MixedBatches` and `StreamBatches` draw the batches of an epoch from them.

Decoders (scikit-learn, scipy, pyarrow, pillow) are imported when a source is loaded, pooch when one is fetched.
"""

from stcore.data.batches import Batch, Batches, in_order
from stcore.data.corruptions import CORRUPTIONS, corrupt
from stcore.data.download.fetching import fetch
from stcore.data.download.stored import data_folder, import_file, verify
from stcore.data.images import ImageData, Splits
from stcore.data.mixed_batches import MixedBatches
from stcore.data.readers.cifar import load_cifar10, load_cifar100
from stcore.data.readers.digits import load_digits
from stcore.data.readers.extra import Unlabelled, load_extra, load_unlabelled
from stcore.data.readers.folder import load_folder
from stcore.data.readers.hub import load_hub
from stcore.data.readers.npy import load_npy
from stcore.data.readers.npz import load_npz
from stcore.data.readers.parquet import load_parquet
from stcore.data.readers.safetensors import load_safetensors
from stcore.data.readers.sources import load
from stcore.data.readers.stream import load_stream
from stcore.data.readers.svhn import load_svhn
from stcore.data.readers.ti500k import convert_ti500k
from stcore.data.rows import Rows
from stcore.data.saving import save_arrays, save_npy
from stcore.data.split import hold_out
from stcore.data.streams.batches import StreamBatches
from stcore.data.streams.dataset import StreamData

__all__ = [
    "CORRUPTIONS",
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
    "corrupt",
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
