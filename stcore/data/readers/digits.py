"""scikit-learn's handwritten digits, a real data set that needs no download."""

from importlib.util import find_spec
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt

from stcore.data.images import ImageData, Splits
from stcore.data.split import hold_out, three_parts

TEST = 347
VALIDATION = 250


def load_digits(*, validation: Literal["test"] | None = None) -> Splits:
    """Loads 1797 grey images, uint8 (N, 8, 8, 1), 10 classes: 1200 train, 250 validation, 347 test.

    validation: "test" holds nothing out of the 1450 and selects on the test set, as the paper does.
    The split is stratified and fixed; no seed changes it. Values 0..16 are scaled to 0..255 and rounded.
    Source: the test set of the UCI optical digits (Alpaydin and Kaynak, 1998), as scikit-learn includes it.
    """
    values, labels = _embedded()
    images = np.rint(values * (255 / 16)).astype(np.uint8)
    whole = ImageData.from_arrays(images, labels, 10, "digits", [str(digit) for digit in range(10)])
    rest, test = hold_out(whole, TEST)
    return three_parts({"train": rest, "test": test}, validation=validation, size=VALIDATION)


def _embedded() -> tuple[npt.NDArray[np.float64], npt.NDArray[np.int64]]:
    """The values 0..16 (N, 8, 8) and labels (N,) that `sklearn.datasets.load_digits` returns.

    scikit-learn takes longer to import than an epoch on them, so its file is read without it.
    """
    package = find_spec("sklearn")
    folders = package.submodule_search_locations if package else None
    file = Path(folders[0] if folders else "", "datasets", "data", "digits.csv.gz")
    if not file.is_file():  # a release that keeps them elsewhere
        from sklearn.datasets import load_digits as embedded

        bunch = embedded()
        return bunch.images, bunch.target
    rows = np.loadtxt(file, delimiter=",")
    return rows[:, :-1].reshape(-1, 8, 8), rows[:, -1].astype(np.int64)
