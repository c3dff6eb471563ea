"""What only a GPU can show: benchmarks/gpu_check.sh runs it; STCORE_TEST_DEVICE=cpu tries it out without one."""

import json
import os
import shutil

import numpy as np
import pytest
from harness import NAMES, Backend, assert_close, load, problem
from rows import SHORT
from small import train
from test_methods import trained
from test_precision import EPS
from test_resident import data

from stcore import SqueezeConfig, StandardConfig
from stcore.core.dispatch import load_backend
from stcore.core.objective import training_step
from stcore.data import Batches
from stcore.data.on_device import OnDevice
from stcore.data.resident import AUGMENTED_THERE, resident

pytestmark = pytest.mark.gpu
DEVICE = os.environ.get("STCORE_TEST_DEVICE", "gpu")
CONFIG = SqueezeConfig(steps=3)
THREE_STEPS = 1e-8  # as tests/test_conformance.py has it between the frameworks


class Placed(Backend):
    """A backend with its models and tensors on the device; TensorFlow and JAX place theirs there by themselves."""

    def build(self, *args, **options):
        model = super().build(*args, **options)
        return model.to(torch_device()) if self.name == "torch" else model

    def tensor(self, array):
        tensor = super().tensor(array)
        return tensor.to(torch_device()) if self.name == "torch" else tensor


def torch_device():
    return DEVICE.replace("gpu", "cuda")


@pytest.fixture(scope="module", params=NAMES)
def placed(request):
    plain = load(request.param)
    if DEVICE != "cpu" and load_backend(request.param).devices() == ["cpu"]:
        pytest.skip(f"no GPU: {plain.engine} sees none")
    return Placed(plain.name, plain.ops)


@pytest.fixture
def real_gpu(placed):
    if DEVICE == "cpu":
        pytest.skip("no GPU: a CPU multiplies in no TF32 and has no memory of its own")


SMALL, LARGE = problem(batch=8), problem(batch=32, side=32)
WIDE = {"net": "wrn-10-4", "side": 32}  # products that a GPU makes in TF32 where it may


def prepared(backend, outer="fp32", inner="fp32", choice="off", net="tiny-smooth", **options):
    learner = backend.learner(backend.build(net, **{"dtype": "float32", **options}))
    return load_backend(backend.name).prepare_training(learner, choice, outer, inner)


def stepped(backend, learner, given=SMALL, objective=CONFIG, dtype="float32"):
    """The loss of one step, compiled where the learner is, and how far it moved the weights."""
    batch, before = backend.batch(given, dtype), learner.weights()
    noise = batch.noise[: len(objective.noise_laws)]
    step = learner.compile(lambda x, y, noise: training_step(learner, objective, x, y, noise))
    loss = float(backend.array(step(batch.x, batch.y, noise).loss))
    after = learner.weights()
    return loss, np.concatenate([(after[n] - before[n]).ravel() for n in before if ".running_" not in n])


@pytest.mark.parametrize("net", ["tiny", "resnet8"])
@pytest.mark.parametrize("name", SHORT)
def test_three_steps_in_float64_are_those_of_torch_on_a_cpu(placed, name, net):
    if net == "resnet8" and name not in ("st", "trades"):
        net = "tiny-smooth"
    assert_close(trained(placed, SHORT[name], net), trained(load("torch"), SHORT[name], net), THREE_STEPS)


@pytest.mark.parametrize("choice", ["off", "on"])
def test_a_step_in_bf16_is_near_that_in_float32(placed, choice):
    if choice == "on" and placed.name == "torch":
        needs_a_compiler()
    (loss, moved), (rough_loss, rough_moved) = (
        stepped(placed, prepared(placed, precision, precision, choice)) for precision in ("fp32", "bf16")
    )
    assert 0 < abs(rough_loss - loss) <= 16 * EPS * abs(loss)
    assert 0 < np.linalg.norm(rough_moved - moved) <= 0.2 * np.linalg.norm(moved)


def test_tf32_is_in_the_passes_that_ask_for_it_and_in_no_others(placed, real_gpu):
    """It rounds to 10 bits, float32 to 23; evaluations stay in float32, bit for bit."""
    plain, rough = prepared(placed, **WIDE), prepared(placed, "tf32", "tf32", **WIDE)
    x = placed.batch(LARGE, "float32").x
    np.testing.assert_array_equal(rough.eval_logits(x), plain.eval_logits(x))
    (loss, moved), (rough_loss, rough_moved) = (
        stepped(placed, learner, LARGE, StandardConfig()) for learner in (plain, rough)
    )
    assert 0 < abs(rough_loss - loss) <= 16 * 2.0**-11 * abs(loss)
    assert 0 < np.linalg.norm(rough_moved - moved) <= 0.05 * np.linalg.norm(moved)
    plain.load_weights(rough.weights())
    np.testing.assert_array_equal(rough.eval_logits(x), plain.eval_logits(x))


def test_float32_is_float32(placed):
    """No TF32 unless it is asked for: a step is that in float64 to more digits than TF32 has."""
    load_backend(placed.name).use_device(DEVICE)
    (loss, _), (exact, _) = (
        stepped(placed, prepared(placed, dtype=dtype, **WIDE), LARGE, StandardConfig(), dtype)
        for dtype in ("float32", "float64")
    )
    assert abs(loss - exact) <= 2.0**-16 * abs(exact)


@pytest.mark.parametrize("augment", AUGMENTED_THERE)
def test_resident_batches_are_the_hosts_bit_for_bit(placed, augment):
    learner = placed.learner(placed.build("tiny", dtype="float32"))
    host = Batches(data(), 8, seed=3, augment=augment)
    for one, other in zip(host.epoch(1), resident(host, "on", 0, learner.resident).epoch(1), strict=True):
        assert isinstance(other.images, OnDevice)
        there = placed.array(other.images.tensor())
        np.testing.assert_array_equal(there, placed.array(learner.images(one.images)))


def test_a_gpu_says_how_much_memory_is_free(placed, real_gpu):
    device = load_backend(placed.name).use_device(DEVICE)
    assert load_backend(placed.name).free_memory(device) > 1 << 30


@pytest.mark.parametrize("choice", ["on", "xla"])
def test_compiled_steps_are_the_eager_ones(placed, choice):
    if placed.name == "torch":
        if choice == "xla":
            choice = "on"  # a second time: what is compiled is not compiled anew
        needs_a_compiler()
    (loss, moved), (other, theirs) = (
        stepped(placed, prepared(placed, choice=how, dtype="float64"), dtype="float64") for how in ("off", choice)
    )
    assert other == pytest.approx(loss, rel=1e-9)
    assert np.abs(theirs - moved).max() <= 1e-9 * np.abs(moved).max()


@pytest.mark.parametrize("placed", ["torch"], indirect=True)
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("name", ["st", "gairat"])
def test_a_recorded_search_finds_the_examples_of_the_eager_one_bit_for_bit(placed, real_gpu, name, precision):
    import torch

    objective = SHORT[name]
    learner = prepared(placed, precision, precision, net="resnet8", side=32)
    captured = load_backend("torch").CapturedSearch(objective, learner)
    for seed in range(3):  # the weights move between two batches
        batch = placed.batch(problem(batch=32, side=32, seed=seed), "float32")
        noise = batch.noise[: len(objective.noise_laws)]
        found = [it.find(learner.searching(), batch.x, batch.y, noise) for it in (objective, captured)]
        for eager, recorded in zip(*found, strict=True):
            assert torch.equal(eager, recorded)
        training_step(learner, captured, batch.x, batch.y, noise)


def needs_a_compiler():
    if shutil.which("g++") is None:
        pytest.skip("inductor needs a C++ compiler")


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_run_there_ends_with_its_result(placed, tmp_path, precision):
    options = {"device": DEVICE, "precision": precision, "resident": "on", "augment": "crop-flip", "ema": 0.9}
    said = train(tmp_path / "run", backend=placed.name, **options)
    assert said.code == 0, said.err
    environment = json.loads((tmp_path / "run" / "environment.json").read_text())
    assert ("cpu" in environment["device"]) == (DEVICE == "cpu")
    assert json.loads((tmp_path / "run" / "result.json").read_text())["checkpoints"].keys() >= {"best", "last-ema"}
