# ruff: noqa: E402  (the environment is set before a framework is loaded)
"""Fixtures of the shared suite. What runs on a backend takes `backend`; on the strict one too, `every_backend`."""

import gc
import importlib
import os
import sys
import tempfile

gc.disable()  # until all tests are collected: what is imported for them stays

os.environ.setdefault("KERAS_BACKEND", "tensorflow")
os.environ.setdefault("JAX_ENABLE_X64", "1")  # where KERAS_BACKEND=jax: most problems are in float64
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
for _variable in ("OMP_NUM_THREADS", "TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS", "PJRT_NPROC"):
    os.environ.setdefault(_variable, "1")

_CACHE = tempfile.TemporaryDirectory(prefix="stcore-decoded-")
os.environ["STCLI_DATA_CACHE"] = _CACHE.name  # not the user's; it goes with the session

import numpy as np
import pytest
from hypothesis import settings

try:
    import torch  # before TensorFlow: the two do not load in the other order everywhere
except ImportError:
    torch = None
else:
    torch.set_num_threads(1)

from harness import BENCHMARKS, NAMES, load
from skips import Skips

# `make test` takes this profile: a test without a number of its own has 40 examples there, and 100 otherwise.
settings.register_profile("ci", max_examples=40, deadline=None)
settings.register_profile("few", max_examples=15, deadline=None)  # on JAX, whose eager operations take longest

LONGEST = ("test_jax.py", "test_docs_site.py", "test_main_job.py", "test_resume.py", "test_ranks.py")
"""Files with the longest tests. They begin first, so that no worker ends long after the others."""


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items):
    items.sort(key=lambda item: item.path.name not in LONGEST)


def pytest_collection_finish():
    """Two frameworks are a million objects, and a graph that is traced is ten thousand that stay."""
    gc.freeze()
    gc.set_threshold(100_000)
    gc.enable()


def pytest_configure(config):
    config.pluginmanager.register(Skips(), "skips")
    # TensorFlow's tensors do not know numpy 2's `copy` yet; it is said a thousand times.
    config.addinivalue_line("filterwarnings", "ignore:__array__ implementation doesn't accept:DeprecationWarning")


@pytest.fixture(scope="session", params=NAMES)
def backend(request):
    """PyTorch, Keras."""
    return load(request.param)


@pytest.fixture(scope="session", params=[*NAMES, "strict"])
def every_backend(request):
    """PyTorch, Keras and the numpy backend that knows the protocol alone."""
    return load(request.param)


@pytest.fixture
def benchmark(monkeypatch):
    """A script's module by its name."""
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    before = set(sys.modules)
    yield importlib.import_module
    for name in set(sys.modules) - before:
        if str(getattr(sys.modules[name], "__file__", "")).startswith(str(BENCHMARKS)):
            del sys.modules[name]


@pytest.fixture
def global_random_state():
    """Fails a test that draws from, or seeds, a global generator."""

    def states():
        numpys = np.random.get_state()[1]
        return [numpys] if torch is None else [numpys, torch.get_rng_state().numpy()]

    before = states()
    yield
    for then, now in zip(before, states(), strict=True):
        np.testing.assert_array_equal(then, now)
