"""Output is not the job: no reader, stream or encoding ends a command or alters what it makes."""

import contextlib
import io
import json
import os
import subprocess
import sys

import pytest
from harness import assert_same
from small import SETTINGS, trained, words

from stcore.base.weights_file import load_weights
from stcore.cli.main import main
from stcore.cli.streams import lasting


class Gone(io.StringIO):
    """A stream whose reader goes away after `writes` writes."""

    def __init__(self, writes):
        super().__init__()
        self.left = writes

    def write(self, text):
        self.left -= 1
        if self.left < 0:
            raise BrokenPipeError(32, os.strerror(32))
        return super().write(text)


class Closed(io.StringIO):
    def write(self, text):
        raise ValueError("I/O operation on closed file.")


def ascii_stream():
    return io.TextIOWrapper(io.BytesIO(), encoding="ascii")


STREAMS = {"gone at once": lambda: Gone(0), "gone later": lambda: Gone(2), "closed": Closed, "ascii": ascii_stream}


def said_into(stream, *args):
    with contextlib.redirect_stdout(stream), contextlib.redirect_stderr(stream):
        return main([str(arg) for arg in args])


@pytest.mark.parametrize("stream", STREAMS.values(), ids=STREAMS)
def test_training_goes_on_and_ends_as_it_would(tmp_path, stream):
    pytest.importorskip("torch")
    run = trained("torch")
    given = words({**SETTINGS, "epochs": 2, "out": tmp_path / "run"})
    assert said_into(stream(), "train", "--backend", "torch", *given) == 0
    result = json.loads((tmp_path / "run" / "result.json").read_text())
    assert result["checkpoints"] == run.json("result.json")["checkpoints"]
    for name in ("best.safetensors", "last.safetensors"):
        assert_same(load_weights(tmp_path / "run" / name)[0], run.weights(name))


@pytest.mark.parametrize("stream", STREAMS.values(), ids=STREAMS)
def test_an_evaluation_goes_on(tmp_path, stream):
    weights = trained("torch").path / "last.safetensors"
    given = ["--attacks", "fgsm", "--dataset", "digits", "--subset", "32", "--out", tmp_path / "it"]
    assert said_into(stream(), "evaluate", weights, *given) == 0
    assert next((tmp_path / "it").rglob("result.json")).is_file()


@pytest.mark.parametrize("stream", STREAMS.values(), ids=STREAMS)
def test_a_sweep_goes_on(tmp_path, stream, monkeypatch):
    from stcore.cli import jobs
    from stcore.cli.children import Children, Ended

    def run(self, mark, command, heed):
        self._say(f"{mark} epoch 1/1 κ")
        return Ended(0, ())

    monkeypatch.setattr(Children, "run", run)
    begun = []
    monkeypatch.setattr(jobs, "child_command", lambda command: begun.append(command) or command)
    said_into(stream(), "sweep", *words(SETTINGS), "--vary", "beta=1,2,3", "--out", tmp_path / "sweep")
    assert len(begun) == 3


def test_an_encoding_without_greek_gets_a_mark_in_its_place():
    stream = ascii_stream()
    assert said_into(stream, "presets") == 0
    stream.seek(0)
    assert "?" in stream.read()


def bash(line, **options):
    command = f'stcli() {{ "{sys.executable}" -m stcore.cli.main "$@"; }}; set -o pipefail; {line}'
    return subprocess.run(["bash", "-c", command], capture_output=True, text=True, timeout=120, **options)


@pytest.mark.parametrize(
    "line",
    [
        "stcli presets | true",
        "stcli presets 2>&-",
        "stcli presets >&-",
        "stcli presets >&- 2>&- <&-",
        "PYTHONIOENCODING=ascii stcli presets",
    ],
)
def test_a_real_process_says_nothing_of_it(line):
    said = bash(line)
    assert (said.returncode, said.stderr) == (0, "")


def test_a_message_into_a_closed_stream_keeps_its_exit_code():
    said = bash("stcli nonsense 2>&-")
    assert (said.returncode, said.stderr) == (2, "")


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full")
def test_output_that_a_full_disk_cut_off_is_told():
    said = bash("stcli presets > /dev/full")
    assert said.returncode == 2
    assert said.stderr == "stcli: what it printed is not complete (No space left on device)\n"


def test_a_closed_descriptor_is_not_the_next_files(tmp_path):
    """Else what is printed would go into it."""
    code = f"""
import os
for number in (1, 2):
    os.close(number)
from stcore.cli.streams import lasting
with lasting():
    file = open({str(tmp_path / "it")!r}, "w")
    os.write(1, b"printed"), os.write(2, b"printed")
    assert file.fileno() > 2
    file.write("kept")
"""
    assert subprocess.run([sys.executable, "-c", code], timeout=60).returncode == 0
    assert (tmp_path / "it").read_text() == "kept"


def test_the_streams_are_given_back():
    before = sys.stdout, sys.stderr
    with lasting():
        assert sys.stdout is not before[0]
    assert (sys.stdout, sys.stderr) == before
