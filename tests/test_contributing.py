"""What contributors meet first is true: CI runs `.ci/run` on every supported Python, versions agree, links lead
somewhere."""

import os
import re
import shlex
import tomllib
from pathlib import Path
from urllib.parse import urlsplit

import pytest

import stcore

yaml = pytest.importorskip("yaml")

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
GITHUB = ROOT / ".github"
FORMS = sorted(path for path in (GITHUB / "ISSUE_TEMPLATE").glob("*.yml") if path.name != "config.yml")
PAGES = [*sorted(ROOT.glob("*.md")), GITHUB / "pull_request_template.md"]
MINORS = range(40)


def read(path):
    """A YAML file's content."""
    return yaml.safe_load(path.read_text("utf-8"))


def supported():
    """The Pythons that pyproject.toml allows, such as "3.11"."""
    from packaging.specifiers import SpecifierSet

    allowed = SpecifierSet(PROJECT["requires-python"])
    return [f"3.{minor}" for minor in MINORS if f"3.{minor}" in allowed]


# --- Continuous integration ---


def test_a_workflow_runs_ci_on_every_supported_python():
    job = read(GITHUB / "workflows" / "tests.yml")["jobs"]["tests"]
    assert job["strategy"]["matrix"]["python"] == supported()
    assert job["env"]["PYTHON"] == "python${{ matrix.python }}"  # what the Makefile makes .venv with
    versions = [step["with"]["python-version"] for step in job["steps"] if "setup-python" in step.get("uses", "")]
    assert versions == ["${{ matrix.python }}"]
    assert [step["run"] for step in job["steps"] if "run" in step] == [".ci/run"]


@pytest.mark.parametrize("path", sorted((GITHUB / "workflows").glob("*.yml")), ids=lambda path: path.name)
def test_a_workflow_may_only_read(path):
    assert read(path)["permissions"] == {"contents": "read"}


def test_ci_runs_the_test_command():
    script = ROOT / ".ci" / "run"
    assert os.access(script, os.X_OK)
    assert script.read_text("utf-8").splitlines()[-1] == "make test"
    assert re.search(r"^test:", (ROOT / "Makefile").read_text("utf-8"), re.M)
    assert re.search(r"^PYTHON \?=", (ROOT / "Makefile").read_text("utf-8"), re.M)  # the environment's comes first


@pytest.mark.parametrize("page", ["README.md", "CONTRIBUTING.md", "docs/index.md"])
def test_pages_name_the_supported_pythons(page):
    first, last = supported()[0], supported()[-1]
    assert set(re.findall(r"\b(3\.\d+) to (3\.\d+)\b", (ROOT / page).read_text("utf-8"))) == {(first, last)}


# --- Citation ---


def test_the_citation_is_of_this_version():
    citation = read(ROOT / "CITATION.cff")
    assert citation["cff-version"] == "1.2.0"
    assert citation["type"] == "software"
    assert citation["message"]
    assert citation["title"].startswith("stcore")
    assert citation["version"] == PROJECT["version"] == stcore.__version__
    assert citation["license"] == PROJECT["license"]
    assert all(set(author) == {"name"} for author in citation["authors"])


def test_the_citation_names_the_paper():
    (paper,) = read(ROOT / "CITATION.cff")["references"]
    assert paper["type"] == "conference-paper"
    assert paper["title"] in re.sub(r"\s+", " ", (ROOT / "README.md").read_text("utf-8"))
    assert [author["family-names"] for author in paper["authors"]] == ["Li", "Guo", "Zuo", "Chen"]
    assert paper["year"] == 2023


# --- Before a commit ---


def test_hooks_run_the_tools_of_the_makefile():
    (repository,) = read(ROOT / ".pre-commit-config.yaml")["repos"]
    hooks = {hook["id"]: shlex.split(hook["entry"]) for hook in repository["hooks"]}
    assert repository["repo"] == "local"  # the versions of constraints.txt, no others
    assert {hook["language"] for hook in repository["hooks"]} == {"system"}
    assert hooks["ruff"][:2] == [".venv/bin/ruff", "check"]
    assert hooks["ruff-format"][:2] == [".venv/bin/ruff", "format"]
    assert hooks["types"] == ["make", "types"]
    assert hooks["words"][0] == ".venv/bin/pytest"
    assert (ROOT / hooks["words"][-1]).is_file()


# --- Issues ---


def test_there_is_a_form_for_each_kind_of_issue():
    assert [path.stem for path in FORMS] == ["bug", "feature", "number"]
    assert read(GITHUB / "ISSUE_TEMPLATE" / "config.yml")["blank_issues_enabled"] is True


@pytest.mark.parametrize("path", FORMS, ids=lambda path: path.stem)
def test_a_form_is_one_that_github_takes(path):
    form = read(path)
    assert {"name", "description", "body"} <= form.keys() <= {"name", "description", "labels", "body"}
    fields = form["body"]
    assert len({field["id"] for field in fields}) == len(fields)
    for field in fields:
        assert field["type"] in ("textarea", "input")
        assert field["attributes"]["label"]
        assert field["attributes"].keys() <= {"label", "description", "render"}
    assert any(field.get("validations") == {"required": True} for field in fields)


# --- Links and paths ---


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_to_files(page):
    links = re.findall(r"\]\(([^)#\s]+)", page.read_text("utf-8"))
    lost = [link for link in links if not urlsplit(link).scheme and not (page.parent / link).exists()]
    assert not lost


def test_paths_that_contributors_are_sent_to_exist():
    text = (ROOT / "CONTRIBUTING.md").read_text("utf-8") + (ROOT / "docs" / "architecture.md").read_text("utf-8")
    paths = set(re.findall(r"`((?:stcore|models|tests|docs)/[\w./]*)`", text))
    assert len(paths) > 15
    assert not [path for path in paths if not (ROOT / path).exists()]
    targets = set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text("utf-8"), re.M))
    made = [word for line in re.findall(r"^    make (.*?)(?:  |$)", text, re.M) for word in line.split()]
    assert made
    assert {word for word in made if word[0] != "."} <= targets
