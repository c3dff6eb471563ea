"""A run that is killed and resumed ends as one without a break, bit for bit."""

import json
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from harness import load

from stcore.errors import UsageError
from stcore.run_states import RunStates, read
from stcore.runs import load_weights
from stcore.training import State

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
    "--save-every",
    "0",
]
TIMES = ("seconds", "images_per_second")
WEIGHTS = ("best", "last", "best-ema", "last-ema")


def command(*words):
    return [sys.executable, "-m", "stcore.cli.main", "train", *map(str, words)]


def metrics(run):
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [{name: value for name, value in row.items() if name not in TIMES} for row in rows]


def kill_at(run, state, *words):
    """Starts a command and kills it when the run's folder holds a state of at least this name."""
    process = subprocess.Popen(command(*words), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while process.poll() is None:
        if any(path.name >= state for path in (run / "state").glob("[0-9]*.safetensors")):
            process.send_signal(signal.SIGKILL)
        time.sleep(0.002)
    return process.wait()


@pytest.mark.parametrize("name", ["torch", "keras"])
def test_killed_twice_and_resumed_it_ends_as_without_a_break(name, tmp_path):
    load(name)
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    subprocess.run(command("--backend", name, *RUN, "--out", whole), check=True, capture_output=True)
    first = kill_at(broken, "00000001-000003", "--backend", name, *RUN, "--out", broken)
    second = kill_at(broken, "00000002-000005", "--resume", broken, "--save-every", 0)
    assert (first, second) == (-signal.SIGKILL, -signal.SIGKILL)
    subprocess.run(command("--resume", broken), check=True, capture_output=True)
    for checkpoint in WEIGHTS:
        one, _ = load_weights(whole / f"{checkpoint}.safetensors")
        other, _ = load_weights(broken / f"{checkpoint}.safetensors")
        assert one.keys() == other.keys()
        assert all(np.array_equal(one[key], other[key]) for key in one)
    assert metrics(whole) == metrics(broken)
    results = [json.loads((run / "result.json").read_text())["checkpoints"] for run in (whole, broken)]
    assert results[0] == results[1]
    assert not (broken / "state").exists()


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
    assert "threads = 1, and goes on with 2" in said[0]


def test_a_state_says_where_it_stands(tmp_path):
    state, about = read(states(tmp_path)[-1])
    assert state.place["under_way"]["steps"] == 3
    assert about == {"threads": 1}
