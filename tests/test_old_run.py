"""Runs that version 0.1.0 left before its modules moved: they resume, evaluate and report.

tests/fixtures/run-0.1.0 holds for each backend a finished run with an evaluation under APGD, and one that Ctrl-C
stopped in its second epoch. They were trained by `stcli train --model factories:BACKEND_few_weights --train-size
200 --validation-size 40 --test-size 40 --batch-size 32 --steps 2 --epsilon 0.1 --learning-rate 0.1`.
"""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from harness import NAMES, load
from reported import undrawn
from small import Run, contents, stcli

OLD = Path(__file__).parent / "fixtures" / "run-0.1.0"
KEPT = ("--attacks", "apgd-ce", "--subset", 16, "--checkpoint", "best", "--epsilon", 0.05)


@pytest.fixture(params=NAMES)
def old(request, tmp_path):
    """A copy of a backend's runs, to write in."""
    load(request.param)  # or skip
    runs = Path(shutil.copytree(OLD / request.param, tmp_path / request.param))
    for config in runs.glob("*/config.toml"):  # TensorFlow cannot change its threads once it has begun
        config.write_text(config.read_text().replace("threads = 1\n", ""))
    return runs


def test_an_old_run_resumes_to_the_end_of_a_run_without_a_break(old):
    broken, whole = old / "interrupted", old / "whole"
    before = (broken / "metrics.jsonl").read_text()
    said = stcli("train", "--resume", broken)
    assert said.code == 0, said.err
    assert stcli("train", "--config", broken / "config.toml", "--out", whole).code == 0

    resumed, expected = (Run(path, said) for path in (broken, whole))
    assert (broken / "metrics.jsonl").read_text().startswith(before)
    assert [row["epoch"] for row in resumed.metrics] == [1, 2, 3]
    assert not (broken / "state").exists()
    for one, other in zip(resumed.metrics, expected.metrics, strict=True):
        np.testing.assert_allclose(one["loss"], other["loss"], rtol=1e-3)
    for name, array in expected.weights().items():
        np.testing.assert_allclose(resumed.weights()[name], array, atol=1e-3)
    assert resumed.json("result.json")["checkpoints"].keys() == {"best", "last"}


def test_an_old_evaluation_is_found_and_new_ones_are_made(old):
    run = old / "finished"
    before = contents(run)
    said = stcli("evaluate", run, *KEPT, "--no-audit")
    assert (said.code, said.err) == (0, "")
    assert "finished before" in said.out
    robust = json.loads(next(run.glob("evaluations/*/best/result.json")).read_text())["accuracies"]["apgd-ce"]
    assert f"{robust['correct']}/{robust['total']}" in said.out
    assert contents(run) == before

    said = stcli("evaluate", run, "--attacks", "fgsm", "--checkpoint", "last", "--json")
    recorded = json.loads((run / "result.json").read_text())["checkpoints"]["last"]
    (found,) = json.loads(said.out).values()
    assert found["natural"] == recorded["natural"]
    assert abs(found["fgsm"]["correct"] - recorded["fgsm"]["correct"]) <= 1  # of 40, on any machine


def test_old_runs_are_reported(old):
    said = stcli("table", old / "finished")
    assert said.code == 0, said.err
    assert "apgd-ce" not in said.err
    pytest.importorskip("matplotlib")
    pytest.importorskip("jinja2")
    with undrawn():
        said = stcli("report", old / "finished", "--out", old / "report.html")
    assert said.code == 0, said.err
    page = (old / "report.html").read_text()
    assert "No examples" not in page
    assert "apgd-ce" in page
