"""The main job as a user runs it, with every default."""

import json

import pytest
from harness import load

from stcore.cli.main import main


@pytest.mark.slow  # about a minute for each backend: twenty epochs of squeeze training
@pytest.mark.parametrize("name", ["torch", "keras"])
def test_squeeze_training_on_digits_ends_robust(name, tmp_path):
    load(name)
    out = tmp_path / "run"
    assert main(["train", "--backend", name, "--out", str(out)]) == 0
    best = json.loads((out / "result.json").read_text())["checkpoints"]["best"]
    assert best["natural"]["accuracy"] > 0.95
    assert best["pgd20"]["accuracy"] > 0.6  # standard training keeps less than a twentieth
