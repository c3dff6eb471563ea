"""A kill before any write: the same command again ends in the files of a job that nothing killed, in no others.

Every opening of a file to write, every renaming, removal and making of a folder is such a place. Kills where a
state was just written are in test_resume.py, and quick.
"""

import json
import shutil
import signal
from pathlib import Path

import numpy as np
import pytest
from forked import STCLI, Forked, forked
from harness import load
from small import EAGER, SETTINGS, words

from stcore.base.weights_file import load_weights

SHIM = """
import os, signal, sys

_folder, _count, _at = os.environ["KILLS_IN"], os.environ["KILLS_COUNT"], int(os.environ["KILLS_AT"])
os.environ.setdefault("KILLS_TOP", str(os.getpid()))
_writing = os.O_WRONLY | os.O_RDWR | os.O_CREAT


def _before_a_write(event, args):
    if event == "open":
        if not args[2] & _writing:
            return
    elif event not in ("os.rename", "os.remove", "os.mkdir", "os.rmdir"):
        return
    path = args[0]
    if not isinstance(path, (str, bytes, os.PathLike)) or not os.fsdecode(path).startswith(_folder):
        return
    counter = os.open(_count, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.write(counter, b".")
    os.close(counter)
    if os.stat(_count).st_size == _at:
        os.kill(int(os.environ["KILLS_TOP"]), signal.SIGKILL)
        os.kill(os.getpid(), signal.SIGKILL)
        signal.pause()


sys.addaudithook(_before_a_write)
"""
"""Run first by every process of a job. `os.replace` is audited as a renaming."""
SHORT = """
from dataclasses import replace
from stcore.autoattack.attack import AutoAttack

_stages = AutoAttack.stages


def _short(attack):
    return replace(attack, **({"steps": 2} if hasattr(attack, "steps") else {"queries": 10}))


AutoAttack.stages = lambda self, classes: tuple(
    replace(stage, attack=_short(stage.attack)) for stage in _stages(self, classes)
)
from stcore.cli import demo
from stcore.runs.plan import make_plan

_plan_of, _small = demo.plan_of, SMALL
demo.plan_of = lambda *asked: make_plan({**_plan_of(*asked).flat(), **_small})
"""

RUN = words({**SETTINGS, **EAGER, "epochs": 2, "threads": 1, "ema": 0.9, "save_every": 0})
CLI = ("-m", "stcore.cli.main")


def train(folder):
    """`--resume` where the run had begun, else the same words."""
    run = folder / "run"
    if (run / "config.toml").is_file():
        return [*CLI, "train", "--resume", run, "--save-every", 0]
    return [*CLI, "train", *RUN, "--out", run]


def evaluate(folder):
    """AutoAttack, so that there is a state to resume from; the run is made first, and is not counted."""
    return [*CLI, "evaluate", folder / "run", "--attacks", "autoattack", "--checkpoint", "last", "--save-every", 0]


def sweep(folder):
    seldom = ["--save-every", 300, "--epochs", 1]  # what is written within an epoch, `train` shows
    return [*STCLI, "sweep", *RUN, *seldom, "--vary", "beta=1,6", "--out", folder / "sweep"]


def demo(folder):
    return [*CLI, "demo", "--epochs", 1, "--images", 4, "--out", folder / "demo"]


JOBS = {"train": train, "evaluate": evaluate, "sweep": sweep, "demo": demo}


def environment(folder, count, at):
    """Of a job's processes: at which write below `folder` they are killed; `count` counts the writes."""
    small = {name: value for name, value in SETTINGS.items() if name != "epochs"}
    first = SHORT.replace("SMALL", repr(small)) + SHIM
    return {"FORKED_FIRST": first, "KILLS_IN": str(folder), "KILLS_COUNT": str(count), "KILLS_AT": str(at)}


def prepared(job, folder):
    folder.mkdir()
    if job is evaluate:
        forked(*CLI, "train", *RUN, "--out", folder / "run")
    return folder


def begun(job, folder, count, at):
    process = Forked(*job(folder), env=environment(folder, count, at), new_session=True)
    return process, process.communicate()


TIMES = ("second", "checksum", "written", "started", "finished", "time", "created", "memory", "cpu")


def timeless(value):
    """Plain values without what differs between two runs of one command."""
    if isinstance(value, dict):
        return {key: timeless(one) for key, one in value.items() if not any(word in key for word in TIMES)}
    return [timeless(one) for one in value] if isinstance(value, list) else value


def comparable(path, folder):
    """A file's content, to be compared with that of another folder."""
    match path.suffix:
        case ".safetensors":
            arrays, about = load_weights(path)
            return about | {name: array.tobytes() for name, array in arrays.items()}
        case ".npz":
            with np.load(path) as arrays:
                return timeless({name: arrays[name].tobytes() for name in arrays.files})
        case ".json":
            text = path.read_text().replace(str(folder), "")
            return timeless(json.loads(text))
        case ".jsonl":
            return [timeless(json.loads(line)) for line in path.read_text().splitlines()]
        case ".html":
            return "a page"  # of the other files, with dates and places
    return path.read_text().replace(str(folder), "")


def files(folder):
    return {path.relative_to(folder): path for path in sorted(folder.rglob("*")) if path.is_file()}


def same(folder, whole):
    """Asserts that both hold the same files."""
    ours, theirs = files(folder), files(whole)
    assert ours.keys() == theirs.keys()
    for name, path in ours.items():
        assert comparable(path, folder) == comparable(theirs[name], whole), name


# Each of some hundred places costs two processes that train: minutes a job. The demo takes twenty seconds, and it
# is made of the others' parts: every twelfth of its places is tried.
@pytest.mark.slow
@pytest.mark.parametrize(("name", "step"), [(name, 12 if name == "demo" else 1) for name in JOBS])
def test_killed_before_a_write_it_ends_as_if_it_had_not_been(name, step, tmp_path):
    load("torch")
    job = JOBS[name]
    finished = prepared(job, tmp_path / "whole")
    process, said = begun(job, finished, tmp_path / "count", 0)
    assert process.returncode == 0, said
    writes = (tmp_path / "count").stat().st_size
    assert writes > 8
    for at in range(1, writes + 1, step):
        folder = prepared(job, tmp_path / f"{at}")
        process, said = begun(job, folder, tmp_path / f"count{at}", at)
        assert process.returncode == -signal.SIGKILL, (at, said)
        process, said = begun(job, folder, tmp_path / f"again{at}", 0)
        assert process.returncode == 0, (at, said)
        same(folder, finished)
        shutil.rmtree(folder)


def test_the_shim_counts_what_is_written(tmp_path):
    """A file, its renaming, a folder and a removal: four writes, of which those elsewhere are none."""
    (tmp_path / "in").mkdir()
    code = """
from pathlib import Path
from stcore.base.files import write_file
write_file(Path("in/file"), "x")
Path("in/more").mkdir()
Path("in/file").unlink()
Path("elsewhere").write_text("y")
"""
    here = Path.cwd()
    env = environment(tmp_path / "in", tmp_path / "count", 0)
    forked("-c", code.replace('"in/', f'"{tmp_path}/in/').replace('"elsewhere', f'"{tmp_path}/elsewhere'), env=env)
    assert (tmp_path / "count").stat().st_size >= 4
    assert not (here / "in").exists()
