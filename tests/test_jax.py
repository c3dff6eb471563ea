"""Keras on JAX: the shared suite, and what is JAX's alone, in processes of their own."""

import importlib.util
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from test_resume import RUN, WEIGHTS, kill_at, metrics

from stcore.base.weights_file import load_weights
from stcore.core import dispatch
from stcore.runs.plan import make_plan

if missing := [name for name in ("keras", "jax") if importlib.util.find_spec(name) is None]:
    pytest.skip(f"Keras on JAX: {' and '.join(missing)} not installed", allow_module_level=True)

HERE = Path(__file__).parent
QUICK = (
    "on_jax.py",
    "test_protocol.py",
    "test_divergences.py",
    "test_losses.py",
    "test_averaging.py",
    "test_sgd.py",
)
"""JAX's own tests, with the operations, losses and updates of the shared suite."""
STEPS = ("test_conformance.py", "test_squeeze.py", "test_modes.py", "test_perturbation.py")
"""Searches and whole steps. Both speak for the rest, most of which tests the methods rather than the engine."""
QUICKLY = "--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true"
"""Has LLVM compile as it comes: a network this small takes longer to compile than to run."""


def on_jax(*command, engine="jax", **options):
    return subprocess.run(
        [sys.executable, "-m", *map(str, command)],
        env=os.environ | {"KERAS_BACKEND": engine, "PJRT_NPROC": "1", "XLA_FLAGS": QUICKLY},
        capture_output=True,
        text=True,
        **options,
    )


@pytest.mark.parametrize(
    "files",
    [
        QUICK,
        pytest.param(STEPS, marks=pytest.mark.slow),  # four minutes, nearly all of them XLA's compilation
    ],
    ids=" ".join,
)
def test_the_shared_suite_and_its_own(files):
    """With the tolerances that torch and TensorFlow keep to each other in float64: JAX needs none of its own."""
    wanted = "keras or test_conformance or on_jax"
    paths = [f"tests/{file}" for file in files]
    run = on_jax("pytest", "-q", "-p", "no:cacheprovider", *paths, "-k", wanted, cwd=HERE.parent)
    assert run.returncode == 0, run.stdout[-3000:]
    assert int(re.search(r"(\d+) passed", run.stdout)[1]) > 0


def test_killed_and_resumed_it_ends_as_without_a_break(tmp_path, monkeypatch):
    for variable, value in {"KERAS_BACKEND": "jax", "PJRT_NPROC": "1", "XLA_FLAGS": QUICKLY}.items():
        monkeypatch.setenv(variable, value)
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    on_jax("stcore.cli.main", "train", "--backend", "keras", *RUN, "--out", whole, check=True)
    command = [sys.executable, "-m", "stcore.cli.main", "train", "--backend", "keras", *RUN, "--out", str(broken)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    first = kill_at(broken, "00000001-000003", process)
    assert first == -signal.SIGKILL
    on_jax("stcore.cli.main", "train", "--resume", broken, check=True)
    for checkpoint in WEIGHTS:
        one, other = (load_weights(run / f"{checkpoint}.safetensors")[0] for run in (whole, broken))
        assert one.keys() == other.keys()
        assert all(np.array_equal(one[key], other[key]) for key in one)
    assert metrics(whole) == metrics(broken)
    assert '"jax"' in (whole / "environment.json").read_text()


def test_two_replicas_are_one_device(tmp_path):
    """Five steps in float64, on a network with batch norms: their statistics are those of the whole batch."""
    weights = []
    for count in (1, 2):
        code = f"""
import sys; sys.path.insert(0, {str(HERE)!r})
import jax, numpy as np, keras
from harness import load, problem
import stcore
from stcore.core.objective import training_step
from stcore.backends.keras import jax as engine
jax.config.update("jax_enable_x64", True)
if {count} > 1:
    engine.use_replicas({count})
    try:
        engine.use_replicas(3)
    except stcore.errors.DeviceError as error:
        print(error)
backend = load("keras")
model = backend.build("tiny-smooth")
learner = backend.learner(model)
step = learner.compile(lambda *given: training_step(learner, stcore.SqueezeConfig(steps=2), *given))
for seed in range(5):
    given = problem(6 if seed < 4 else 5, seed=seed)
    x, y = learner.images(given.x), learner.labels(given.y)
    if seed < 4:
        assert len(x.sharding.device_set) == {count} and x.addressable_shards[0].data.shape[0] == 6 // {count}
    step(x, y, tuple(map(learner.images, given.noise)))
assert {{len(v.value.sharding.device_set) for v in model.variables}} == {{{count}}}
np.savez({str(tmp_path / str(count))!r}, **learner.weights())
"""
        flags = "--xla_force_host_platform_device_count=2"
        environment = os.environ | {"KERAS_BACKEND": "jax", "JAX_ENABLE_X64": "1", "XLA_FLAGS": flags}
        run = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True)
        assert run.returncode == 0, run.stderr[-2000:]
        weights.append(np.load(tmp_path / f"{count}.npz"))
    assert "replicas: expected at most 2" in run.stdout
    one, two = weights
    assert max(np.abs(one[name] - two[name]).max() for name in one) <= 1e-10


def test_replicas_where_there_are_none():
    with pytest.raises(dispatch.UsageError, match="torchrun --nproc-per-node=2"):
        make_plan({"backend": "torch", "replicas": 2})
    with pytest.raises(dispatch.UsageError, match="expected a divisor of the batch size 128"):
        make_plan({"backend": "keras", "replicas": 3, "batch_size": 128})
    run = on_jax("stcore.cli.main", "train", "--backend", "keras", "--replicas", "2", engine="tensorflow")
    assert run.returncode == 2
    assert "KERAS_BACKEND=jax" in run.stderr


def test_tensorflow_is_neither_needed_nor_imported():
    code = """
import sys
class NoTensorFlow:
    def find_spec(self, name, *_):
        if name == "tensorflow":
            raise ImportError(name)
sys.meta_path.insert(0, NoTensorFlow())
from stcore.cli.doctor import check
print(check("keras"))
print("tensorflow" in sys.modules)
"""
    environment = os.environ | {"KERAS_BACKEND": "jax"}
    run = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True)
    said = run.stdout.splitlines()
    assert "jax " in said[0], run.stderr
    assert "tensorflow" not in said[0]
    assert said[1] == "False"


@pytest.mark.parametrize(("engine", "hint"), [("torch", "use --backend torch"), ("nonsense", "received nonsense")])
def test_another_engine_is_declined(tmp_path, engine, hint):
    run = on_jax("stcore.cli.main", "train", "--backend", "keras", "--out", tmp_path / "run", engine=engine)
    assert run.returncode == 2
    assert "expected KERAS_BACKEND=tensorflow or jax" in run.stderr
    assert hint in " ".join(run.stderr.split())


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
    monkeypatch.delitem(sys.modules, "keras", raising=False)
    monkeypatch.delitem(sys.modules, "stcore.backends.keras", raising=False)
    monkeypatch.setenv("KERAS_BACKEND", "jax")
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *rest: None if name == "jax" else find(name, *rest)
    )
    with pytest.raises(dispatch.UsageError, match=r"jax not installed; in the repository: pip install '.\[jax\]'"):
        dispatch.load_backend("keras")
    assert dispatch.missing_packages("keras") == ("jax",)
