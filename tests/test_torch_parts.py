"""Parts of the PyTorch backend on their own: allocator, devices, precision, snapshots, generators, costs."""

import ctypes
import importlib
import os
import sys
from types import SimpleNamespace

import numpy as np
import pytest
from harness import assert_same, load, problem

from stcore import SqueezeConfig
from stcore.core.objective import training_step
from stcore.core.optimizers import SGD
from stcore.errors import DeviceError, UsageError

torch = pytest.importorskip("torch")

allocator, devices, folding, optimizers, precision, probing, snapshots, training = (
    importlib.import_module(f"stcore.backends.torch.{name}")
    for name in ("allocator", "devices", "folding", "optimizers", "precision", "probing", "snapshots", "training")
)
make_optimizer = optimizers.make_optimizer
prepare_training = training.prepare_training

# The allocator


class Libc:
    """glibc's part that the allocator calls; `refuses` larger thresholds, as older versions do."""

    def __init__(self, largest=1 << 40, trim=1):
        self.set, self.largest, self.trim = [], largest, trim

    def gnu_get_libc_version(self):
        """It is glibc."""

    def mallopt(self, name, value):
        self.set.append((name, value))
        return int(value <= self.largest) if name == allocator.MMAP_THRESHOLD else self.trim


@pytest.fixture
def glibc(monkeypatch):
    for name in allocator.CHOSEN:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(sys, "platform", "linux")

    def given(libc):
        monkeypatch.setattr(ctypes, "CDLL", lambda _: libc)
        return libc

    return given


def test_the_largest_threshold_is_taken_and_nothing_is_trimmed(glibc):
    """<malloc.h>: M_MMAP_THRESHOLD is -3 and M_TRIM_THRESHOLD is -1, which at -1 never trims."""
    libc = glibc(Libc())
    assert allocator.keep_freed_memory() is True
    assert libc.set == [(-3, 2**30), (-1, -1)]


def test_an_older_glibc_takes_32_mebibytes(glibc):
    libc = glibc(Libc(largest=2**25))
    assert allocator.keep_freed_memory() is True
    assert libc.set == [(-3, 2**30), (-3, 2**25), (-1, -1)]


@pytest.mark.parametrize("libc", [Libc(largest=0), Libc(trim=0)], ids=["mmap", "trim"])
def test_a_refusal_is_told(glibc, libc):
    glibc(libc)
    assert allocator.keep_freed_memory() is False


@pytest.mark.parametrize("name", allocator.CHOSEN)
def test_what_the_user_chose_stays(glibc, monkeypatch, name):
    libc = glibc(Libc())
    monkeypatch.setenv(name, "1")
    assert allocator.keep_freed_memory() is False
    assert libc.set == []


def test_without_glibc_nothing_is_done(glibc, monkeypatch):
    glibc(SimpleNamespace())  # musl
    assert allocator.keep_freed_memory() is False
    libc = glibc(Libc())
    monkeypatch.setattr(sys, "platform", "darwin")
    assert (allocator.keep_freed_memory(), libc.set) == (False, [])


# Devices


@pytest.fixture
def machine(monkeypatch):
    """A machine with `gpus` GPUs, with or without Apple's; what is kept of freed memory is noted."""

    def given(gpus=0, mps=False):
        kept, current = [], [0]
        monkeypatch.setattr(torch.cuda, "set_device", lambda number: current.append(number))
        monkeypatch.setattr(torch.cuda, "current_device", lambda: current[-1])
        monkeypatch.setattr(torch.cuda, "is_available", lambda: gpus > 0)
        monkeypatch.setattr(torch.cuda, "device_count", lambda: gpus)
        monkeypatch.setattr(torch.cuda, "get_device_name", lambda number: f"model {number}")
        monkeypatch.setattr(torch.backends.mps, "is_available", lambda: mps)
        monkeypatch.setattr(devices, "keep_freed_memory", lambda: kept.append(True))
        monkeypatch.delenv("LOCAL_RANK", raising=False)
        return kept

    return given


@pytest.mark.parametrize(
    ("gpus", "mps", "name", "device"),
    [
        (0, False, "auto", "cpu"),
        (0, True, "auto", "mps"),
        (2, True, "auto", "cuda"),
        (2, False, "cuda:1", "cuda:1"),
        (2, False, "gpu:0", "cuda:0"),
        (2, False, "gpu", "cuda"),
        (2, False, "cpu", "cpu"),
        (0, True, "mps", "mps"),
    ],
)
def test_a_device_by_its_name(machine, gpus, mps, name, device):
    kept = machine(gpus, mps)
    assert devices.use_device(name) == device
    assert kept == [True] * (device == "cpu")
    if device.startswith("cuda"):
        assert torch.cuda.current_device() == int(device.partition(":")[2] or 0)


@pytest.mark.parametrize("name", ["cuda:2", "cuda:x", "cuda:-1", "mps", "tpu", "", "cpu:1"])
def test_a_device_that_is_not_there(machine, name):
    machine(2)
    with pytest.raises(DeviceError, match=rf"expected auto or one of cpu, cuda; received '{name}'"):
        devices.use_device(name)


def test_each_rank_has_a_device_of_its_own(machine, monkeypatch):
    machine(4)
    monkeypatch.setenv("LOCAL_RANK", "3")
    assert [devices.use_device(name) for name in ("auto", "cuda", "gpu", "cuda:1")] == [*["cuda:3"] * 3, "cuda:1"]
    machine(0)
    monkeypatch.setenv("LOCAL_RANK", "3")
    assert devices.use_device("auto") == "cpu"


def test_the_devices_of_a_machine(machine):
    machine(2, mps=True)
    assert devices.devices() == ["cpu", "cuda:0 (model 0)", "cuda:1 (model 1)", "mps"]
    machine()
    assert devices.devices() == ["cpu"]


def test_threads_and_versions():
    before = devices.threads()
    try:
        devices.use_threads(2)
        assert (devices.threads(), torch.get_num_threads()) == (2, 2)
    finally:
        devices.use_threads(before)
    assert devices.versions() == {"torch": torch.__version__}


def test_determinism(monkeypatch):
    monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG", raising=False)
    try:
        devices.use_determinism()
        assert torch.are_deterministic_algorithms_enabled()
        assert os.environ["CUBLAS_WORKSPACE_CONFIG"] == ":4096:8"
    finally:
        torch.use_deterministic_algorithms(False)


# Precision


@pytest.mark.parametrize(
    ("kind", "capability", "bf16", "refused"),
    [
        ("cuda", (8, 0), True, ()),
        ("cuda", (9, 0), True, ()),
        ("cuda", (7, 5), True, ("tf32",)),
        ("cuda", (7, 5), False, ("tf32", "bf16")),
        ("cpu", (9, 0), False, ("tf32",)),
        ("mps", (9, 0), False, ("tf32",)),
    ],
)
def test_which_precisions_a_device_has(monkeypatch, kind, capability, bf16, refused):
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda: bf16)
    for name in ("fp32", "tf32", "bf16"):
        if name in refused:
            with pytest.raises(DeviceError, match=rf"which: expected a CUDA device .* for {name}"):
                precision.check_precision("which", name, torch.device(kind))
        else:
            precision.check_precision("which", name, torch.device(kind))


def switches():
    return torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32


def test_tf32_is_on_in_its_context_alone():
    precision.use_float32()
    assert switches() == (False, False)
    with precision.backward_context("tf32"):
        assert switches() == (True, True)
    assert switches() == (False, False)
    assert precision.forward("tf32", torch.device("cpu"), switches) == (True, True)
    with precision.backward_context("fp32"):
        assert switches() == (False, False)
    with pytest.raises(ValueError, match="inside"), precision.backward_context("tf32"):
        raise ValueError("inside")
    assert switches() == (False, False)


def test_preparing_checks_both_precisions_and_sets_them():
    backend = load("torch")
    learner = backend.learner(backend.build(dtype="float32"))
    for name in ("precision", "inner_precision"):
        with pytest.raises(DeviceError, match=rf"^{name}: expected a CUDA device"):
            prepare_training(learner, "off", **{name: "tf32"})
    assert prepare_training(learner, "off", "bf16", "fp32", gradient_checkpointing=True) is learner
    assert (learner.precision, learner.inner_precision, learner.gradient_checkpointing) == ("bf16", "fp32", True)
    assert learner.model.conv1.weight.is_contiguous(memory_format=torch.channels_last)


def test_sgd_has_its_settings():
    model = load("torch").build()
    settings = SGD(learning_rate=0.3, momentum=0.8, weight_decay=0.01, nesterov=True)
    (group,) = make_optimizer(model, settings).param_groups
    wanted = {"lr": 0.3, "momentum": 0.8, "weight_decay": 0.01, "nesterov": True, "dampening": 0}
    assert wanted.items() <= group.items()
    assert len(group["params"]) == len(list(model.parameters()))


# Snapshots


def stepped(learner, batch):
    training_step(learner, SqueezeConfig(steps=1), batch.x, batch.y, batch.noise)


def test_a_snapshot_brings_back_weights_velocities_and_the_next_draw():
    backend = load("torch")
    learner, batch = backend.learner(backend.build()), backend.batch(problem())
    fresh = learner.snapshot()
    stepped(learner, batch)
    later = learner.snapshot()
    assert any(name.startswith("optimizer/") for name in later)
    drawn = torch.rand(3)
    stepped(learner, batch)
    for snapshot in (later, fresh):
        learner.restore(snapshot)
        assert_same(learner.snapshot(), snapshot)  # of the first state no velocity is left
    learner.restore(later)
    assert torch.equal(torch.rand(3), drawn)


@pytest.mark.parametrize("change", ["shape", "missing", "more"])
def test_a_snapshot_that_does_not_fit_changes_nothing(change):
    backend = load("torch")
    model = backend.build()
    before = snapshots.model_state(model)
    other = {name: array + 1 for name, array in before.items()}
    if change == "shape":
        other["model/conv1.weight"] = other["model/conv1.weight"][:1]
    elif change == "missing":
        del other["model/linear.bias"]
    else:
        other["model/another"] = np.zeros(3)
    with pytest.raises(UsageError):
        snapshots.restore_model(model, other)
    assert_same(snapshots.model_state(model), before)


def test_velocities_have_the_layout_of_their_weights():
    """Sums over them keep their order, so that a resumed run is equal bit for bit."""
    backend = load("torch")
    learner = prepare_training(backend.learner(backend.build()), "off")
    stepped(learner, backend.batch(problem()))
    learner.restore(learner.snapshot())
    velocity = learner.optimizer.state[learner.model.conv1.weight]["momentum_buffer"]
    assert velocity.is_contiguous(memory_format=torch.channels_last)


# Costs and folding


def test_what_a_forward_costs_is_counted_without_a_word(capsys):
    backend = load("torch")
    learner = backend.learner(torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(192, 5)).double())
    assert probing.forward_flops(learner, np.zeros((1, 8, 8, 3))) == 2 * 192 * 5
    assert probing.parameters(learner) == 192 * 5 + 5
    assert probing.peak_bytes("cpu") is None
    assert capsys.readouterr() == ("", "")


def test_a_candidate_is_a_copy():
    model = load("torch").build("tiny")
    before = snapshots.model_state(model)
    copies = list(folding.candidates(model))
    assert copies
    for copy in copies:
        for parameter in copy.parameters():
            parameter.data.zero_()
    assert_same(snapshots.model_state(model), before)


def test_a_step_leaves_no_gradient_behind():
    """A gradient that stays would be added to in the caller's own backward pass."""
    backend = load("torch")
    learner = backend.learner(backend.build())
    stepped(learner, backend.batch(problem()))
    assert [name for name, parameter in learner.model.named_parameters() if parameter.grad is not None] == []
