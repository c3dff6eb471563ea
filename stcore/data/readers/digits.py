"""scikit-learn's handwritten digits, a real data set that needs no download."""

from typing import Literal

import numpy as np

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
    from sklearn.datasets import load_digits as embedded

    bunch = embedded()
    images = np.rint(bunch.images * (255 / 16)).astype(np.uint8)
    whole = ImageData.from_arrays(images, bunch.target, 10, "digits", [str(digit) for digit in range(10)])
    rest, test = hold_out(whole, TEST)
    return three_parts({"train": rest, "test": test}, validation=validation, size=VALIDATION)
