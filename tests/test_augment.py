"""Random resized crop and TrivialAugment, by pillow, whose arithmetic they have; and by their laws."""

import numpy as np
import pytest

from stcore.data import Batches, ImageData
from stcore.data.augment import AUGMENT, augmented, draw
from stcore.data.crop_flip import PAD, CropFlip
from stcore.data.resident import AUGMENTED_THERE, resident
from stcore.data.trivial_augment import LEVELS, OPERATIONS, TrivialAugment
from stcore.errors import UsageError

SIZES = [(32, 32), (8, 8), (17, 23), (2, 5)]


def photos(count, size, channels, seed=0):
    """Images of different contrast, of which the first is one shade."""
    rng = np.random.default_rng(seed)
    noise = rng.integers(0, 256, (count, *size, channels)) // rng.integers(1, 6, (count, 1, 1, 1))
    images = (noise + rng.integers(0, 40, (count, 1, 1, channels))).clip(0, 255).astype(np.uint8)
    images[0] = 7
    return images


def picture(array):
    from PIL import Image

    return Image.fromarray(array[..., 0] if array.shape[-1] == 1 else array)


# --- Random resized crop ---


@pytest.mark.parametrize("size", [*SIZES, (1, 7), (40, 9)])
def test_a_box_is_cropped_resized_and_flipped_as_by_pillow(size):
    image = pytest.importorskip("PIL.Image")
    for channels in (1, 3):
        images, draws = photos(40, size, channels), draw("random-resized-crop-flip", 0, 1, 40, size)
        for one, made, top, left, height, width, flip in zip(
            images, augmented(images, draws), *draws, strict=True
        ):
            box = picture(one).crop((left, top, left + width, top + height))
            expected = np.asarray(box.resize(size[::-1], image.Resampling.BILINEAR)).reshape(one.shape)
            np.testing.assert_array_equal(made, expected[:, ::-1] if flip else expected)


def test_the_boxes_have_the_areas_and_ratios_of_torchvision():
    draws = draw("random-resized-crop-flip", 0, 1, 20_000, (224, 224))
    area, ratio = draws.height * draws.width / 224**2, draws.width / draws.height
    assert 0.078 < area.min() < 0.085
    assert 0.95 < area.max() <= 1
    assert 0.47 < area.mean() < 0.49  # 0.54 of the uniform law: a large box of a far ratio does not fit
    assert 0.74 < ratio.min() < 0.76
    assert 1.32 < ratio.max() < 1.35
    assert abs(np.log(ratio).mean()) < 0.01
    assert (draws.top >= 0).all()
    assert (draws.top + draws.height <= 224).all()
    assert (draws.left + draws.width <= 224).all()
    assert 0.49 < draws.flip.mean() < 0.51
    assert ((draws.top + draws.height == 224) & (draws.height < 224)).any()  # the last place may be drawn


@pytest.mark.parametrize(("size", "box"), [((4, 400), (4, 5)), ((400, 4), (5, 4))])
def test_where_no_box_fits_the_largest_central_one_is_taken(size, box):
    draws = draw("random-resized-crop-flip", 0, 1, 5, size)
    assert (draws.height == box[0]).all()
    assert (draws.width == box[1]).all()
    assert set(zip(draws.top.tolist(), draws.left.tolist(), strict=True)) == {
        ((size[0] - box[0]) // 2, (size[1] - box[1]) // 2)
    }


# --- TrivialAugment ---


def by_pillow(name, image, strength):
    from PIL import Image, ImageEnhance, ImageOps

    def affine(*matrix):
        return image.transform(image.size, Image.Transform.AFFINE, matrix, Image.Resampling.NEAREST)

    def enhanced(kind):
        return kind(image).enhance(1 + strength)

    return {
        "identity": lambda: image,
        "shear-x": lambda: affine(1, strength, 0, 0, 1, 0),
        "shear-y": lambda: affine(1, 0, 0, strength, 1, 0),
        "translate-x": lambda: affine(1, 0, -int(strength), 0, 1, 0),
        "translate-y": lambda: affine(1, 0, 0, 0, 1, -int(strength)),
        "rotate": lambda: image.rotate(strength, Image.Resampling.NEAREST),
        "brightness": lambda: enhanced(ImageEnhance.Brightness),
        "saturation": lambda: enhanced(ImageEnhance.Color),
        "contrast": lambda: enhanced(ImageEnhance.Contrast),
        "sharpness": lambda: enhanced(ImageEnhance.Sharpness),
        "posterize": lambda: ImageOps.posterize(image, 8 - round(strength)),
        "solarize": lambda: ImageOps.solarize(image, 255 - strength),
        "autocontrast": lambda: ImageOps.autocontrast(image),
        "equalize": lambda: ImageOps.equalize(image),
    }[name]()


STRONGEST = {  # torchvision's TrivialAugmentWide; posterize goes from 8 bits to 2, solarize from 255 to 0
    "shear-x": 0.99, "shear-y": 0.99, "translate-x": 32, "translate-y": 32, "rotate": 135,
    "brightness": 0.99, "saturation": 0.99, "contrast": 0.99, "sharpness": 0.99,
    "posterize": 6, "solarize": 255,
}  # fmt: skip
UNSIGNED = {"identity", "posterize", "solarize", "autocontrast", "equalize"}


def unmoved(count):
    """Crops that change nothing."""
    return CropFlip(np.full(count, PAD), np.full(count, PAD), np.zeros(count, bool))


@pytest.mark.parametrize("name", OPERATIONS)
def test_an_operation_is_pillows_at_every_level(name):
    pytest.importorskip("PIL")
    level, sign = np.repeat(np.arange(LEVELS), 2), np.tile([1, -1], LEVELS)
    number = np.full(len(level), list(OPERATIONS).index(name))
    draws = TrivialAugment(unmoved(len(level)), number, level, sign)
    strengths = STRONGEST.get(name, 0) * level / 30 * np.where(name in UNSIGNED, 1, sign)
    for size in SIZES:
        for channels in (1, 3):
            images = photos(len(level), size, channels)
            for one, made, strength in zip(images, draws.applied(images), strengths, strict=True):
                expected = np.asarray(by_pillow(name, picture(one), strength)).reshape(one.shape)
                np.testing.assert_array_equal(made, expected)


def test_each_operation_level_and_sign_is_as_likely_as_another():
    draws = draw("trivial-augment", 0, 1, 62_000, (8, 8))
    for drawn, kinds in ((draws.operation, len(OPERATIONS)), (draws.level, LEVELS), ((draws.sign + 1) // 2, 2)):
        counts = np.bincount(drawn, minlength=kinds)
        assert len(counts) == kinds
        assert np.abs(counts / 62_000 * kinds - 1).max() < 0.1
    assert len(OPERATIONS) == 14


def test_crop_flip_comes_before_and_is_its_own():
    images, draws = photos(60, (8, 8), 3), draw("trivial-augment", 0, 1, 60, (8, 8))
    crops = draw("crop-flip", 0, 1, 60, (8, 8))
    np.testing.assert_array_equal(draws.crops.top, crops.top)
    identity = draws.operation == list(OPERATIONS).index("identity")
    assert identity.any()
    np.testing.assert_array_equal(augmented(images, draws)[identity], augmented(images, crops)[identity])


# --- As parts of an epoch ---


@pytest.mark.parametrize("augment", [name for name in AUGMENT if name not in AUGMENTED_THERE])
def test_the_device_leaves_it_to_the_host(augment):
    batches = Batches(ImageData.from_arrays(photos(20, (8, 8), 3), np.arange(20) % 2), 8, 0, augment)
    assert resident(batches, "auto", 10**12, lambda images: None) is batches
    with pytest.raises(
        UsageError, match=r"resident: expected .* augment as one of none, flip, crop-flip, crop-flip-cut"
    ):
        resident(batches, "on", 10**12, lambda images: None)


def test_channels_that_have_no_luma_are_refused():
    data = ImageData.from_arrays(np.zeros((4, 8, 8, 2), np.uint8), np.arange(4) % 2)
    with pytest.raises(UsageError, match="images of 1 or 3 channels with augment = trivial-augment, received 2"):
        Batches(data, 2, 0, "trivial-augment")


def test_a_batch_owns_its_memory_and_leaves_the_data_alone():
    images = photos(20, (8, 8), 3)
    before, data = images.copy(), ImageData.from_arrays(images, np.arange(20) % 2)
    for augment in AUGMENT:
        for batch in Batches(data, 8, 0, augment).epoch(1):
            assert batch.images.dtype == np.uint8
            batch.images[:] = 0
    np.testing.assert_array_equal(images, before)
