"""The run folder: nothing is ever half-written, and what is written comes back."""

import os

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stcore.base.files import write_file
from stcore.base.weights_file import load_weights, save_weights
from stcore.cli.options import TrainOptions
from stcore.cli.parsing import from_file
from stcore.errors import UsageError
from stcore.methods import METHODS
from stcore.runs.folder import CONFIG, METRICS, RunFolder
from stcore.runs.plan import make_plan


def test_a_file_is_replaced_whole(tmp_path):
    path = tmp_path / "file"
    write_file(path, "first")
    write_file(path, b"second")
    assert path.read_text() == "second"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("fails", ["fsync", "replace"])
def test_a_writer_that_fails_midway_leaves_the_earlier_file(tmp_path, monkeypatch, fails):
    path = tmp_path / "file"
    write_file(path, "first")

    def full(*args):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, fails, full)
    message = r"/file cannot be written \(No space left on device\)\. Free space or choose another place"
    with pytest.raises(UsageError, match=message):
        write_file(path, "second, longer")
    assert path.read_text() == "first"
    assert list(tmp_path.iterdir()) == [path]


def test_weights_and_metadata_come_back(tmp_path):
    path = tmp_path / "w.safetensors"
    rng = np.random.default_rng(0)
    weights = {
        "conv.weight": rng.normal(size=(4, 3, 3, 3)).astype(np.float32),
        "transposed": rng.normal(size=(2, 5)).T,  # float64, not contiguous
        "scalar": np.array(3.0, np.float32),
    }
    save_weights(path, weights, {"model": "tiny", "epoch": 3})
    loaded, about = load_weights(path)
    assert about == {"model": "tiny", "epoch": "3"}
    assert loaded.keys() == weights.keys()
    for name, array in weights.items():
        assert loaded[name].dtype == array.dtype
        np.testing.assert_array_equal(loaded[name], array)


def test_weights_that_cannot_be_read_are_refused(tmp_path):
    good = tmp_path / "good.safetensors"
    save_weights(good, {"w": np.zeros(100)}, {})
    bad = tmp_path / "bad.safetensors"
    for content in (b"", b"no weights at all", good.read_bytes()[:-1], good.read_bytes()[:20]):
        bad.write_bytes(content)
        with pytest.raises(UsageError, match=r"weights: .*bad\.safetensors is not a readable safetensors file"):
            load_weights(bad)
    for missing in (tmp_path / "none.safetensors", tmp_path):
        with pytest.raises(UsageError, match=r"weights: expected a \.safetensors file"):
            load_weights(missing)


TEXTS = st.text(st.characters(exclude_categories=("Cs",), exclude_characters="\x7f"), max_size=20)
NUMBERS = st.floats(0, 1e6, allow_nan=False) | st.sampled_from([8 / 255, 1e-05, 5e-324, 1e300])
BY_TYPE = {
    str: TEXTS,
    str | None: TEXTS | st.none(),
    int: st.integers(-(2**63), 2**63 - 1),
    int | None: st.integers(0, 10**6) | st.none(),
    float: NUMBERS,
    float | None: NUMBERS | st.none(),
    bool: st.booleans(),
    tuple[float, ...]: st.lists(NUMBERS, max_size=4).map(tuple),
    tuple[str, ...]: st.lists(TEXTS, max_size=4).map(tuple),
}


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_every_option_comes_back_from_toml(tmp_path_factory, data):
    import typing

    types = typing.get_type_hints(TrainOptions)
    given = {name: data.draw(BY_TYPE[kind], label=name) for name, kind in types.items()}
    folder = RunFolder(tmp_path_factory.mktemp("config"))
    folder.write_config(given)
    back = from_file(TrainOptions, folder.path / CONFIG)
    assert back == {name: value for name, value in given.items() if value is not None}


@pytest.mark.parametrize("method", METHODS)
def test_a_plan_comes_back_from_its_config(tmp_path, method):
    plan = make_plan({"method": method, "threads": 2, "dataset": 'parquet:/data/ä 😀 [x] "y" \\z'})
    folder = RunFolder(tmp_path)
    folder.write_config(plan.flat())
    assert make_plan(from_file(TrainOptions, tmp_path / CONFIG)) == plan


def test_a_folder_is_taken_only_if_nothing_is_lost(tmp_path):
    RunFolder.create(tmp_path / "new" / "deep")
    RunFolder.create(tmp_path / "new" / "deep")  # still empty
    (tmp_path / "used").mkdir()
    (tmp_path / "used" / ".hidden").touch()
    with pytest.raises(UsageError, match=r"expected a new or empty folder; .*used holds other files"):
        RunFolder.create(tmp_path / "used")
    (tmp_path / "file").touch()
    with pytest.raises(UsageError, match=r"expected a new or empty folder; .*file is a file"):
        RunFolder.create(tmp_path / "file")
    with pytest.raises(UsageError, match="file/below cannot be made"):
        RunFolder.create(tmp_path / "file" / "below")


def test_default_names_never_meet(tmp_path):
    names = []
    for _ in range(3):
        path = RunFolder.unused(tmp_path, "run")
        path.mkdir()
        names.append(path.name)
    assert names == ["run", "run-2", "run-3"]


def test_metrics_are_a_line_each(tmp_path):
    folder = RunFolder(tmp_path)
    folder.append_metrics({"epoch": 1})
    folder.append_metrics({"epoch": 2})
    assert (tmp_path / METRICS).read_text() == '{"epoch": 1}\n{"epoch": 2}\n'
