"""`stcli sweep`: which runs a grid asks for, what each is given, and that a kill loses none of them."""

import json
import os
import re
import shutil
import signal
from pathlib import Path
from unittest import mock

import factories
import forked
import pytest
from hypothesis import given
from hypothesis import strategies as st
from small import SETTINGS, contents, stcli, train, words

from stcore.base.weights_file import load_weights
from stcore.cli import grid
from stcore.cli.jobs import child_command
from stcore.errors import UsageError
from stcore.runs.plan import make_plan

SMALL = [*words({**SETTINGS, "threads": 1})]


def dry(*args):
    """The runs that a sweep is to make, by the name of their folder."""
    said = stcli("sweep", *args, "--dry-run", "--json")
    assert said.code == 0, said.err
    return {run["run"].partition("/")[2]: run for run in json.loads(said.out)}


# Which runs


def test_all_combinations_each_in_a_folder_named_by_its_point():
    runs = dry("--vary", "beta=1,6.0", "--vary", "method=trades,st", "--out", "sweep", "--epochs", "2")
    assert list(runs) == ["method=trades,beta=1", "method=st,beta=1", "method=trades,beta=6", "method=st,beta=6"]
    assert runs["method=st,beta=6"]["settings"] == {"beta": 6.0, "method": "st"}
    assert {run["state"] for run in runs.values()} == {"to train"}


def test_seeds_are_folders_within(tmp_path):
    runs = dry("--vary", "beta=1,2", "--seeds", "1..2", "--out", "sweep")
    assert list(runs) == ["beta=1/seed1", "beta=1/seed2", "beta=2/seed1", "beta=2/seed2"]
    assert runs["beta=2/seed1"]["seed"] == 1


@given(st.lists(st.floats(0, 100, allow_nan=False), min_size=1, max_size=5), st.permutations(["beta", "method"]))
def test_a_points_name_is_the_same_in_whatever_order_it_is_asked_for(betas, order):
    of = {"beta": f"beta={','.join(map(repr, betas))}", "method": "method=st"}
    for point in grid.points([of[name] for name in order], None):
        plan = make_plan({"beta": float(point["beta"])})
        assert grid.label(point, plan) == f"method=st,beta={float(point['beta']):g}"


@pytest.mark.parametrize(
    ("name", "values", "names"),
    [
        ("epsilon", "4/255,0.2", ["epsilon=0.0156863", "epsilon=0.2"]),
        ("nesterov", "yes,false", ["nesterov=yes", "nesterov=no"]),
        ("awp", "none,0.005", ["awp=none", "awp=0.005"]),
        ("batch-size", "16,32", ["batch_size=16", "batch_size=32"]),
        ("drops", "0.5,0.75", ["drops=0.5", "drops=0.75"]),
        ("dataset", "digits,npz:a/b", ["dataset=digits", "dataset=npz-a-b"]),
    ],
)
def test_values_are_read_as_options_are(name, values, names):
    assert list(dry("--vary", f"{name}={values}", "--out", "sweep", "--preset", "digits")) == names


def test_the_papers_figure_6_is_a_sweep_of_its_presets():
    """By Table 2: 32 networks."""
    runs = dry("--vary", "preset=table2", "--out", "sweep")
    assert len(runs) == 32
    assert list(dry("--vary", "preset=table2/st/js", "--out", "sweep")) == [
        f"preset=table2-st-js-beta-{beta}" for beta in (6, 8, 12, 16)
    ]


def test_a_file_may_hold_a_grid_that_is_no_product(tmp_path):
    (tmp_path / "grid.toml").write_text(
        'epochs = [1, 2]\nattacks = "fgsm,pgd20"\n'
        '[[grid]]\nmethod = "standard"\n'
        '[[grid]]\nmethod = ["st"]\nbeta = [2, 4.5]\n'
    )
    runs = dry("--grid", tmp_path / "grid.toml", "--vary", "nesterov=no", "--out", "sweep")
    assert list(runs) == [
        f"{method},epochs={epochs},nesterov=no{beta},attacks=fgsm+pgd20"
        for method, betas in (("method=standard", [""]), ("method=st", [",beta=2", ",beta=4.5"]))
        for epochs in (1, 2)
        for beta in betas
    ]


@pytest.mark.parametrize(
    ("args", "message"),
    [
        ([], "vary: expected settings, such as --vary beta=1,2,4, or --grid FILE; received none"),
        (["--vary", "beta"], "vary: expected a setting and its values"),
        (["--vary", "beta="], "vary: expected values of beta, such as beta=1,2; received ''"),
        (["--vary", "beta=1,,2"], "vary: expected values of beta"),
        (["--vary", "betta=1"], "received 'betta'; known are backend, dataset"),
        (["--vary", "seed=1,2"], "received seed, which is by --seeds"),
        (["--vary", "out=a,b"], "received out, which is the sweep's own"),
        (["--vary", "device=cpu"], "received device, which is by --devices"),
        (["--vary", "beta=1", "--vary", "beta=2"], "vary: expected beta once; received it twice"),
        (["--vary", "beta=1,1.0"], "vary: expected each run once; received beta=1 twice"),
        (["--vary", "beta=1,2", "--beta", "3"], "vary: expected no --beta with its values"),
        (["--vary", "beta=1,x"], "--beta=x"),
        (["--vary", "beta=1,-1"], "--beta=-1: beta: expected"),
        (["--vary", "method=st,standard", "--vary", "beta=1"], "--method=standard --beta=1: beta"),
        (["--vary", "nesterov=1"], "vary: expected yes or no for nesterov; received '1'"),
        (["--vary", "beta=1", "--resume", "runs/x"], "resume: expected none"),
        (["--vary", "beta=1", "--seeds", "1..2", "--seed", "3"], "seeds: expected no --seed with it"),
        (["--vary", "beta=1", "--devices", "cpu,"], "devices: expected devices"),
        (["--vary", "beta=1", "--grid", "none.toml"], "none.toml cannot be read"),
    ],
)
def test_usage_errors_come_before_any_run(args, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    said = stcli("sweep", *args, "--out", "sweep")
    assert (said.code, said.out) == (2, "")
    assert message in said.err
    assert list(tmp_path.iterdir()) == []


def test_a_sweep_has_a_folder():
    said = stcli("sweep", "--vary", "beta=1")
    assert said.code == 2
    assert "out: expected a folder for the sweep's runs" in said.err


def test_a_file_of_something_else_is_a_usage_error(tmp_path):
    (tmp_path / "grid.toml").write_text("grid = 3\n")
    with pytest.raises(UsageError, match=r"grid: expected tables \[\[grid\]\]; received 3"):
        grid.points([], str(tmp_path / "grid.toml"))


# Runs


def sweep_in(out, *args):
    """Tiny runs, forked."""
    pytest.importorskip("torch")
    with mock.patch("stcore.cli.children.subprocess", forked.CHILDREN):
        return stcli("sweep", *SMALL, "--out", out, *args)


def test_a_sweep_goes_on_that_an_earlier_version_began(tmp_path):
    """Its runs' configs lack the settings that came since, which are as they were before."""
    words = ["--vary", "beta=1"]
    assert sweep_in(tmp_path, *words).code == 0
    config = tmp_path / "beta=1" / "config.toml"
    lines = config.read_text().splitlines()
    kept = [line for line in lines if not line.startswith("label_smoothing")]
    assert len(kept) == len(lines) - 1
    config.write_text("\n".join(kept) + "\n")
    said = sweep_in(tmp_path, *words)
    assert (said.code, "[1/1 beta=1] finished before" in said.out) == (0, True), said.err


def test_a_failed_run_is_told_and_the_others_go_on(tmp_path):
    """One folder holds what is no run."""
    (tmp_path / "beta=1").mkdir()
    (tmp_path / "beta=1" / "notes.txt").touch()
    said = sweep_in(tmp_path, "--vary", "beta=1,2")
    assert said.code == 2
    assert "stcli: 1/2 beta=1 ended with exit code 2; its last lines:\n    stcli: out: expected a new" in said.err
    assert "[2/2 beta=2] epoch   1/1" in said.out
    assert "- best checkpoint, test split" in said.out

    before = contents(tmp_path)
    said = sweep_in(tmp_path, "--vary", "beta=2", "--epochs", "2")
    assert (said.code, said.out) == (2, "")
    assert "beta=2 holds another run: its epochs is 1, here it is 2" in said.err
    said = sweep_in(tmp_path, "--vary", "beta=2", "--seed", "5")
    assert "its seed is 0, here it is 5" in said.err
    said = sweep_in(tmp_path, "--vary", "beta=2", "--seeds", "1..2")
    assert "is a run itself" in said.err
    assert contents(tmp_path) == before

    said = sweep_in(tmp_path, "--vary", "beta=2", "--json")  # another grid
    (run,) = json.loads(said.out)
    assert (said.code, run["exit_code"], run["settings"]) == (0, 0, {"beta": 2.0})
    assert "finished before" in said.err
    assert run["checkpoints"] == json.loads((tmp_path / "beta=2" / "result.json").read_text())["checkpoints"]
    assert contents(tmp_path) == before


def test_a_kill_before_anything_was_trained_is_no_failure(tmp_path):
    """In the moments between the first files of a run."""
    (tmp_path / "beta=1").mkdir()
    (tmp_path / "beta=1" / ".config.toml.123.part").write_text("epo")
    assert train(tmp_path / "beta=2", beta=2, threads=1).code == 0
    for path in (tmp_path / "beta=2").iterdir():
        if path.name != "config.toml":
            path.unlink()
    said = sweep_in(tmp_path, "--vary", "beta=1,2")
    assert said.code == 0, said.err
    for beta in (1, 2):
        assert {"result.json", "environment.json"} <= {path.name for path in (tmp_path / f"beta={beta}").iterdir()}


def test_runs_killed_in_the_middle_and_resumed_lose_none(tmp_path):
    """SIGKILL to the process group in the third run; then the same command. Each run ends as it does alone."""
    pytest.importorskip("torch")
    settings = {**SETTINGS, "threads": 1, "epochs": 4, "steps": 2}
    command = ["sweep", *words({**settings, "out": tmp_path / "sweep"})]
    command += ["--vary", "method=trades,st", "--vary", "beta=1,6"]
    names = [f"method={method},beta={beta}" for method in ("trades", "st") for beta in (1, 6)]
    run = forked.Forked(*forked.STCLI, *command, new_session=True)
    for line in run.stdout:
        if line.startswith(f"[3/4 {names[2]}] epoch   2/"):
            os.killpg(run.pid, signal.SIGKILL)
            break
    assert run.wait() == -signal.SIGKILL
    finished = [(tmp_path / "sweep" / name / "result.json").is_file() for name in names]
    assert finished == [True, True, False, False]
    states = [run["state"] for run in dry(*command[1:]).values()]
    assert states[:2] + states[3:] == ["finished"] * 2 + ["to train"]
    assert re.fullmatch(r"resumes after [1-4] of 4 epochs", states[2])

    again, _ = forked.forked(*forked.STCLI, *command)
    assert again.count("finished before") == 2
    assert "epoch   1/" not in "".join(line for line in again.splitlines() if line.startswith("[3/4"))
    for name in names:
        method, beta = (word.partition("=")[2] for word in name.split(","))
        assert train(tmp_path / name, **{**settings, "method": method, "beta": beta}).code == 0
        ours, alone = (folder / name for folder in (tmp_path / "sweep", tmp_path))
        results = [json.loads((path / "result.json").read_text()) for path in (ours, alone)]
        assert results[0]["checkpoints"] == results[1]["checkpoints"]
        for checkpoint in ("best", "last"):
            pair = [load_weights(path / f"{checkpoint}.safetensors")[0] for path in (ours, alone)]
            assert pair[0].keys() == pair[1].keys()
            assert all((pair[0][key] == pair[1][key]).all() for key in pair[0])


def test_a_sweep_runs_where_a_folder_hides_the_package(tmp_path, monkeypatch):
    """As from the root of a checkout, while another stcore is installed. User modules are found there."""
    pytest.importorskip("torch")
    (tmp_path / "stcore").mkdir()
    (tmp_path / "stcore" / "__init__.py").write_text("raise RuntimeError('the decoy was imported')\n")
    shutil.copy(Path(factories.__file__), tmp_path / "mine.py")
    monkeypatch.chdir(tmp_path)
    said = stcli(
        "sweep", *SMALL, "--out", tmp_path / "sweep", "--vary", "beta=1", "--model", "mine:torch_transformer"
    )
    assert said.code == 0, said.err
    assert (tmp_path / "sweep" / "beta=1" / "result.json").is_file()


def test_a_child_ends_when_its_parent_is_gone(tmp_path):
    """However the parent ends, the pipe is closed; an orphan would go on writing where the next command does."""
    pytest.importorskip("torch")
    command = child_command(
        ["train", *words({**SETTINGS, "threads": 1, "epochs": 10_000, "out": tmp_path / "run"})]
    )
    run = forked.Forked(*command[2:])
    try:
        for line in run.stdout:
            if line.startswith("epoch"):
                break
        run.stdin.close()
        assert run.wait(timeout=20) == 137
    finally:
        run.kill()
