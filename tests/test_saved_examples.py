"""Saved adversarial examples: appended at each save, joined at the end, whole after any kill."""

import json
import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stcore.base.files import read_arrays, write_arrays
from stcore.errors import DataError, UsageError
from stcore.evaluation import folder as module
from stcore.evaluation.folder import EvaluationFolder

TOTAL = 24
POINTS = np.random.default_rng(0).random((TOTAL, 4, 4, 3), np.float32)
ORDER = np.random.default_rng(1).permutation(TOTAL).tolist()
RESULT = {"accuracies": {}}


def opened(path):
    return EvaluationFolder(path, {"of": "a test"})


def evaluate(path, each=2, stop=TOTAL, torn=False):
    """Finds the examples in `ORDER`, `each` a save; after `stop` of them it is killed, and `torn` in the next."""
    store = opened(path)
    done = int((store.load() or {"done": 0})["done"])
    for begin in range(done, TOTAL, each):
        rows = ORDER[begin : begin + each]
        new = {"apgd": {row: POINTS[row] for row in rows}, "square": {}}
        if begin >= stop:
            if torn:
                module._append(path / "apgd-examples.part", store._lengths.get("apgd", 0), new["apgd"])
            return None
        store.save({"done": np.array(begin + len(rows))}, new)
    return store


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The file of an evaluation that nothing interrupted."""
    path = tmp_path_factory.mktemp("whole") / "it"
    evaluate(path).finish({}, RESULT)
    assert sorted(file.name for file in path.iterdir()) == [
        "apgd-examples.npz",
        "evaluation.json",
        "records.npz",
        "result.json",
        "state.npz",
    ]
    return path / "apgd-examples.npz"


def test_the_file_holds_all_examples_by_their_rows(whole):
    kept = read_arrays(whole)
    np.testing.assert_array_equal(kept["rows"], np.arange(TOTAL))
    np.testing.assert_array_equal(kept["examples"], POINTS)
    assert kept["examples"].dtype == np.float32


@settings(max_examples=10, deadline=None)  # each waits for the disk at every save
@given(stops=st.lists(st.tuples(st.integers(0, TOTAL - 1), st.booleans()), max_size=4), each=st.integers(3, 9))
def test_killed_anywhere_it_ends_with_the_same_bytes(tmp_path_factory, whole, stops, each):
    path = tmp_path_factory.mktemp("killed") / "it"
    for stop, torn in sorted(stops):
        evaluate(path, each, stop, torn)
    evaluate(path, each).finish({}, RESULT)
    assert (path / whole.name).read_bytes() == whole.read_bytes()
    assert not list(path.glob("*.part"))


@pytest.mark.parametrize("during", ["write_arrays", "write_json", "unlink"])
def test_killed_at_the_end_it_ends_with_the_same_bytes(tmp_path, monkeypatch, whole, during):
    """While a file is joined, after it, or before the appended one is deleted."""

    def killed(*args, **kwargs):
        raise KeyboardInterrupt

    store = evaluate(tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(Path if during == "unlink" else module, during, killed)
        with pytest.raises(KeyboardInterrupt):
            store.finish({}, RESULT)
    assert (tmp_path / "apgd-examples.part").is_file()
    evaluate(tmp_path).finish({}, RESULT)
    assert (tmp_path / whole.name).read_bytes() == whole.read_bytes()
    assert not list(tmp_path.glob("*.part"))


def test_what_is_written_grows_with_the_examples_and_not_with_the_saves(tmp_path, monkeypatch):
    """Bytes that are written into files of examples, over a whole evaluation of one example a save."""
    written, real = [], Path.open

    class Counted:
        def __init__(self, file):
            self._file = file

        def write(self, content):
            written.append(memoryview(content).nbytes)
            return self._file.write(content)

        def __enter__(self):
            return self

        def __exit__(self, *error):
            self._file.close()

        def __getattr__(self, name):
            return getattr(self._file, name)

    def watched(path, mode="r", *args, **kwargs):
        file = real(path, mode, *args, **kwargs)
        return Counted(file) if "examples" in path.name and mode != "rb" else file

    monkeypatch.setattr(Path, "open", watched)
    evaluate(tmp_path, each=1).finish({}, RESULT)
    headers = TOTAL * 2 * 128 + TOTAL * 8 + 1024
    assert POINTS.nbytes * 2 <= sum(written) <= POINTS.nbytes * 2 + headers + TOTAL * 8
    assert len(list(tmp_path.glob("apgd*"))) == 1


@pytest.mark.parametrize("left", [0, 100, None])
def test_a_file_that_lost_its_end_is_refused(tmp_path, left):
    evaluate(tmp_path, stop=10)
    part = tmp_path / "apgd-examples.part"
    if left is None:
        part.unlink()
    else:
        os.truncate(part, left)
    with pytest.raises(DataError, match=rf"{part.name}: expected the \d+ bytes that the state .* received"):
        evaluate(tmp_path)
    store = opened(tmp_path)
    store.load()
    with pytest.raises(DataError, match=part.name):
        store.finish({}, RESULT)
    assert not (tmp_path / "result.json").exists()


def test_a_finished_evaluation_may_lose_its_examples(tmp_path, whole):
    evaluate(tmp_path).finish({}, RESULT)
    (tmp_path / whole.name).unlink()
    evaluate(tmp_path).finish({}, {**RESULT, "audit": []})
    assert json.loads((tmp_path / "result.json").read_text())["audit"] == []


def test_an_evaluation_that_an_earlier_version_began_keeps_its_examples(tmp_path, whole):
    rows = sorted(ORDER[:10])
    opened(tmp_path)
    write_arrays(tmp_path / "state.npz", {"done": np.array(10)})
    write_arrays(tmp_path / whole.name, {"rows": np.array(rows), "examples": POINTS[rows]})
    evaluate(tmp_path).finish({}, RESULT)
    assert (tmp_path / whole.name).read_bytes() == whole.read_bytes()


def test_a_full_disk_is_said_and_leaves_what_was_saved(tmp_path, monkeypatch, whole):
    def full(*_):
        raise OSError(28, "No space left on device")

    evaluate(tmp_path, stop=10)
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(UsageError, match=r"apgd-examples.part cannot be written \(No space left"):
            evaluate(tmp_path)
    evaluate(tmp_path).finish({}, RESULT)
    assert (tmp_path / whole.name).read_bytes() == whole.read_bytes()
