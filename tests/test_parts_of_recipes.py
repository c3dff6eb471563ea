"""The parts of a fast and of a strong recipe go together on each backend, and a run of them is resumed alike."""

import shutil

import numpy as np
import pytest
from small import Run, stcli, train

from stcore.base.weights_file import load_weights
from stcore.training.trainer import Trainer

FAST = {
    "precision": "bf16",
    "resident": "on",
    "schedule": "one-cycle",
    "early_steps": "1@0.5",
    "augment": "crop-flip",
    "steps": 2,
}
STRONG = {
    "model": "tiny-silu",
    "awp": 0.005,
    "ema": 0.9,
    "augment": "crop-flip-cutout",
    "label_smoothing": 0.1,
    "divergence": "improved_kl",
    "beta": 3,
    "schedule": "cosine",
    "steps": 2,
}


@pytest.mark.parametrize(
    ("backend", "recipe"),
    [
        pytest.param("torch", FAST, id="torch-fast"),
        pytest.param("torch", STRONG, id="torch-strong"),
        # Eight seconds of tracing each; resuming and each part have quicker tests of their own.
        pytest.param("keras", FAST, id="keras-fast", marks=pytest.mark.slow),
        pytest.param("keras", STRONG, id="keras-strong", marks=pytest.mark.slow),
    ],
    indirect=["backend"],
)
def test_they_go_together(backend, recipe, tmp_path, monkeypatch):
    """Resumed is a copy of the run's folder as it was when its second epoch began."""
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    begin = Trainer._epoch

    def copying(self, epoch, *args, **kwargs):
        if epoch == 2 and not broken.exists():
            shutil.copytree(whole, broken)
        return begin(self, epoch, *args, **kwargs)

    monkeypatch.setattr(Trainer, "_epoch", copying)
    said = train(whole, backend=backend.name, epochs=2, attacks="fgsm", **recipe)
    assert said.code == 0, said.err
    rows = Run(whole, said).metrics
    assert len(rows) == 2
    assert all(np.isfinite(row["loss"]) and row["divergence"] > 0 for row in rows)
    resumed = stcli("train", "--resume", broken)
    assert resumed.code == 0, resumed.err
    for name in ("last", "last-ema") if "ema" in recipe else ("last",):
        one, other = (load_weights(run / f"{name}.safetensors")[0] for run in (whole, broken))
        for key, array in one.items():
            np.testing.assert_array_equal(array, other[key], err_msg=f"{name} {key}")


def test_smoothed_labels_and_cutout_are_part_of_the_run(tmp_path):
    """Each changes the weights: no option does nothing."""
    runs = {"plain": {}, "smoothed": {"label_smoothing": 0.1}, "cut": {"augment": "crop-flip-cutout"}}
    weights = {}
    for name, changes in runs.items():
        said = train(tmp_path / name, backend="torch", **{"augment": "crop-flip", "steps": 1, **changes})
        assert said.code == 0, said.err
        weights[name] = load_weights(tmp_path / name / "last.safetensors")[0]
    for name in ("smoothed", "cut"):
        assert any((array != weights[name][key]).any() for key, array in weights["plain"].items())
