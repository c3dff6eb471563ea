"""The pages under docs/: the walk-through "add your own method" is followed on a copy of the package, and no code
block of any page goes unrun (`tests/test_recipes.py` runs those of the other pages)."""

import importlib.util
import inspect
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pytest
from harness import NAMES, load

from stcore.methods import METHODS, squeeze_search

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
WALK_THROUGH = DOCS / "own-method.md"
PAGES = sorted(DOCS.rglob("*.md"))
LANGUAGES = {"python", "diff", "sh", "console", "text"}  # console: at full scale, and not run
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


def test_the_walk_through_is_a_file_two_edits_and_their_use():
    assert [path for path, _ in FILES] == ["stcore/methods/alp.py"]
    assert [path for path, _ in EDITS] == ["stcore/methods/__init__.py", "tests/rows.py"]
    assert len(SCRIPTS) == len(NAMES)  # each run below, as is each command
    assert [shlex.split(command)[:2] for command in COMMANDS] == [["stcli", "train"]] * len(NAMES)


# --- The walk-through: add your own method ---


def as_file(text):
    """A file's path, in the comment of its first line, and the file's text."""
    first, _, rest = text.partition("\n")
    return first.removeprefix("# "), rest


def as_edit(text):
    """The path of the file to change, and (before, after) of each hunk."""
    head, *hunks = re.split(r"^@@.*\n", text, flags=re.M)
    sides = [
        tuple("".join(line[1:] for line in hunk.splitlines(True) if line[0] != other) for other in "+-")
        for hunk in hunks
    ]
    return re.search(r"^\+\+\+ b/(.*)$", head, re.M)[1], sides


PYTHON = [block.text for block in blocks(WALK_THROUGH, "python")]
FILES = [as_file(text) for text in PYTHON if text.startswith("# stcore/")]
SCRIPTS = [text for text in PYTHON if not text.startswith("# stcore/")]
EDITS = [as_edit(block.text) for block in blocks(WALK_THROUGH, "diff")]
COMMANDS = [line for block in blocks(WALK_THROUGH, "sh") for line in block.text.splitlines()]


def lay_out(place):
    """The package and its tests in a folder of their own, the package as it installs."""
    bare = shutil.ignore_patterns("__pycache__", ".*")
    shutil.copytree(ROOT / "stcore", place / "stcore", ignore=bare)
    for name in ("backends", "models", "cli"):
        shutil.copytree(ROOT / name, place / "stcore" / name, ignore=bare)
    shutil.copytree(ROOT / "tests", place / "tests", ignore=bare)
    shutil.copy(ROOT / "pyproject.toml", place)


def follow(place):
    """The page's file and its edits, each where it says; an edit's context must be there once."""
    for path, text in FILES:
        (place / path).write_text(text)
    for path, hunks in EDITS:
        text = (place / path).read_text()
        for before, after in hunks:
            assert text.count(before) == 1, f"{path}: expected once, found {text.count(before)} times:\n{before}"
            text = text.replace(before, after)
        (place / path).write_text(text)


def sources(place):
    """The lines of every file of the copy."""
    files = [path for path in place.rglob("*") if path.is_file() and path.suffix not in (".npz", ".safetensors")]
    return {str(path.relative_to(place)): path.read_text("utf-8").splitlines() for path in files}


class Followed(NamedTuple):
    """The copy's folder, and its sources before and after the page was followed."""

    place: Path
    before: dict
    after: dict


@pytest.fixture(scope="module")
def followed(tmp_path_factory):
    place = tmp_path_factory.mktemp("own-method")
    lay_out(place)
    before = sources(place)
    follow(place)
    return Followed(place, before, sources(place))


@pytest.fixture(scope="module")
def copy(followed):
    return followed.place


def python(place, *args):
    """A Python of its own in which `stcore` is the copy; returns what it printed."""
    path = os.pathsep.join([str(place), str(place / "tests"), *filter(None, [os.environ.get("PYTHONPATH")])])
    settings = {"PYTHONPATH": path, "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run(
        [sys.executable, *args],
        cwd=place,
        env=os.environ | settings,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


FROM_THE_COPY = """
import stcore
from pathlib import Path

assert Path(stcore.__file__).parent == Path("stcore").resolve()
"""


def test_a_method_is_one_file_one_entry_and_one_row(followed):
    """Each of the two lines brings the import it needs; nothing else of the package or its tests changes."""
    _, before, after = followed
    assert after.keys() - before.keys() == {"stcore/methods/alp.py"}
    assert before.keys() <= after.keys()
    changed = {path for path in before if before[path] != after[path]}
    assert changed == {"stcore/methods/__init__.py", "tests/rows.py"}
    for path, entry in {
        "stcore/methods/__init__.py": '"alp": Method(AlpConfig),',
        "tests/rows.py": '"alp": AlpConfig(),',
    }.items():
        added = [line.strip() for line in after[path] if line not in before[path]]
        assert added == ["from stcore.methods.alp import AlpConfig", entry]
        assert len(after[path]) == len(before[path]) + 2
    assert len(after["stcore/methods/alp.py"]) <= 120


def test_the_page_keeps_the_projects_style(copy):
    pytest.importorskip("ruff")
    for command in (["check"], ["format", "--check"]):
        python(
            copy,
            "-m",
            "ruff",
            *command,
            "--no-cache",
            "stcore/methods/alp.py",
            "stcore/methods/__init__.py",
            "tests/rows.py",
        )


@pytest.mark.slow  # the shared suite in a process of its own, 13 s; the page that writes the row is followed above
def test_the_row_passes_the_shared_suite(copy):
    for name in NAMES:
        load(name)
    files = [f"tests/test_{name}.py" for name in ("methods", "every_method", "training_loss", "runs")]
    said = python(copy, "-m", "pytest", "-q", "-p", "no:cacheprovider", *files, "-k", "alp or has_its_row")
    assert int(re.search(r"(\d+) passed", said)[1]) >= 10, said
    assert "skipped" not in said


@pytest.mark.parametrize(
    "backend",  # seven seconds of Keras' start and tracing; that the method is one of Keras', the row shows
    [pytest.param(name, marks=pytest.mark.slow) if name == "keras" else name for name in NAMES],
)
def test_the_page_trains_in_either_framework(tmp_path, copy, backend):
    """Its Python as it stands, its command with the settings of a tiny run beside those it gives."""
    load(backend)
    at = NAMES.index(backend)
    code, command = SCRIPTS[at], COMMANDS[at]
    assert f"import {backend}" in code
    assert f"--backend {backend}" in command
    out = str(tmp_path / "run")
    program = f"""{FROM_THE_COPY}
{code}
from small import SETTINGS, stcli, words

said = stcli(*{shlex.split(command)[1:]}, *words({{**SETTINGS, "out": {out!r}}}))
assert said.code == 0, said.err
print(said.out)
"""
    said = python(copy, "-c", program)
    assert "'adversarial_loss'" in said  # of the Python
    assert "alp on digits" in said  # of the command
    assert (tmp_path / "run" / "best.safetensors").is_file()


def test_a_setting_of_ones_own_takes_one_line_of_the_options(tmp_path, copy):
    """As the page says: without it the method has its default, but no flag, and its runs cannot be read back."""
    line = re.search(r"`(pairing: Number = [\d.]+)`", WALK_THROUGH.read_text())[1]
    place = tmp_path / "copy"
    shutil.copytree(copy, place)
    method = place / "stcore" / "methods" / "alp.py"
    method.write_text(re.sub(r"\bbeta\b", "pairing", method.read_text()))
    program = f"""{FROM_THE_COPY}
from stcore.cli.training_plan import plan_from
from stcore.errors import UsageError
from stcore.runs.folder import RunFolder

RunFolder(Path(".")).write_config(plan_from(["--method", "alp"])[0].flat())
for given in (["--method", "alp", "--pairing", "1"], ["--config", "config.toml"]):
    try:
        print(plan_from(given)[0].method.settings["pairing"])
    except UsageError as error:
        print("refused" if "pairing" in str(error) else error)
"""
    assert python(place, "-c", program).splitlines() == ["refused"] * 2
    options = place / "stcore" / "cli" / "options.py"
    options.write_text(options.read_text().replace("    segments: Int", f"    {line}\n    segments: Int"))
    assert python(place, "-c", program).splitlines() == ["1.0", "0.5"]


# --- The design's limit ---


@pytest.mark.parametrize("name", [*METHODS, "squeeze_search"])
def test_a_methods_file_has_at_most_120_lines(name):
    module = squeeze_search if name == "squeeze_search" else inspect.getmodule(METHODS[name].config)
    assert len(Path(module.__file__).read_text().splitlines()) <= 120
