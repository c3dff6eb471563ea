"""Keras on JAX: the shared suite, and what is JAX's alone, in processes of their own that find no TensorFlow."""

import importlib.util
import re
import signal
import sys
from pathlib import Path

import numpy as np
import pytest
from forked import JAX, Forked, forked
from small import stcli
from test_resume import RUN, WEIGHTS, kill_at, metrics

from stcore.base.weights_file import load_weights
from stcore.core import dispatch
from stcore.runs.plan import make_plan

if missing := [name for name in ("keras", "jax") if importlib.util.find_spec(name) is None]:
    pytest.skip(f"Keras on JAX: {' and '.join(missing)} not installed", allow_module_level=True)

HERE = Path(__file__).parent
QUICK = (
    "test_protocol.py",
    "test_divergences.py",
    "test_losses.py",
    "test_averaging.py",
    "test_optimizers.py",
)
"""The operations, losses and updates of the shared suite."""
STEPS = ("test_conformance.py", "test_squeeze.py", "test_modes.py", "test_perturbation.py", "test_class_wise.py")
"""Searches and whole steps. Both speak for the rest, most of which tests the methods rather than the engine."""


def on_engine(monkeypatch, engine):
    """As in a process that has not imported Keras yet."""
    for module in ("keras", "stcore.backends.keras"):
        monkeypatch.delitem(sys.modules, module, raising=False)
    monkeypatch.setenv("KERAS_BACKEND", engine)


@pytest.mark.parametrize(
    "files",
    [
        ("on_jax.py", "-m", "not slow"),
        pytest.param(("on_jax.py", "-m", "slow"), marks=pytest.mark.slow),
        pytest.param(QUICK, marks=pytest.mark.slow),  # forty seconds, likewise
        pytest.param(STEPS, marks=pytest.mark.slow),  # four minutes, nearly all of them XLA's compilation
    ],
    ids=" ".join,
)
def test_the_shared_suite_and_its_own(files):
    """With the tolerances that torch and TensorFlow keep to each other in float64: JAX needs none of its own."""
    options = ["-q", "-p", "no:cacheprovider", "--hypothesis-profile=few"]
    wanted = ["-k", "keras or test_conformance or on_jax"]
    run = Forked(
        "-m",
        "pytest",
        *options,
        *(HERE / word if word.endswith(".py") else word for word in files),
        *wanted,
        backend="jax",
    )
    out, _ = run.communicate(timeout=1200)
    assert run.returncode == 0, out[-3000:]
    assert int(re.search(r"(\d+) passed", out)[1]) > 0


CACHED = """
import sys
import jax
from stcore.cli.main import main
jax.config.update("jax_compilation_cache_dir", sys.argv.pop(1))
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)
sys.exit(main())
"""
"""`stcli`; what a process has compiled, the next need not."""


@pytest.mark.slow  # three processes that compile, 15 s; a resumed run of the other engine: test_resume.py
def test_killed_and_resumed_it_ends_as_without_a_break(tmp_path):
    whole, broken, cached = tmp_path / "whole", tmp_path / "broken", ["-c", CACHED, tmp_path / "cache", "train"]
    short = ["--epochs", "2", "--train-size", "192", "--select-by", "fgsm", "--attacks", "fgsm"]
    run = [*cached, "--backend", "keras", *RUN, *short]
    forked(*run, "--out", whole, backend="jax")
    first = kill_at(broken, "00000001-000003", Forked(*run, "--out", broken, backend="jax"))
    assert first == -signal.SIGKILL
    forked(*cached, "--resume", broken, backend="jax")
    for checkpoint in WEIGHTS:
        one, other = (load_weights(run / f"{checkpoint}.safetensors")[0] for run in (whole, broken))
        assert one.keys() == other.keys()
        assert all(np.array_equal(one[key], other[key]) for key in one)
    assert metrics(whole) == metrics(broken)
    assert '"jax"' in (whole / "environment.json").read_text()


FITTED = """
import sys
import keras, numpy as np
from stcore import AWP, SqueezeConfig
from stcore.backends.keras import RobustEvaluation, SqueezeModel, TorchSGD
path, dtype = sys.argv[1], "float64"
def kernel(shape, dtype):
    return keras.ops.convert_to_tensor(np.random.default_rng(shape).normal(0, 0.3, shape), dtype)
class Net(keras.Model):  # built on the first batch
    def __init__(self):
        super().__init__(dtype=dtype)
        dense = [keras.layers.Dense(n, kernel_initializer=kernel, dtype=dtype) for n in (6, 3)]
        self.all = [keras.layers.Flatten(dtype=dtype), dense[0], keras.layers.BatchNormalization(dtype=dtype)]
        self.all += [keras.layers.Activation("softplus", dtype=dtype), dense[1]]
    def call(self, x, training=None):
        for layer in self.all:
            x = layer(x, training=training) if isinstance(layer, keras.layers.BatchNormalization) else layer(x)
        return x
x, y = np.random.default_rng(0).uniform(size=(20, 4, 4, 1)).astype(dtype), np.arange(20) % 3
model = SqueezeModel(Net(), SqueezeConfig(0.2, 0.1, steps=1), perturbation=AWP(0.01, warmup=1))
model.compile(TorchSGD(0.1), metrics=["accuracy"], steps_per_execution=2)
options = {"batch_size": 8, "epochs": 2, "shuffle": False, "verbose": 0, "validation_data": (x, y)}
robust = RobustEvaluation((x, y), ["fgsm"], epsilon=0.1)
history = model.fit(x, y, sample_weight=np.linspace(0, 2, 20), callbacks=[robust], **options).history
assert model.predict(x, verbose=0).shape == (20, 3)
np.savez(path, *model.get_weights(), **history)
"""


@pytest.mark.slow  # half a minute of tracing; on_jax.py has the rest in the other tier
def test_fit_is_tensorflows(tmp_path):
    """Weights and logs of six steps in float64, the first half without a perturbation."""
    files = {backend: tmp_path / f"{backend}.npz" for backend in ("keras", "jax")}
    for backend, path in files.items():
        forked("-c", FITTED, path, backend=backend)
    one, other = map(np.load, files.values())
    assert set(one) == set(other)
    assert {"arr_0", "loss", "divergence", "val_accuracy", "val_fgsm"} < set(one)
    for name in one:
        np.testing.assert_allclose(other[name], one[name], rtol=1e-9, atol=1e-11, err_msg=name)


def test_two_replicas_are_one_device(tmp_path):
    """Steps in float64, on a network with batch norms: their statistics are those of the whole batch."""
    code = """
import sys
import jax, numpy as np
from harness import load, problem
import stcore
from stcore.core.objective import training_step
from stcore.backends.keras import jax as engine
backend = load("keras")
batches = [problem(6 if seed < 2 else 5, seed=seed) for seed in range(3)]
for count in (1, 2):
    if count > 1:
        engine.use_replicas(count)
        try:
            engine.use_replicas(3)
        except stcore.errors.DeviceError as error:
            print(error)
    model = backend.build("tiny-smooth")
    learner = backend.learner(model)
    step = learner.compile(lambda *given: training_step(learner, stcore.SqueezeConfig(steps=1), *given))
    for given in batches:
        x, y = learner.images(given.x), learner.labels(given.y)
        if len(given.y) == 6:
            assert len(x.sharding.device_set) == count and x.addressable_shards[0].data.shape[0] == 6 // count
        step(x, y, tuple(map(learner.images, given.noise)))
    assert {len(v.value.sharding.device_set) for v in model.variables} == {count}
    np.savez(sys.argv[count], **learner.weights())
"""
    files = [tmp_path / f"{count}.npz" for count in (1, 2)]
    flags = f"{JAX['XLA_FLAGS']} --xla_force_host_platform_device_count=2"
    said, _ = forked("-c", code, *files, backend="jax", env={"XLA_FLAGS": flags})
    assert "replicas: expected at most 2" in said
    one, two = map(np.load, files)
    assert max(np.abs(one[name] - two[name]).max() for name in one) <= 1e-10


def test_replicas_where_there_are_none():
    with pytest.raises(dispatch.UsageError, match="torchrun --nproc-per-node=2"):
        make_plan({"backend": "torch", "replicas": 2})
    with pytest.raises(dispatch.UsageError, match="expected a divisor of the batch size 128"):
        make_plan({"backend": "keras", "replicas": 3, "batch_size": 128})
    assert dispatch.keras_engine() == "tensorflow"
    run = stcli("train", "--backend", "keras", "--replicas", "2")
    assert run.code == 2
    assert "KERAS_BACKEND=jax" in run.err


def test_tensorflow_is_neither_needed_nor_imported():
    """In a process that cannot import it, as all are here in which Keras is on JAX."""
    code = """
import sys
from stcore.cli.doctor import check
print(check("keras"))
print("tensorflow" in sys.modules)
"""
    said = forked("-c", code, backend="jax")[0].splitlines()
    assert "jax " in said[0]
    assert "tensorflow" not in said[0]
    assert said[1] == "False"


@pytest.mark.parametrize(("engine", "hint"), [("torch", "use --backend torch"), ("nonsense", "received nonsense")])
def test_another_engine_is_declined(tmp_path, monkeypatch, engine, hint):
    on_engine(monkeypatch, engine)
    run = stcli("train", "--backend", "keras", "--out", tmp_path / "run")
    assert run.code == 2
    assert "expected KERAS_BACKEND=tensorflow or jax" in run.err
    assert hint in " ".join(run.err.split())


def test_the_engine_is_found_without_importing_keras(tmp_path, monkeypatch):
    monkeypatch.delitem(sys.modules, "keras", raising=False)
    monkeypatch.delenv("KERAS_BACKEND", raising=False)
    monkeypatch.setenv("KERAS_HOME", str(tmp_path))
    assert dispatch.keras_engine() == "tensorflow"
    (tmp_path / "keras.json").write_text('{"floatx": "float32"}')
    assert dispatch.keras_engine() == "tensorflow"
    (tmp_path / "keras.json").write_text('{"backend": "jax"}')
    assert dispatch.keras_engine() == "jax"
    monkeypatch.setenv("KERAS_BACKEND", "torch")
    assert dispatch.keras_engine() == "torch"


def test_a_missing_engine_is_named_with_its_extra(monkeypatch):
    on_engine(monkeypatch, "jax")
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *rest: None if name == "jax" else find(name, *rest)
    )
    remedy = r"tensorflow is installed: set KERAS_BACKEND=tensorflow"
    if find("tensorflow") is None:
        remedy = r"in the repository: pip install '.\[jax\]'"
    with pytest.raises(dispatch.UsageError, match=f"jax not installed; {remedy}"):
        dispatch.load_backend("keras")
    assert dispatch.missing_packages("keras") == ("jax",)
