"""Noise drawn on the device: the same words on every framework, each example's own."""

from types import SimpleNamespace

import numpy as np
import pytest
from harness import assert_same
from small import EAGER, train

from stcore.base import device_noise
from stcore.base.device_noise import keys
from stcore.base.seeding import Stream
from stcore.base.weights_file import load_weights
from stcore.errors import UsageError
from stcore.runs.plan import make_plan
from stcore.training.noise import DeviceNoise, HostNoise

LAWS = "uniform", "normal", "ball"
SHAPE = (5, 5, 3)
NAMES = "right_shift", "log", "exp", "sqrt", "cos", "sin", "sum", "concatenate", "reshape"
NUMPY = SimpleNamespace(**{name: getattr(np, name) for name in NAMES}, as_float=lambda x: x.astype(np.float32))


def drawn_by_numpy(positions, shape=SHAPE, laws=LAWS, seed=3, epoch=2):
    counters = np.arange(device_noise.counters(shape))
    return device_noise.draw(NUMPY, laws, keys(len(laws), seed, Stream.NOISE, epoch), positions, counters, shape)


def learner_of(backend, dtype="float32"):
    return backend.learner(backend.build("tiny", dtype=dtype))


def drawn(backend, learner, positions, shape=SHAPE, laws=LAWS, seed=3, epoch=2):
    noise = DeviceNoise(learner, laws, seed, shape)
    placed = noise.placed(noise.ahead(epoch, np.asarray(positions)))
    return [learner.host_images(one) for one in placed]


@pytest.mark.parametrize(
    ("key", "counter", "words"),
    [
        ((0, 0), (0, 0), (0x6B200159, 0x99BA4EFE)),
        ((0xFFFFFFFF, 0xFFFFFFFF), (0xFFFFFFFF, 0xFFFFFFFF), (0x1CB996FC, 0xBB002BE7)),
        ((0x13198A2E, 0x03707344), (0x243F6A88, 0x85A308D3), (0xC4923A9C, 0x483DF7A0)),
    ],
)
def test_the_words_are_the_published_ones(key, counter, words):
    """The known answers of Random123, by the authors of Threefry."""
    key, counter = ([np.array([word], np.int64) for word in pair] for pair in (key, counter))
    assert [int(word[0]) for word in device_noise.threefry(NUMPY, tuple(key), *counter)] == list(words)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_every_framework_draws_the_same(backend, dtype):
    positions = np.array([0, 7, 2**31 + 5])
    found = drawn(backend, learner_of(backend, dtype), positions)
    expected = drawn_by_numpy(positions)
    assert [one.dtype for one in found] == [dtype] * 3
    np.testing.assert_array_equal(found[0], expected[0])
    for ours, theirs in zip(found[1:], expected[1:], strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=2e-6)


def test_an_example_has_its_numbers_in_any_batch_and_on_any_rank(backend):
    learner = learner_of(backend)
    whole = drawn(backend, learner, np.arange(10))
    for place in (slice(0, 4), slice(3, 10), slice(9, 10)):
        uniform, *others = drawn(backend, learner, np.arange(10)[place])
        np.testing.assert_array_equal(uniform, whole[0][place])
        for part, all_of_it in zip(others, whole[1:], strict=True):
            np.testing.assert_allclose(part, all_of_it[place], rtol=0, atol=2e-6)


def test_every_part_of_the_address_matters():
    changes = [{}, {"seed": 4}, {"epoch": 3}, {"positions": np.array([6])}]
    base = {"positions": np.array([5]), "laws": ("normal", "normal")}
    seen = {one.tobytes() for change in changes for one in drawn_by_numpy(**{**base, **change})}
    assert len(seen) == 2 * len(changes)  # and its two draws are different


def test_the_numbers_are_pinned():
    """A change here changes every run with noise = device."""
    np.testing.assert_array_equal(keys(2, 1, Stream.NOISE, 3)[0], (272477147, 2625735159))
    np.testing.assert_allclose(
        drawn_by_numpy(np.array([2]), (3,))[0][0], [-0.988648533821106, -0.8302208185195923, -0.6675422191619873]
    )
    np.testing.assert_allclose(
        drawn_by_numpy(np.array([2]), (3,))[1][0], [2.554886, 0.113036, -0.668476], atol=2e-6
    )


def test_the_laws_are_what_they_say():
    (uniform, normal, ball) = (one.astype(np.float64) for one in drawn_by_numpy(np.arange(4000), (7, 7, 1)))
    count = uniform.size
    assert uniform.min() >= -1
    assert uniform.max() < 1
    for numbers, variance, fourth in ((uniform, 1 / 3, 1 / 5), (normal, 1.0, 3.0)):
        assert abs(numbers.mean()) < 4 * np.sqrt(variance / count)
        assert abs((numbers**2).mean() - variance) < 4 * np.sqrt((fourth - variance**2) / count)
        assert abs((numbers**4).mean() - fourth) < 0.1
        flat = numbers.reshape(4000, -1)
        pairs = [(flat[:, 1:], flat[:, :-1]), (flat[1:], flat[:-1]), (flat[:, 25:], flat[:, :24])]
        for one, other in pairs:  # neighbours, examples, and the two numbers of a counter
            assert abs((one * other).mean()) < 4 * variance / np.sqrt(one.size)
    lengths = np.linalg.norm(ball.reshape(4000, -1), axis=1)
    assert lengths.max() <= 1 + 1e-6
    shares = np.sort(lengths**49)  # uniform, if the points are: the share of the ball inside radius r is r^d
    assert np.abs(shares - np.arange(4000) / 4000).max() < 1.95 / np.sqrt(4000)  # Kolmogorov, 1 in 1000


def test_on_the_host_it_is_the_noise_of_before(backend):
    from stcore.base.noise import sample

    learner, positions = learner_of(backend), np.arange(4)
    noise = HostNoise(learner, LAWS, 3, SHAPE)
    placed = noise.placed(noise.ahead(2, positions))
    for ours, theirs in zip(placed, sample(LAWS, 3, Stream.NOISE, positions, SHAPE, epoch=2), strict=True):
        np.testing.assert_array_equal(learner.host_images(ours), theirs)


def run(out, backend, *more, **options):
    settings = {**EAGER, "backend": backend.name, "noise": "device", "epochs": 2, "attacks": "", **options}
    return train(out, *more, **settings)


def weights(out):
    return load_weights(out / "last.safetensors")[0]


def test_a_run_is_resumed_within_an_epoch_and_with_its_own_noise_alone(backend, tmp_path):
    assert run(tmp_path / "whole", backend).code == 0
    assert run(tmp_path / "run", backend, "--max-hours", "1e-9").code == 130
    config = tmp_path / "run" / "config.toml"
    text = config.read_text()
    config.write_text(text.replace('noise = "device"', 'noise = "host"'))
    from small import stcli

    said = stcli("train", "--resume", tmp_path / "run")
    assert said.code == 2
    assert "its noise is 'host', the run was trained with 'device'" in said.err
    config.write_text(text)
    assert stcli("train", "--resume", tmp_path / "run").code == 0
    assert_same(weights(tmp_path / "run"), weights(tmp_path / "whole"))


def test_its_numbers_are_others_and_no_noise_is_drawn_on_the_host(backend, tmp_path, monkeypatch):
    import stcore.training.noise as module

    def trained(noise):
        assert run(tmp_path / noise, backend, epochs=1, noise=noise).code == 0
        return weights(tmp_path / noise)

    host = trained("host")
    monkeypatch.setattr(module, "sample", pytest.fail)
    device = trained("device")
    assert any(np.any(host[name] != device[name]) for name in host)


def test_another_place_is_refused():
    with pytest.raises(UsageError, match="noise: expected one of host, device; received 'gpu'"):
        make_plan({"noise": "gpu"})
    assert make_plan({}).runtime.noise == "host"
