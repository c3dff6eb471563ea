"""The training set on the device: the same batches, bit for bit, of images that were copied once."""

import numpy as np
import pytest
from harness import assert_same
from hypothesis import given, settings
from hypothesis import strategies as st
from small import EAGER, stcli, train

from stcore.base.weights_file import load_weights
from stcore.data import Batches, ImageData, MixedBatches, Rows
from stcore.data.augment import augmented, draw
from stcore.data.crop_flip import PAD, CropFlip, as_table, hidden
from stcore.data.on_device import OnDevice
from stcore.data.resident import AUGMENTED_THERE, resident
from stcore.errors import UsageError
from stcore.runs.plan import make_plan


def data(count=30, side=8, channels=3):
    images = np.random.default_rng(0).integers(0, 256, (count, side, side, channels), np.uint8)
    return ImageData.from_arrays(images, np.arange(count) % 3, 3)


@settings(deadline=None)
@given(st.integers(0, 2**31), st.integers(1, 9), st.integers(1, 9), st.integers(1, 3))
def test_the_hosts_windows_are_crops_that_are_flipped_and_covered(seed, height, width, channels):
    """Plain slices of each padded image: the host's own way is another one."""
    images = np.random.default_rng(seed).integers(0, 256, (5, height, width, channels), np.uint8)
    draws = draw("crop-flip-cutout", seed, 1, 5, (height, width))
    padded, made = np.pad(images, ((0, 0), (PAD, PAD), (PAD, PAD), (0, 0))), augmented(images, draws)
    for one, made_of_it, *drawn in zip(padded, made, *as_table(draws, height, width), strict=True):
        top, left, flip, row, column = drawn
        crop = one[top : top + height, left : left + width].copy()
        crop = crop[:, ::-1] if flip else crop
        crop[max(row, 0) : max(row + hidden(height), 0), max(column, 0) : max(column + hidden(width), 0)] = 0
        np.testing.assert_array_equal(made_of_it, crop)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("augment", AUGMENTED_THERE)
def test_batches_are_those_of_the_host_bit_for_bit(backend, augment, dtype):
    learner = backend.learner(backend.build("tiny", dtype=dtype))
    host = Batches(data(), 8, seed=3, augment=augment)
    there = resident(host, "on", 0, learner.resident)
    for epoch in (1, 2):
        for one, other in zip(host.epoch(epoch), there.epoch(epoch), strict=True):
            assert isinstance(other.images, OnDevice)
            whole, share = other.images.tensor(), other.images[slice(2, 5)].tensor()
            expected = backend.array(learner.images(one.images))
            assert backend.array(whole).dtype == expected.dtype
            np.testing.assert_array_equal(backend.array(whole), expected)
            np.testing.assert_array_equal(backend.array(share), expected[2:5])
            np.testing.assert_array_equal(one.labels, other.labels)
            np.testing.assert_array_equal(one.positions, other.positions)


def test_an_epochs_order_and_draws_go_over_once_wherever_it_starts(backend, monkeypatch):
    learner = backend.learner(backend.build("tiny", dtype="float32"))
    there, copied = resident(Batches(data(), 8, seed=3, augment="crop-flip-cutout"), "on", 0, learner.resident), []
    expected = [backend.array(batch.images.tensor()) for batch in there.epoch(1)]
    if backend.name == "torch":
        import torch as module

        names = "as_tensor", "tensor", "from_numpy"
    else:
        from keras import ops as module

        names = "convert_to_tensor", "array"
    for name in names:
        make = getattr(module, name)

        def noted(value, *args, make=make, **options):
            if isinstance(value, np.ndarray):
                copied.append(value.shape)
            return make(value, *args, **options)

        monkeypatch.setattr(module, name, noted)
    for start in (0, 2):
        copied.clear()
        for batch, images in zip(there.epoch(1, start=start), expected[start:], strict=True):
            np.testing.assert_array_equal(backend.array(batch.images.tensor()), images)
        assert copied == [(6, 30)]  # order, top, left, flip, and the square's corner


def test_every_shade_is_the_hosts(backend):
    learner = backend.learner(backend.build("tiny", channels=1, dtype="float32"))
    shades = np.arange(256, dtype=np.uint8).reshape(4, 8, 8, 1)
    fetched = learner.resident(shades)(np.arange(4), None)(slice(0, 4))
    np.testing.assert_array_equal(backend.array(fetched), backend.array(learner.images(shades)))


def test_torch_lays_it_out_as_from_the_host():
    torch = pytest.importorskip("torch")
    from harness import load

    backend = load("torch")
    learner = backend.learner(backend.build("tiny", dtype="float32"))
    images = data().images
    put, host = learner.resident(images), learner.images(images)
    draws = CropFlip(np.full(30, PAD), np.full(30, PAD), np.zeros(30, bool))
    for fetched in (put(np.arange(30), None), put(np.arange(30), draws)):
        fetched = fetched(slice(0, 30))
        assert torch.equal(fetched, host)
        assert fetched.stride() == host.stride()
        assert not fetched._is_view()


def test_where_it_is_done():
    copied = []

    def put(images):
        copied.append(images.nbytes)
        return lambda order, draws: None

    host, size = Batches(data(), 8, seed=0), data().images.nbytes
    assert resident(host, "off", 10**9, put) is resident(host, "auto", 0, put) is host
    assert resident(host, "auto", 4 * size, put) is host
    assert copied == []
    assert resident(host, "auto", 4 * size + 1, put).fetch is not None
    assert resident(host, "on", 0, put).fetch is not None
    assert copied == [size, size]


def test_a_memory_map_that_fits_is_copied_in_its_order():
    own, order, copied = data(), np.arange(30)[::-1], []
    mapped = ImageData(Rows(own.images, order), own.labels[order], 3, "mapped")
    batches = Batches(mapped, 8, seed=0)
    size = own.images[order].nbytes
    assert resident(batches, "auto", 4 * size, pytest.fail) is batches
    assert resident(batches, "auto", 4 * size + 1, lambda images: copied.append(images) or max).fetch is max
    np.testing.assert_array_equal(copied[0], own.images[order])


def test_mixed_batches_stay_on_the_host():
    batches = MixedBatches(data(), data(60), 0.5, 8, seed=0)
    assert resident(batches, "auto", 10**9, pytest.fail) is batches
    with pytest.raises(UsageError, match=r"resident: expected training images in memory or .* without extra data"):
        resident(batches, "on", 10**9, pytest.fail)


@pytest.mark.parametrize(
    "settings",
    [
        pytest.param(
            {"method": "st"}, marks=pytest.mark.slow
        ),  # eight seconds of runs; the next has its way and more
        {"method": "at", "accumulate": 2},
    ],
)
def test_a_run_with_it_is_the_run_without(backend, settings, tmp_path, monkeypatch):
    kind = type(backend.learner(backend.build("tiny", dtype="float32")))
    puts, sent, put, send = [], [], kind.resident, kind.images
    monkeypatch.setattr(kind, "resident", lambda self, images: puts.append(len(images)) or put(self, images))

    def noted(self, array):
        if array.dtype == np.uint8:
            sent.append(len(array))
        return send(self, array)

    monkeypatch.setattr(kind, "images", noted)
    common = {"backend": backend.name, "augment": "crop-flip", "epochs": 2, **EAGER, **settings}
    images = {}
    for wish in ("off", "on"):
        sent.clear()
        said = train(tmp_path / wish, **common, resident=wish)
        assert said.code == 0, said.err
        images[wish] = sum(sent)
    assert puts == [64]  # once, all of them
    assert images["off"] - images["on"] == 2 * 64  # and none of them goes over at a step
    for checkpoint in ("best", "last"):
        one, other = (load_weights(tmp_path / wish / f"{checkpoint}.safetensors")[0] for wish in ("off", "on"))
        assert_same(one, other)


def test_the_option_is_checked_and_without_effect_on_a_cpu(backend, tmp_path):
    with pytest.raises(UsageError, match="resident: expected one of auto, on, off; received 'yes'"):
        make_plan({"resident": "yes"})
    assert make_plan({}).data.resident == "auto"
    from stcore.core.dispatch import load_backend

    assert load_backend(backend.name).free_memory("cpu") == 0
    extra = data(120, channels=1)
    np.savez(tmp_path / "extra.npz", images=extra.images, labels=extra.labels)
    asked = ["--backend", backend.name, "--model", "tiny", "--epochs", 1, "--steps", 1, "--batch-size", 40]
    asked += ["--extra-data", f"npz:{tmp_path / 'extra.npz'}", "--extra-fraction", 0.5]
    said = stcli("train", *asked, "--resident", "on", "--out", tmp_path / "run")
    assert said.code == 2
    assert "a memory map, without extra data" in said.err
