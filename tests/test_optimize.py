"""`stcli sweep --optimize`: what is searched, which runs are stopped, and that a kill loses no trial."""

import json
import os
import re
import signal
import subprocess
import time
from pathlib import Path

import pytest
from small import SETTINGS, stcli, words

optuna = pytest.importorskip("optuna")

from stcore import errors  # noqa: E402
from stcore.base.files import write_file  # noqa: E402
from stcore.cli import optimize  # noqa: E402
from stcore.cli.children import Ended  # noqa: E402
from stcore.cli.jobs import child_command  # noqa: E402
from stcore.cli.search_space import Range, Values, space_of  # noqa: E402
from stcore.errors import DataError, UsageError  # noqa: E402
from stcore.runs.folder import RunFolder  # noqa: E402

SPACE = ["--vary", "learning_rate=0.001..1:log", "--vary", "beta=1,6"]
EPOCHS = 5


class Killed(BaseException):
    """As a kill: nothing is recorded any more."""


class Runs:
    """In place of the training: robust accuracy rises with the learning rate. Killed in the `kill`-th run."""

    def __init__(self, monkeypatch, kill=None):
        self.begun, self.kill = [], kill
        monkeypatch.setattr(optimize, "run_job", self)

    def __call__(self, children, job, mark, device, seconds, heed):
        rate = job.plan.optimisation.learning_rate
        self.begun.append((job.folder, job.begun))
        if not job.begun:
            RunFolder.create(job.folder)
            RunFolder(job.folder).write_config(job.plan.flat())
        for epoch in range(1, EPOCHS + 1):
            rows = [{"epoch": n, "pgd20_accuracy": min(1.0, rate * n / EPOCHS)} for n in range(1, epoch + 1)]
            write_file(job.folder / "metrics.jsonl", "".join(f"{json.dumps(row)}\n" for row in rows))
            if len(self.begun) == self.kill and epoch == 3:
                raise Killed
            if heed():
                return Ended(errors.INTERRUPTED, ())
        score = {"natural": {"correct": 5, "total": 10, "accuracy": 0.5, "interval_95": [0.2, 0.8]}}
        result = {"checkpoints": {"best": score, "last": score}}
        rows = [{**row, "seconds": 1.0, "images_per_second": 1.0} for row in rows]
        write_file(job.folder / "metrics.jsonl", "".join(f"{json.dumps(row)}\n" for row in rows))
        RunFolder(job.folder).write_json("result.json", result)
        RunFolder(job.folder).write_json("environment.json", {"data": {}})
        return Ended(errors.OK, ())


def search(out, trials=12, *args):
    settings = words({**SETTINGS, "epochs": EPOCHS, "out": out})
    return stcli("sweep", *settings, "--optimize", "pgd20", "--trials", trials, *SPACE, *args)


def study(out):
    return optuna.load_study(study_name="stcli sweep", storage=f"sqlite:///{out / optimize.STORAGE}")


def test_twelve_trials_killed_in_the_fifth_and_resumed(tmp_path, monkeypatch):
    """The broken-off run is continued first; the others are proposed once; some are stopped below the median."""
    first = Runs(monkeypatch, kill=5)
    with pytest.raises(Killed):
        search(tmp_path)
    assert len(first.begun) == 5
    then = Runs(monkeypatch)
    said = search(tmp_path)
    assert said.code == 0, said.err
    assert then.begun[0] == (first.begun[-1][0], True)
    assert len({folder for folder, _ in first.begun + then.begun}) == 12
    states = [trial.state.name for trial in study(tmp_path).trials]
    assert (states.count("COMPLETE") + states.count("PRUNED"), states.count("FAIL")) == (12, 1)
    assert states.count("PRUNED") >= 1
    stopped = [trial for trial in study(tmp_path).trials if trial.state.name == "PRUNED"]
    for trial in stopped:
        assert not (Path(trial.user_attrs["run"]) / "result.json").exists()
        assert f"learning_rate={trial.params['learning_rate']:.4g}"[:18] in trial.user_attrs["run"]
    assert re.search(r"\[trial \d+: .*\] stopped: its pgd20 is below the median", said.out)
    best = max((t for t in study(tmp_path).trials if t.value is not None), key=lambda trial: trial.value)
    assert f"best of 12 trials: pgd20 {100 * best.value:.2f} %" in said.out
    assert best.user_attrs["run"] in said.out
    assert Runs(monkeypatch).begun == []
    assert search(tmp_path).code == 0


def test_json_tells_each_trial_and_more_may_be_asked_for(tmp_path, monkeypatch):
    Runs(monkeypatch)
    assert search(tmp_path, 3).code == 0
    told = json.loads(search(tmp_path, 5, "--json").out)
    assert [one["trial"] for one in told] == [1, 2, 3, 4, 5]
    assert all(one["state"] in ("complete", "pruned") for one in told)
    assert {"learning_rate", "beta"} == told[0]["settings"].keys()
    for one in told:
        assert (Path(one["run"]) / "config.toml").is_file()


def test_a_failed_run_is_a_trial_and_the_exit_code(tmp_path, monkeypatch):
    Runs(monkeypatch)
    monkeypatch.setattr(optimize, "run_job", lambda *_: Ended(DataError.exit_code, ("no such data",)))
    said = search(tmp_path, 2)
    assert said.code == DataError.exit_code
    assert "no such data" in said.err
    assert [trial.state.name for trial in study(tmp_path).trials] == ["FAIL", "FAIL"]


def test_a_stopped_search_leaves_its_trial_open(tmp_path, monkeypatch):
    Runs(monkeypatch)
    monkeypatch.setattr(optimize, "run_job", lambda *_: Ended(errors.INTERRUPTED, ()))
    assert search(tmp_path, 2).code == errors.INTERRUPTED
    assert [trial.state.name for trial in study(tmp_path).trials] == ["RUNNING"]
    then = Runs(monkeypatch)
    assert search(tmp_path, 2).code == 0
    assert len(then.begun) == 2


def test_a_point_that_was_trained_is_not_trained_again(tmp_path, monkeypatch):
    runs = Runs(monkeypatch)
    given = words({**SETTINGS, "epochs": EPOCHS, "out": tmp_path})
    said = stcli("sweep", *given, "--optimize", "pgd20", "--trials", 6, "--vary", "learning_rate=0.1,0.2")
    assert said.code == 0, said.err
    assert len(runs.begun) == 2
    assert len(study(tmp_path).trials) == 6


def test_the_space():
    space = space_of(["learning-rate=1/1000..1:log", "steps=1..10", "beta=1,6", "method=st,trades"])
    assert space == {
        "learning_rate": Range(0.001, 1, log=True, whole=False),
        "steps": Range(1, 10, log=False, whole=True),
        "beta": Values(("1", "6")),
        "method": Values(("st", "trades")),
    }
    drawn = {name: where.suggest(optuna.trial.FixedTrial(POINT), name) for name, where in space.items()}
    assert drawn == {"learning_rate": "0.1235", "steps": "3", "beta": "6", "method": "st"}


POINT = {"learning_rate": 0.123456, "steps": 3, "beta": "6", "method": "st"}


@pytest.mark.parametrize(
    ("vary", "said"),
    [
        ("learning_rate=1..0.1", "expected a range such as learning_rate=0.01..0.3"),
        ("learning_rate=0..1:log", "above 0 with :log"),
        ("learning_rate=a..b", "expected a range such as"),
        ("steps=1.5..3", "steps is a whole number, so its ends are"),
        ("learning_rat=0.1..0.2", "Did you mean 'learning_rate'"),
        ("seed=1..3", "which is by --seeds 1..7"),
    ],
)
def test_what_is_no_range_is_refused(vary, said):
    with pytest.raises(UsageError, match=re.escape(said)):
        space_of([vary])


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (["--optimize", "autoattack"], "expected a figure of every epoch, one of natural, pgd20"),
        (["--optimize", "pgd20", "--dry-run"], "expected no --dry-run with it"),
        (["--optimize", "pgd20", "--seeds", "1..3"], "expected no --seeds with it"),
        (["--optimize", "pgd20", "--out", ""], "out: expected"),
    ],
)
def test_what_does_not_go_with_a_search_is_refused(tmp_path, args, said):
    given = ["--out", tmp_path, "--vary", "beta=1..6", *args]
    answer = stcli("sweep", *words(SETTINGS), *given)
    assert answer.code == UsageError.exit_code
    assert said in answer.err


def test_another_search_does_not_join_it(tmp_path, monkeypatch):
    Runs(monkeypatch)
    assert search(tmp_path, 1).code == 0
    for args in (["--epochs", 9], ["--optimize", "natural"], ["--vary", "steps=1..3"]):
        said = search(tmp_path, 2, *args)
        assert said.code == UsageError.exit_code
        assert "holds another search" in said.err


@pytest.mark.slow  # a minute: thirteen runs in processes of their own
def test_a_real_search_survives_a_kill(tmp_path):
    fast = {"method": "n-fgsm", "epochs": 4, "train_size": 400, "validation_size": 200, "model": "small-cnn"}
    settings = {**SETTINGS, **fast, "threads": 1, "attacks": "fgsm"}
    asked = [*words({**settings, "out": tmp_path}), "--optimize", "natural", "--trials", "12"]
    command = child_command(["sweep", *asked, "--vary", "learning_rate=0.02..0.5"])
    piped = {"stdin": subprocess.PIPE, "stdout": subprocess.DEVNULL}  # a child ends when its input does
    process = subprocess.Popen(command, **piped, start_new_session=True)
    while not (tmp_path / optimize.STORAGE).is_file() or len(study(tmp_path).trials) < 5:
        time.sleep(0.1)
        assert process.poll() is None
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    with subprocess.Popen(command, **piped) as again:
        assert again.wait(300) == 0
    states = [trial.state.name for trial in study(tmp_path).trials]
    assert states.count("COMPLETE") + states.count("PRUNED") == 12
    assert states.count("FAIL") <= 1
    assert states.count("PRUNED") >= 1
