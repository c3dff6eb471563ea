"""`stcli plan`: its counts against other ways to count, its times against a run's, and that it leaves nothing."""

import json
import resource
import signal
import subprocess
import sys
import tempfile
import time

import numpy as np
import pytest
from forked import Forked
from harness import NAMES, load
from small import SETTINGS, contents, stcli, words

from stcore import models
from stcore.autoattack.attack import AutoAttack
from stcore.base.weights_file import load_weights
from stcore.core.dispatch import load_backend
from stcore.core.optimizers import SGD
from stcore.costs.forecast import Forecast
from stcore.costs.measured import Images, Measured, Network, Phase
from stcore.costs.stopwatch import Pace, Spent
from stcore.paper.cost import macs_per_image
from stcore.runs.plan import make_plan

ON_EACH = pytest.mark.parametrize("backend", NAMES)


def planned(*args, **settings):
    said = stcli("plan", *words({**SETTINGS, "probe_seconds": 1, **settings}), *args, "--json")
    assert said.code == 0, said.err
    return json.loads(said.out)


# What is counted


@ON_EACH
@pytest.mark.parametrize("model", ["tiny", "resnet8", "resnet-s-16", "preact-resnet18", "wrn-10-2", "vgg16-bn"])
def test_flops_and_parameters_are_those_of_the_description(backend, model):
    """Two frameworks' own counts, and the sum over the description's layers."""
    load(backend)
    costs = __import__(f"stcore.backends.{backend}.probing", fromlist=["_"])
    package = load_backend(backend)
    net = models.build(model, backend, num_classes=10, normalize="cifar10")
    learner = package.make_learner(net, package.make_optimizer(net, SGD(momentum=0.9)))
    assert costs.forward_flops(learner, np.zeros((1, 32, 32, 3), np.uint8)) == 2 * macs_per_image(model)
    assert costs.parameters(learner) == models.count_parameters(models.describe(model, 10))


def test_a_keras_network_that_is_no_graph_of_layers_says_that_its_flops_are_unknown():
    load("keras")
    import keras

    from stcore.backends.keras import make_learner, probing

    class Called(keras.Model):
        def __init__(self):
            super().__init__()
            self.dense = keras.layers.Dense(3)

        def call(self, x):
            return self.dense(keras.ops.reshape(x, (-1, 12)))

    model = Called()
    model(np.zeros((1, 2, 2, 3), np.float32))
    assert probing.forward_flops(make_learner(model, keras.optimizers.SGD()), np.zeros((1, 2, 2, 3))) is None


@ON_EACH
def test_sizes_of_a_run(backend):
    load(backend)
    found = planned(backend=backend, epochs=3, method="trades", ema=0.9, awp=0.005, perturbation_warmup=3)
    assert found["images"] == {
        "epoch": 64,
        "selection": 32,
        "test": 32,
        "shape": [8, 8, 1],
        "classes": 10,
        "steps_per_epoch": 2,
        "steps": 6,
    }
    network = found["network"]
    assert network["parameters"] == models.count_parameters(models.describe("tiny", 10, 1))
    assert network["forward_flops"] == 2 * macs_of_tiny_digits()
    assert network["weights"] == network["average"] > 4 * network["parameters"]  # running statistics too
    assert 4 * network["parameters"] <= network["optimizer"] < 4 * network["parameters"] + 64
    assert network["peak_of"] == "process"
    assert network["peak"] > 1e8
    plain, perturbed = found["phases"]
    assert (plain["epochs"], plain["first_epoch"], perturbed["epochs"], perturbed["first_epoch"]) == (2, 1, 1, 3)
    passes = found["passes"]
    assert (
        plain["units_per_step"] == passes["forwards"] + passes["input_backwards"] + 2 * passes["weight_backwards"]
    )
    assert (
        perturbed["units_per_step"] == passes["units"] == plain["units_per_step"] + 3 * passes["weight_backwards"]
    )
    units = 2 * plain["units_per_step"] + perturbed["units_per_step"]
    assert network["training_flops"] == units * network["forward_flops"] * 64


def macs_of_tiny_digits():
    """By hand: tiny is conv 3×3 → pool → conv 3×3 → pool → linear, on 8×8×1."""
    description = models.describe("tiny", 10, 1)
    from stcore.paper.cost import _macs

    return _macs(description, 8)[0]


# How the parts add up


def measured(**changes):
    pace = Pace(Spent(1.0, 2.0), Spent(0.01, 0.02), 500)
    found = {
        "images": Images(1000, 100, 50, (8, 8, 1), 10),
        "network": Network(10, 5, 40, 40, 0, None, "process"),
        "start_up": Spent(7.0, 6.0),
        "phases": (Phase(1, 4, False, pace), Phase(5, 6, True, pace)),
        "choosing": (pace,),
        "final": pace,
        "one_pass": None,
        "saving": Spent(0.5, 0.25),
    }
    return Measured(**{**found, **changes})


def test_each_part_is_its_pace_times_its_images():
    forecast = Forecast(make_plan({"epochs": 10, "batch_size": 100, "awp": 0.1}), measured(), save_every=4.0)
    assert forecast.parts() == {
        "start_up": Spent(7.0, 6.0),
        "warm_up": Spent(4.0, 8.0),
        "training": Spent(100.0, 200.0),
        "choosing": Spent(10.0, 20.0),
        "saving": Spent(15.0, 7.5),  # at the end of an epoch of 10 s, and twice within
        "final": Spent(1.0, 2.0),
    }
    assert forecast.total == Spent(137.0, 243.5)
    assert forecast.as_json()["hours"] == pytest.approx(137 / 3600)
    assert forecast.notes() == []


def test_autoattack_counts_every_pass_of_images_that_withstand():
    one = Spent(1e-3, 1e-3)
    forecast = Forecast(
        make_plan({"epochs": 10, "attacks": "apgd-ce+square"}), measured(one_pass=Pace(one, one, 9))
    )
    stages = AutoAttack(0.2, "linf", "custom", ("apgd-ce", "square")).stages(10)
    assert [stage.restarts for stage in stages] == [5, 1]
    passes = 5 * (2 * 101 + 1) + 5001 + 1  # APGD there and back from its start on; Square there only; verified
    assert forecast.parts()["autoattack"].seconds == pytest.approx(2 * 50 * passes * 1e-3)
    assert "upper estimate" in forecast.notes()[0]


# The command


def cpu_of(*args, cwd):
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run(
        [sys.executable, "-m", "stcore.cli.main", *map(str, args)], cwd=cwd, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, done.stdout


@pytest.mark.slow  # half a minute, and a bound on processor time, which other work on the machine moves
@ON_EACH
def test_the_forecast_is_near_the_runs_cpu_time(backend, tmp_path):
    """Loosely, on a machine that does other things; benchmarks/plan.py measures how near."""
    load(backend)
    settings = {**SETTINGS, "backend": backend, "epochs": 8, "train_size": 400, "threads": 1}
    _, said = cpu_of("plan", *words(settings), "--probe-seconds", 3, "--json", cwd=tmp_path)
    assert list(tmp_path.iterdir()) == []
    spent, _ = cpu_of("train", *words(settings), "--out", tmp_path / "run", cwd=tmp_path)
    forecast = json.loads(said)["total"]["cpu_seconds"]
    assert 0.6 < forecast / spent < 1.6


def test_it_leaves_nothing_behind(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    planned("--tensorboard", ema=0.9) if has_tensorboard() else planned(ema=0.9)
    assert contents(tmp_path) == {}
    assert {path.name.partition("_")[0] for path in tmp_path.iterdir()} <= {"torchinductor"}  # PyTorch's, empty


def has_tensorboard():
    import importlib.util

    return importlib.util.find_spec("tensorboard") is not None


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_it_can_be_interrupted(number, tmp_path):
    load("torch")
    ready = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler); "
    program = ready + "import sys; from stcore.cli.main import main; sys.exit(main(sys.argv[1:]))"
    words = ["plan", "--epochs", "1000", "--probe-seconds", "600"]
    process = Forked("-c", program, *words, env={"TMPDIR": str(tmp_path)})
    assert "probing" in process.stdout.readline()
    time.sleep(1)  # among the steps
    process.send_signal(number)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 130
    assert said.endswith("stcli: interrupted\n")
    assert list(tmp_path.iterdir()) == []


def test_what_would_stop_the_run_stops_the_plan(tmp_path):
    (tmp_path / "file").write_text("")
    for args, message in (
        (("--out", tmp_path), "out: expected a new or empty folder"),
        (("--resume", tmp_path), "resume: expected a new run"),
        (("--epochs", 0), "epochs: expected a whole number of at least 1"),
        (("--probe-seconds", -1), "probe_seconds: expected a number of at least 0"),
        (("--max-hours", -1), "max_hours: expected a number of at least 0"),
        (("--devices", "cpu,cpu"), "devices: expected --seeds with it"),
        (("--eval-norm", "l1", "--eval-epsilon", 3, "--attacks", "apgd-ce"), "eval_norm: expected linf or l2"),
    ):
        said = stcli("plan", *args)
        assert said.code == 2
        assert message in said.err


@pytest.mark.parametrize("backend", ["torch", pytest.param("keras", marks=pytest.mark.slow)])  # 6 s of tracing
def test_it_measures_the_runs_own_way_to_train(backend):
    """Images on the device, parts of batches, forwards computed again: options that change the cost of a step."""
    load(backend)
    found = planned("--gradient-checkpointing", backend=backend, resident="on", accumulate=2, ema=0.9)
    assert "computed again" in found["notes"][0]
    assert found["phases"][0]["step"]["seconds"] > 0


def test_seeds_and_hours_are_reckoned_with():
    found = planned("--seeds", "1..6", "--devices", "cpu,cpu", "--max-hours", "0.0001")
    assert found["runs"]["count"] == 6
    assert found["runs"]["hours"] == pytest.approx(3 * found["hours"])
    assert found["runs"]["cpu_hours"] == pytest.approx(6 * found["cpu_hours"])
    assert found["runs"]["jobs"] == -int(-3 * found["hours"] // 0.0001)


def test_a_person_reads_it_too():
    said = stcli("plan", *words({**SETTINGS, "epochs": 2, "probe_seconds": 1}), "--seeds", "1,2")
    assert said.code == 0, said.err
    for part in (
        "64 images per epoch (8×8×1, 10 classes) in 2 steps",
        "backward passes to the pixels",
        "parameters",
    ):
        assert part in said.out
    for part in ("peak", "start-up", "final evaluation of best and last", "in hours", "2 seeds:"):
        assert part in said.out


@pytest.mark.parametrize("awp", [None, 0.005])
def test_a_weight_perturbation_is_spoken_of_where_there_is_one(awp):
    load("torch")
    asked = {**SETTINGS, "probe_seconds": 0.1, "steps": 1} | ({} if awp is None else {"awp": awp})
    said = stcli("plan", *words(asked))
    assert ("the weight perturbation included" in said.out) == (awp is not None)


def test_the_networks_weights_are_those_of_the_plan(tmp_path):
    """--init-weights that do not fit are said before the run begins."""
    from stcore.base.weights_file import save_weights

    save_weights(tmp_path / "w.safetensors", {"linear.weight": np.zeros((2, 2))}, {"model": "resnet8"})
    assert load_weights(tmp_path / "w.safetensors")
    said = stcli("plan", *words(SETTINGS), "--init-weights", tmp_path / "w.safetensors")
    assert said.code == 2
    assert "missing" in said.err or "weights" in said.err
