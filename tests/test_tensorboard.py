"""`--tensorboard`: what TensorBoard's own reader finds in a run's event files is what its metrics say."""

import importlib.util
import itertools
import json
import os
import signal
import subprocess
import sys

import pytest
from forked import forked
from harness import NAMES, load
from small import SETTINGS, stcli, train, words

from stcore.errors import UsageError
from stcore.testing import check_tracker
from stcore.trackers import tensorboard

NOT_THERE = importlib.util.find_spec("tensorboard") is None
needs_it = pytest.mark.skipif(NOT_THERE, reason="tensorboard is not installed")


def scalars(folder):
    """Tag → {step: value}."""
    accumulators = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    found = accumulators.EventAccumulator(str(folder), {accumulators.SCALARS: 0})
    found.Reload()
    return {tag: {e.step: e.value for e in found.Scalars(tag)} for tag in found.Tags()["scalars"]}


def metrics(run):
    """The same, of the run's own lines."""
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    names = {name for row in rows for name in row} - {"epoch", "trouble"}  # which is words
    return {name: {row["epoch"]: pytest.approx(row[name], rel=1e-6) for row in rows} for name in names}


@needs_it
@pytest.mark.parametrize("backend", NAMES)
def test_a_scalar_for_each_metric_and_epoch(backend, tmp_path):
    load(backend)
    said = train(tmp_path / "run", "--tensorboard", backend=backend, epochs=2, ema=0.9)
    assert said.code == 0, said.err
    found = scalars(tmp_path / "run" / "tensorboard")
    assert found == metrics(tmp_path / "run")
    assert {"loss", "pgd20_accuracy", "ema_pgd20_accuracy", "learning_rate"} <= found.keys()


def test_off_by_default(tmp_path):
    load("torch")
    assert train(tmp_path / "run").code == 0
    assert not (tmp_path / "run" / "tensorboard").exists()


@needs_it
def test_a_resumed_run_goes_on_with_it(tmp_path, monkeypatch):
    load("torch")
    run, write = tmp_path / "run", tensorboard.Events.write

    def interrupted(events, row):
        write(events, row)
        os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setattr(tensorboard.Events, "write", interrupted)
    words_ = words({**SETTINGS, "epochs": 4, "out": run, "save_every": 0})
    assert stcli("train", *words_, "--tensorboard").code == 130
    monkeypatch.undo()
    (first,) = (run / "tensorboard").iterdir()
    done = len((run / "metrics.jsonl").read_text().splitlines())
    assert 1 <= done < 4
    # As if a kill had come before the last epoch was kept, and the file ended in the middle of a record.
    events = tensorboard.Events(run / "tensorboard")
    for epoch in (done + 1, done + 2):
        events.write({"epoch": epoch, "loss": 1e9})
    second = events._path
    second.write_bytes(second.read_bytes()[:-3])
    # Another process writes to a file of its own, and needs no flag to go on.
    forked("-m", "stcore.cli.main", "train", "--resume", run)
    assert len(list((run / "tensorboard").iterdir())) >= 2
    assert first.is_file()
    assert scalars(run / "tensorboard") == metrics(run)


@needs_it
def test_epochs_that_are_made_again_replace_the_earlier_ones(tmp_path):
    events = tensorboard.Events(tmp_path)
    for epoch, loss in ((1, 1.0), (2, 2.0), (3, 3.0), (2, 0.5), (3, 0.25)):
        events.write({"epoch": epoch, "loss": loss})
    assert scalars(tmp_path) == {"loss": {1: 1.0, 2: 0.5, 3: 0.25}}
    assert len(list(tmp_path.iterdir())) == 1


@needs_it
def test_a_process_of_the_same_second_comes_after_whatever_its_number(tmp_path, monkeypatch):
    ticks = itertools.count()
    monkeypatch.setattr(tensorboard.time, "time", lambda: 1e9 + 1e-4 * next(ticks))
    for number, loss in ((9998, 3.0), (10002, 2.0), (11, 1.0)):
        monkeypatch.setattr(tensorboard.os, "getpid", lambda number=number: number)
        tensorboard.Events(tmp_path).write({"epoch": 1, "loss": loss})
    assert scalars(tmp_path) == {"loss": {1: 1.0}}


@needs_it
def test_no_framework_is_imported_for_it(tmp_path):
    program = (
        "import sys; from pathlib import Path; from stcore.trackers.tensorboard import Events; "
        f"Events(Path({str(tmp_path)!r})).write({{'epoch': 1, 'loss': 0.5, 'note': 'words'}}); "
        "print([name for name in ('torch', 'tensorflow', 'keras', 'jax') if name in sys.modules])"
    )
    said = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert said.stdout == "[]\n"
    assert scalars(tmp_path) == {"loss": {1: 0.5}}


def test_without_the_package_it_says_how_to_get_it(monkeypatch, tmp_path):
    found = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "tensorboard" else found(name))
    with pytest.raises(UsageError, match=r"pip install '\.\[tensorboard\]'"):
        tensorboard.Events(tmp_path / "t")
    for command in ("train", "plan"):
        said = stcli(command, *words({**SETTINGS, "out": tmp_path / "run"}), "--tensorboard")
        assert said.code == 2
        assert "tensorboard: not installed" in said.err
    assert not (tmp_path / "run").exists()


@needs_it
def test_it_passes_the_contract_of_trackers():
    check_tracker("tensorboard")
