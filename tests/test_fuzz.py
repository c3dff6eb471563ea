"""Nothing that is handed in ends in a traceback, hangs, or eats the memory: arguments, settings, data,
checkpoints, the files of a run, and the Python API.

Each test makes valid input, damages it, and asks for one of the documented ends. A few examples of each here; the
slow tier makes two thousand of each kind, four hundred of a command's.
"""

import contextlib
import io
import pickle
import resource
import shutil
import time
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import test_data
import test_more_readers
import test_readers
import test_streams
from harness import load, problem
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from small import SETTINGS, stcli, trained, words

import stcore
from stcore import data
from stcore.cli.main import COMMANDS
from stcore.cli.options import TrainOptions
from stcore.cli.parsing import from_file
from stcore.errors import BUG, INTERRUPTED, StcoreError
from stcore.models import weights_files
from stcore.runs.plan import make_plan

LONGEST, LARGEST = 20.0, 2 << 30  # seconds of the processor, bytes


def fuzzed(few, many=2000):
    """Runs a property on few examples, and in the slow tier, for minutes, on many."""
    return pytest.mark.parametrize("examples", [few, pytest.param(many, marks=pytest.mark.slow)])


def on(examples, *strategies):
    """A property of these, always the same examples."""
    quiet = [HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.function_scoped_fixture]
    options = settings(
        max_examples=examples, deadline=None, derandomize=True, database=None, suppress_health_check=quiet
    )
    return lambda check: options(given(*strategies)(check))


@contextlib.contextmanager
def bounded():
    """Fails what takes too long or too much."""
    begin, before = time.process_time(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    yield
    assert time.process_time() - begin < LONGEST
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < LARGEST >> 10


@st.composite
def damages(draw, size):
    """What happens to a file of this size: a function of its bytes."""
    at = draw(st.integers(0, max(0, size - 1)))
    kind = draw(st.sampled_from(["bit", "byte", "cut", "hole", "more", "twice", "zeros"]))
    more = draw(st.binary(min_size=1, max_size=40))
    bit = draw(st.integers(0, 7))
    return {
        "bit": lambda raw: raw[:at] + bytes([raw[at] ^ 1 << bit]) + raw[at + 1 :] if raw else more,
        "byte": lambda raw: raw[:at] + more[:1] + raw[at + 1 :],
        "cut": lambda raw: raw[:at],
        "hole": lambda raw: raw[:at] + raw[at + len(more) :],
        "more": lambda raw: raw[:at] + more + raw[at:],
        "twice": lambda raw: raw[:at] + raw,
        "zeros": lambda raw: raw[:at] + bytes(len(raw) - at),
    }[kind]


# Arguments

NUMBERS = ["0", "-1", "1e400", "nan", "inf", "1" + "0" * 400, "3.5", "8/255", "1/0", "٣", "0x10", "1_000", "", " "]
TEXTS = [
    "torch",
    "keras",
    "cuda:99",
    "digits",
    "npz:",
    "folder:/dev/null",
    ":",
    "-",
    "--",
    "\0",
    "\udcff",
    "é",
    "x" * 5000,
]
TEXTS += [
    "runs/none",
    "/",
    ".",
    "pgd20",
    "autoattack+fgsm",
    "1..",
    "1..0",
    "a=b",
    "beta=",
    "=",
    "[[[[",
    "{}",
    "%s",
]
FLAGS = [f"--{name.replace('_', '-')}" for name in TrainOptions.__dataclass_fields__]
FLAGS += [
    "--attacks",
    "--vary",
    "--table",
    "--subset",
    "--shard",
    "--weights",
    "--format",
    "--json",
    "--help",
    "--no",
    "-h",
]


@fuzzed(80)
def test_any_arguments(examples, tmp_path, monkeypatch):
    """Of every command; work that would begin is not done."""
    monkeypatch.chdir(tmp_path)

    class Begun(BaseException):
        """The arguments are in order."""

    def begin(*_, **__):
        raise Begun

    for place in ("train.carry_out", "demo.trained", "sweep.carry_out", "seeds.carry_out", "data.fetch"):
        monkeypatch.setattr(f"stcore.cli.{place}", begin)
    monkeypatch.setattr("stcore.costs.probe.probe", begin)
    commands = [name for name in COMMANDS if name not in ("doctor",)]
    value = st.sampled_from([*NUMBERS, *TEXTS]) | st.text(max_size=8)
    pair = (
        st.tuples(st.sampled_from(FLAGS), value).map(list)
        | st.sampled_from(FLAGS).map(lambda flag: [flag])
        | value.map(lambda one: [one])
    )

    @on(examples, st.sampled_from(commands), st.lists(pair, max_size=4))
    def check(command, pairs):
        with bounded(), contextlib.suppress(Begun):
            said = stcli(command, *(word for pair in pairs for word in pair))
            assert said.code in (0, 2, 3, 4, INTERRUPTED), said.err
            assert "Traceback" not in said.err

    check()


# Settings


def values_like(value):
    """Values of the type that a setting has, however strange."""
    if isinstance(value, bool):
        return st.booleans()
    if isinstance(value, int):
        return st.integers(-(10**30), 10**30)
    if isinstance(value, float):
        return st.floats() | st.integers(-(10**20), 10**20)
    if isinstance(value, tuple | list):
        return st.lists(st.text(max_size=5) | st.floats() | st.integers(), max_size=3)
    return st.sampled_from(TEXTS) | st.text(max_size=6) | (st.none() if value is None else st.nothing())


@fuzzed(200)
def test_any_settings(examples):
    """`make_plan` of known names with any values of their types, and of unknown names."""
    known = make_plan({}).flat()
    one = st.sampled_from(sorted(known)).flatmap(lambda name: st.tuples(st.just(name), values_like(known[name])))

    @on(examples, st.lists(one | st.tuples(st.text(max_size=5), st.integers()), max_size=4).map(dict))
    def check(chosen):
        with bounded(), contextlib.suppress(StcoreError):
            make_plan(chosen)

    check()


TOML = ["epochs = 3\nbeta = 6.0\n", 'dataset = "digits"\nmilestones = [1, 2]\n', ""]


@fuzzed(150)
def test_any_config_file(examples, tmp_path):
    path = tmp_path / "config.toml"
    deep = st.integers(1, 3000).map(lambda n: f"beta = {'[' * n}{']' * n}\n".encode())
    huge = st.integers(1, 6000).map(lambda n: f"epochs = {'9' * n}\n".encode())
    damaged = st.sampled_from(TOML).flatmap(
        lambda text: damages(len(text)).map(lambda change: change(text.encode()))
    )

    @on(examples, damaged | deep | huge | st.binary(max_size=60))
    def check(raw):
        path.write_bytes(raw)
        with bounded(), contextlib.suppress(StcoreError):
            make_plan(from_file(TrainOptions, path))

    check()


# Data


def parquet(folder):
    pytest.importorskip("pyarrow")
    for part, (images, labels) in test_more_readers.PARTS.items():
        rows = [test_data.encoded(image) for image in images]
        test_data.write(folder / f"{part}-0.parquet", rows, labels.tolist())


def npy(folder):
    for part, (images, labels) in test_more_readers.PARTS.items():
        np.save(folder / f"{part}_images.npy", images)
        np.save(folder / f"{part}_labels.npy", labels)


def svhn(folder):
    from scipy.io import savemat

    for part in ("train", "test"):
        images = np.random.default_rng(0).integers(0, 256, (32, 32, 3, 12), np.uint8)
        content = {"X": images, "y": np.arange(12)[:, None] % 10 + 1}
        savemat(folder / f"{part}_32x32.mat", content, do_compression=True)


def stream(folder):
    pytest.importorskip("PIL")
    test_streams.write(folder)


SETS = {
    "npz": test_readers.write_npz,
    "safetensors": test_more_readers.write_safetensors,
    "folder": test_more_readers.write_folder,
    "cifar10": lambda folder: test_readers.write_folder(folder, 10, "python"),
    "cifar100": lambda folder: test_readers.write_archive(folder, 100, "binary"),
    "npy": npy,
    "parquet": parquet,
    "svhn": svhn,
    "stream": stream,
}
"""By the word of a format: what writes a set of it into a folder."""


@pytest.mark.parametrize("kind", SETS)
@fuzzed(25)
def test_any_damage_to_a_data_set(kind, examples, tmp_path):
    """One of its files, at one place."""
    place = tmp_path / "it"
    place.mkdir()
    SETS[kind](place)
    files = sorted(path for path in place.rglob("*") if path.is_file())
    whole = {path: path.read_bytes() for path in files}
    chosen = st.sampled_from(files).flatmap(lambda path: st.tuples(st.just(path), damages(len(whole[path]))))

    @on(examples, chosen)
    def check(one):
        path, change = one
        (place / "stcore-index.json").unlink(missing_ok=True)
        path.write_bytes(change(whole[path]))
        try:
            with bounded(), contextlib.suppress(StcoreError):
                found = data.load(f"{kind}:{place}", validation=None if kind == "stream" else "test")
                assert found.test.images.dtype == np.uint8
                assert found.test.labels.max() < found.test.num_classes
        finally:
            path.write_bytes(whole[path])

    check()


@fuzzed(40)
def test_any_index_of_a_stream(examples, tmp_path):
    """It is written again where it cannot be read."""
    stream(tmp_path)
    data.load(f"stream:{tmp_path}")
    index = next(tmp_path.rglob("stcore-index.json"))
    whole = index.read_bytes()

    @on(
        examples,
        damages(len(whole)).map(lambda change: change(whole)) | st.integers(1, 5000).map(lambda n: b"[" * n),
    )
    def check(raw):
        index.write_bytes(raw)
        with bounded(), contextlib.suppress(StcoreError):
            data.load(f"stream:{tmp_path}")

    check()


# Checkpoints


@cache
def checkpoint(suffix):
    """The bytes of a weights file."""
    run = trained("torch")
    if suffix == ".safetensors":
        return (run.path / "last.safetensors").read_bytes()
    import torch

    file = io.BytesIO()
    state = {name: torch.tensor(array) for name, array in run.weights().items()}
    torch.save({"net": state, "acc": np.float64(0.5)}, file)
    return file.getvalue()


@pytest.mark.parametrize("suffix", [".safetensors", ".pt"])
@fuzzed(60)
def test_any_damage_to_a_checkpoint(suffix, examples, tmp_path):
    load("torch")
    path, whole = tmp_path / f"it{suffix}", checkpoint(suffix)

    @on(examples, damages(len(whole)))
    def check(change):
        path.write_bytes(change(whole))
        with bounded(), contextlib.suppress(StcoreError):
            weights_files.read_weights(path)

    check()


def test_a_pickle_in_a_checkpoint_is_not_run(tmp_path):
    load("torch")

    class Runs:
        def __reduce__(self):
            return Path.touch, (tmp_path / "ran",)

    (tmp_path / "it.pt").write_bytes(pickle.dumps({"a.weight": Runs()}))
    with pytest.raises(StcoreError):
        weights_files.read_weights(tmp_path / "it.pt")
    assert not (tmp_path / "ran").exists()


# A run's files


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A run with an evaluation."""
    load("torch")
    run = tmp_path_factory.mktemp("fuzz") / "run"
    shutil.copytree(trained("torch").path, run)
    said = stcli("evaluate", run, "--attacks", "fgsm,apgd-ce", "--subset", 8, "--checkpoint", "best", "--no-audit")
    assert said.code == 0, said.err
    return run


READING = {
    "table": ["table", "{}"],
    "evaluations": ["table", "{}", "--evaluations"],
    "report": ["report", "{}", "--format", "markdown", "--out", "{}/../page.md", "--no-figures"],
    "analyze": ["analyze", "curves", "{}", "--out", "{}/../figures", "--format", "svg"],
    "evaluate": [
        "evaluate",
        "{}",
        "--attacks",
        "fgsm,apgd-ce",
        "--subset",
        "8",
        "--checkpoint",
        "best",
        "--no-audit",
    ],
    "resume": ["train", "--resume", "{}"],
    "pseudo-label": ["pseudo-label", "{}", "--data", "npz:{}/none.npz", "--out", "{}/../labels.npz"],
}


@pytest.mark.parametrize("command", READING)
@fuzzed(12, many=400)
def test_any_damage_to_a_runs_files(command, examples, finished, tmp_path, monkeypatch):
    """A sentence, or the same as before: never a traceback, and the file stays as it was found."""
    monkeypatch.chdir(tmp_path)
    run = tmp_path / "run"
    shutil.copytree(finished, run)
    files = sorted(path for path in run.rglob("*") if path.is_file())
    whole = {path: path.read_bytes() for path in files}
    argv = [word.replace("{}", str(run)) for word in READING[command]]
    deep = st.sampled_from([b"", b"[" * 5000, b"{}", b"null", b"9" * 5000, b'{"checkpoints": 1}', b"\xff\xfe"])
    chosen = st.sampled_from(files).flatmap(
        lambda path: st.tuples(
            st.just(path), damages(len(whole[path])).map(lambda change: change(whole[path])) | deep
        )
    )

    @on(examples, chosen)
    def check(one):
        path, raw = one
        path.write_bytes(raw)
        try:
            with bounded():
                said = stcli(*argv)
            assert said.code != BUG, (path, said.err)
            assert "Traceback" not in said.err
        finally:
            for left in set(run.rglob("*")) - set(files):
                if left.is_file():
                    left.unlink()
            for path, raw in whole.items():
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(raw)

    check()


# The Python API


@fuzzed(60)
def test_any_arguments_of_the_api(backend, examples):
    """TypeError, or one of our own, before anything was changed."""
    model, batch = backend.build("tiny"), backend.batch(problem())
    odd = [
        None,
        3,
        "x",
        [],
        (),
        {},
        np.zeros(3),
        float("nan"),
        batch.x[:0],
        batch.x * float("nan"),
        batch.y,
        batch.x[0],
    ]
    odd += [batch.x + 2, batch.x[:2], (batch.x, batch.x), (batch.x,), object()]
    arguments = st.dictionaries(
        st.sampled_from(["model", "x", "y", "pair", "config", "noise", "rng"]),
        st.sampled_from(range(len(odd))),
        max_size=3,
    )
    functions = [stcore.squeeze_loss, stcore.squeeze_step, stcore.find_squeeze_pair, stcore.training_loss]
    before = backend.classifier(model).weights()

    @on(examples, st.sampled_from(range(len(functions))), arguments)
    def check(which, changes):
        given = {"model": model, "x": batch.x, "y": batch.y} | {name: odd[at] for name, at in changes.items()}
        if which == 3:
            given["objective"] = given.pop("config", stcore.SqueezeConfig(steps=1))
            given.pop("pair", None)
        else:
            given.setdefault("config", stcore.SqueezeConfig(steps=1))
            if which == 2:
                given.pop("pair", None)
        with bounded(), contextlib.suppress(StcoreError, TypeError):
            functions[which](**given)

    check()
    after = backend.classifier(model).weights()
    assert all(np.isfinite(array).all() for array in after.values())
    assert all((after[name] == before[name]).all() for name in before if "running" not in name)


@fuzzed(40)
def test_any_arguments_of_evaluate(backend, examples):
    model, batch = backend.build("tiny"), backend.batch(problem())
    x, y = backend.array(batch.x), backend.array(batch.y)
    odd = [
        None,
        3,
        "x",
        [],
        (x, y),
        (x,),
        (y, x),
        (x, y[:2]),
        (x * 300, y),
        (x * np.nan, y),
        (x, y + 99),
        (x, y - 9.5),
    ]
    odd += [
        (x[..., :2], y),
        (x.astype(object), y),
        [(x, y), (x, y)],
        [(x, y), 3],
        {"a": 1},
        (x.astype("float16"), y),
    ]
    attacks = [
        ["fgsm"],
        "fgsm",
        ["nope"],
        [],
        {},
        {"a": 3},
        ["pgd20", 4],
        None,
        [stcore.attacks.FGSM(0.1)],
        {"natural": 1},
    ]
    numbers = st.sampled_from([0.1, -1, float("nan"), "x", None, 0, 2**70, True, 1e400])

    @on(examples, st.sampled_from(range(len(odd))), st.sampled_from(range(len(attacks))), numbers, numbers)
    def check(data_at, attacks_at, epsilon, size):
        with bounded(), contextlib.suppress(StcoreError, TypeError):
            stcore.evaluate(
                model, odd[data_at], attacks[attacks_at], epsilon=epsilon, batch_size=size, audit=False
            )

    check()


def test_settings_of_a_tiny_run_are_in_order():
    """What the fuzz tests damage is valid: so says the command."""
    assert make_plan({**SETTINGS, "dataset": "digits"}).flat()["epochs"] == SETTINGS["epochs"]
    assert words(SETTINGS)[0].startswith("--")
