"""scikit-learn's embedded handwritten digits: a real data set that needs no network."""

from typing import Literal

import numpy as np

from stcore.data.images import ImageData, Splits
from stcore.data.split import hold_out, three_parts

TEST = 347
VALIDATION = 250


def load_digits(*, validation: Literal["test"] | None = None) -> Splits:
    """1797 grey images of 8x8 pixels, 10 classes: 1200 to train, 250 to validate, 347 to test.

    validation: "test" holds nothing out of the 1450 and chooses on the test set, as the paper does.
    The split is stratified and fixed; no seed changes it. Values 0..16 are scaled to 0..255 and rounded.
    """
    from sklearn.datasets import load_digits as embedded

    bunch = embedded()
    images = np.rint(bunch.images * (255 / 16)).astype(np.uint8)
    whole = ImageData.from_arrays(images, bunch.target, 10, "digits", [str(digit) for digit in range(10)])
    rest, test = hold_out(whole, TEST)
    return three_parts({"train": rest, "test": test}, validation=validation, size=VALIDATION)
