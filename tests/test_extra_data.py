"""Data beside the labelled set, and the batches that mix the two."""

import os
import pickle

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from stcore.data import (
    Batches,
    ImageData,
    MixedBatches,
    convert_ti500k,
    load_extra,
    load_unlabelled,
    save_arrays,
)
from stcore.data.augment import AUGMENT, draw
from stcore.data.crop_flip import crop_flip
from stcore.errors import DataError, UsageError

PICTURES = np.random.default_rng(0).integers(0, 256, (6, 32, 32, 3), np.uint8)
TARGETS = np.array([9, 0, 3, 3, 1, 2])


def write_pickle(path, **change):
    found = {"data": PICTURES, "extrapolated_targets": TARGETS, "prob": np.ones(6, np.float32)} | change
    path.write_bytes(pickle.dumps({key: value for key, value in found.items() if value is not None}, 4))
    return path


# Extra data


@pytest.mark.parametrize("targets", [TARGETS, TARGETS.tolist(), list(TARGETS), TARGETS.astype(np.uint8)])
def test_ti500k_is_read(tmp_path, targets):
    path = write_pickle(tmp_path / "ti.pickle", extrapolated_targets=targets)
    extra = load_extra(f"ti500k:{path}")
    np.testing.assert_array_equal(extra.images, PICTURES)
    np.testing.assert_array_equal(extra.labels, TARGETS)
    assert (extra.num_classes, extra.name) == (10, str(path))


def test_ti500k_is_converted_once(tmp_path):
    path = write_pickle(tmp_path / "ti.pickle")
    convert_ti500k(path, tmp_path / "ti.npz")
    original, converted = load_extra(f"ti500k:{path}"), load_extra(f"npz:{tmp_path / 'ti.npz'}")
    assert original.fingerprint() == converted.fingerprint()
    assert sorted(each.name for each in tmp_path.iterdir()) == ["ti.npz", "ti.pickle"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"data": None}, r"expected 'data' as uint8 of shape \(N, 32, 32, 3\), received no array"),
        ({"data": PICTURES.transpose(0, 3, 1, 2)}, r"received uint8 of shape \(6, 3, 32, 32\)"),
        ({"data": PICTURES / 255}, "expected 'data' as uint8 .* received float64"),
        ({"extrapolated_targets": None}, "expected an array of labels"),
        ({"extrapolated_targets": [10] * 6}, r"expected labels in \[0, 10\), received 10"),
        ({"extrapolated_targets": [1] * 5}, "received 5 labels for 6 images"),
        ({"extrapolated_targets": [[1], [1, 2]]}, "expected 'extrapolated_targets' as integers"),
        ({"extrapolated_targets": ["cat"] * 6}, "expected integer labels, received <U3"),
        ({"extrapolated_targets": np.array([{}] * 6)}, "expected a pickled dict of numbers and text alone"),
        ({"run": os.system}, r"wants to run (posix|nt)\.system, which was refused and not run"),
    ],
)
def test_ti500k_that_does_not_fit_is_refused(tmp_path, change, message):
    path = write_pickle(tmp_path / "ti.pickle", **change)
    with pytest.raises(DataError, match=message):
        load_extra(f"ti500k:{path}")
    with pytest.raises(DataError, match=message):
        convert_ti500k(path, tmp_path / "ti.npz")
    assert not (tmp_path / "ti.npz").exists()


def test_a_truncated_or_missing_ti500k_is_refused(tmp_path):
    path = write_pickle(tmp_path / "ti.pickle")
    path.write_bytes(path.read_bytes()[:-1000])
    with pytest.raises(DataError, match=r"ti.pickle: expected a whole pickle"):
        load_extra(f"ti500k:{path}")
    with pytest.raises(DataError, match=r"received .*nowhere', which cannot be read \(No such file"):
        load_extra(f"ti500k:{tmp_path / 'nowhere'}")


@pytest.mark.parametrize("names", [("image", "label"), ("images", "labels")])
def test_generated_sets_are_read(tmp_path, names):
    path = tmp_path / "1m.npz"
    np.savez_compressed(path, **dict(zip(names, (PICTURES, TARGETS.astype(np.uint8)), strict=True)))
    extra = load_extra(f"npz:{path}")
    np.testing.assert_array_equal(extra.images, PICTURES)
    np.testing.assert_array_equal(extra.labels, TARGETS)
    assert extra.num_classes == 10


def test_extra_data_may_be_of_one_class(tmp_path):
    save_arrays(tmp_path / "one.npz", PICTURES, np.zeros(6, int))
    assert load_extra(f"npz:{tmp_path / 'one.npz'}").num_classes == 2
    save_arrays(tmp_path / "named.npz", PICTURES, np.zeros(6, int), class_names=["cat", "dog", "eel"])
    assert load_extra(f"npz:{tmp_path / 'named.npz'}").class_names == ("cat", "dog", "eel")


def test_unlabelled_images_need_no_labels(tmp_path):
    path = write_pickle(tmp_path / "ti.pickle", extrapolated_targets=None)
    found = load_unlabelled(f"ti500k:{path}")
    np.testing.assert_array_equal(found.images, PICTURES)
    assert found.labels is None
    np.savez(tmp_path / "bare.npz", image=(PICTURES / 255).astype(np.float32))
    found = load_unlabelled(f"npz:{tmp_path / 'bare.npz'}")
    np.testing.assert_array_equal(found.images, PICTURES)
    assert (found.images.dtype, found.labels) == (np.uint8, None)
    np.savez(tmp_path / "labelled.npz", image=PICTURES, label=-TARGETS)
    np.testing.assert_array_equal(load_unlabelled(f"npz:{tmp_path / 'labelled.npz'}").labels, -TARGETS)
    with pytest.raises(DataError, match=r"bare.npz: expected an array of labels named labels or label or y"):
        load_extra(f"npz:{tmp_path / 'bare.npz'}")


@pytest.mark.parametrize("spec", ["", "npz", "npz:", "digits", "parquet:DIR", "ti500k"])
@pytest.mark.parametrize("read", [load_extra, load_unlabelled])
def test_an_unknown_extra_set_is_refused(read, spec):
    with pytest.raises(UsageError, match=f"of the form npz:FILE, ti500k:FILE, received '{spec}'; choose one"):
        read(spec)


# save_arrays


def test_what_is_saved_is_checked_and_read_back(tmp_path):
    path = tmp_path / "pseudo.npz"
    save_arrays(path, PICTURES / 255, TARGETS.astype(np.int16), num_classes=20, confidence=np.ones(6))
    assert load_extra(f"npz:{path}").num_classes == 20
    with np.load(path, allow_pickle=False) as archive:
        assert sorted(archive.files) == ["confidence", "images", "labels", "num_classes"]
        assert (archive["images"].dtype, archive["labels"].dtype) == (np.uint8, np.int64)
    before = path.read_bytes()
    with pytest.raises(DataError, match="received 3 labels for 6 images"):
        save_arrays(path, PICTURES, TARGETS[:3])
    with pytest.raises(UsageError, match="expected notes as numbers or text, received object"):
        save_arrays(path, PICTURES, TARGETS, notes=np.array([{}]))
    assert path.read_bytes() == before


def test_a_place_that_cannot_be_written_is_refused_and_left_clean(tmp_path, monkeypatch):
    with pytest.raises(UsageError, match=r"cannot be written \(No such file or directory\)"):
        save_arrays(tmp_path / "nowhere" / "it.npz", PICTURES, TARGETS)

    def full(file, **arrays):
        file.write(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(np, "savez", full)
    with pytest.raises(UsageError, match=r"it.npz cannot be written \(No space left on device\)"):
        save_arrays(tmp_path / "it.npz", PICTURES, TARGETS)
    assert list(tmp_path.iterdir()) == []


# MixedBatches


def numbered(count, offset=0, classes=3, size=2):
    """Images whose first pixel and label tell the index, and whose second pixel tells which set they are of."""
    images = np.zeros((count, size, size, 1), np.uint8)
    images[:, 0, 0, 0], images[:, 0, 1, 0] = np.arange(count), offset
    return ImageData.from_arrays(images, np.arange(count) % classes, classes)


def mixed(count=20, extra=7, fraction=0.5, batch_size=4, seed=1, **more):
    return MixedBatches(numbered(count), numbered(extra, 1), fraction, batch_size, seed, **more)


def drawn(batches, epoch):
    """(index, whether extra, label) of each example of an epoch, a row per batch."""
    each = list(batches.epoch(epoch))
    images = np.stack([batch.images for batch in each])
    return (
        images[:, :, 0, 0, 0].astype(int),
        images[:, :, 0, 1, 0] == 1,
        np.stack([batch.labels for batch in each]),
    )


@given(
    count=st.integers(2, 100),
    extra=st.integers(2, 60),
    batch_size=st.integers(2, 40),
    fraction=st.floats(0.01, 0.99),
    epoch=st.integers(0, 3),
    augment=st.sampled_from(AUGMENT),
)
def test_batches_are_mixed_in_proportion(count, extra, batch_size, fraction, epoch, augment):
    share = round(batch_size * fraction)
    assume(0 < share < batch_size)
    batches = mixed(count, extra, fraction, batch_size, augment=augment)
    each = list(batches.epoch(epoch))
    assert len(each) == len(batches) == -(-count // batch_size)
    assert [batch.images.shape for batch in each] == [(batch_size, 2, 2, 1)] * len(each)
    positions = np.concatenate([batch.positions for batch in each])
    np.testing.assert_array_equal(positions, np.arange(batches.examples))
    index, is_extra, labels = drawn(mixed(count, extra, fraction, batch_size), epoch)
    np.testing.assert_array_equal(labels, index % 3)
    np.testing.assert_array_equal(np.stack([batch.labels for batch in each]), labels)  # augmented or not
    np.testing.assert_array_equal(is_extra.sum(axis=1), np.full(len(each), share))
    assert index[is_extra].max() < extra
    # The labelled ones are whole permutations, and a part of the last one.
    seen = index[~is_extra]
    for start in range(0, len(seen), count):
        part = seen[start : start + count]
        assert len(set(part)) == len(part)
    # Every contiguous share of a batch has its part of the extra ones.
    sums = np.cumsum(is_extra, axis=1)
    assert (np.abs(sums - np.arange(1, batch_size + 1) * share / batch_size) < 1).all()


def test_at_one_half_an_epoch_sees_half_of_the_labelled_set_once():
    batches = mixed(100, 10, 0.5, 10)
    index, is_extra, _ = drawn(batches, 0)
    assert (len(batches), batches.examples) == (10, 100)
    assert len(set(index[~is_extra])) == 50
    assert len(set(index[is_extra])) <= 10 < is_extra.sum()  # with replacement


def test_the_order_is_new_at_each_epoch_and_seed():
    def order(seed, epoch):
        index, is_extra, _ = drawn(mixed(seed=seed), epoch)
        return tuple(index[~is_extra]), tuple(index[is_extra])

    assert order(1, 0) == order(1, 0)
    for kind in (0, 1):
        assert len({order(*address)[kind] for address in ((1, 0), (1, 1), (2, 0))}) == 3


def test_extra_images_are_drawn_evenly():
    batches = mixed(200, 4, 0.5, 20)
    counts = np.zeros(4)
    for epoch in range(20):
        index, is_extra, _ = drawn(batches, epoch)
        counts += np.bincount(index[is_extra], minlength=4)
    np.testing.assert_allclose(counts / counts.sum(), 0.25, atol=0.04)


@given(start=st.integers(0, 5), augment=st.sampled_from(AUGMENT))
def test_a_mixed_epoch_resumes_at_a_batch(start, augment):
    batches = mixed(augment=augment)
    for ours, theirs in zip(batches.epoch(2, start=start), list(batches.epoch(2))[start:], strict=True):
        for one, other in zip(ours, theirs, strict=True):
            np.testing.assert_array_equal(one, other)


def test_a_tiny_set_is_gone_through_in_a_new_order_each_time():
    index, is_extra, _ = drawn(mixed(9, 3, 0.1, 40), 0)
    orders = index[~is_extra].reshape(4, 9)
    assert len({tuple(order) for order in orders}) == 4


def test_augmentation_is_addressed_by_position():
    data = ImageData.from_arrays(np.concatenate([PICTURES] * 2), np.tile(TARGETS, 2))
    plain, moved = (
        list(MixedBatches(data, data, 0.5, 4, 1, augment).epoch(3)) for augment in ("none", "crop-flip")
    )
    expected = crop_flip(
        np.concatenate([batch.images for batch in plain]), draw("crop-flip", 1, 3, 12, data.image_shape[:2])
    )
    np.testing.assert_array_equal(np.concatenate([batch.images for batch in moved]), expected)


def test_both_kinds_are_augmented_and_own_their_memory():
    data = ImageData.from_arrays(np.full((20, 2, 2, 1), 9, np.uint8), np.arange(20) % 2)
    batches = MixedBatches(data, data, 0.5, 20, 0, "crop-flip")
    (batch,) = batches.epoch(0)
    moved = (batch.images == 0).any(axis=(1, 2, 3))
    assert moved[::2].any()
    assert moved[1::2].any()
    assert not np.shares_memory(batch.images, data.images)


def test_extra_data_may_have_fewer_classes_or_say_it_has_more():
    data, extra = numbered(20), numbered(4, 1, classes=2)
    assert len(MixedBatches(data, extra, 0.5, 4, 0)) == 5
    wide = ImageData.from_arrays(extra.images, extra.labels, 10)
    assert len(MixedBatches(data, wide, 0.5, 4, 0)) == 5


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"batch_size": 0}, "expected a batch size of at least 1, received 0"),
        (
            {"augment": "cutmix"},
            "expected augment to be one of none, flip, crop-flip, crop-flip-cutout, .*, received 'cutmix'",
        ),
        ({"fraction": 0}, r"expected a fraction of extra images in \(0, 1\), received 0"),
        ({"fraction": 1.0}, r"expected a fraction of extra images in \(0, 1\), received 1.0"),
        ({"fraction": float("nan")}, r"expected a fraction of extra images in \(0, 1\), received nan"),
        ({"batch_size": 1}, "at least one labelled and one extra image in a batch, received 0.5 of 1"),
        ({"fraction": 0.1}, "at least one labelled and one extra .* 0.1 of 4, rounded to 0 extra"),
        ({"fraction": 0.9}, "at least one labelled and one extra .* 0.9 of 4, rounded to 4 extra"),
        ({"extra": numbered(5, size=3)}, r"expected images of shape \(2, 2, 1\) .* received \(3, 3, 1\)"),
        ({"extra": numbered(5, classes=4)}, r"expected labels in \[0, 3\) as in .*, received 3"),
    ],
)
def test_mixtures_that_cannot_be_are_refused(change, message):
    with pytest.raises(UsageError, match=message):
        MixedBatches(
            **{"data": numbered(9), "extra": numbered(5), "fraction": 0.5, "batch_size": 4, "seed": 0, **change}
        )


@given(count=st.integers(2, 60), batch_size=st.integers(1, 60), drop_last=st.booleans())
def test_batches_count_their_examples(count, batch_size, drop_last):
    assume(count >= batch_size)
    batches = Batches(numbered(count), batch_size, 0, drop_last=drop_last)
    assert batches.examples == sum(len(batch.labels) for batch in batches.epoch(0))
