"""What a kill leaves is swept up by whoever comes next, in every folder; what was changed meanwhile is refused."""

import os
import shutil
import signal

import numpy as np
import pytest
from forked import Forked
from small import SETTINGS, contents, stcli, train, trained, words

from stcore.base.files import held
from stcore.base.weights_file import load_weights, save_weights
from stcore.errors import UsageError
from stcore.evaluation.folder import EvaluationFolder
from stcore.runs.folder import RunFolder
from stcore.runs.states import RunStates
from stcore.training.state import State

PART = ".{}.123456.part"


@pytest.mark.parametrize("name", ["config.toml", "environment.json", "last.safetensors"])
def test_a_run_begins_where_a_kill_left_half_a_first_file(tmp_path, name):
    left = tmp_path / PART.format(name)
    left.write_bytes(b"half")
    RunFolder.check_free(tmp_path)
    assert train(tmp_path, backend="torch").code == 0
    assert not left.exists()


def test_any_other_file_still_keeps_a_run_out(tmp_path):
    for name in (".part", "x.part", ".config.toml"):
        (tmp_path / name).touch()
        with pytest.raises(UsageError, match="holds other files"):
            RunFolder.check_free(tmp_path)
        (tmp_path / name).unlink()


EVALUATE = ["--attacks", "fgsm", "--dataset", "digits", "--subset", "32", "--out"]


@pytest.mark.parametrize("name", ["evaluation.json", "state.npz", "records.npz", "result.json"])
def test_an_evaluation_begins_where_a_kill_left_half_a_file(tmp_path, name):
    left = tmp_path / "it" / "last" / PART.format(name)
    left.parent.mkdir(parents=True)
    left.write_bytes(b"half")
    said = stcli("evaluate", trained("torch").path / "last.safetensors", *EVALUATE, tmp_path / "it", "--no-audit")
    assert said.code == 0, said.err
    assert (left.parent / "result.json").is_file()
    assert not left.exists()


def test_two_evaluations_of_one_folder_are_not_made_at_once(tmp_path):
    weights = trained("torch").path / "last.safetensors"
    assert stcli("evaluate", weights, *EVALUATE, tmp_path, "--no-audit").code == 0
    result = next(tmp_path.rglob("result.json"))
    result.unlink()  # as if it were still running
    with held(result.parent):
        said = stcli("evaluate", weights, *EVALUATE, tmp_path, "--no-audit")
    assert said.code == 2
    assert f"another process is evaluating in {result.parent}" in said.err
    assert stcli("evaluate", weights, *EVALUATE, tmp_path, "--no-audit").code == 0


def test_two_sweeps_of_one_folder_are_not_made_at_once(tmp_path):
    args = ["sweep", *words({**SETTINGS, "threads": 1}), "--vary", "beta=1", "--out", tmp_path]
    with held(tmp_path):
        said = stcli(*args)
    assert said.code == 2
    assert f"another process is running several runs in {tmp_path}" in said.err
    assert list(tmp_path.iterdir()) == []


def finished(tmp_path):
    run = tmp_path / "run"
    shutil.copytree(trained("torch").path, run)
    RunStates(run, 0.0, {}).keep(State({"w": np.zeros(1)}, {"under_way": {"epoch": 1, "steps": 1}}))
    (run / PART.format("result.json")).write_text("{")
    return run


def test_a_finished_runs_state_is_cleared_at_the_next_touch(tmp_path):
    """A kill may come between the result and the end."""
    run, before = finished(tmp_path), contents(trained("torch").path)
    assert stcli("train", "--resume", run).code == 0
    assert contents(run) == before


# What was changed meanwhile


@pytest.fixture
def stopped(tmp_path):
    """A run that was stopped after its first step."""
    said = train(tmp_path / "run", "--max-hours", "1e-9", backend="torch", epochs=2)
    assert said.code == 130
    return tmp_path / "run"


@pytest.mark.parametrize(
    ("name", "old", "new"),
    [
        ("weight_decay", "0.0005", "0.5"),
        ("epochs", "2", "3"),
        ("beta", "6.0", "7.0"),
        ("seed", "0", "1"),
        ("norm", '"linf"', '"l2"'),
    ],
)
def test_a_changed_setting_is_refused_by_name(stopped, name, old, new):
    config = stopped / "config.toml"
    lines = config.read_text().splitlines()
    at = next(n for n, line in enumerate(lines) if line.startswith(f"{name} = "))
    lines[at] = f"{name} = {new}"
    config.write_text("\n".join(lines) + "\n")
    before = contents(stopped)
    said = stcli("train", "--resume", stopped)
    assert said.code == 2
    assert "config.toml was changed: its " in said.err
    assert f"its {name} is" in said.err or name == "norm"  # a norm brings others with it
    assert contents(stopped) == before


def test_a_setting_taken_out_of_the_file_is_refused_too(stopped):
    config = stopped / "config.toml"
    lines = [line for line in config.read_text().splitlines() if not line.startswith("label_smoothing")]
    config.write_text("\n".join([*lines, "label_smoothing = 0.1"]) + "\n")
    assert "its label_smoothing is 0.1" in stcli("train", "--resume", stopped).err


@pytest.mark.parametrize("place", [0.5, 0.9, 0.999])
def test_weights_with_a_flipped_bit_are_refused(tmp_path, place):
    raw = bytearray((trained("torch").path / "best.safetensors").read_bytes())
    raw[int(place * len(raw))] ^= 1
    (tmp_path / "best.safetensors").write_bytes(raw)
    with pytest.raises(UsageError, match=r"best.safetensors is damaged: its contents are not what its checksum"):
        load_weights(tmp_path / "best.safetensors")
    said = stcli("evaluate", tmp_path / "best.safetensors", *EVALUATE, tmp_path / "it")
    assert said.code == 2


def test_metadata_of_a_weights_file_are_vouched_for_too(tmp_path):
    save_weights(tmp_path / "w.safetensors", {"w": np.arange(3.0)}, {"model": "tiny", "epoch": 3})
    raw = (tmp_path / "w.safetensors").read_bytes()
    (tmp_path / "w.safetensors").write_bytes(raw.replace(b"tiny", b"tinY"))
    with pytest.raises(UsageError, match="is damaged"):
        load_weights(tmp_path / "w.safetensors")


def test_a_file_of_another_program_has_no_checksum(tmp_path):
    from safetensors.numpy import save_file

    save_file({"w": np.arange(3.0)}, tmp_path / "w.safetensors", {"model": "tiny"})
    arrays, about = load_weights(tmp_path / "w.safetensors")
    assert about == {"model": "tiny"}
    np.testing.assert_array_equal(arrays["w"], np.arange(3.0))


def test_a_folder_is_free_again_when_its_holder_is_killed(tmp_path):
    store = EvaluationFolder(tmp_path, {"of": "a test"})
    code = (
        "import sys, time; from pathlib import Path; from stcore.evaluation.folder import EvaluationFolder as F\n"
    )
    code += "with F(Path(sys.argv[1]), {'of': 'a test'}).alone():\n    print('held', flush=True); time.sleep(60)"
    file = tmp_path.parent / "hold.py"
    file.write_text(code)
    holder = Forked(file, tmp_path)
    assert holder.stdout.readline() == "held\n"
    with pytest.raises(UsageError, match="another process is evaluating"), store.alone():
        pass
    holder.send_signal(signal.SIGKILL)
    holder.wait()
    with store.alone():
        pass


@pytest.mark.parametrize("name", ["result.json", "environment.json"])
def test_a_number_that_was_changed_in_a_runs_file_is_refused(tmp_path, name):
    """It is still JSON; a table would have printed it."""
    run = shutil.copytree(trained("torch").path, tmp_path / "run")
    text = (run / name).read_text()
    at = max(i for i, letter in enumerate(text) if letter.isdigit() and '"checksum"' in text[i:])
    (run / name).write_text(f"{text[:at]}{(int(text[at]) + 1) % 10}{text[at + 1 :]}")
    said = stcli("report", run, "--format", "markdown", "--out", tmp_path / "page.md")
    assert said.code == 2, said.out
    assert "not what its checksum says" in said.err


def test_json_of_earlier_versions_has_no_checksum_and_is_believed(tmp_path):
    from stcore.base.files import read_json, write_json

    given = {"b": [1, 2.5, None, float("inf")], "a": {"x": (1, 2), 3: "é"}}
    write_json(tmp_path / "it.json", given)
    assert read_json(tmp_path / "it.json") == {"b": [1, 2.5, None, float("inf")], "a": {"x": [1, 2], "3": "é"}}
    (tmp_path / "it.json").write_text('{"a": 1}')
    assert read_json(tmp_path / "it.json") == {"a": 1}


def test_a_file_that_is_written_again_sweeps_up_after_itself(tmp_path):
    """Wherever it is: a report's folder is not ours to sweep."""
    from stcore.base.files import write_file

    page, dead, alive = tmp_path / "page[1].html", 2**22 + 1, os.getppid()
    names = [f".page[1].html.{dead}.part", f".page[1].html.{alive}.part", f".other.html.{dead}.part", ".page.part"]
    for name in names:
        (tmp_path / name).write_text("half")
    write_file(page, "whole")
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([page.name, *names[1:]])


def test_a_finished_evaluation_is_swept_too(tmp_path):
    weights = trained("torch").path / "last.safetensors"
    for _ in range(2):
        said = stcli("evaluate", weights, *EVALUATE, tmp_path, "--no-audit")
        assert said.code == 0, said.err
        folder = next(tmp_path.rglob("result.json")).parent
        assert not list(folder.glob(".*"))
        (folder / PART.format("records.npz")).write_bytes(b"half")
