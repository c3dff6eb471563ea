"""The code on the pages under docs/ runs as it stands, from the top of a page to its end in one folder: Python in
one namespace, `stcli` in this process. Each block of a recipe has a Python of its own. What begins with `$` is at
full scale, and not run: that `stcli` takes such a command, and any other, is tested."""

import ast
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import tyro
from small import stcli
from test_docs import DOCS, PAGES, ROOT, WALK_THROUGH, blocks, needs

from stcore.cli.main import main
from stcore.runs.folder import RunFolder
from stcore.runs.plan import make_plan

RECIPES = [page for page in PAGES if page.parent.name == "recipes"]
ELSEWHERE = [WALK_THROUGH, DOCS / "slurm.md"]  # test_docs.py and test_slurm.py follow them
FOLLOWED = [
    page
    for page in PAGES
    if page not in [*RECIPES, *ELSEWHERE] and any(block.language in ("python", "sh") for block in blocks(page))
]


def name(page):
    return str(page.relative_to(ROOT))


# --- Pages that are followed ---


def follow(page):
    """Does what a reader would do who types in every block."""
    namespace = {"__name__": "__main__"}
    for block in blocks(page):
        if block.language == "python":
            needs(block.text)
            exec(compile(block.text, str(page), "exec"), namespace)
        for command in commands(block.text) if block.language == "sh" else []:
            first, *words = shlex.split(command, comments=True)
            assert first == "stcli", f"expected a command of stcli; received {command}"
            said = stcli(*words)
            assert said.code == 0, f"{command}\n{said.out}{said.err}"


def commands(block):
    """One a line, unless a line goes on."""
    return [line for line in block.replace("\\\n", " ").splitlines() if line.strip() and line[0] != "#"]


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """The working folder, whose modules can be imported as Python itself does it, and are forgotten afterwards."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    before = set(sys.modules)
    yield tmp_path
    for made in set(sys.modules) - before:
        if str(getattr(sys.modules[made], "__file__", "")).startswith(str(tmp_path)):
            del sys.modules[made]


TUTORIALS = DOCS / "tutorials"
"""Half a minute of training each, and notebooks too, which the slow tier runs. Shorter pages of each kind stay."""


@pytest.mark.parametrize(
    "page",
    [pytest.param(page, marks=pytest.mark.slow) if page.parent == TUTORIALS else page for page in FOLLOWED],
    ids=name,
)
def test_a_page_can_be_followed_to_its_end(page, folder):
    follow(page)


# --- Recipes ---

CASES = {
    f"{page.relative_to(DOCS)} {at}": block.text
    for page in RECIPES
    for at, block in enumerate(blocks(page, "python"), 1)
}


def run(code, folder):
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=folder, env=os.environ, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.parametrize("name", CASES)
def test_a_recipe_runs(tmp_path, name):
    """It ends by printing what it reached on the digits: chance is 0.1."""
    needs(CASES[name])
    scores = ast.literal_eval(run(CASES[name], tmp_path).splitlines()[-1])
    assert scores["natural"] > 0.5
    assert 0.2 < scores["pgd20"] <= scores["natural"]
    assert not list(tmp_path.iterdir())  # nothing is left behind


def test_there_is_a_recipe_for_each_kind_of_loop():
    assert {name.split()[0] for name in CASES} >= {
        "recipes/plain-torch.md",
        "recipes/lightning.md",
        "recipes/accelerate.md",
    }


# --- Commands that are not run ---

COMMAND = re.compile(
    r'^(?:    |\$ |)(?:[A-Z_]+=\S+ )*(?:stcli|torchrun .*"\$\(which stcli\)") (?!COMMAND|doctor)(.*)$', re.M
)
SAYING = [
    page for page in [ROOT / "README.md", *PAGES] if page != WALK_THROUGH and COMMAND.search(page.read_text())
]


class Parsed(BaseException):
    """The words are a command's; it need not begin."""


def opened(words, folder):
    """What --resume and --config open before anything is parsed."""
    for flag, place in (("--resume", "."), ("--config", "..")):
        if flag in words:
            run = folder / words[words.index(flag) + 1] / place
            run.mkdir(parents=True, exist_ok=True)
            RunFolder(run).write_config(make_plan({}).flat())


@pytest.mark.parametrize("page", SAYING, ids=name)
def test_a_command_is_one_that_stcli_takes(page, folder, monkeypatch):
    real = tyro.cli

    def parse(*args, **kwargs):
        real(*args, **kwargs)
        raise Parsed

    for block in blocks(page, "python"):
        if '.py").write_text(' in block.text:  # a module that its commands name
            exec(block.text, {"Path": Path})
    monkeypatch.setattr(tyro, "cli", parse)
    for line in COMMAND.findall(page.read_text().replace("\\\n", " ")):
        words = [word for word in shlex.split(line, comments=True) if word != "…"]
        opened(words, folder)
        with pytest.raises(Parsed):
            pytest.fail(f"stcli {line}: exit code {main(words)}")


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_what_is_at_full_scale_begins_with_a_prompt(page):
    for block in blocks(page, "console"):
        assert all(line.startswith("$ ") for line in commands(block.text))
