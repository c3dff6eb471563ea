"""Labels as users have them: integers in a column, one-hot, soft; in arrays, loaders, files and extra data."""

import numpy as np
import pytest
from harness import NAMES, assert_same, load
from small import EAGER, SETTINGS

import stcore
from stcore.base.weights_file import load_weights
from stcore.data import Batches, ImageData, MixedBatches, load_digits, load_npy, save_npy
from stcore.data.images import Splits
from stcore.errors import DataError

PICTURES = np.random.default_rng(0).integers(0, 256, (12, 4, 4, 1), np.uint8)
LABELS = np.arange(12) % 3
HOT = np.eye(3)[LABELS]
SOFT = 0.8 * HOT + 0.2 * HOT[::-1]


def test_labels_in_a_column_and_one_hot_labels_are_integers():
    plain = ImageData.from_arrays(PICTURES, LABELS)
    for labels in (LABELS[:, None], HOT, HOT.astype(bool), HOT.astype(np.int8), HOT.astype(np.float32)):
        same = ImageData.from_arrays(PICTURES, labels)
        assert same.soft_labels is None
        assert (same.num_classes, same.labels.dtype) == (3, np.int64)
        np.testing.assert_array_equal(same.labels, LABELS)
        assert same.fingerprint() == plain.fingerprint()


def test_soft_labels_are_trained_on_and_their_likeliest_classes_evaluated():
    data = ImageData.from_arrays(PICTURES, SOFT)
    np.testing.assert_array_equal(data.labels, LABELS)
    np.testing.assert_array_equal(data.subset([5, 2]).targets, SOFT[[5, 2]])
    np.testing.assert_array_equal(data.head(3).targets, SOFT[:3])
    assert data.fingerprint() != ImageData.from_arrays(PICTURES, LABELS).fingerprint()
    assert data.fingerprint() == ImageData.from_arrays(PICTURES, SOFT.copy()).fingerprint()
    drawn = {tuple(row) for batch in Batches(data, 5, 0).epoch(1) for row in batch.labels}
    assert drawn == {tuple(row) for row in SOFT}


WRONG = {
    "sums": (HOT * 2, r"rows that sum to 1, received entries from 0, sums from 2 to 2; divide each row"),
    "negative": (HOT - [[0.5, -0.5, 0]], "at least 0, .* received entries from -0.5"),
    "not a number": (HOT * np.nan, "received entries from nan"),
    "too few": (HOT[:5], r"of shape \(12, C\), one row per image, received float64 of shape \(5, 3\)"),
    "words": (HOT.astype(str), "expected one-hot or soft labels as numbers"),
}


@pytest.mark.parametrize(("labels", "message"), WRONG.values(), ids=WRONG)
def test_rows_that_are_no_probabilities_are_refused(labels, message):
    with pytest.raises(DataError, match=message):
        ImageData.from_arrays(PICTURES, labels)


def test_the_columns_are_the_classes():
    with pytest.raises(DataError, match=r"expected labels of shape \(N,\) or \(N, 4\), received \(12, 3\)"):
        ImageData.from_arrays(PICTURES, SOFT, 4)


def test_files_keep_soft_labels(tmp_path):
    data = ImageData.from_arrays(PICTURES, SOFT.astype(np.float32))
    save_npy(tmp_path / "set", Splits(data, data, data))
    np.testing.assert_array_equal(load_npy(tmp_path / "set").train.targets, data.targets)


@pytest.mark.parametrize("soft", ["data", "extra"])
def test_extra_data_are_soft_if_one_kind_is(soft):
    kinds = {"data": SOFT, "extra": LABELS} if soft == "data" else {"data": LABELS, "extra": SOFT}
    data, extra = (ImageData.from_arrays(PICTURES, kinds[name], 3) for name in ("data", "extra"))
    (batch, *_) = MixedBatches(data, extra, 0.5, 6, 0).epoch(1)
    hot = batch.labels.max(1) == 1
    assert batch.labels.shape == (6, 3)
    np.testing.assert_allclose(batch.labels.sum(1), 1)
    assert 0 < hot.sum() < 6


# --- Whole runs ---

SETTINGS_OF_RUN = {**EAGER, "epochs": 1, "method": "at", "preset": "digits", "progress": False}


def digits():
    parts = load_digits()
    train = parts.train.head(64)
    held = (parts.test.images[:40], np.eye(10)[parts.test.labels[:40]])
    soft = 0.9 * np.eye(10)[train.labels] + 0.01
    return train.images, train.labels, soft, {"validation": held, "test": held}


@pytest.mark.parametrize("backend", NAMES)
def test_a_run_takes_them_in_arrays_and_in_a_loader(tmp_path, backend):
    load(backend)
    images, labels, soft, held = digits()

    def trained(name, data, **batches):
        run = stcore.train(
            "tiny", data, out=tmp_path / name, backend=backend, **held, **SETTINGS_OF_RUN, **batches
        )
        return load_weights(run.path / "last.safetensors")[0]

    own = {"batch_size": SETTINGS["batch_size"], "augment": "none"}
    integers = trained("integers", (images, labels), **own)
    assert_same(trained("hot", (images, np.eye(10)[labels]), **own), integers)
    softly = trained("soft", (images, soft), **own)
    assert any(np.any(softly[name] != integers[name]) for name in softly)
    batches = Batches(ImageData.from_arrays(images, soft), own["batch_size"], 0)
    loader = [(batch.images, batch.labels) for batch in batches.epoch(1)]
    assert_same(trained("loader", loader), softly)


def test_a_loader_of_other_classes_is_refused(tmp_path):
    load("torch")
    images, labels, _, held = digits()
    with pytest.raises(DataError, match=r"expected labels of shape \(B,\) or \(B, 10\), .* received \(64, 11\)"):
        stcore.train("tiny", [(images, np.eye(11)[labels])], out=tmp_path / "run", **held, **SETTINGS_OF_RUN)
