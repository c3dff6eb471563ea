"""The main job as a user runs it, with every default."""

import json

import pytest
from harness import load

from stcore.cli.main import main

NAMES = pytest.mark.parametrize("name", ["torch", "keras"])


def best_of(out, *options):
    """The best checkpoint's accuracies under "natural" and "pgd20"."""
    assert main(["train", *options, "--out", str(out)]) == 0
    best = json.loads((out / "result.json").read_text())["checkpoints"]["best"]
    return {attack: score["accuracy"] for attack, score in best.items()}


# In three epochs, seeds 0 to 2, on the test split:
#                          torch                  keras
#   st         natural     0.948  0.937  0.951    0.951  0.948
#              PGD-20      0.317  0.352  0.331    0.323  0.352
#   standard   natural     0.951                  0.954
#              PGD-20      0.023                  0.020
@NAMES
def test_three_epochs_of_squeeze_training_are_robust(name, tmp_path):
    load(name)
    best = best_of(tmp_path / "run", "--backend", name, "--epochs", "3", "--attacks", "pgd20")
    assert best["natural"] > 0.85
    assert best["pgd20"] > 0.2


@pytest.mark.slow  # about a minute for each backend: twenty epochs of squeeze training
@NAMES
def test_squeeze_training_on_digits_ends_robust(name, tmp_path):
    load(name)
    best = best_of(tmp_path / "run", "--backend", name)
    assert best["natural"] > 0.95
    assert best["pgd20"] > 0.6  # standard training keeps less than a twentieth
