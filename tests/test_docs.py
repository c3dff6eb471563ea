"""The pages under docs/: the walk-through "your own method" shows the files of the example package, and no code
block of any page goes unrun (`tests/test_recipes.py` runs those of the other pages)."""

import importlib.util
import inspect
import re
import shlex
import warnings
from pathlib import Path
from typing import NamedTuple

import pytest
from harness import NAMES, load
from small import stcli, words

from stcore.methods import METHODS, squeeze_search

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
WALK_THROUGH = DOCS / "own-method.md"
PACKAGE = ROOT / "tests" / "plugin_package"
PAGES = sorted(DOCS.rglob("*.md"))
LANGUAGES = {"python", "sh", "toml", "console", "text"}  # console: at full scale, and not run
DIRECTIVES = {"{toctree}", "{eval-rst}", "{commands}"}  # of the site


class Block(NamedTuple):
    """A fenced block of a page."""

    language: str
    text: str


def blocks(page, language=None):
    """The fenced blocks of a page, or those in one language."""
    found = re.findall(r"^```(\S*)\n(.*?)^```$", page.read_text(), re.M | re.S)
    return [Block(*one) for one in found if language in (None, one[0])]


def needs(code):
    """Skips where a package that the code imports is not installed."""
    for name in re.findall(r"^(?:import|from) (\w+)", code, re.M):
        if importlib.util.find_spec(name) is None:
            pytest.skip(f"{name} is not installed: pip install {name}")


# --- No block goes unrun ---


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(DOCS)))
def test_every_fence_is_a_block_that_is_known(page):
    """Python by any other name or fence would not be run."""
    marks = re.findall(r"^\s*(?:```|~~~)", page.read_text(), re.M)
    assert len(marks) == 2 * len(blocks(page))
    assert {block.language for block in blocks(page)} <= LANGUAGES | DIRECTIVES


def test_each_block_of_the_walk_through_is_a_file_of_the_package_or_a_use_of_it():
    assert set(FILES) == {
        f"stcore_example/{name}.py" for name in ("method", "attack", "divergence", "data", "tracker")
    }
    assert len(SCRIPTS) == 2 + len(NAMES)  # each run below, as is each command
    assert [shlex.split(command)[:2] for command in COMMANDS] == [["stcli", "train"]] * len(NAMES)


# --- The walk-through: parts of one's own ---


def as_file(text):
    """A file's path, in the comment of its first line, and the file's text."""
    first, _, rest = text.partition("\n")
    return first.removeprefix("# "), rest


PYTHON = [block.text for block in blocks(WALK_THROUGH, "python")]
FILES = dict(as_file(text) for text in PYTHON if text.startswith("# stcore_example/"))
SCRIPTS = [text for text in PYTHON if not text.startswith("# stcore_example/")]
COMMANDS = [line for block in blocks(WALK_THROUGH, "sh") for line in block.text.splitlines()]


@pytest.mark.parametrize("path", FILES)
def test_the_page_shows_the_packages_files(path):
    assert FILES[path] == (PACKAGE / path).read_text(encoding="utf-8")


def test_the_page_shows_the_packages_entry_points():
    assert blocks(WALK_THROUGH, "toml") == [("toml", (PACKAGE / "pyproject.toml").read_text(encoding="utf-8"))]


@pytest.mark.parametrize("at", range(len(SCRIPTS)))
def test_the_pages_python_runs(tmp_path, monkeypatch, capsys, at):
    """In a folder of its own, on few images: its contract test, its whole run, and a step in either framework."""
    code = SCRIPTS[at]
    load("torch" if "tensorflow" not in code else "keras")
    needs(code)
    monkeypatch.chdir(tmp_path)
    code = code.replace('"tiny", load,', '"tiny", lambda: load("80"),') if "stcore.train(" in code else code
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the split is small, and a network of one epoch predicts one class
        exec(compile(code, str(WALK_THROUGH), "exec"), {"__name__": "page"})
    said = capsys.readouterr().out
    assert ("adversarial_loss" in said) == ("train_step" in code)
    assert ("stcore_example.divergence:hellinger" in said) == ("stcore.train(" in code)


@pytest.mark.parametrize(
    "backend",  # seven seconds of Keras' start and tracing; that the parts are Keras', test_plug_ins.py shows
    [pytest.param(name, marks=pytest.mark.slow) if name == "keras" else name for name in NAMES],
)
def test_the_pages_commands_run(tmp_path, backend):
    load(backend)
    command = shlex.split(COMMANDS[NAMES.index(backend)])
    assert command[-2:] == ["--backend", backend]
    small = {"model": "tiny", "epochs": 1, "batch_size": 40, "steps": 1, "train_size": 80, "epsilon": 0.1}
    said = stcli(*command[1:], *words({**small, "out": tmp_path / "run"}))
    assert said.code == 0, said.err
    assert (tmp_path / "run" / "best.safetensors").is_file()


# --- The design's limit ---


@pytest.mark.parametrize("name", [*METHODS, "squeeze_search"])
def test_a_methods_file_has_at_most_120_lines(name):
    module = squeeze_search if name == "squeeze_search" else inspect.getmodule(METHODS[name].config)
    assert len(Path(module.__file__).read_text().splitlines()) <= 120
