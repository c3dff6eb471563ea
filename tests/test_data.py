"""Data sets, splits, batches and sources: what they promise, and every error they raise."""

import io
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stcore.data import Batches, ImageData, Splits, hold_out, in_order, load, load_digits, load_parquet
from stcore.data.augment import AUGMENT, augmented, draw
from stcore.data.crop_flip import HOLE, PAD, crop_flip
from stcore.data.readers import digits
from stcore.errors import DataError, UsageError
from stcore.testing import check_dataset


def numbered(labels, classes=None, size=2):
    """Images whose every pixel is their index, so that each can be recognised."""
    images = np.broadcast_to(
        np.arange(len(labels), dtype=np.uint8)[:, None, None, None], (len(labels), size, size, 1)
    )
    return ImageData.from_arrays(images, np.asarray(labels), classes)


labellings = st.lists(st.integers(0, 4), min_size=2, max_size=60)


# The package


def test_the_package_and_the_digits_are_light():
    heavy = ["torch", "keras", "tensorflow", "jax", "sklearn", "scipy", "pyarrow", "PIL", "pandas"]
    code = "import sys, stcore.data, stcore.base.seeding; stcore.data.load_digits();"
    code += f"print([m for m in {heavy} if m in sys.modules])"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert run.stdout.strip() == "[]"


# ImageData


def test_arrays_become_uint8_nhwc_and_int64():
    data = ImageData.from_arrays(np.zeros((3, 4, 5), np.uint8), np.array([0, 1, 2], np.int32), name="it")
    assert data.images.shape == (3, 4, 5, 1)
    assert data.image_shape == (4, 5, 1)
    assert (data.images.dtype, data.labels.dtype) == (np.uint8, np.int64)
    assert (len(data), data.num_classes, data.name, data.class_names) == (3, 3, "it", None)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_floats_are_rounded_to_the_nearest_of_256_levels(dtype):
    levels = np.arange(256, dtype=np.uint8).reshape(1, 16, 16, 1)
    data = ImageData.from_arrays((levels / 255).astype(dtype), [1], 2)
    np.testing.assert_array_equal(data.images, levels)


def test_class_names_count_the_classes():
    data = ImageData.from_arrays(np.zeros((2, 1, 1)), [0, 1], class_names=["a", "b", "c"])
    assert (data.num_classes, data.class_names) == (3, ("a", "b", "c"))


GOOD = {"images": np.zeros((2, 4, 4, 3), np.uint8), "labels": [0, 1]}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"images": np.zeros((2, 48), np.uint8)},
            r"expected images of shape .* received shape \(2, 48\); reshape",
        ),
        (
            {"images": np.zeros((0, 4, 4, 3), np.uint8), "labels": []},
            "expected at least one image, received an empty",
        ),
        (
            {"images": np.zeros((2, 3, 32, 32), np.uint8)},
            r"expected channels last .*transpose\(0, 2, 3, 1\)",
        ),
        ({"images": np.zeros((2, 4, 4, 3), np.int64)}, r"uint8 .* received int64; .*astype\(np\.uint8\)"),
        ({"images": np.full((2, 4, 4, 3), np.nan)}, "expected finite pixels, received NaN or infinity"),
        ({"images": np.full((2, 4, 4, 3), np.inf)}, "expected finite pixels, received NaN or infinity"),
        ({"images": np.full((2, 4, 4, 3), -1.5)}, "received -1.5 to -1.5; they look normalised by a mean"),
        (
            {"images": np.full((2, 4, 4, 3), 255.0)},
            "received 255 to 255; they look like 0..255 held as floats",
        ),
        ({"labels": [0, 1, 1]}, "received 3 labels for 2 images"),
        (
            {"labels": [[[0]], [[1]]]},
            r"expected labels of shape \(N,\), received \(2, 1, 1\); give labels.reshape\(-1\)",
        ),
        ({"labels": [0.0, 1.0]}, "expected integer labels, received float64"),
        ({"labels": ["cat", "dog"]}, "expected integer labels, received <U3"),
        ({"labels": [1, -1]}, r"expected labels in \[0, 2\), received -1 at position 1"),
        ({"labels": [0, 3], "num_classes": 3}, r"expected labels in \[0, 3\), received 3 at position 1"),
        ({"labels": [0, 0]}, "expected at least 2 classes, received 1"),
        ({"num_classes": 1}, "expected at least 2 classes, received 1"),
        ({"num_classes": 3, "class_names": ["a"]}, "expected 3 class names, received 1"),
    ],
)
def test_arrays_that_do_not_fit_are_refused(change, message):
    with pytest.raises(DataError, match=message):
        ImageData.from_arrays(**{**GOOD, **change})


def test_subset_and_head():
    data = numbered([0, 1, 2, 0])
    np.testing.assert_array_equal(data.subset([2, 0]).labels, [2, 0])
    np.testing.assert_array_equal(data.subset([2, 0]).images[:, 0, 0, 0], [2, 0])
    np.testing.assert_array_equal(data.head(2).labels, [0, 1])
    assert data.head(2).num_classes == 3
    with pytest.raises(DataError, match="expected a subset of at least 1 example, received none"):
        data.subset([])
    for n in (0, 5):
        with pytest.raises(DataError, match=f"expected a head of 1 to 4 examples, received {n}"):
            data.head(n)


def test_fingerprint_is_of_the_content_alone():
    data = numbered([0, 1, 2, 0])
    same = ImageData.from_arrays(np.asfortranarray(data.images), data.labels.astype(">i4"), name="another")
    assert data.fingerprint() == same.fingerprint()
    relabelled = ImageData.from_arrays(data.images, [0, 1, 2, 1])
    reshaped = ImageData.from_arrays(data.images.reshape(4, 1, 4, 1), data.labels)
    more_classes = ImageData.from_arrays(data.images, data.labels, 4)
    repainted = ImageData.from_arrays(data.images + np.uint8(1), data.labels)
    all_of_them = [data, relabelled, reshaped, more_classes, repainted, data.head(3)]
    assert len({one.fingerprint() for one in all_of_them}) == len(all_of_them)


def test_parts_that_disagree_are_refused():
    small, large = numbered([0, 1]), numbered([0, 1], size=3)
    with pytest.raises(DataError, match=r"expected image_shape \(2, 2, 1\) .* received \(3, 3, 1\)"):
        Splits(small, small, large)
    with pytest.raises(DataError, match=r"expected num_classes 2 .* received 3"):
        Splits(small, numbered([0, 1], 3), small)


# hold_out


@given(labels=labellings, data=st.data(), seed=st.integers(0, 2**64 - 1))
def test_hold_out_is_a_stratified_partition(labels, data, seed):
    size = data.draw(st.integers(1, len(labels) - 1))
    whole = numbered(labels, 5)
    rest, held = hold_out(whole, size, seed=seed)
    assert len(held) == size
    chosen, left = held.images[:, 0, 0, 0], rest.images[:, 0, 0, 0]
    np.testing.assert_array_equal(np.sort(np.concatenate([chosen, left])), np.arange(len(labels)))
    for part, indices in ((held, chosen), (rest, left)):
        assert (np.diff(indices.astype(int)) > 0).all()  # in the whole's order
        np.testing.assert_array_equal(part.labels, whole.labels[indices])
    # Each class gets its exact share rounded down or up.
    exact = np.bincount(labels, minlength=5) * size / len(labels)
    assert (np.abs(np.bincount(held.labels, minlength=5) - exact) < 1).all()


def test_the_largest_remainders_are_served_first():
    _, held = hold_out(numbered([0] * 5 + [1] * 3 + [2] * 2), 4)  # exact shares 2.0, 1.2, 0.8
    np.testing.assert_array_equal(np.bincount(held.labels), [2, 1, 1])
    _, held = hold_out(numbered([0, 0, 1, 1, 2, 2]), 4)  # shares 4/3 each: the tie goes to class 0
    np.testing.assert_array_equal(np.bincount(held.labels), [2, 1, 1])


def test_hold_out_is_fixed_unless_seeded():
    whole = numbered([0, 1] * 50)
    same = [hold_out(whole, 0.2)[1].images for _ in range(2)]
    np.testing.assert_array_equal(same[0], same[1])
    assert len(same[0]) == 20
    assert (hold_out(whole, 20, seed=1)[1].images != same[0]).any()


@pytest.mark.parametrize("size", [0, 4, -1, 0.0, 1.0, 1.5, 0.99, float("nan"), "all"])
def test_a_hold_out_that_does_not_fit_is_refused(size):
    with pytest.raises(UsageError, match="expected a hold-out of 1 to 3 examples, or a fraction"):
        hold_out(numbered([0, 1, 0, 1]), size)


def test_a_share_of_few_images_is_one_at_least():
    """2 % of a dozen; that it is one is said when a run begins."""
    rest, held = hold_out(numbered([0, 1] * 6), 0.02)
    assert (len(rest), len(held)) == (11, 1)


# Batches


@given(
    count=st.integers(1, 40),
    batch_size=st.integers(1, 50),
    epoch=st.integers(0, 5),
    augment=st.sampled_from(AUGMENT),
)
def test_an_epoch_is_the_same_for_any_batch_size(count, batch_size, epoch, augment):
    data = numbered(np.arange(count) % 3, 3)
    batches = Batches(data, batch_size, 1, augment)
    drawn = list(batches.epoch(epoch))
    assert len(drawn) == len(batches)
    assert [len(batch.labels) for batch in drawn[:-1]] == [batch_size] * (len(drawn) - 1)
    assert len(drawn[-1].labels) in range(min(2, count, batch_size), batch_size + 2)
    images, labels, positions = (np.concatenate(parts) for parts in zip(*drawn, strict=True))
    np.testing.assert_array_equal(positions, np.arange(count))
    (whole,) = Batches(data, count, 1, augment).epoch(epoch)
    np.testing.assert_array_equal(images, whole.images)
    np.testing.assert_array_equal(labels, whole.labels)
    if augment == "none":
        indices = images[:, 0, 0, 0]
        np.testing.assert_array_equal(np.sort(indices), np.arange(count))
        np.testing.assert_array_equal(labels, data.labels[indices])


def test_order_depends_on_seed_and_epoch_alone():
    data = numbered(np.arange(100) % 2)

    def order(seed, epoch):
        return tuple(next(Batches(data, 100, seed).epoch(epoch)).images[:, 0, 0, 0])

    assert order(1, 0) == order(1, 0)
    assert len({order(1, 0), order(1, 1), order(2, 0), tuple(range(100))}) == 4


def test_an_epoch_resumes_at_a_batch():
    batches = Batches(numbered(np.arange(50) % 2), 8, 1, "crop-flip")
    for ours, theirs in zip(batches.epoch(2, start=3), list(batches.epoch(2))[3:], strict=True):
        for one, other in zip(ours, theirs, strict=True):
            np.testing.assert_array_equal(one, other)


@given(count=st.integers(1, 60), batch_size=st.integers(2, 60), epoch=st.integers(0, 3), shuffle=st.booleans())
def test_no_batch_is_of_a_single_image(count, batch_size, epoch, shuffle):
    """It has no batch statistics: it joins the batch before it, and only a set of one image is a batch of one."""
    data = numbered(np.arange(count) % 3, 3)
    batches = Batches(data, batch_size, 1, shuffle=shuffle)
    drawn = [list(batch.images[:, 0, 0, 0]) for batch in batches.epoch(epoch)]
    assert len(drawn) == len(batches)
    assert sorted(index for batch in drawn for index in batch) == list(range(count))
    assert min(map(len, drawn)) >= min(2, count)
    joined = count % batch_size == 1 and count > 1
    assert len(drawn) == -(-count // batch_size) - joined
    assert len(drawn[-1]) == (batch_size + 1 if joined else (count - 1) % batch_size + 1)
    if count >= batch_size:
        whole = Batches(data, batch_size, 1, shuffle=shuffle, drop_last=True)
        sizes = [len(batch.labels) for batch in whole.epoch(epoch)]
        assert sizes == [batch_size] * len(whole) == [batch_size] * (count // batch_size)


def test_batches_of_one_image_are_had_where_they_are_asked_for():
    assert [len(batch.labels) for batch in in_order(numbered([0, 1, 0]), 1)] == [1, 1, 1]


def test_the_short_last_batch_can_be_dropped():
    batches = Batches(numbered([0, 1] * 5), 4, 0, drop_last=True)
    assert len(batches) == 2
    assert [len(batch.labels) for batch in batches.epoch(0)] == [4, 4]


def test_in_order_leaves_the_data_as_it_is_and_owns_its_memory():
    data = numbered([0, 1, 1, 0, 1])
    drawn = list(in_order(data, 2))
    np.testing.assert_array_equal(np.concatenate([batch.images for batch in drawn]), data.images)
    np.testing.assert_array_equal(np.concatenate([batch.labels for batch in drawn]), data.labels)
    assert not any(np.shares_memory(batch.images, data.images) for batch in drawn)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"batch_size": 0}, "expected a batch size of at least 1, received 0"),
        (
            {"augment": "cutmix"},
            "expected augment to be one of none, flip, crop-flip, crop-flip-cutout, .*, received 'cutmix'",
        ),
        ({"batch_size": 5, "drop_last": True}, r"expected a batch size of at most 4 .* received 5"),
    ],
)
def test_batches_that_cannot_be_are_refused(settings, message):
    with pytest.raises(UsageError, match=message):
        Batches(numbered([0, 1, 0, 1]), **{"batch_size": 2, "seed": 0, **settings})


# Augmentation


def slow_crop_flip(image, top, left, flip):
    """Pixel by pixel, as the words say it."""
    height, width, _ = image.shape
    out = np.zeros_like(image)
    for y in range(height):
        for x in range(width):
            row, column = y + top - PAD, x + left - PAD
            if 0 <= row < height and 0 <= column < width:
                out[y, width - 1 - x if flip else x] = image[row, column]
    return out


@settings(max_examples=30)
@given(
    height=st.integers(1, 9),
    width=st.integers(1, 9),
    channels=st.sampled_from([1, 3]),
    seed=st.integers(0, 99),
)
def test_crop_flip_is_a_window_of_the_padded_image(height, width, channels, seed):
    images = np.random.default_rng(seed).integers(1, 256, (5, height, width, channels), np.uint8)
    draws = draw("crop-flip", seed, 0, 5, (1, 1))
    expected = [slow_crop_flip(*one) for one in zip(images, *draws[:3], strict=True)]
    np.testing.assert_array_equal(crop_flip(images, draws), expected)


def test_crop_flip_draws_cover_their_range_evenly():
    top, left, flip, hole = draw("crop-flip", 0, 3, 20_000, (1, 1))
    for corner in (top, left):
        np.testing.assert_allclose(np.bincount(corner) / 20_000, np.full(9, 1 / 9), atol=0.01)
    assert abs(flip.mean() - 0.5) < 0.02
    assert abs(np.corrcoef(top, left)[0, 1]) < 0.03
    assert (draw("crop-flip", 0, 4, 20_000, (1, 1)).top != top).any()
    assert hole is None


def test_flip_is_the_flip_of_crop_flip():
    images = np.random.default_rng(0).integers(0, 256, (60, 5, 6, 3), np.uint8)
    flips = draw("crop-flip", 0, 1, 60, (5, 6)).flip
    expected = np.where(flips[:, None, None, None], images[:, :, ::-1], images)
    np.testing.assert_array_equal(augmented(images, draw("flip", 0, 1, 60, (5, 6))), expected)


@settings(max_examples=30)
@given(height=st.integers(1, 40), width=st.integers(1, 40), seed=st.integers(0, 99))
def test_cutout_is_a_black_square_in_the_image_of_crop_flip(height, width, seed):
    """Pixel by pixel: black within half a side of the centre, elsewhere as without it."""
    images = np.random.default_rng(seed).integers(1, 256, (4, height, width, 1), np.uint8)
    draws = draw("crop-flip-cutout", seed, 0, 4, (height, width))
    plain, cut = augmented(images, draw("crop-flip", seed, 0, 4, (height, width))), augmented(images, draws)
    long, wide = (round(side * 14 / 32) for side in (height, width))
    for i, (down, right) in enumerate(draws.hole.T):
        top, left = int(down * height) - long // 2, int(right * width) - wide // 2
        for y in range(height):
            for x in range(width):
                hidden = top <= y < top + long and left <= x < left + wide
                assert cut[i, y, x] == (0 if hidden else plain[i, y, x])


def test_cutout_hides_as_much_of_a_cifar_image_as_published():
    """14 × 14 pixels, where the square lies inside."""
    drawn = draw("crop-flip-cutout", 0, 1, 20_000, (32, 32))
    hidden = augmented(np.full((20_000, 32, 32, 1), 9, np.uint8), drawn) == 0
    inside = ((drawn.hole > 0.25) & (drawn.hole < 0.75)).all(0) & (drawn.top == PAD) & (drawn.left == PAD)
    assert set(hidden[inside].sum((1, 2, 3))) == {14 * 14}
    assert HOLE * 32 == 14


# Digits


def test_digits_are_split_once_for_all():
    digits = load_digits()
    parts = (digits.train, digits.validation, digits.test)
    assert [len(part) for part in parts] == [1200, 250, 347]
    for part in parts:
        assert part.image_shape == (8, 8, 1)
        assert part.num_classes == 10
        assert (np.abs(np.bincount(part.labels) / len(part) - 0.1) < 0.01).all()
    assert digits.train.images.max() == 255
    assert len({image.tobytes() for part in parts for image in part.images}) == 1797  # no two alike: no leak
    assert digits.test.fingerprint()[:12] == "36b5d77a8498"


# Parquet


def encoded(pixels, form="PNG", mode=None):
    Image = pytest.importorskip("PIL.Image")
    stream = io.BytesIO()
    image = Image.fromarray(pixels)
    (image.convert(mode) if mode else image).save(stream, form)
    return stream.getvalue()


def write(path, images, labels, *, columns=("img", "label"), struct=True, names=None, label_type=None):
    """A parquet file as the hub writes it."""
    pa = pytest.importorskip("pyarrow")
    import pyarrow.parquet as pq

    rows = [{"bytes": one, "path": None} for one in images] if struct else images
    kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())]) if struct else pa.binary()
    table = pa.table({columns[0]: pa.array(rows, kind), columns[1]: pa.array(labels, label_type)})
    if names:
        features = {columns[1]: {"names": names, "_type": "ClassLabel"}, columns[0]: {"_type": "Image"}}
        table = table.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table, path)


COLOURED = np.random.default_rng(0).integers(0, 256, (12, 4, 5, 3), np.uint8)
LABELS = [0, 1, 2] * 4
PNG_START = b"\x89PNG\r\n\x1a\n" + bytes(8)


@pytest.fixture
def folder(tmp_path):
    """12 coloured train images in two shards and 3 test images, three named classes."""
    pictures = [encoded(image) for image in COLOURED]
    names = ["cat", "dog", "eel"]
    write(tmp_path / "train-00001-of-00002.parquet", pictures[8:], LABELS[8:], names=names)
    write(tmp_path / "train-00000-of-00002.parquet", pictures[:8], LABELS[:8], names=names)
    write(tmp_path / "test-00000-of-00001.parquet", pictures[:3], LABELS[:3], names=names)
    return tmp_path


def test_parquet_is_read_in_the_order_of_its_shards(folder):
    splits = load_parquet(folder, validation="test")
    np.testing.assert_array_equal(splits.train.images, COLOURED)
    np.testing.assert_array_equal(splits.train.labels, LABELS)
    np.testing.assert_array_equal(splits.test.images, COLOURED[:3])
    assert splits.train.class_names == ("cat", "dog", "eel")
    assert splits.validation is splits.test


def test_parquet_holds_out_where_there_is_no_validation(folder):
    splits = load_parquet(folder, validation=3)
    assert (len(splits.train), len(splits.validation)) == (9, 3)
    np.testing.assert_array_equal(np.bincount(splits.validation.labels), [1, 1, 1])


def test_parquet_takes_its_own_validation(folder):
    write(folder / "validation-00000-of-00001.parquet", [encoded(COLOURED[7])], [1])
    splits = load_parquet(folder)
    assert (len(splits.train), len(splits.validation)) == (12, 1)
    with pytest.raises(UsageError, match="validation files of its own, received 3"):
        load_parquet(folder, validation=3)


def test_parquet_in_data_bare_bytes_other_names_and_no_metadata(tmp_path):
    for part in ("train", "test"):
        write(
            tmp_path / "data" / f"{part}-0.parquet",
            [encoded(image) for image in COLOURED],
            LABELS,
            columns=("picture", "kind"),
            struct=False,
        )
    splits = load_parquet(tmp_path, columns=("picture", "kind"), validation=0.25)
    assert (splits.train.num_classes, splits.train.class_names) == (3, None)
    with pytest.raises(
        DataError, match=r"a column of images named img or image or images, .* columns picture, kind"
    ):
        load_parquet(tmp_path)
    with pytest.raises(DataError, match=r"a column of labels named label, .* columns picture, kind"):
        load_parquet(tmp_path, columns=("picture", "label"))


def test_classes_are_counted_over_all_parts(tmp_path):
    write(tmp_path / "train-0.parquet", [encoded(COLOURED[0])] * 2, [0, 1])
    write(tmp_path / "test-0.parquet", [encoded(COLOURED[0])], [4])
    assert load_parquet(tmp_path, validation="test").train.num_classes == 5


def test_grey_stays_one_channel_only_if_all_is_grey(tmp_path):
    grey = encoded(COLOURED[0, ..., 0])
    write(tmp_path / "train-0.parquet", [grey, grey], [0, 1])
    write(tmp_path / "test-0.parquet", [grey], [0])
    train = load_parquet(tmp_path, validation="test").train
    np.testing.assert_array_equal(train.images[0], COLOURED[0, ..., :1])
    write(tmp_path / "test-0.parquet", [grey, encoded(COLOURED[0], mode="RGBA")], [0, 1])
    splits = load_parquet(tmp_path, validation="test")
    assert splits.train.image_shape == (4, 5, 3)
    np.testing.assert_array_equal(splits.test.images[1], COLOURED[0])
    np.testing.assert_array_equal(splits.test.images[0], splits.train.images[0])


def test_jpeg_is_decoded(tmp_path):
    smooth = np.full((8, 8, 3), 100, np.uint8)
    for part in ("train", "test"):
        write(tmp_path / f"{part}-0.parquet", [encoded(smooth, "JPEG")] * 2, [0, 1])
    images = load_parquet(tmp_path, validation="test").train.images
    assert np.abs(images[:].astype(int) - 100).max() <= 2


def test_folders_that_are_none_are_refused(tmp_path, folder):
    with pytest.raises(
        DataError, match=r"expected a folder of parquet files, received .*nowhere'; check the path"
    ):
        load_parquet(tmp_path / "nowhere")
    (tmp_path / "bare").mkdir()
    with pytest.raises(DataError, match=r"expected train-\*\.parquet here or in data/, received an empty folder"):
        load_parquet(tmp_path / "bare")
    (tmp_path / "bare" / "plain_text").mkdir()
    with pytest.raises(DataError, match=r"expected train-\*\.parquet .* received plain_text/; name the folder"):
        load_parquet(tmp_path / "bare")
    (folder / "test-00000-of-00001.parquet").unlink()
    with pytest.raises(DataError, match=r"expected test-\*\.parquet .* received .*train-00000-of-00002.parquet"):
        load_parquet(folder)


def test_a_missing_shard_is_noticed(folder):
    (folder / "train-00000-of-00002.parquet").unlink()
    with pytest.raises(DataError, match=r"expected 2 shards of train, received 1: train-00001-of-00002.parquet"):
        load_parquet(folder)


def test_broken_parquet_is_refused(folder):
    path = folder / "train-00001-of-00002.parquet"
    whole = path.read_bytes()
    path.write_bytes(whole[:100])
    with pytest.raises(DataError, match=r"train-00001-of-00002.parquet: expected a whole parquet file, received:"):
        load_parquet(folder)
    path.write_bytes(whole[:4] + bytes(200) + whole[204:])  # the footer is whole, the pages are not
    with pytest.raises(DataError, match=r"train-00001-of-00002.parquet: expected a whole parquet file, received:"):
        load_parquet(folder)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (
            {"images": [b"no image", None]},
            "row 0: expected an image in one of PNG, JPEG.* received 8 bytes of no such image",
        ),
        ({"images": [COLOURED[0], None]}, "row 1: expected an encoded image, received no bytes"),
        ({"images": [COLOURED[0], PNG_START]}, "row 1: expected an image in one of PNG"),
        (
            {"images": [COLOURED[0], COLOURED[0, :3]]},
            "row 1: expected an image of 4x5 pixels like those before it, received 3x5",
        ),
        (
            {"images": [np.zeros((4, 5), np.uint16)] * 2},
            "row 0: expected 8 bits a channel, received .*I;16",
        ),
        ({"images": ["text", "text"]}, "expected images as encoded bytes .* received a column of string"),
        ({"labels": [0, None]}, "expected a label in every row, received null"),
        ({"labels": [0.0, 1.0]}, "expected integer labels, received a column of double"),
        ({"labels": ["cat", "dog"]}, "expected integer labels, received a column of string"),
        ({"labels": [0, -1]}, r"train of .*: expected labels in \[0, 2\), received -1 at position 1"),
        ({"labels": [0, 2]}, r"train of .*: expected labels in \[0, 2\), received 2 at position 1"),
        ({"images": [], "labels": []}, "train of .*: expected at least one image, received an empty array"),
    ],
)
def test_parquet_content_that_does_not_fit_is_refused(tmp_path, content, message):
    pa = pytest.importorskip("pyarrow")
    import pyarrow.parquet as pq

    write(tmp_path / "test-0.parquet", [encoded(COLOURED[0])] * 2, [0, 1])
    bad = {"images": [COLOURED[0]] * 2, "labels": [0, 1], **content}
    bad["images"] = [encoded(one) if isinstance(one, np.ndarray) else one for one in bad["images"]]
    if isinstance(next(iter(bad["images"]), b""), str):
        pq.write_table(pa.table({"img": bad["images"], "label": bad["labels"]}), tmp_path / "train-0.parquet")
    else:
        kind = None if any(isinstance(label, float | str) for label in bad["labels"]) else pa.int64()
        write(tmp_path / "train-0.parquet", **bad, names=["cat", "dog"], label_type=kind)
    with pytest.raises(DataError, match=message):
        load_parquet(tmp_path, validation="test")


@pytest.mark.parametrize(
    "metadata", [b"no json", b"[]", b'{"info": {}}', b'{"info": {"features": {"label": {}}}}']
)
def test_foreign_metadata_is_no_harm(folder, metadata):
    import pyarrow.parquet as pq

    path = folder / "train-00000-of-00002.parquet"
    pq.write_table(pq.read_table(path).replace_schema_metadata({b"huggingface": metadata}), path)
    train = load_parquet(folder, validation="test").train
    assert (train.num_classes, train.class_names) == (3, None)


@pytest.mark.parametrize("missing", ["pyarrow.parquet", "PIL.Image"])
def test_a_missing_package_names_the_extra(folder, monkeypatch, missing):
    monkeypatch.setitem(sys.modules, missing, None)
    monkeypatch.setenv("STCLI_DATA_CACHE", "off")
    with pytest.raises(UsageError, match=rf"{missing}.* pip install '\.\[hub\]'"):
        load_parquet(folder)


# load


def test_load_limits_the_parts(folder):
    splits = load("digits", train_size=100, validation_size=20, test_size=30)
    assert [len(part) for part in (splits.train, splits.validation, splits.test)] == [100, 20, 30]
    whole = load("digits")
    np.testing.assert_array_equal(splits.test.images, whole.test.images[:30])
    assert np.bincount(splits.train.labels).min() >= 9
    assert load("digits", train_size=1200).train.fingerprint() == whole.train.fingerprint()
    assert len(load(f"parquet:{folder}", validation=3, train_size=6).train) == 6


@pytest.mark.parametrize("there", [True, False])
def test_digits_are_scikit_learns_whether_its_file_is_read_or_its_function_called(monkeypatch, there):
    from sklearn.datasets import load_digits as embedded

    if not there:
        monkeypatch.setattr(digits, "find_spec", lambda _: None)
    bunch = embedded()
    for ours, theirs in zip(digits._embedded(), (bunch.images, bunch.target), strict=True):
        np.testing.assert_array_equal(ours, theirs)
        assert ours.dtype == theirs.dtype


def test_digits_hold_nothing_out_where_the_test_set_chooses():
    splits, usual = load("digits", validation="test"), load("digits")
    assert [len(part) for part in (splits.train, splits.validation, splits.test)] == [1450, 347, 347]
    assert splits.validation.fingerprint() == splits.test.fingerprint() == usual.test.fingerprint()
    both = {image.tobytes() for part in (usual.train, usual.validation) for image in part.images}
    assert {image.tobytes() for image in splits.train.images} == both


@pytest.mark.parametrize("option", ["train_size", "validation_size", "test_size"])
@pytest.mark.parametrize("size", [0, 1201])
def test_a_limit_the_set_does_not_have_is_refused(option, size):
    with pytest.raises(UsageError, match=rf"expected {option} in 1\.\.\d+, the size of digits, received {size}"):
        load("digits", **{option: size})


@pytest.mark.parametrize("spec", ["", "mnist", "parquet", "parquet:", "digits:8", "Digits", "svhn:", "npz:"])
def test_an_unknown_set_is_refused(spec):
    with pytest.raises(
        UsageError,
        match=f"dataset: expected one of digits, .*, or KIND:PLACE such as parquet:DIR, .*; received '{spec}'",
    ):
        load(spec)


@pytest.mark.parametrize("option", [{"validation": 10}, {"columns": ("img", "label")}])
def test_digits_take_no_option_of_another_set(option):
    with pytest.raises(UsageError, match="expected no validation and no columns for digits"):
        load("digits", **option)


# The real CIFAR-10

CIFAR10 = Path(os.environ.get("STCORE_CIFAR10", Path(__file__).parents[2] / "shared" / "data" / "cifar10"))


@pytest.mark.slow  # ten seconds, to decode 60 000 pictures; the tests above read parquet files of a few
@pytest.mark.skipif(
    not CIFAR10.is_dir(), reason=f"no CIFAR-10 parquet folder at {CIFAR10}; set STCORE_CIFAR10 to one"
)
def test_cifar10():
    splits = load(f"parquet:{CIFAR10}")
    assert [len(part) for part in (splits.train, splits.validation, splits.test)] == [49_000, 1_000, 10_000]
    assert splits.train.image_shape == (32, 32, 3)
    assert splits.train.class_names is not None
    assert splits.train.class_names[3] == "cat"
    np.testing.assert_array_equal(np.bincount(splits.validation.labels), np.full(10, 100))
    np.testing.assert_array_equal(np.bincount(splits.test.labels), np.full(10, 1000))
    mean = splits.train.images.mean(axis=(0, 1, 2)) / 255
    np.testing.assert_allclose(mean, [0.4914, 0.4822, 0.4465], atol=2e-3)


def test_the_digits_pass_the_contract_of_data_sets():
    assert check_dataset("digits").train.num_classes == 10
