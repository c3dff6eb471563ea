"""Gradient checkpointing: the same step, to the bit or to rounding, with fewer activations kept."""

import json
import subprocess
import sys

import numpy as np
import pytest
import small
from harness import assert_close, assert_same, load, problem

from stcore import AWP, AdversarialConfig, SqueezeConfig, StandardConfig, TradesConfig
from stcore.core.dispatch import load_backend
from stcore.core.objective import training_step
from stcore.protocols import Mode
from stcore.runs.plan import make_plan

CONFIG = SqueezeConfig(steps=2)
SHORT = SqueezeConfig(steps=1)
OBJECTIVES = [CONFIG, AdversarialConfig(steps=2), TradesConfig(steps=2)]


def learner_with(backend, checkpointing, *, net="resnet8", choice="off", precision="fp32", dtype="float64"):
    learner = backend.learner(backend.build(net, dtype=dtype))
    prepare = load_backend(backend.name).prepare_training
    return prepare(learner, choice, precision, precision, checkpointing)


def after_two_steps(backend, checkpointing, objective=CONFIG, dtype="float64", perturbation=None, **options):
    learner = learner_with(backend, checkpointing, dtype=dtype, **options)
    step = learner.compile(lambda x, y, n: training_step(learner, objective, x, y, n, 0, perturbation))
    for seed in range(2):
        batch = backend.batch(problem(seed=seed), dtype)
        step(batch.x, batch.y, batch.noise[: len(objective.noise_laws)])
    return learner.snapshot()


@pytest.mark.parametrize("net", ["resnet8", "tiny"])
@pytest.mark.parametrize("objective", OBJECTIVES, ids=lambda each: type(each).__name__)
def test_weights_and_statistics_are_the_same(backend, objective, net):
    """Weights, momentum, running statistics, which would be written twice: with blocks, and with none."""
    results = [after_two_steps(backend, on, objective, net=net) for on in (False, True)]
    assert_close(*results, 1e-12)


def test_so_they_are_with_a_perturbation_and_in_bf16(backend):
    results = [after_two_steps(backend, on, SHORT, perturbation=AWP(), net="tiny") for on in (False, True)]
    assert_close(*results, 1e-12)
    rough = {"net": "tiny", "precision": "bf16", "dtype": "float32"}
    results = [after_two_steps(backend, on, SHORT, **rough) for on in (False, True)]
    assert_close(*results, 1e-6)


@pytest.mark.slow  # Keras traces each step twice, XLA compiles it: 8 s
@pytest.mark.parametrize(("objective", "choice"), [(SHORT, "on"), (StandardConfig(), "xla")], ids=["on", "xla"])
def test_so_they_are_compiled(objective, choice):
    results = [after_two_steps(load("keras"), on, objective, net="tiny", choice=choice) for on in (False, True)]
    assert_close(*results, 1e-12)


def with_dropout():
    """In Keras: less to trace than a transformer."""
    from keras import Input, Sequential, layers

    hidden = [layers.Conv2D(4, 3, strides=2, activation="relu"), layers.Dropout(0.3), layers.Flatten()]
    return Sequential([Input((8, 8, 3)), *hidden, layers.Dropout(0.3), layers.Dense(3)])


@pytest.mark.parametrize(
    ("backend", "choice"),
    [
        ("torch", "off"),
        ("keras", "off"),
        pytest.param("keras", "on", marks=pytest.mark.slow),  # 13 s of tracing, for the numbers of "off"
    ],
)
def test_dropout_draws_the_same_masks_again(backend, choice):
    """The same masks in the way back, others in the next forward, and the generator where it would have been."""
    import factories

    backend = load(backend)

    results = []
    for on in (False, True):
        if backend.name == "torch":
            import torch

            torch.manual_seed(0)
            model = factories.torch_transformer(3, 3, (8, 8)).double()
        else:
            import keras

            keras.utils.set_random_seed(0)
            keras.config.set_floatx("float64")
            try:
                model = factories.keras_transformer(3, 3, (8, 8)) if choice == "off" else with_dropout()
            finally:
                keras.config.set_floatx("float32")
        learner = backend.learner(model)
        load_backend(backend.name).prepare_training(learner, choice, gradient_checkpointing=on)
        step = learner.compile(lambda x, y, n, to=learner: training_step(to, SHORT, x, y, n))
        for seed in range(2):
            batch = backend.batch(problem(seed=seed))
            step(batch.x, batch.y, batch.noise)
        results.append(learner.snapshot())
    plain, checkpointed = results
    assert plain.keys() == checkpointed.keys()
    for name in plain:  # traced, Keras' layers have a float32 in places; another mask would be off by a hundredth
        np.testing.assert_allclose(checkpointed[name], plain[name], rtol=0, atol=1e-6, err_msg=name)


# --- What is kept ---


def saved_bytes(backend, checkpointing, net):
    """What a step saves for its ways back in all, weights left out, each storage once."""
    import torch

    learner = learner_with(backend, checkpointing, net=net, dtype="float32")
    own = {t.untyped_storage().data_ptr() for t in learner.model.state_dict().values()}
    kept = {}

    def pack(tensor):
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            kept[storage.data_ptr()] = (storage.nbytes(), tensor.detach())
        return tensor.detach()

    batch = backend.batch(problem(), "float32")
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        training_step(learner, CONFIG, batch.x, batch.y, batch.noise)
    return sum(size for size, _ in kept.values())


@pytest.mark.parametrize(("net", "share"), [("resnet8", 0.5), ("tiny", 0.2)])
def test_torch_keeps_less(net, share):
    """By blocks, or, where a network has none, no more than its inputs and logits."""
    backend = load("torch")
    plain, checkpointed = (saved_bytes(backend, on, net) for on in (False, True))
    assert 0 < checkpointed <= share * plain


def test_what_counts_as_a_block_of_torchs():
    load("torch")
    from torch import nn

    from stcore.backends.torch.recomputing import blocks

    inner = nn.Sequential(nn.Conv2d(3, 3, 1), nn.ReLU())

    class Block(nn.Module):
        def __init__(self):
            super().__init__()
            self.body = nn.Sequential(nn.Conv2d(3, 3, 1), nn.Dropout())

    first, second = Block(), Block()
    listed = nn.Sequential(nn.Conv2d(3, 3, 1), inner, nn.Sequential(first), nn.ModuleList([second]), first)
    assert blocks(listed) == [first, second]
    flat = nn.Sequential(inner, nn.Linear(3, 3))
    assert blocks(flat) == [flat]

    class Whole(nn.Module):
        def __init__(self):
            super().__init__()
            self.stem, self.stages, self.odd = Block(), nn.ModuleList([nn.Sequential(first)]), Block()

    whole = Whole()
    assert blocks(whole) == [first]


def test_modules_come_back_as_they_were():
    """Also those whose forward somebody replaced on the object, and where a forward fails."""
    backend = load("torch")
    from stcore.backends.torch.recomputing import blocks

    learner = learner_with(backend, True)
    block, *_ = blocks(learner.model)
    own = block.forward
    block.forward = lambda x: own(x)
    replaced = block.forward
    batch = backend.batch(problem())
    training_step(learner, CONFIG, batch.x, batch.y, batch.noise)
    assert block.forward is replaced
    with pytest.raises(RuntimeError, match="channels"):
        learner.value_and_grad(lambda: (learner.logits(batch.x[:, :1], Mode.TRAIN), {}))
    assert block.forward is replaced
    assert [m for m in learner.model.modules() if "forward" in vars(m)] == [block]


PEAK = """
import json, re, sys
import torch, numpy as np, tensorflow as tf
from stcore import SqueezeConfig
from stcore.backends.keras import make_learner, make_optimizer, prepare_training
from stcore.core.optimizers import SGD
from stcore.models import build
from stcore.core.objective import training_step

model = build("resnet8", "keras", num_classes=10, image_size=(32, 32))
learner = make_learner(model, make_optimizer(model, SGD(momentum=0.9)))
prepare_training(learner, "on", gradient_checkpointing=sys.argv[1] == "True")
config = SqueezeConfig(steps=1)
step = learner.compile(lambda x, y, n: training_step(learner, config, x, y, n))

def run(size):
    x = tf.fill((size, 32, 32, 3), 0.5)
    step(x, tf.zeros(size, tf.int64), (x, x))

def peak():
    return int(re.search(r"VmHWM:\\s+(\\d+)", open("/proc/self/status").read())[1]) / 1024

run(2)
before = peak()
run(128)
print(json.dumps(peak() - before))
"""


@pytest.mark.slow  # half a minute: two processes, each traces a ResNet's step; the tests above compare its numbers
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the peak is read from Linux's /proc")
def test_keras_keeps_one_forward_of_three():
    """In a graph, which is pruned of what was computed twice unless it is kept apart."""
    from test_memory import ENVIRONMENT

    load("keras")
    load("torch")

    def measured(on):
        command = [sys.executable, "-c", PEAK, str(on)]
        done = subprocess.run(command, capture_output=True, text=True, check=True, env=ENVIRONMENT, timeout=120)
        return json.loads(done.stdout.splitlines()[-1])

    plain, checkpointed = measured(False), measured(True)
    assert plain > 100, "the activations must dominate for the ratio to mean something (MiB)"
    assert checkpointed <= 0.7 * plain  # 0.54 to 0.59: batch statistics are one kernel, which keeps little


# --- Runs ---


def test_a_run_with_it_is_the_run_without(backend, tmp_path):
    said = small.train(tmp_path / "run", "--gradient-checkpointing", backend=backend.name, epochs=2)
    assert said.code == 0, said.err
    assert "gradient_checkpointing = true" in (tmp_path / "run/config.toml").read_text()
    from stcore.base.weights_file import load_weights

    weights, _ = load_weights(tmp_path / "run/last.safetensors")
    plain = small.trained(backend.name).weights()
    if backend.name == "torch":
        assert_same(weights, plain)
    else:
        assert_close(weights, plain, 1e-4)  # float32, whose kernels are fused otherwise
    assert all(np.isfinite(array).all() for array in weights.values())


def test_a_step_costs_one_more_forward_for_each_way_back():
    plain, checkpointed = (make_plan({"gradient_checkpointing": on}) for on in (False, True))
    passes = plain.objective.passes
    assert checkpointed.units - plain.units == passes.input_backwards + passes.weight_backwards == 33
    awp = make_plan({"gradient_checkpointing": True, "awp": 0.005})
    assert awp.units - make_plan({"awp": 0.005}).units == 36
