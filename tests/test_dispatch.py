"""Which backend there is, what it needs, and what installs it."""

import pytest

from stcore.core import dispatch
from stcore.errors import UsageError


@pytest.mark.parametrize(
    ("backend", "engine", "extra"),
    [
        ("torch", "tensorflow", "torch"),
        ("torch", "jax", "torch"),
        ("keras", "tensorflow", "keras"),
        ("keras", "jax", "jax"),
    ],
)
def test_the_extra_of_a_backend(monkeypatch, backend, engine, extra):
    monkeypatch.setattr(dispatch, "keras_engine", lambda: engine)
    assert dispatch.extra(backend) == extra


def test_the_engine_is_needed_too(monkeypatch):
    monkeypatch.setattr(dispatch, "keras_engine", lambda: "jax")
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None if name in ("jax", "torch") else name)
    assert dispatch.missing_packages("keras") == ("jax",)
    assert dispatch.missing_packages("torch") == ("torch",)
    assert dispatch.available_backends() == ()
    monkeypatch.setattr(dispatch, "keras_engine", lambda: "tensorflow")
    assert dispatch.missing_packages("keras") == ()
    assert dispatch.available_backends() == ("keras",)


@pytest.mark.parametrize(("engine", "hinted"), [("torch", True), ("openvino", False), ("numpy", False)])
def test_another_engine_is_refused(engine, hinted):
    with pytest.raises(UsageError, match=f"received {engine}") as caught:
        dispatch.check_engine(engine)
    assert ("--backend torch" in str(caught.value)) is hinted


@pytest.mark.parametrize(("missing", "there"), [("tensorflow", "jax"), ("jax", "tensorflow")])
def test_keras_on_its_other_engine_is_said_how_to_select(monkeypatch, missing, there):
    """With keras and jax alone, KERAS_BACKEND is what is missing, not a package."""
    find = dispatch.importlib.util.find_spec
    monkeypatch.setattr(dispatch, "keras_engine", lambda: missing)
    monkeypatch.setattr(
        dispatch.importlib.util, "find_spec", lambda name, *rest: None if name == missing else find(name, *rest)
    )
    assert dispatch.remedy("keras") == f"{there} is installed: set KERAS_BACKEND={there}"
    monkeypatch.delitem(dispatch.sys.modules, "stcore.backends.keras", raising=False)
    with pytest.raises(UsageError, match=f"set KERAS_BACKEND={there}"):
        dispatch.load_backend("keras")
