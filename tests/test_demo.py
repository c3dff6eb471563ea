"""`stcli demo`, shortened: what it prints is what its runs found, and it takes up what is there."""

import json
import re
import shutil

import numpy as np
import pytest
from harness import load
from reported import Page, shown, undrawn
from small import contents, stcli
from terminal import on_a_terminal

from stcore import zoo
from stcore.runs.plan import make_plan

pytest.importorskip("matplotlib")
pytest.importorskip("jinja2")

METHODS = ("standard", "trades", "st")
SMALL = {"model": "tiny", "batch_size": 40, "train_size": 64, "validation_size": 32, "test_size": 32}


def demo(out, backend, *more, epochs=1):
    return stcli("demo", "--backend", backend, "--out", out, "--epochs", epochs, "--images", 4, *more)


def accuracies(out, method):
    """Of the best checkpoint: natural, PGD-20 and AutoAttack, from the files."""
    own = json.loads((out / method / "result.json").read_text())["checkpoints"]["best"]
    (later,) = (out / method).glob("evaluations/*/best/result.json")
    return [own["natural"], own["pgd20"], json.loads(later.read_text())["accuracies"]["autoattack"]]


def printed(said):
    """The rows of the closing table."""
    cells = [re.split(r"\s*│\s*", line.strip("│ ")) for line in said.splitlines() if "│" in line]
    return {row[0]: row[1:] for row in cells}


@pytest.fixture(autouse=True, scope="module")
def small():
    """The demo's runs with the smallest network, on few digits."""
    from stcore.cli import demo

    plan_of = demo.plan_of
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(demo, "plan_of", lambda *asked: make_plan({**plan_of(*asked).flat(), **SMALL}))
        yield


@pytest.fixture(scope="module", params=["torch", pytest.param("keras", marks=pytest.mark.slow)])
def backend(request):
    """Three runs of Keras take twenty seconds of tracing; its own runs and reports have their tests elsewhere."""
    return load(request.param)


@pytest.fixture(scope="module")
def made(backend, tmp_path_factory):
    """A demo that came to its end after its first run had been interrupted."""
    from stcore.base.progress import Silent
    from stcore.cli.demo import DemoOptions, plan_of
    from stcore.runs.training_run import RunOptions, run

    out = tmp_path_factory.mktemp("demo") / "here"
    plan = plan_of("standard", DemoOptions(backend=backend.name, epochs=1))
    assert run(plan, out / "standard", Silent(), options=RunOptions(seconds=0)).interrupted
    with undrawn(backend.name == "keras"):  # what is drawn of a run of Keras: test_report.py
        said = demo(out, backend.name)
    assert said.code == 0, said.err
    return out, said


def test_the_table_and_the_words_are_what_was_found(made):
    out, said = made
    found = {method: accuracies(out, method) for method in METHODS}
    assert printed(said.out) == {method: [shown(score) for score in scores] for method, scores in found.items()}
    shares = {method: [score["correct"] / score["total"] for score in scores] for method, scores in found.items()}
    natural, robust, _ = shares["standard"]
    assert (
        f"The standard network is right on {natural:.0%} of the test images as they are, and on {robust:.0%}"
        in (said.out)
    )
    best = max(("trades", "st"), key=lambda method: shares[method][1])
    assert f"Under the same attack {best} is right on {shares[best][1]:.0%}" in said.out
    assert f"AutoAttack leaves {best} {shares[best][2]:.0%} of 4 images" in said.out


def test_what_the_audits_warn_of_is_said(made):
    out, said = made
    warned = [
        f"{method} ({', '.join(warnings)})"
        for method in METHODS
        for file in (out / method).glob("evaluations/*/best/result.json")
        if (warnings := [f"{one['check']}: {one['value']}" for one in audit_of(file) if one["status"] == "warn"])
    ]
    assert all(one in said.out for one in warned)
    assert ("The audit warns" in said.out) == bool(warned)


def audit_of(file):
    return json.loads(file.read_text())["audit"]


def test_the_report_is_of_the_three(made):
    out, said = made
    assert f"the report is in {out / 'report.html'}" in said.out
    rows = Page.of(out / "report.html").table("Best checkpoints")
    assert [row[0] for row in rows[1:]] == list(METHODS)
    assert rows[1:] == [[m, *map(shown, accuracies(out, m))] for m in METHODS]
    assert (out / "report.html").stat().st_size < 3e6


def test_the_same_command_takes_up_what_is_there(made, backend, monkeypatch):
    out, first = made
    monkeypatch.delenv("DISPLAY", raising=False)
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
    before = {method: contents(out / method) for method in METHODS}
    with undrawn():
        again = demo(out, backend.name, "--open")
    assert again.code == 0, again.err
    assert again.out.count("trained before") == 3
    assert printed(again.out) == printed(first.out)
    assert f"no browser found: open {out / 'report.html'} in one" in again.out
    known = {method: contents(out / method) for method in METHODS}
    assert known == before


def test_networks_of_the_package_are_attacked_beside_them(made, backend, tmp_path):
    shutil.copytree(made[0], tmp_path / "again")
    said = demo(tmp_path / "again", backend.name, "--zoo", "digits")
    assert said.code == 0, said.err
    assert not (tmp_path / "again" / "zoo" / "cifar10-resnet-s-16-n-fgsm").exists()  # it takes other images
    for name in (name for name in zoo.names() if name.startswith("digits-")):
        (file,) = (tmp_path / "again" / "zoo" / name).glob("*/result.json")
        found = json.loads(file.read_text())["accuracies"]
        assert printed(said.out)[name] == [shown(found[attack]) for attack in ("natural", "pgd20", "autoattack")]
        assert f"{name} withstands AutoAttack within linf ε = 0.2 on" in said.out


def test_data_that_no_network_takes_are_refused(tmp_path):
    rng = np.random.default_rng(0)
    for part in ("train", "test"):
        np.savez(
            tmp_path / f"{part}.npz",
            images=rng.integers(0, 256, (60, 5, 5, 1), np.uint8),
            labels=np.arange(60) % 3,
        )
    said = demo(tmp_path / "out", "torch", "--zoo", f"npz:{tmp_path}")
    assert said.code == 2, said.err
    assert "zoo: expected data for a network of the package (" in said.err
    assert not (tmp_path / "out").exists()


def test_another_demo_s_folder_is_refused(made, backend):
    out, _ = made
    before = contents(out)
    said = demo(out, backend.name, epochs=2)
    assert said.code == 2
    assert "its epochs is 1, here it is 2. Choose another --out" in said.err
    assert contents(out) == before


def test_a_folder_of_other_things_is_refused(tmp_path):
    (tmp_path / "standard").mkdir()
    (tmp_path / "standard" / "mine.txt").write_text("mine")
    said = demo(tmp_path, "torch")
    assert said.code == 2
    assert "expected a new or empty folder" in said.err
    assert contents(tmp_path).keys() == {"standard/mine.txt"}


def test_words_follow_the_figures():
    from stcore.cli.demo_phrases import seen
    from stcore.evaluation.accuracy import Accuracy

    def scores(trades, st):
        names = ("natural", "pgd20", "autoattack")
        by_method = {"standard": 0, "trades": trades, "st": st}
        return {method: {name: Accuracy(n, 1000) for name in names} for method, n in by_method.items()}

    assert "trades is right on 60%, and st on 40%; their intervals are apart" in " ".join(
        seen(scores(600, 400), 9)
    )
    assert "st is right on 61%, and trades on 60%; their intervals overlap" in " ".join(seen(scores(600, 610), 9))


def test_the_words_say_of_which_networks_an_audit_warns():
    from stcore.audit import Finding
    from stcore.cli.demo_phrases import doubts

    fine, bad = (
        Finding("more steps", "pass", "33 of 64", "Fine."),
        Finding("another loss", "warn", "6 of 33", "Bad."),
    )
    assert list(doubts({"standard": [fine], "st": ()})) == []
    assert list(doubts({"standard": [fine], "trades": [fine, bad], "st": [bad]})) == [
        "The audit warns of trades (another loss: 6 of 33) and of st (another loss: 6 of 33): "
        "the report explains it."
    ]


def test_the_table_fits_a_terminal():
    from stcore.cli.demo_phrases import ATTACKS, table
    from stcore.evaluation.accuracy import Accuracy

    scores = {method: {name: Accuracy(345 - n, 347) for n, name in enumerate(ATTACKS)} for method in METHODS}
    parts = [
        part
        for found in scores.values()
        for n in range(3)
        for part in shown({"correct": 345 - n, "total": 347}).split(" ", 1)
    ]
    cells = on_a_terminal(table(scores, 100))
    assert [cells.count(part) for part in parts] == [3] * len(parts)
    assert cells.count("AutoAttack") == cells.count("(100 images)") == 1
