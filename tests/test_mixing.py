"""Mixup and CutMix: images and soft labels, by independent formulas, and as parts of a run."""

import shutil

import numpy as np
import pytest
from harness import NAMES, assert_same, load
from small import Run, stcli, train

import stcore
from stcore.data import Batches, ImageData, MixedBatches, load_digits
from stcore.data.mixing import MixingBatches, draw
from stcore.data.resident import resident
from stcore.errors import UsageError
from stcore.training.trainer import Trainer

CLASSES, SIZE = 4, (6, 9)


def data(count=23, channels=3):
    images = np.random.default_rng(0).integers(0, 256, (count, *SIZE, channels), np.uint8)
    return ImageData.from_arrays(images, np.arange(count) % CLASSES, CLASSES)


def mixing(batches, **alphas):
    return MixingBatches(batches, CLASSES, SIZE, 5, **alphas)


def pairs(augment, **alphas):
    """Each batch of an epoch before and after it is mixed; the last is of three."""
    plain = Batches(data(), 10, 5, augment)
    return zip(plain.epoch(2), mixing(plain, **alphas).epoch(2), strict=True)


def test_mixup_blends_an_image_and_its_label_with_its_opposite_in_the_batch():
    for plain, mixed in pairs("crop-flip", mixup=1.0):
        hot, count = np.eye(CLASSES)[plain.labels], len(plain.labels)
        first = next(i for i in range(count) if plain.labels[i] != plain.labels[count - 1 - i])
        share = mixed.labels[first, plain.labels[first]]  # λ
        assert 0 < share < 1
        for i in range(count):
            other = plain.images[count - 1 - i]
            exact = share * plain.images[i] + (1 - share) * other.astype(float)
            assert np.abs(mixed.images[i] - exact).max() <= 0.5 + 1e-4  # rounded to whole shades
            np.testing.assert_allclose(
                mixed.labels[i], share * hot[i] + (1 - share) * hot[count - 1 - i], atol=1e-12
            )
        assert mixed.images.dtype == np.uint8
        np.testing.assert_array_equal(mixed.positions, plain.positions)


def test_cutmix_takes_a_box_over_and_mixes_labels_by_its_area():
    boxes = 0
    for plain, mixed in pairs("none", cutmix=1.0):
        hot, opposite = np.eye(CLASSES)[plain.labels], plain.images[::-1]
        taken = (mixed.images == opposite).all((0, 3))  # pixels that are the other's in every image
        np.testing.assert_array_equal(mixed.images[:, ~taken], plain.images[:, ~taken])
        rows, columns = taken.any(1), taken.any(0)
        np.testing.assert_array_equal(taken, rows[:, None] & columns)  # a box
        share = 1 - taken.mean()
        np.testing.assert_allclose(mixed.labels, share * hot + (1 - share) * hot[::-1], atol=1e-12)
        boxes += 0 < taken.sum() < taken.size
    assert boxes


def test_the_share_is_of_a_beta_law_and_the_box_has_the_rest_of_the_area():
    shares = np.array([draw(0.4, None, 0, 1, n, (32, 32)).share for n in range(4000)])
    assert abs(shares.mean() - 0.5) < 0.02
    assert shares.var() == pytest.approx(0.25 / 1.8, rel=0.05)  # of Beta(α, α): 1 / (4·(2α + 1))
    inside = 0
    for n in range(300):
        share, (rows, columns) = draw(None, 1.0, 0, 1, n, (1000, 500))
        height, width = rows.stop - rows.start, columns.stop - columns.start
        assert share == pytest.approx(1 - height * width / 500_000)
        if rows.start > 0 and rows.stop < 1000 and columns.start > 0 and columns.stop < 500:
            assert height == pytest.approx(2 * width, abs=4)  # the image's own ratio
            inside += 1
    assert inside > 20


def test_of_the_two_each_batch_takes_one_with_equal_chance():
    cuts = [draw(0.2, 1.0, 0, 1, n, (8, 8)).box is not None for n in range(2000)]
    assert 0.46 < np.mean(cuts) < 0.54


def test_a_batch_is_mixed_by_its_place_in_the_epoch_alone():
    """An epoch that is resumed has the same batches; another one and another seed have others."""
    batches = mixing(Batches(data(), 5, 1, "trivial-augment"), mixup=1.0, cutmix=1.0)
    whole = list(batches.epoch(3))
    for start in range(len(batches)):
        for one, other in zip(batches.epoch(3, start=start), whole[start:], strict=True):
            for ours, theirs in zip(one, other, strict=True):
                np.testing.assert_array_equal(ours, theirs)
    assert draw(1.0, None, 1, 3, 0, SIZE) != draw(1.0, None, 1, 4, 0, SIZE)
    assert draw(1.0, None, 1, 3, 0, SIZE) != draw(1.0, None, 2, 3, 0, SIZE)


def test_extra_data_are_mixed_too():
    """Half of each batch is extra; soft labels hold both kinds' classes."""
    half = ImageData.from_arrays(np.zeros((30, *SIZE, 3), np.uint8), np.full(30, 3), CLASSES)
    batches = mixing(MixedBatches(data(), half, 0.5, 8, 1), mixup=1.0)
    assert (len(batches), batches.examples) == (3, 24)
    for batch in batches.epoch(1):
        np.testing.assert_allclose(batch.labels.sum(1), 1, atol=1e-12)
        assert batch.labels[:, 3].sum() >= 4 - 1e-9


def test_mixed_batches_are_made_on_the_host():
    batches = mixing(Batches(data(), 5, 1), mixup=1.0)
    assert resident(batches, "auto", 10**12, pytest.fail) is batches
    with pytest.raises(UsageError, match=r"resident: expected .* without extra data, mixup or cutmix"):
        resident(batches, "on", 10**12, pytest.fail)


@pytest.mark.parametrize("alpha", [0, -1, float("nan"), "much"])
def test_another_alpha_is_refused(alpha):
    for name in ("mixup", "cutmix"):
        with pytest.raises(UsageError, match=f"{name}: expected a number"):
            mixing(Batches(data(), 5, 1), **{name: alpha})


def test_a_loader_mixes_its_own_batches():
    digits = load_digits()
    loader, held = [(digits.test.images[:20], digits.test.labels[:20])], (digits.test.images, digits.test.labels)
    with pytest.raises(UsageError, match=r"mixup: expected none for a loader, which makes its own batches"):
        stcore.train("tiny", loader, validation=held, mixup=0.2)


# --- As parts of a run ---

MIXED = {"mixup": 0.4, "cutmix": 1.0, "augment": "random-resized-crop-flip", "dtype": "float64"}
QUICK = {"method": "mart", "steps": 1, "attacks": "fgsm", "compile": "off", "batch_size": 16}


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """A mixed run on each backend, and the same resumed after its second step."""
    folder, made = tmp_path_factory.mktemp("mixed"), {}
    for backend in NAMES:
        load(backend)
        whole, broken = folder / backend, folder / f"{backend}-broken"
        with pytest.MonkeyPatch.context() as patch:
            keep = Trainer.keep

            def copying(self, put, keep=keep, whole=whole, broken=broken):
                keep(self, put)
                if self._under_way.steps == 2 and not broken.exists():
                    shutil.copytree(whole, broken)

            patch.setattr(Trainer, "keep", copying)
            said = train(whole, backend=backend, save_every=0, **QUICK, **MIXED)
        assert said.code == 0, said.err
        made[backend] = Run(whole, said), broken
    return made


@pytest.mark.parametrize("backend", NAMES)
def test_resumed_in_the_middle_of_an_epoch_it_ends_as_without_a_break(runs, backend):
    run, broken = runs[backend]
    said = stcli("train", "--resume", broken)
    assert said.code == 0, said.err
    assert_same(Run(broken, said).weights(), run.weights())


def test_the_backends_have_the_same_numbers(runs):
    first, second = (run.metrics[0] for run, _ in runs.values())
    for name in ("loss", "natural_loss", "adversarial_loss", "divergence"):
        assert first[name] == pytest.approx(second[name], rel=1e-9), name


def test_each_changes_the_run_and_stands_in_its_record(runs, tmp_path):
    run, _ = runs["torch"]
    losses = {run.metrics[0]["natural_loss"]}
    for without in ("mixup", "cutmix", "augment"):
        said = train(tmp_path / without, **QUICK, **{n: v for n, v in MIXED.items() if n != without})
        losses.add(Run(tmp_path / without, said).metrics[0]["natural_loss"])
    assert len(losses) == 4
    assert "mixup 0.4" in run.said.out or "mixup 0.4" in run.said.err
    assert "mixup = 0.4" in (run.path / "config.toml").read_text()
