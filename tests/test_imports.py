"""What is imported when, and who may import whom."""

import ast
import importlib.util
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
_SPEC = importlib.util.spec_from_file_location("rooms", ROOT / "docs" / "_ext" / "rooms.py")
rooms = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(rooms)
FRAMEWORKS = {"torch", "tensorflow", "keras", "jax"}
HEAVY = sorted(FRAMEWORKS | {"sklearn", "scipy", "pyarrow", "PIL", "pandas", "pydantic", "tyro", "rich"})


def test_the_core_imports_no_framework_and_nothing_heavy():
    code = (
        "import sys, json, stcore, stcore.cli.main, stcore.models, stcore.data\n"
        "import stcore.training.trainer, stcore.runs.folder\n"
        f"print(json.dumps([name for name in {HEAVY} if name in sys.modules]))"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd="/")
    assert json.loads(run.stdout) == []


def test_help_is_there_at_once():
    """Half a second of processor time is its limit (design.md). Modules are counted, since seconds vary by load:
    five hundred take 0.43 s on an idle machine."""
    code = (
        "import sys\n"
        "from stcore.cli.main import main\n"
        "code = main(['--help'])\n"
        "print(len(sys.modules))\n"
        "raise SystemExit(code)"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd="/")
    assert "exit codes: 0 ok" in run.stdout
    assert int(run.stdout.split()[-1]) <= 520


def test_every_room_is_in_the_table_and_every_row_is_a_room():
    assert {rooms.room(module) for module in rooms.modules()} - {""} == set(rooms.floors())


def test_imports_go_down_only():
    """A room imports rooms on lower floors; nothing imports the face."""
    floors = rooms.floors()
    wrong = [
        f"{one.place} imports stcore.{one.imported}"
        for one in rooms.imports()
        for importer, imported in [one.rooms]
        if importer and importer != imported and (not imported or floors[importer] <= floors[imported])
    ]
    assert not wrong


def test_no_modules_import_each_other():
    assert rooms.circles() == []


def test_the_root_stays_small():
    assert len(list((ROOT / "stcore").glob("*.py"))) <= 8
    assert len(rooms.floors()) - len(rooms.TOP_LEVEL) <= 27


MEETING = [("backends/keras/bridge.py", "torch")]
"""A Keras model as a torch module, for the reference's attacks: the one place where the frameworks meet."""


@pytest.mark.parametrize(
    ("folder", "never"),
    [
        ("stcore", sorted(FRAMEWORKS)),
        ("cli", sorted(FRAMEWORKS)),
        ("backends/torch", ["keras", "tensorflow", "stcore.backends.keras"]),
        ("backends/keras", ["torch", "stcore.backends.torch"]),
    ],
)
def test_no_foreign_framework_is_imported(folder, never):
    found = [
        (str(path.relative_to(ROOT)), name)
        for path in sorted((ROOT / folder).rglob("*.py"))
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        for name in imported_by(node)
    ]
    assert found
    assert not [
        f"{path} imports {name}"
        for path, name in found
        for one in never
        if (name == one or name.startswith(f"{one}.")) and (path, one) not in MEETING
    ]


def imported_by(node):
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    if isinstance(node, ast.ImportFrom) and not node.level:
        return [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]  # from stcore import cli
    return []


def test_the_page_names_files_and_tables_that_exist():
    """Every path on docs/architecture.md exists; every name in capitals is defined in the file beside it."""
    page = rooms.PAGE.read_text(encoding="utf-8")
    paths = set(re.findall(r"`((?:stcore/|backends/|models/|cli/|tests/|docs/)[\w/]+\.py)`", page))
    assert len(paths) > 15
    assert not [path for path in paths if not (ROOT / path).exists()]
    within = set(re.findall(r"`([a-z]+/[\w/]+\.py)`", page)) - paths  # within stcore/
    assert not [path for path in within if not (ROOT / "stcore" / path).exists()]
    rows = re.findall(r"^\| [^|]+\| [^|]+ \| ([^|]+) \|$", page, re.M)
    named = [(name, where) for where in rows for name in re.findall(r"`(_?[A-Z]{4,}|[A-Z]+_[A-Z]+)`", where)]
    assert len(named) > 12
    for name, where in named:
        files = re.findall(r"`([\w/]+\.py)`", where)
        assert any(re.search(rf"^ *{name}\b", (ROOT / file).read_text("utf-8"), re.M) for file in files), name


def test_no_module_has_the_name_of_a_public_function():
    import stcore

    modules = {path.stem for path in (ROOT / "stcore").glob("*.py")}
    functions = {name for name in stcore.__all__ if callable(getattr(stcore, name))}
    assert not modules & functions
