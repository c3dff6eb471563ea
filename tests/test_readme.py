"""The README's code runs as it stands, and the table of methods counts their passes."""

import re
from pathlib import Path

import pytest

README = Path(__file__).parents[1] / "README.md"
METHODS_PAGE = README.parent / "docs" / "methods.md"
BLOCKS = re.findall(r"```python\n(.*?)```", README.read_text(), re.S)


@pytest.mark.parametrize("code", BLOCKS, ids=[re.search(r"import (torch|keras)", b)[1] for b in BLOCKS])
def test_a_code_block_runs(code: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in re.findall(r"^import (\w+)", code, re.M):
        pytest.importorskip(name)
    monkeypatch.chdir(tmp_path)
    exec(compile(code, str(README), "exec"), {})


def test_the_methods_cost_what_the_table_says() -> None:
    from stcore.methods import METHODS, make_objective

    rows = re.findall(r"^\| (`[a-z0-9`, -]+) \|.*\| ([\d, ]+) \|$", METHODS_PAGE.read_text(), re.M)
    said = {
        name: int(units)
        for names, passes in rows
        for name, units in zip(re.findall(r"`([^`]+)`", names), passes.split(", "), strict=True)
    }
    assert said == {name: make_objective(name, {}).passes.units for name in METHODS}


def test_there_is_a_block_for_each_framework_and_for_fit() -> None:
    assert len(BLOCKS) == 3
