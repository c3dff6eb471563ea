"""The caller's tape or graph does not hold on to the search."""

import importlib
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from harness import load, problem

import stcore
from stcore import SqueezeConfig

STEPS = [1, 20]


@pytest.mark.parametrize("steps", STEPS)
def test_a_users_tape_sees_nothing_of_the_search(steps):
    """A tape notes the variables that are read under it: in the search, none."""
    backend = load("keras")
    import tensorflow as tf

    model, batch = backend.build("tiny"), backend.batch(problem())
    config = SqueezeConfig(steps=steps)
    with tf.GradientTape(persistent=True) as tape:
        tape.watch(batch.x)
        pair = stcore.find_squeeze_pair(model, batch.x, batch.y, config, noise=batch.noise)
        after = stcore.squeeze_step(model, batch.x, batch.y, pair, config)
        stcore.attacks.PGD(steps=2)(model, batch.x, batch.y, rng=0)
        assert tape.watched_variables() == ()
        model(batch.x)
        assert len(tape.watched_variables()) > 0  # so the test can fail
    assert tape.gradient(after.adversarial, batch.x) is None


def test_a_torch_loss_holds_no_node_of_the_search():
    backend = load("torch")
    sizes = []
    for steps in STEPS:
        model, batch = backend.build("tiny"), backend.batch(problem())
        batch.x.requires_grad_()  # the user's business, and no reason to record
        pair = stcore.find_squeeze_pair(model, batch.x, batch.y, SqueezeConfig(steps=steps), noise=batch.noise)
        assert not any(p.requires_grad for p in pair)
        loss = stcore.squeeze_loss(model, batch.x, batch.y, config=SqueezeConfig(steps=steps), noise=batch.noise)
        sizes.append(len(graph_nodes(loss.total)))
    assert sizes[0] == sizes[1] > 20


@pytest.fixture(scope="module")
def step_memory():
    """benchmarks/step_memory.py, whose counter is the test's too."""
    load("torch")
    folder = Path(__file__).parents[1] / "benchmarks"
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(folder))
        yield importlib.import_module("step_memory")


@pytest.mark.parametrize("net", ["tiny", "resnet8", "preact-resnet18"])
def test_a_torch_step_saves_no_more_for_backward_than_a_plain_one(step_memory, net):
    """At its peak, in the search and the outer forward passes."""
    peaks = {}
    for kind in ("plain", "ours"):
        model = stcore.models.build(net, "torch", num_classes=10)
        peaks[kind] = step_memory.saved_bytes(model, step_memory.step_of(kind, model, 4, 2, side=16))
    assert 0 < peaks["ours"] <= 1.05 * peaks["plain"]


def test_saved_bytes_are_counted_once_and_only_while_alive(step_memory):
    """exp saves its result, a product its factors, which may be the same tensor: 8 bytes per number."""
    import torch

    x = torch.ones(1000, dtype=torch.float64, requires_grad=True)
    with step_memory.SavedBytes([x]) as saved:
        y = x.exp()
        assert (saved.now, saved.peak) == (8000, 8000)
        z = (y * y).sum()
        assert saved.now == 8000
        z.backward()
        assert saved.now == 0
        (x.exp().exp()).sum().backward()
    assert (saved.now, saved.peak) == (0, 16000)


def graph_nodes(tensor):
    seen, waiting = set(), [tensor.grad_fn]
    while waiting:
        node = waiting.pop()
        if node is not None and node not in seen:
            seen.add(node)
            waiting.extend(parent for parent, _ in node.next_functions)
    return seen


ENVIRONMENT = os.environ | {
    "MALLOC_MMAP_THRESHOLD_": "1000000",
    "MALLOC_TRIM_THRESHOLD_": "0",
    "MALLOC_ARENA_MAX": "1",
}

# TensorFlow counts no memory on the CPU, so the peak is the process's: a fresh one for each figure. Freed memory
# goes back at once (mmap for anything large), so the peak is of what was alive.
MEASURE = """
import json, re, sys
import torch, numpy as np, tensorflow as tf, stcore
from stcore.models import build

def peak():
    return int(re.search(r"VmHWM:\\s+(\\d+)", open("/proc/self/status").read())[1]) / 1024

model = build("small-cnn", "keras", num_classes=10, image_size=(32, 32))
rng = np.random.default_rng(0)
def batch(size):
    x = tf.constant(rng.uniform(size=(size, 32, 32, 3)).astype("float32"))
    return x, tf.constant(rng.integers(10, size=size)), (x * 0 + 0.5, x * 0 - rng.normal())
config = stcore.SqueezeConfig(steps=5)

def loss(size):
    x, y, noise = batch(size)
    with tf.GradientTape() as tape:
        total = stcore.squeeze_loss(model, x, y, config=config, noise=noise).total
    tape.gradient(total, [v.value for v in model.trainable_variables])

def search(size):
    x, y, noise = batch(size)
    stcore.find_squeeze_pair(model, x, y, config, noise=noise)
    with tf.GradientTape() as tape:
        total = tf.reduce_sum(model(x, training=True))
    tape.gradient(total, [v.value for v in model.trainable_variables])

run = {"loss": loss, "search": search}[sys.argv[1]]
run(2)
before = peak()
run(64)
print(json.dumps(peak() - before))
"""


def measured(what):
    """Growth of the peak in MiB. (Not ru_maxrss: that starts at the size of the process that forked.)"""
    command = [sys.executable, "-c", MEASURE, what]
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=ENVIRONMENT, timeout=120)
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.slow  # twenty seconds: two processes whose allocator is set up for it; the tests above count bytes
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="the peak is read from Linux's /proc")
def test_the_peak_of_an_eager_keras_loss_is_that_of_its_search():
    load("keras")
    load("torch")
    search, loss = measured("search"), measured("loss")
    assert search > 100, "the search must dominate for the ratio to mean something (MiB)"
    assert loss <= 1.5 * search


BLOCKS = """
import resource, sys
import torch
from stcore.backends.torch import use_device

if sys.argv[1] == "kept":
    use_device("cpu")


def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(20):
        blocks = [torch.zeros(6 << 20) for _ in range(4)]  # 24 MiB each, freed at once
        del blocks
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before


faults()
print(faults())
"""


def page_faults(how, **environment):
    """Of a second time that 20 times 4 blocks of 24 MiB are filled and freed, in a process of its own."""
    clean = {name: v for name, v in os.environ.items() if not name.startswith(("MALLOC_", "GLIBC_TUNABLES"))}
    done = subprocess.run(
        [sys.executable, "-c", BLOCKS, how], env=clean | environment, capture_output=True, text=True, check=True
    )
    return int(done.stdout)


@pytest.mark.slow  # three processes that train, 9 s; benchmarks/allocator.py measures the same
@pytest.mark.skipif(sys.platform != "linux", reason="glibc's allocator")
def test_freed_memory_is_kept_on_a_cpu_unless_the_environment_says_otherwise():
    load("torch")
    pages = 80 * (24 << 20) // os.sysconf("SC_PAGE_SIZE")
    left = page_faults("left")
    if left < 0.05 * pages:
        pytest.skip("the system gives huge pages, which hardly fault")
    assert page_faults("kept") < 0.01 * pages
    assert page_faults("kept", MALLOC_MMAP_THRESHOLD_="1000000") > 0.05 * pages
