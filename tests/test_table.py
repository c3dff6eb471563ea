"""The script behind the tables of results."""

import importlib.util
import json
import sys
from pathlib import Path

import pytest
from small import trained

from stcore.evaluation import Accuracy

TOTAL = 1000
COST = ("passes", "s/epoch", "images/s")
PATH = Path(__file__).parents[1] / "benchmarks" / "table.py"


@pytest.fixture(scope="module")
def table():
    pytest.importorskip("scipy")
    spec = importlib.util.spec_from_file_location("benchmarks_table", PATH)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def run(seed=0, accuracy=0.5, **config):
    score = {"correct": round(accuracy * TOTAL), "total": TOTAL}
    config = {"method": "st", "threads": 1, "device": "cpu", "init": "gaussian", "step_size": 0.05, **config}
    epochs = [{"images_per_second": 100.0 + seed, "seconds": 2.0}]
    return {"config": {**config, "seed": seed}, "scores": {"pgd20": score}, "epochs": epochs, "seed": seed}


def test_runs_that_differ_in_seed_alone_make_one_row(table):
    (row,) = table.group([run(seed, accuracy) for seed, accuracy in enumerate((0.4, 0.5, 0.6))])
    half = 4.302653 * 10 / 3**0.5  # the t-interval of three seeds
    assert row["seeds"] == [0, 1, 2]
    assert row["pgd20 %"] == pytest.approx((50, 50 - half, 50 + half))
    assert row["images/s"] == 101
    assert list(row) == ["seeds", "pgd20 %", *COST]
    assert (row["passes"], row["s/epoch"]) == (60, 2.0)


@pytest.mark.parametrize(
    "other",
    [
        {"method": "at"},
        {"threads": 2},
        {"device": "cuda"},
        {"dataset": "parquet:x"},
        {"init": "uniform"},
        {"step_size": 0.1},
        {"init_weights": "w"},
    ],
    ids=str,
)
def test_runs_that_differ_otherwise_are_not_averaged(table, other):
    rows = table.group([run(0, 0.4), run(1, 0.6, **other), run(2, 0.5)])
    assert [row["seeds"] for row in rows] == [[0, 2], [1]]
    interval = Accuracy(600, TOTAL).interval()  # of a single run: over images
    assert rows[1]["pgd20 %"] == pytest.approx((60, *(100 * end for end in interval)))
    shown = set(other) - set(table.UNSHOWN)
    assert set(rows[0]) - {"seeds", "pgd20 %", *COST} == (shown if "method" in other else set())


def test_the_columns_can_be_named(table):
    rows = table.group([run(method="trades"), run(method="trades", awp=0.005)], ["method", "awp"])
    assert [[row["method"], row["awp"], row["passes"]] for row in rows] == [
        ["trades", "–", 30],
        ["trades", 0.005, 39],
    ]


def test_it_reads_runs_as_stcli_leaves_them(table, monkeypatch, capsys, tmp_path):
    path = trained("torch").path
    monkeypatch.setattr(sys, "argv", ["table.py", str(path), "--json", str(tmp_path / "rows.json")])
    table.main()
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "| seeds | natural % | fgsm % | pgd20 % | passes | s/epoch | images/s |"
    assert len(lines) == 3
    (row,) = json.loads((tmp_path / "rows.json").read_text())
    best = trained("torch").json("result.json")["checkpoints"]["best"]
    assert row["pgd20 %"][0] == pytest.approx(100 * best["pgd20"]["accuracy"])
