"""What is installed: one import name, every module, and guards at the doors of the top-level folders."""

import importlib.util
import inspect
import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

import stcore
from stcore import zoo

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
FOLDERS = {"stcore": "stcore", "backends": "stcore.backends", "models": "stcore.models", "cli": "stcore.cli"}


def packages_on_disk():
    for top, package in FOLDERS.items():
        for init in (ROOT / top).rglob("__init__.py"):
            below = init.parent.relative_to(ROOT / top).parts
            yield ".".join([package, *below]), init.parent


def test_the_package_list_is_the_folders():
    listed = PROJECT["tool"]["setuptools"]["packages"]
    assert sorted(listed) == sorted(name for name, _ in packages_on_disk())


def test_every_folder_of_modules_is_a_package():
    packages = {folder for _, folder in packages_on_disk()}
    for top in FOLDERS:
        assert {path.parent for path in (ROOT / top).rglob("*.py")} <= packages


@pytest.mark.parametrize("name", ["backends", "backends.torch", "backends.keras", "models", "cli"])
def test_a_folder_is_not_imported_by_its_bare_name(name):
    run = subprocess.run(
        [sys.executable, "-c", f"import {name}"], cwd=ROOT, capture_output=True, text=True, timeout=60
    )
    guarded = name.partition(".")[0]  # importing backends.torch imports backends first
    assert run.returncode == 1
    assert run.stderr.splitlines()[-1] == (
        f"ImportError: import this package as stcore.{guarded}, after 'pip install -e .' in the repository root"
    )


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """The wheel's file names, built from a copy without reaching for the network."""
    for needed in ("setuptools", "build"):
        if importlib.util.find_spec(needed) is None:
            pytest.skip(f"{needed} is not installed: pip install -e '.[dev]' setuptools")
    copy, dist = tmp_path_factory.mktemp("copy"), tmp_path_factory.mktemp("dist")
    for folder in FOLDERS:
        shutil.copytree(ROOT / folder, copy / folder, ignore=shutil.ignore_patterns("__pycache__"))
    for file in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / file, copy)
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(dist), str(copy)]
    build = subprocess.run(command, capture_output=True, text=True, timeout=120)
    if "setuptools>=" in build.stdout + build.stderr and build.returncode:
        pytest.skip("setuptools is older than pyproject.toml asks for")
    assert build.returncode == 0, build.stdout + build.stderr
    (path,) = dist.glob("*.whl")
    with zipfile.ZipFile(path) as archive:
        return set(archive.namelist())


def test_the_wheel_holds_every_module_and_what_lies_beside_them(wheel):
    expected = {
        f"{name.replace('.', '/')}/{path.name}"
        for name, folder in packages_on_disk()
        for path in folder.iterdir()
        if path.is_file()
    }
    assert expected <= wheel
    assert "stcore/py.typed" in wheel
    assert any(name.endswith("licenses/LICENSE") for name in wheel)


def test_the_wheel_holds_nothing_else_at_its_top(wheel):
    assert {name.partition("/")[0] for name in wheel} == {"stcore", f"stcore-{stcore.__version__}.dist-info"}
    assert not [name for name in wheel if "test" in name.replace("stcore/testing/", "")]


def test_the_package_stays_small():
    """10 MB before compression, of which a network that comes with it has 3."""
    files = [path for _, folder in packages_on_disk() for path in folder.iterdir() if path.is_file()]
    assert any(path.suffix == ".safetensors" for path in files)
    assert sum(path.stat().st_size for path in files) <= 10e6
    assert all(zoo.read_card(name).size <= 3e6 for name in zoo.names())


def test_versions_agree():
    assert PROJECT["project"]["version"] == stcore.__version__


@pytest.mark.parametrize("name", stcore.__all__)
def test_every_public_name_says_what_it_is(name):
    said = inspect.getdoc(getattr(stcore, name)) or ""
    assert len(said) > 20
    assert not said.startswith(f"{name}(")  # what dataclasses and named tuples write by themselves
