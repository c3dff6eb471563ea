"""`stcli merge`: shards put together are the whole, and nothing else is put together."""

import json
import shutil
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from harness import load
from small import contents, stcli
from test_cli_evaluate import BOTH, ON_EACH, evaluated, sound

from stcore.base.files import read_arrays

ONE = {"attacks": "apgd-ce"}
DOUBLE = {"dtype": "float64", "attacks": f"fgsm,{BOTH}"}  # in which the batch does not show


def merge(*parts, out):
    return stcli("merge", *parts, "--out", out)


def shards(place, count, *args, **settings):
    for i in range(1, count + 1):
        evaluated(place / f"{i}", *args, shard=f"{i}/{count}", **settings)
    return [place / f"{i}" for i in range(1, count + 1)]


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Shards of one attack, by their count: made when they are first asked for."""

    @cache
    def of(count):
        place = tmp_path_factory.mktemp(f"of{count}")
        shards(place, count, **ONE)
        return place

    return of


@pytest.fixture
def parts(made, tmp_path):
    """Copies of the first shards, to damage."""

    def of(count):
        return [Path(shutil.copytree(made(count) / f"{i}", tmp_path / f"{i}")) for i in range(1, count + 1)]

    return of


def read(folder, name):
    return json.loads((folder / f"{name}.json").read_text())


@ON_EACH
def test_shards_together_are_the_whole(backend, tmp_path):
    load(backend)
    given = {**DOUBLE, "backend": backend, "subset": "3:15"}
    whole = evaluated(tmp_path / "whole", **given)
    count = 3 if backend == "torch" else 2  # Keras traces the attacks anew for each
    said = merge(*shards(tmp_path, count, **given)[::-1], out=tmp_path / "merged")  # in any order
    assert (said.code, said.err) == (0, "")
    merged = tmp_path / "merged" / "best"
    records, expected = read_arrays(merged / "records.npz"), read_arrays(whole / "records.npz")
    assert list(records) == list(expected)
    for name, array in expected.items():
        if name.endswith("/distance"):
            np.testing.assert_allclose(records[name], array, atol=1e-9)
        else:
            np.testing.assert_array_equal(records[name], array)

    results = [read(folder, "result") for folder in (merged, whole)]
    for result in results:
        del result["checksum"]  # of the seconds, too
        for stage in result["cascades"][BOTH]:
            del stage["seconds"]
    assert results[0] == results[1]
    about = [
        {k: v for k, v in read(folder, "evaluation").items() if k != "checksum"} for folder in (merged, whole)
    ]
    assert about[0] == {**about[1], "merged": count}
    for stage in results[0]["cascades"][BOTH]:
        assert f"{stage['robust']}/12" in said.out
    assert f"everything is in {tmp_path / 'merged'}" in said.out


def test_merging_again_changes_nothing(tmp_path, parts):
    both = parts(2)
    assert merge(*both, out=tmp_path / "merged").code == 0
    before = contents(tmp_path)
    assert merge(*both, out=tmp_path / "merged").code == 0
    assert contents(tmp_path) == before


def test_shards_have_folders_of_their_own(tmp_path):
    run = shutil.copytree(sound(), tmp_path / "run")
    given = ["--attacks", BOTH, "--epsilon", "0.05", "--subset", "12", "--checkpoint", "best", "--no-audit"]
    for shard in ("1/2", "2/2"):
        assert stcli("evaluate", run, *given, "--shard", shard).code == 0
    parts = sorted((run / "evaluations").iterdir())
    assert [part.name.rpartition("-")[0] for part in parts] == [f"{BOTH}-shard-{i}-of-2" for i in (1, 2)]
    assert merge(*parts, out=tmp_path / "merged").code == 0


def test_examples_stay_with_the_shards(tmp_path):
    said = merge(*shards(tmp_path, 2, "--save-examples", **ONE), out=tmp_path / "merged")
    assert said.code == 0, said.err
    assert "each shard keeps its own audit and examples" in said.out
    assert read(tmp_path / "merged" / "best", "evaluation")["examples"] is False
    assert {path.suffix for path in (tmp_path / "1" / "best").glob("*-examples*")} == {".npz"}
    assert not list((tmp_path / "merged" / "best").glob("*-examples*"))


# What is refused


def refusal(*parts, out):
    said = merge(*parts, out=out)
    assert said.code == 2
    assert not out.exists()
    return said.err


def test_parts_that_are_no_whole_are_refused(tmp_path, made, parts):
    one, two, three = parts(3)
    out = tmp_path / "merged"
    assert "each of the shards 1/n … n/n once; received 1/3, 2/3" in refusal(one, two, out=out)
    assert "once; received 1/3, 2/3, 2/3" in refusal(one, two, two, out=out)
    assert "once; received 1/2, 2/3, 3/3" in refusal(made(2) / "1", two, three, out=out)
    evaluated(tmp_path / "whole", **ONE)
    assert "once; received the whole, 2/3" in refusal(tmp_path / "whole", two, out=out)


@pytest.mark.parametrize(
    ("changes", "name"),
    [
        ({"seed": 1}, "seed"),
        ({"epsilon": 0.06}, "attacks"),
        ({"subset": 10}, "subset"),
        ({"dtype": "float64"}, "dtype"),
    ],
    ids=str,
)
def test_shards_of_different_evaluations_are_refused(tmp_path, made, changes, name):
    evaluated(tmp_path / "2", shard="2/2", **ONE, **changes)
    said = refusal(made(2) / "1", tmp_path / "2", out=tmp_path / "merged")
    assert f"expected shards of one evaluation; {name} is" in said


def test_a_shard_that_is_not_finished_is_refused(tmp_path, parts):
    one, two = parts(2)
    (two / "best" / "records.npz").unlink()
    said = refusal(one, two, out=tmp_path / "merged")
    assert f"expected the folder of a finished evaluation; {two / 'best'} has no records.npz" in said


def test_folders_of_something_else_are_refused(tmp_path, parts):
    (one, two), out = parts(2), tmp_path / "merged"
    assert "with the same checkpoints" in refusal(one, two / "best", out=out)
    assert "with the same checkpoints" in refusal(one, tmp_path / "nowhere", out=out)
    assert "received none" in refusal(out=out)
    out.mkdir()
    (out / "best").write_text("mine")
    said = merge(one, two, out=out)
    assert (said.code, "out: expected a new or empty folder" in said.err) == (2, True)


def test_a_damaged_shard_is_named(tmp_path, parts):
    one, two = parts(2)
    (two / "best" / "records.npz").write_bytes(b"PK")
    said = merge(one, two, out=tmp_path / "merged")
    assert (said.code, f"{two / 'best' / 'records.npz'} is missing or damaged" in said.err) == (3, True)
