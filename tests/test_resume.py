"""A run that is killed and resumed ends as one without a break, bit for bit."""

import json
import shutil
import signal
import time
import warnings

import numpy as np
import pytest
from forked import Forked, forked
from harness import load
from small import SETTINGS, contents, stcli, train, trained

from stcore import models
from stcore.base.weights_file import load_weights, save_weights
from stcore.errors import UsageError
from stcore.runs.plan import make_plan
from stcore.runs.preparation import Setup, set_up
from stcore.runs.states import RunStates, read
from stcore.training.state import State

RUN = [
    "--model",
    "tiny",
    "--epochs",
    "3",
    "--train-size",
    "200",
    "--validation-size",
    "40",
    "--test-size",
    "40",
    "--batch-size",
    "32",
    "--steps",
    "2",
    "--threads",
    "1",
    "--ema",
    "0.9",
    "--awp",
    "0.005",
    "--teacher",
    "average",
    "--divergence",
    "gkl",
    "--ramp",
    "epsilon@1",
    "--save-every",
    "0",
    "--select-by",
    "fgsm",
    "--attacks",
    "fgsm",
]
TIMES = ("seconds", "images_per_second")
WEIGHTS = ("best", "last", "best-ema", "last-ema")


def command(*words):
    return ["-m", "stcore.cli.main", "train", *map(str, words)]


def metrics(run):
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [{name: value for name, value in row.items() if name not in TIMES} for row in rows]


def kill_at(run, state, process):
    """Kills the process when the run's folder holds a state of at least this name; returns how it ended."""
    while process.poll() is None:
        if any(path.name >= state for path in (run / "state").glob("[0-9]*.safetensors")):
            process.send_signal(signal.SIGKILL)
        time.sleep(0.002)
    return process.wait()


@pytest.mark.parametrize(
    ("name", "kills"),
    [("torch", 2), ("keras", 1), pytest.param("keras", 2, marks=pytest.mark.slow)],  # each start is 5 s of tracing
)
def test_killed_and_resumed_it_ends_as_without_a_break(name, kills, tmp_path):
    load(name)
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    begin, go_on = command("--backend", name, *RUN), command("--resume", broken)
    forked(*begin, "--out", whole, backend=name)
    first = kill_at(broken, "00000001-000003", Forked(*begin, "--out", broken, backend=name))
    assert first == -signal.SIGKILL
    if kills == 2:
        second = kill_at(broken, "00000002-000005", Forked(*go_on, "--save-every", 0, backend=name))
        assert second == -signal.SIGKILL
    forked(*go_on, backend=name)
    for checkpoint in WEIGHTS:
        one, _ = load_weights(whole / f"{checkpoint}.safetensors")
        other, _ = load_weights(broken / f"{checkpoint}.safetensors")
        assert one.keys() == other.keys()
        assert all(np.array_equal(one[key], other[key]) for key in one)
    assert metrics(whole) == metrics(broken)
    results = [json.loads((run / "result.json").read_text())["checkpoints"] for run in (whole, broken)]
    assert results[0] == results[1]
    assert not (broken / "state").exists()


def test_a_run_that_is_being_trained_is_left_alone(tmp_path):
    """Two processes in one folder would sweep each other's files away."""
    load("torch")
    run, words = tmp_path / "run", [*RUN, "--epochs", "1000"]  # the later one holds
    process = Forked(*command("--backend", "torch", *words, "--out", run))
    try:
        while not list((run / "state").glob("[0-9]*.safetensors")):
            assert process.poll() is None
            time.sleep(0.01)
        before = stcli("train", "--resume", run)
        assert process.poll() is None
        assert before.code == 2
        assert f"another process is training in {run}" in before.err
    finally:
        process.send_signal(signal.SIGTERM)
        stopped = process.wait()
    assert stopped == 130
    assert stcli("train", "--resume", run, "--max-hours", "1e-9").code == 130  # free again, and nothing was lost


def states(folder, count=3):
    kept = RunStates(folder, 0.0, {"threads": 1})
    for step in range(1, count + 1):
        place = {"under_way": {"epoch": 1, "steps": step}}
        kept.keep(State({"learner/w": np.full(100, float(step))}, place))
    return sorted((folder / "state").iterdir())


def test_the_last_two_states_are_kept(tmp_path):
    assert [path.name for path in states(tmp_path)] == [f"00000001-00000{n}.safetensors" for n in (2, 3)]


@pytest.mark.parametrize("damage", [lambda b: b[:-200], lambda b: b[:-5] + b"xxxxx", lambda b: b"<html>"])
def test_a_damaged_state_gives_way_to_the_one_before_it(damage, tmp_path):
    before, last = states(tmp_path)
    last.write_bytes(damage(last.read_bytes()))
    said = []
    state = RunStates(tmp_path, 0.0, {"threads": 1}).latest(said.append)
    assert state.arrays["learner/w"][0] == 2.0
    assert len(said) == 1
    assert last.name in said[0]
    before.write_bytes(damage(before.read_bytes()))
    with pytest.raises(UsageError, match="all are damaged"):
        RunStates(tmp_path, 0.0, {"threads": 1}).latest(said.append)


def test_what_has_become_otherwise_is_said(tmp_path):
    states(tmp_path)
    said = []
    assert RunStates(tmp_path, 0.0, {"threads": 2}).latest(said.append) is not None
    assert "threads = 1, and resumes with 2" in said[0]


def test_a_state_says_where_it_stands(tmp_path):
    state, about = read(states(tmp_path)[-1])
    assert state.progress["under_way"]["steps"] == 3
    assert about == {"threads": 1, "settings": {}}


# What a run that goes on asks for


def begun(folder, *args, **settings):
    """A run that is stopped after its first step; returns its folder."""
    load(settings.get("backend", "torch"))
    said = train(folder, "--max-hours", "0", *args, **settings)
    assert said.code == 130, said.err
    assert list((folder / "state").iterdir())
    return folder


def test_the_weights_it_started_from_may_be_gone(tmp_path):
    start = tmp_path / "start.safetensors"
    shutil.copy(trained("torch").path / "last.safetensors", start)
    run = begun(tmp_path / "run", "--init-weights", start)
    start.unlink()
    said = stcli("train", "--resume", run)
    assert said.code == 0, said.err


def test_without_a_state_they_are_needed(tmp_path):
    start = tmp_path / "start.safetensors"
    shutil.copy(trained("torch").path / "last.safetensors", start)
    run = begun(tmp_path / "run", "--init-weights", start)
    shutil.rmtree(run / "state")
    start.unlink()
    said = stcli("train", "--resume", run)
    assert said.code == 2
    assert str(start) in said.err


def test_published_weights_are_not_fetched_again(monkeypatch):
    """Whatever a network's library does to get them, it is not asked to."""
    load("keras")
    published = {"model": "keras.applications:MobileNetV2", "normalize": "none", "pretrained": True}
    plan = make_plan({**SETTINGS, "backend": "keras", **published})
    setup, asked = set_up(plan), []

    def build(self, *, pretrained=False):
        asked.append(pretrained)
        return models.build("tiny", "keras", num_classes=10, in_channels=1, image_size=(8, 8))

    monkeypatch.setattr(Setup, "network", build)
    for resumed in (False, True):
        setup.learner(resumed=resumed)
    assert asked == [True, False]


def test_what_is_not_taken_of_other_weights_is_said(tmp_path):
    """Of a network of other classes all but the head; the command says so among its lines."""
    start = tmp_path / "start.safetensors"
    weights, about = load_weights(trained("torch").path / "last.safetensors")
    weights["linear.weight"], weights["linear.bias"] = weights["linear.weight"][:7], weights["linear.bias"][:7]
    save_weights(start, weights, {**about, "num_classes": 7})
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        said = train(tmp_path / "run", "--init-weights", start, "--new-head")
    assert said.code == 0, said.err
    assert "note: new head: linear.bias, linear.weight start afresh" in said.out


def test_a_finished_run_gives_its_result_again():
    run = trained("torch").path
    before = contents(run)
    said = stcli("train", "--resume", run, "--json")
    assert said.code == 0
    result = json.loads((run / "result.json").read_text())
    del result["checksum"]
    assert json.loads(said.out) == {"run": str(run), **result}
    assert "is finished: nothing to resume" in said.err
    plain = stcli("train", "--resume", run)
    assert "is finished: nothing to resume" in plain.out
    assert contents(run) == before
