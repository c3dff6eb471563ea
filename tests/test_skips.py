"""A skip that nobody allowed fails a strict run, whichever process met it."""

import re
from pathlib import Path

import pytest
from skips import ALLOWED, is_strict, name_of

pytest_plugins = "pytester"

CONFTEST = f"""
import sys
sys.path.insert(0, {str(Path(__file__).parent)!r})
from skips import Skips
def pytest_configure(config):
    config.pluginmanager.register(Skips())
"""
SKIPS = """
import pytest
def test_fine(): pass
def test_expected(): pytest.xfail("known")
@pytest.mark.skipif(True, reason="pdflatex is not installed")
def test_allowed(): pass
"""
WHOLE_MODULE = 'import pytest\npytest.importorskip("no_such_package")\n'
ONE_TEST = 'import pytest\ndef test_it(): pytest.skip("because")\n'


@pytest.mark.parametrize(
    ("workers", "name", "content", "said"),
    [
        (0, "test_module.py", WHOLE_MODULE, "could not import 'no_such_package'"),
        (1, "test_one.py", ONE_TEST, "because"),
    ],
)
def test_an_unnamed_skip_fails_a_strict_run_alone(pytester, monkeypatch, workers, name, content, said):
    monkeypatch.delenv("CI", raising=False)
    monkeypatch.setenv("STCORE_STRICT_SKIPS", "1")
    pytester.makeconftest(CONFTEST)
    (pytester.path / "test_allowed.py").write_text(SKIPS)
    options = ("-p", "no:cacheprovider", "-p", "no:hypothesispytest", "-n", str(workers))
    (pytester.path / name).write_text(content)
    run = pytester.runpytest_subprocess(*options)
    assert run.ret == 1
    lines = run.stdout.str()
    assert "pdflatex (1): pdflatex is not installed" in lines
    assert re.search(rf"NOT ALLOWED \(1\): {re.escape(said)}", lines)
    if workers == 0:  # both without it and, where nobody is strict, with it
        monkeypatch.setenv("STCORE_STRICT_SKIPS", "0")
        assert pytester.runpytest_subprocess(*options).ret == 0
        monkeypatch.setenv("STCORE_STRICT_SKIPS", "1")
        (pytester.path / name).unlink()
        assert pytester.runpytest_subprocess(*options).ret == 0


def test_who_asks_for_strictness():
    assert is_strict({"CI": "true"})
    assert is_strict({"STCORE_STRICT_SKIPS": "1"})
    assert not is_strict({"CI": "false"})
    assert not is_strict({})


def test_a_reason_has_one_name():
    assert name_of("no GPU: this machine has no CUDA device") == "gpu"
    assert name_of("could not import 'timm': No module named 'timm'") is None
    assert len(set(ALLOWED.values())) == len(ALLOWED)
