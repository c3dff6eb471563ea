"""Small sets written in the published file formats, where the presets of the paper look for them."""

from test_extra_data import write_pickle
from test_readers import write_archive, write_folder, write_svhn


def write_all(place):
    """CIFAR-10 as its archive, CIFAR-100 as its folder, SVHN, and RST's pseudo-labelled images (six of them)."""
    write_archive(place / "data", 10, "python")
    write_folder(place / "data", 100, "python")
    write_svhn(place / "data" / "svhn")
    write_pickle(place / "data" / "ti_500K_pseudo_labeled.pickle")
