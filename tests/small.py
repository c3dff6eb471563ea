"""The command line in this process, and the smallest runs it can make: a tiny network on 64 digits."""

import contextlib
import hashlib
import io
import json
import tempfile
from functools import cache
from pathlib import Path
from typing import NamedTuple

from harness import load

from stcore.base.weights_file import load_weights
from stcore.cli.main import main
from stcore.runs.plan import make_plan

SETTINGS = {
    "model": "tiny",
    "epochs": 1,
    "batch_size": 40,
    "train_size": 64,  # a batch of 40, then a short one of 24
    "validation_size": 32,
    "test_size": 32,
}
EAGER = {"compile": "off", "steps": 1, "attacks": "fgsm"}
"""For a Keras run that is not about its graphs: tracing them takes longer than all else that a tiny run does."""


class Said(NamedTuple):
    """How a command ended."""

    code: int
    out: str
    err: str


def words(settings):
    """Settings as flags."""
    return [word for name, value in settings.items() for word in (f"--{name.replace('_', '-')}", str(value))]


def stcli(*args):
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = main([str(arg) for arg in args])
    return Said(code, out.getvalue(), err.getvalue())


def train(out, *args, **settings):
    """A tiny run in `out`; flags override its settings."""
    return stcli("train", *words({**SETTINGS, "out": out, **settings}), *args)


def plan(**settings):
    return make_plan({**SETTINGS, **settings})


_folders = tempfile.TemporaryDirectory(prefix="stcore-tests-")


class Run(NamedTuple):
    """A run that tests may read, not write."""

    path: Path
    said: Said

    def json(self, name):
        return json.loads((self.path / name).read_text())

    @property
    def metrics(self):
        return [json.loads(line) for line in (self.path / "metrics.jsonl").read_text().splitlines()]

    def weights(self, name="last.safetensors"):
        return load_weights(self.path / name)[0]


@cache
def trained(backend):
    """Two epochs on this backend; trained once for the whole session."""
    load(backend)  # or skip
    path = Path(_folders.name) / backend
    said = train(path, backend=backend, epochs=2)
    assert said.code == 0, said.err
    return Run(path, said)


def contents(folder):
    """Every file below a folder, by its hash: to show that nothing was touched."""
    files = sorted(path for path in Path(folder).rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}
