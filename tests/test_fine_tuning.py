"""Robust fine-tuning of pretrained networks on photos."""

import csv
import json
import math
from collections import Counter

import pytest
from harness import load, needs_timm
from photos import CLASSES, LEFT_OUT, photos
from small import stcli, words

from stcore.models import build


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("photos")
    photos(folder, 600, (40, 120))
    return folder


@pytest.mark.slow  # half a minute each of training that other tests have on small images
@pytest.mark.parametrize("network", ["resnet10t", "vit_tiny_patch16_224"])
def test_an_epoch_on_600_photos(folder, network, tmp_path):
    """From the weights of a network of other classes, as its authors' state dict."""
    load("torch")
    needs_timm()
    import torch

    settings = {"num_classes": 7, "in_channels": 3, "image_size": (64, 64)}
    torch.save(build(f"timm:{network}", "torch", seed=1, **settings).state_dict(), tmp_path / "net.pth")
    asked = {
        "preset": "finetune/adamw",
        "model": f"timm:{network}",
        "init_weights": tmp_path / "net.pth",
        "dataset": f"folder:{folder}",
        "image_size": 64,
        "out": tmp_path / "run",
        "epochs": 1,
        "learning_rate": 1e-3,
        "method": "n-fgsm",
        "epsilon": "2/255",
        "batch_size": 16,
        "attacks": "fgsm",
        "select_by": "fgsm",
    }
    said = stcli("train", *words(asked), "--new-head", "--skip-broken")
    assert said.code == 0, said.err
    assert "note: 3 of 603 images were left out" in said.err
    _, *rows = csv.reader((tmp_path / "run" / "images.csv").read_text().splitlines())
    assert {file for file, part, _, _ in rows if part == "left out"} == LEFT_OUT
    counts = Counter((part, label) for _, part, label, _ in rows if part != "left out")
    assert {counts["test", label] for label in CLASSES} == {40}
    assert counts.total() == 600
    (row,) = map(json.loads, (tmp_path / "run" / "metrics.jsonl").read_text().splitlines())
    assert row["loss"] < math.log(3), row  # an even guess
