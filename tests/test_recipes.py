"""The code on the pages under docs/ runs as it stands, each block in a Python of its own."""

import ast
import os
import subprocess
import sys

import pytest
from test_docs import DOCS, PAGES, WALK_THROUGH, blocks, needs

CASES = {
    f"{page.relative_to(DOCS)} {at}": block.text
    for page in PAGES
    if page != WALK_THROUGH  # which test_docs.py follows
    for at, block in enumerate(blocks(page, "python"), 1)
}


def run(code, folder):
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=folder, env=os.environ, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.parametrize("name", CASES)
def test_a_code_block_runs(tmp_path, name):
    needs(CASES[name])
    said = run(CASES[name], tmp_path)
    if name.startswith("recipes/"):  # which end by printing what they reached on the digits: chance is 0.1
        scores = ast.literal_eval(said.splitlines()[-1])
        assert scores["natural"] > 0.5
        assert 0.2 < scores["pgd20"] <= scores["natural"]
        assert not list(tmp_path.iterdir())  # nothing is left behind


def test_there_is_a_recipe_for_each_kind_of_loop():
    assert {name.split()[0] for name in CASES} >= {
        "recipes/plain-torch.md",
        "recipes/lightning.md",
        "recipes/accelerate.md",
    }
