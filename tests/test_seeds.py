"""`stcli train --seeds`: what is asked for, tiny runs in processes of their own, failures, signals; `--json`."""

import json
import os
import re
import signal
import sys
import threading
from dataclasses import replace
from pathlib import Path
from unittest import mock

import forked
import pytest
from hypothesis import given
from hypothesis import strategies as st
from small import SETTINGS, contents, stcli, train, trained, words

from stcore.base.weights_file import load_weights
from stcore.cli.children import Children
from stcore.cli.jobs import Job
from stcore.cli.seeds import MOST, parse_seeds, without
from stcore.errors import UsageError
from stcore.runs.folder import RunFolder
from stcore.runs.plan import make_plan

SMALL = {"model": "tiny", "train_size": 100, "validation_size": 32, "test_size": 32, "batch_size": 50}


@pytest.fixture(autouse=True)
def torch():
    return pytest.importorskip("torch")


def train_seeds(out, *args, **settings):
    """Tiny runs, forked; with two devices, two at a time."""
    with mock.patch("stcore.cli.children.subprocess", forked.CHILDREN):
        return stcli("train", *words({**SMALL, "epochs": 1, "threads": 1, "out": out, **settings}), *args)


# What is asked for


@given(st.lists(st.tuples(st.integers(0, 50), st.integers(0, 12), st.booleans()), min_size=1, max_size=6))
def test_ranges_and_lists_are_the_seeds_they_say(parts):
    """By another reading: each range written out as a list means the same."""
    ranges = [(first, first + more) for first, more, _ in parts]
    said = ",".join(
        f"{first}..{last}" if last > first or always else str(first)
        for (first, last), (_, _, always) in zip(ranges, parts, strict=True)
    )
    seeds = [seed for first, last in ranges for seed in range(first, last + 1)]
    if len(set(seeds)) < len(seeds):
        with pytest.raises(UsageError, match="more than once"):
            parse_seeds(said)
    else:
        assert parse_seeds(said) == parse_seeds(",".join(map(str, seeds))) == tuple(seeds)


@pytest.mark.parametrize(
    ("said", "seeds"),
    [("1..7", (1, 2, 3, 4, 5, 6, 7)), ("1,2,5", (1, 2, 5)), ("1..3,7", (1, 2, 3, 7)), ("9, 0..1", (9, 0, 1))],
)
def test_seeds_as_they_are_written(said, seeds):
    assert parse_seeds(said) == seeds


@given(st.text(st.sampled_from("0123456789.,- a٣"), max_size=8))
def test_whatever_is_written_is_seeds_or_a_usage_error(said):
    try:
        seeds = parse_seeds(said)
    except UsageError:
        return
    assert seeds
    assert all(seed >= 0 for seed in seeds)
    assert re.fullmatch(r"[0-9., ]+", said)


@pytest.mark.parametrize(
    "said", ["", "7..1", "1...3", "1..", "..3", "-1", "1.5", "a", "1,,2", "1..3..5", f"1..{MOST + 1}"]
)
def test_what_is_no_seeds(said, tmp_path):
    said = stcli("train", f"--seeds={said}", "--out", tmp_path / "runs")
    assert (said.code, said.out) == (2, "")
    assert "seeds: expected" in said.err
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["--seeds", "1..2", "--seed", "3"], "seeds: expected no --seed with it"),
        (["--seeds", "1..2", "--resume", "runs/x"], "seeds: expected no --resume with it"),
        (["--devices", "cpu,cpu"], "devices: expected --seeds with it"),
        (["--seeds", "1..2", "--devices", "cpu", "--device", "cpu"], "devices: expected no --device with it"),
        (["--seeds", "1..2", "--devices", "cpu,"], "devices: expected devices such as cuda:0,cuda:1"),
        (["--seeds", "1..2", "--epochs", "0"], "epochs: expected a whole number of at least 1"),
    ],
)
def test_usage_errors_come_before_any_run(args, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    said = stcli("train", *args)
    assert (said.code, said.out) == (2, "")
    assert message in said.err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["seeds", "devices", "json"])
def test_a_file_does_not_ask_for_several_runs(tmp_path, name):
    (tmp_path / "x.toml").write_text(f"{name} = {'true' if name == 'json' else repr('1')}\n")
    said = stcli("train", "--config", tmp_path / "x.toml")
    assert said.code == 2
    assert f"{name}: expected as a flag, not in a file" in said.err


def test_options_are_taken_out_with_their_values():
    args = ["--seeds", "1..2", "--epochs", "3", "--json", "--devices=cpu", "--out", "x"]
    assert without(args, "seeds", "devices", "json") == ["--epochs", "3", "--out", "x"]


def test_what_is_done_for_a_run(tmp_path):
    args = ("--epochs", "1", "--save-every", "60", "--seed", "3")
    fresh, begun = (Job("seed 3", tmp_path / name, args, make_plan({}), {"seed": 3}) for name in ("new", "old"))
    RunFolder.create(tmp_path / "old").write_config({"device": "cuda:1"})
    assert (fresh.device, begun.device) == (None, "cuda:1")
    on = ["--device", "cuda:0", "--max-hours", "1.500000"]
    begin, go_on = ["train", *args, "--out", f"{tmp_path}/new"], ["train", "--resume", f"{tmp_path}/old"]
    assert fresh.words(None, None) == begin
    assert fresh.words("cuda:0", 1.5) == [*begin, *on]
    assert begun.words(None, None) == [*go_on, "--save-every", "60"]
    assert replace(begun, args=()).words("cuda:0", 1.5) == [*go_on, *on]


# Runs


def test_each_seed_is_a_run_as_it_is_alone_and_is_not_made_again(tmp_path):
    out = tmp_path / "runs"
    said = train_seeds(out, "--seeds", "3,5")
    assert (said.code, said.err) == (0, "")
    assert sorted(path.name for path in out.iterdir()) == ["seed3", "seed5"]
    lines = said.out.splitlines()
    for seed in (3, 5):
        assert any(line.startswith(f"[seed {seed}] epoch   1/1") for line in lines)
    assert [line for line in lines if line.startswith("| 3, 5 |")]  # the table of `best`, and of `last`
    for checkpoint in ("best", "last"):
        assert f"- {checkpoint} checkpoint, test split; mean ± 95 % t-interval over seeds" in lines

    alone = stcli("train", *words({**SMALL, "epochs": 1, "threads": 1, "out": tmp_path / "alone", "seed": 5}))
    assert alone.code == 0
    result = [json.loads((path / "result.json").read_text()) for path in (out / "seed5", tmp_path / "alone")]
    assert result[0]["checkpoints"] == result[1]["checkpoints"]

    before = contents(out)
    again = train_seeds(out, "--seeds", "3,5")
    assert again.code == 0
    assert again.out.splitlines()[:2] == [f"[seed {seed}] finished before: {out}/seed{seed}" for seed in (3, 5)]
    assert again.out.splitlines()[2:] == lines[-len(again.out.splitlines()[2:]) :]  # the tables
    assert contents(out) == before


def test_one_seed_fails_and_the_others_go_on_two_at_a_time(tmp_path):
    out = tmp_path / "runs"
    (out / "seed2").mkdir(parents=True)
    (out / "seed2" / "notes.txt").write_text("not a run")
    said = train_seeds(out, "--seeds", "1..3", "--devices", "cpu,cpu")
    assert said.code == 2  # as the failing run ended
    assert (
        "stcli: seed 2 ended with exit code 2; its last lines:\n    stcli: out: expected a new or empty"
        in said.err
    )
    assert "| 1, 3 |" in said.out
    assert contents(out / "seed2").keys() == {"notes.txt"}

    (out / "seed2" / "notes.txt").unlink()
    said = train_seeds(out, "--seeds", "1..3", "--devices", "cpu", "--json")
    assert said.code == 0
    runs = json.loads(said.out)
    assert [(run["seed"], run["exit_code"], run["run"]) for run in runs] == [
        (seed, 0, str(out / f"seed{seed}")) for seed in (1, 2, 3)
    ]
    for run in runs:
        assert run["checkpoints"] == json.loads((Path(run["run"]) / "result.json").read_text())["checkpoints"]
    assert "[seed 2] epoch" in said.err
    assert "[seed 1] epoch" not in said.err


def test_another_commands_runs_are_not_taken_for_its_own(tmp_path):
    out = tmp_path / "runs"
    assert train(out / "seed1", seed=1).code == 0
    before = contents(out)
    said = stcli("train", *words({**SETTINGS, "epochs": 2, "out": out}), "--seeds", "1..2")
    assert (said.code, said.out) == (2, "")
    assert f"out: {out}/seed1 holds another run: its epochs is 1, here it is 2. Choose another --out" in said.err
    said = stcli("train", *words({**SETTINGS, "out": out / "seed1"}), "--seeds", "1..2")
    assert said.code == 2
    assert "is a run itself" in said.err
    assert contents(out) == before


def test_a_failed_seed_is_said_in_json_too(tmp_path):
    (tmp_path / "seed4").mkdir()
    (tmp_path / "seed4" / "notes.txt").touch()
    said = train_seeds(tmp_path, "--seeds", "4", "--json")
    (run,) = json.loads(said.out)
    assert (said.code, run["seed"], run["exit_code"]) == (2, 4, 2)
    assert "expected a new or empty folder" in run["last_lines"][-1]
    assert "checkpoints" not in run


def test_a_runs_result_as_json(tmp_path):
    said = train(tmp_path / "run", "--json")
    assert said.code == 0
    result = json.loads((tmp_path / "run" / "result.json").read_text())
    del result["checksum"]
    assert json.loads(said.out) == {"run": str(tmp_path / "run"), **result}
    assert "epoch   1/1" in said.err
    assert trained("torch").said.out.count("epoch   1/2") == 1  # without it, all is on stdout


# Signals


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_goes_to_all_that_run_and_none_begins_after(number):
    code = f"""
import signal, sys, time
def stop(number, frame):
    print("saved", number)
    sys.exit(130)
signal.signal({int(number)}, stop)
print("ready")
time.sleep(60)
"""
    said, ready = [], threading.Semaphore(0)

    def say(line):
        said.append(line)
        if line.endswith("ready"):
            ready.release()

    def send():
        assert ready.acquire(timeout=30)
        assert ready.acquire(timeout=30)
        os.kill(os.getpid(), number)

    found, before = {}, signal.getsignal(signal.SIGINT)
    with Children(say) as children:
        runs = [
            threading.Thread(
                target=lambda name=name: found.update({name: children.run(name, [sys.executable, "-c", code])})
            )
            for name in ("[a]", "[b]")
        ]
        for thread in [*runs, threading.Thread(target=send)]:
            thread.start()
        for thread in runs:
            thread.join(timeout=60)
        assert children.run("[c]", [sys.executable, "-c", "print('late')"]) is None
    assert {how.code for how in found.values()} == {130}
    assert sorted(said[2:]) == [f"[a] saved {int(number)}", f"[b] saved {int(number)}"]
    assert signal.getsignal(signal.SIGINT) is before


def test_a_command_that_is_killed_has_a_shells_code_and_its_last_lines():
    code = "import os\nfor n in range(20): print(n, flush=True)\nos.kill(os.getpid(), 9)"
    with Children(lambda line: None) as children:
        how = children.run("[a]", [sys.executable, "-c", code])
    assert how.code == 128 + signal.SIGKILL
    assert how.last_lines == tuple(map(str, range(12, 20)))


def test_ctrl_c_keeps_what_was_trained_and_the_same_command_goes_on(tmp_path):
    settings = {**SMALL, "epochs": 5, "threads": 1, "seeds": "1..2"}
    command = [*forked.STCLI, "train", *words({**settings, "out": tmp_path / "runs"})]
    run = forked.Forked(*command, new_session=True)
    for line in run.stdout:
        if line.startswith("[seed 1] epoch   2/"):
            break
    run.send_signal(signal.SIGINT)
    out, err = forked.ended(run, 130)
    assert "[seed 1] interrupted after" in out
    assert "stcli: interrupted; run the same command again to resume" in err
    assert sorted(path.name for path in (tmp_path / "runs").iterdir()) == ["seed1"]

    again, _ = forked.forked(*command)
    assert "[seed 1] epoch   1/" not in again
    assert "[seed 2] epoch   1/" in again
    assert "| 1, 2 |" in again
    alone = train_seeds(tmp_path / "alone", **{**settings, "seeds": "1"})
    assert alone.code == 0
    runs, alone = (load_weights(tmp_path / name / "seed1" / "last.safetensors")[0] for name in ("runs", "alone"))
    assert runs.keys() == alone.keys()
    assert all((runs[name] == alone[name]).all() for name in runs)


def test_the_hours_are_those_of_all_seeds_together(tmp_path):
    said = train_seeds(tmp_path / "runs", "--seeds", "1..3", "--max-hours", "0", epochs=40)
    assert said.code == 130
    assert "seed 1 ended with exit code 130" in said.err
    assert "interrupted; run the same command again to resume" in said.err
    assert sorted(path.name for path in (tmp_path / "runs").iterdir()) == ["seed1"]
    assert train_seeds(tmp_path / "runs", "--seeds", "1..3", epochs=1).code == 2  # no longer the same command
