"""`stcli analyze curves|losses|ratio|tradeoff`: numbers by hand from made-up logs, and their figures."""

import csv
import json
import math

import pytest
from harness import NAMES
from small import stcli, trained

from stcore.analysis import curves, losses, ratio, tradeoff
from stcore.errors import UsageError
from stcore.runs.folder import RunFolder
from stcore.runs.plan import make_plan


def make_run(path, rows, *, data="ab", result=None, **settings):
    """A run that logged these rows, an epoch each; finished where it has a result."""
    folder = RunFolder.create(path)
    folder.write_config(make_plan({"attacks": "pgd20", **settings}).flat())
    folder.write_json("environment.json", {"device": "cpu", "data": {"test": {"images": 1000, "sha256": data}}})
    common = {"learning_rate": 0.1, "best_epoch": 1, "seconds": 1.0, "images_per_second": 1.0}
    folder.write_metrics([{"epoch": n, **common, **row} for n, row in enumerate(rows, start=1)])
    if result is not None:
        scores = {attack: {"correct": round(10 * value), "total": 1000} for attack, value in result.items()}
        folder.write_json("result.json", {"checkpoints": {"best": scores}})
    return path


def accuracies(*pairs, prefix="", **more):
    return [
        {f"{prefix}natural_accuracy": natural, f"{prefix}pgd20_accuracy": robust, **more}
        for natural, robust in pairs
    ]


# curves


def test_curves_over_seeds_have_a_mean_and_a_band_as_far_as_each_seed_is(tmp_path):
    make_run(tmp_path / "a", accuracies((0.2, 0.1), (0.6, 0.3), (0.8, 0.2), best_epoch=2), seed=0, epochs=3)
    make_run(tmp_path / "b", accuracies((0.4, 0.2), (0.5, 0.4), best_epoch=2), seed=1, epochs=3)
    make_run(tmp_path / "c", accuracies((0.9, 0.0), best_epoch=1), method="standard", epochs=3)
    result = curves.compute({name: tmp_path / name for name in "abc"}, curves.Settings())
    seeds, alone = result.curves
    assert (seeds.label, alone.label) == ("st, 2 seeds", "c")
    assert seeds.natural.epochs == [1, 2, 3]
    assert seeds.natural.mean == pytest.approx([0.3, 0.55, 0.8])
    assert (seeds.natural.low, seeds.natural.high) == ([0.2, 0.5, 0.8], [0.4, 0.6, 0.8])
    assert seeds.robust.mean == pytest.approx([0.15, 0.35, 0.2])
    assert seeds.natural.seeds == [2, 2, 1]
    assert seeds.best == ((2, 0.6, 0.3), (2, 0.5, 0.4))
    assert (result.split, result.attack) == ("validation", "pgd20")
    assert result.table()[0]["highest robust"] == pytest.approx(0.35)
    assert len(result.rows()) == 4
    json.dumps(result.content(), allow_nan=False)


def test_averaged_weights_are_a_curve_of_their_own(tmp_path):
    rows = accuracies((0.2, 0.1), (0.6, 0.3), best_epoch=2, ema_best_epoch=1)
    for row, (natural, robust) in zip(rows, [(0.5, 0.4), (0.7, 0.2)], strict=True):
        row |= {"ema_natural_accuracy": natural, "ema_pgd20_accuracy": robust}
    make_run(tmp_path / "a", rows, ema=0.99)
    plain, averaged = curves.compute({"a": tmp_path / "a"}, curves.Settings()).curves
    assert averaged.label == "a, averaged weights"
    assert averaged.natural.mean == [0.5, 0.7]
    assert (plain.best, averaged.best) == (((2, 0.6, 0.3),), ((1, 0.5, 0.4),))


@pytest.mark.parametrize(
    ("rates", "schedule", "drops"),
    [
        ([0.1, 0.1, 0.01, 0.01, 0.001], "step", (3, 5)),
        ([0.1, 0.1, 0.1], "constant", ()),
        ([0.1, 0.09, 0.05, 0.01], "cosine", ()),
    ],
)
def test_drops_of_the_learning_rate_are_found(tmp_path, rates, schedule, drops):
    rows = [{**row, "learning_rate": rate} for rate in rates for row in accuracies((0.5, 0.5))]
    make_run(tmp_path / "a", rows, schedule=schedule)
    assert curves.compute({"a": tmp_path / "a"}, curves.Settings()).drops == drops


def test_another_attack_that_was_logged_may_be_shown(tmp_path):
    row = {"natural_accuracy": 0.9, "pgd20_accuracy": 0.5, "cw100_accuracy": 0.4}
    make_run(tmp_path / "a", [row], select_by="cw100")
    for attack, value in ((None, 0.4), ("pgd20", 0.5)):
        result = curves.compute({"a": tmp_path / "a"}, curves.Settings(attack))
        assert result.curves[0].robust.mean == [value]
    with pytest.raises(UsageError, match="received fgsm, but a logged natural, pgd20, cw100"):
        curves.compute({"a": tmp_path / "a"}, curves.Settings("fgsm"))


@pytest.mark.parametrize(
    ("other", "message"),
    [
        ({"data": "cd"}, r"expected one data set for all; received a has digits \(ab\); b has digits \(cd\)"),
        ({"select": "test"}, "expected one split for the evaluation of the epochs"),
        ({"epsilon": 0.1}, "expected one ε of the attacks for all"),
    ],
)
def test_what_does_not_compare_is_not_shown_together(tmp_path, other, message):
    make_run(tmp_path / "a", accuracies((0.5, 0.5)))
    make_run(tmp_path / "b", accuracies((0.5, 0.5)), **other)
    with pytest.raises(UsageError, match=message):
        curves.compute({name: tmp_path / name for name in "ab"}, curves.Settings())


@pytest.mark.parametrize("analysis", [curves, losses, ratio])
def test_a_run_without_an_epoch_and_no_run_are_told(tmp_path, analysis):
    make_run(tmp_path / "a", [])
    with pytest.raises(UsageError, match=r"expected a finished epoch; .*/a has none yet"):
        analysis.compute({"a": tmp_path / "a"}, analysis.Settings())
    with pytest.raises(UsageError, match="received none"):
        analysis.compute({}, analysis.Settings())


def test_a_line_that_is_being_written_is_not_read(tmp_path):
    path = make_run(tmp_path / "a", accuracies((0.5, 0.5), (0.6, 0.4)))
    with (path / "metrics.jsonl").open("a") as file:
        file.write('{"epoch": 3, "natur')
    assert curves.compute({"a": path}, curves.Settings()).curves[0].natural.epochs == [1, 2]


# losses and ratio

ST = {"natural_loss": 1.0, "adversarial_loss": 2.0, "collaborative_loss": 0.5} | {
    f"{role}_loss_deviation": deviation
    for role, deviation in (("natural", 0.3), ("adversarial", 0.4), ("collaborative", 0.2))
}
TRADES = {
    "natural_loss": 1.0,
    "natural_loss_deviation": 0.3,
    "adversarial_loss": 1.6,
    "adversarial_loss_deviation": 9,
}


def found(result, run=0):
    return {kind.role: (kind.loss.mean, kind.deviation.mean) for kind in result.panels[run].kinds}


def test_squeeze_training_logs_all_three(tmp_path):
    make_run(tmp_path / "a", [ST])
    result = losses.compute({"a": tmp_path / "a"}, losses.Settings())
    assert found(result) == {
        "natural": ([1.0], [0.3]),
        "adversarial": ([2.0], [0.4]),
        "collaborative": ([0.5], [0.2]),
    }
    assert [row["loss_deviation"] for row in result.rows()] == [0.3, 0.4, 0.2]


def test_of_trades_the_adversarial_mean_is_what_the_collaborative_points_leave(tmp_path):
    """A quarter has a mean of 0.4, all have 1.6: the others have (1.6 − 0.25·0.4) / 0.75 = 2. By hand, too, where
    all are adversarial, and where none is."""
    rows = [
        {**TRADES, "collaborative_share": 0.25, "collaborative_loss": 0.4},
        {**TRADES, "collaborative_share": 0.0},
        {**TRADES, "collaborative_share": 1.0, "collaborative_loss": 1.6},
    ]
    make_run(tmp_path / "a", rows, method="trades")
    result = losses.compute({"a": tmp_path / "a"}, losses.Settings())
    natural, adversarial, collaborative = result.panels[0].kinds
    assert (adversarial.loss.epochs, adversarial.loss.mean) == ([1, 2], pytest.approx([2.0, 1.6]))
    assert adversarial.deviation.by_epoch() == {2: 9.0}  # known only where they are all the points there are
    assert (collaborative.loss.epochs, collaborative.loss.mean) == ([1, 3], [0.4, 1.6])
    assert natural.deviation.mean == [0.3] * 3
    assert [row["adversarial"] for row in result.table()] == [pytest.approx(2.0), None]

    shares = ratio.compute({"a": tmp_path / "a"}, ratio.Settings())
    assert shares.shares[0].share.mean == [0.25, 0.0, 1.0]
    assert shares.table()[0] == {"run": "a", "epochs": 3, "first": 0.25, "highest": 1.0, "last": 1.0}


def test_a_method_that_meets_one_kind_of_points_shows_it(tmp_path):
    make_run(tmp_path / "a", [{"natural_loss": 1.5, "natural_loss_deviation": 0.1}], method="standard")
    make_run(tmp_path / "b", [{"adversarial_loss": 2.5}], method="at")
    result = losses.compute({name: tmp_path / name for name in "ab"}, losses.Settings())
    assert found(result, 0) == {"natural": ([1.5], [0.1])}
    assert found(result, 1) == {"adversarial": ([2.5], [])}


def test_runs_from_before_it_was_logged_are_told(tmp_path):
    make_run(tmp_path / "a", [{"natural_loss": 1.0, "adversarial_loss": 2.0}], method="trades")
    make_run(tmp_path / "b", [{"loss": 1.0}], method="trades")
    with pytest.raises(UsageError, match=r"a \(trades\) was trained before it was logged"):
        losses.compute({"a": tmp_path / "a"}, losses.Settings())
    with pytest.raises(UsageError, match="expected losses in the metrics; b logged none"):
        losses.compute({"b": tmp_path / "b"}, losses.Settings())
    with pytest.raises(UsageError, match="a is of trades, trained before their share was logged"):
        ratio.compute({"a": tmp_path / "a"}, ratio.Settings())


def test_a_method_without_a_share_is_told_which_have_one(tmp_path):
    make_run(tmp_path / "a", [ST])
    with pytest.raises(UsageError, match=r"expected runs of trades, trades2, mart, .*; a is of st. Omit it"):
        ratio.compute({"a": tmp_path / "a"}, ratio.Settings())


# tradeoff


def grid(path, **more):
    """TRADES at two β, of which the second is beaten by ST at 2; ST at 2 with two seeds; standard."""
    rows = accuracies((0.5, 0.5))
    make_run(path / "t2", rows, method="trades", beta=2.0, result={"natural": 80, "pgd20": 40}, **more)
    make_run(path / "t6", rows, method="trades", beta=6.0, result={"natural": 70, "pgd20": 42}, **more)
    make_run(path / "s2a", rows, beta=2.0, seed=1, result={"natural": 74, "pgd20": 50}, **more)
    make_run(path / "s2b", rows, beta=2.0, seed=2, result={"natural": 76, "pgd20": 54}, **more)
    make_run(path / "n", rows, method="standard", result={"natural": 95, "pgd20": 0}, **more)
    return {folder.name: folder for folder in sorted(path.iterdir())}


def test_points_of_the_same_settings_but_beta_make_a_line(tmp_path):
    result = tradeoff.compute(grid(tmp_path), tradeoff.Settings())
    said = {
        (line.label, line.divergence, point.beta): (
            point.natural.mean,
            point.robust.mean,
            point.robust.seeds,
            point.optimal,
        )
        for line in result.lines
        for point in line.points
    }
    assert said == {
        ("trades", "kl", 2.0): (pytest.approx(80), pytest.approx(40), 1, True),
        ("trades", "kl", 6.0): (pytest.approx(70), pytest.approx(42), 1, False),
        ("st", "symmetric_kl", 2.0): (pytest.approx(75), pytest.approx(52), 2, True),
        ("standard", None, None): (pytest.approx(95), pytest.approx(0), 1, True),
    }
    assert [line.original for line in result.lines if line.method == "trades"] == [True]
    assert result.attack == "pgd20"
    row = next(row for row in result.rows() if row["method"] == "st")
    half = 12.706204736 * math.sqrt(2) * 2 / math.sqrt(2)  # t of one degree of freedom; deviation √8 of 50 and 54
    assert (row["robust_low"], row["robust_high"]) == pytest.approx((52 - half, 52 + half))


def test_unfinished_runs_are_left_out_and_an_attack_is_asked_for(tmp_path):
    runs = grid(tmp_path / "grid")
    runs["u"] = make_run(tmp_path / "u", accuracies((0.5, 0.5)), beta=3.0)
    result = tradeoff.compute(runs, tradeoff.Settings())
    assert sum(len(line.points) for line in result.lines) == 4
    assert "u is unfinished after 1 epochs" in result.left_out[0]
    with pytest.raises(UsageError, match=r"has no autoattack, only natural, pgd20. Evaluate it: stcli evaluate"):
        tradeoff.compute(runs, tradeoff.Settings("autoattack"))
    with pytest.raises(UsageError, match=r"expected at least one finished run; .*/u is unfinished"):
        tradeoff.compute({"u": tmp_path / "u"}, tradeoff.Settings())
    runs["v"] = make_run(tmp_path / "v", [], data="cd", result={"natural": 50, "pgd20": 5})
    with pytest.raises(UsageError, match="expected one data set for all"):
        tradeoff.compute(runs, tradeoff.Settings())


def test_the_strongest_attack_that_all_have_is_taken(tmp_path):
    for name, method in (("a", "st"), ("b", "trades")):
        scores = {"natural": 80, "pgd20": 50, "autoattack": 45}
        make_run(tmp_path / name, [], method=method, result=scores)
    runs = {name: tmp_path / name for name in "ab"}
    assert tradeoff.compute(runs, tradeoff.Settings()).attack == "autoattack"
    runs["c"] = make_run(tmp_path / "c", [], method="at", result={"natural": 80, "pgd20": 50})
    assert tradeoff.compute(runs, tradeoff.Settings()).attack == "pgd20"


def test_the_papers_points_are_those_that_it_prints(tmp_path):
    """Table 1 holds two of the points of Fig. 6: TRADES and ST at β = 6."""
    of_paper = {"dataset": "cifar10", "model": "resnet18", "epsilon": 8 / 255}
    make_run(tmp_path / "a", [], result={"natural": 80, "pgd20": 50, "autoattack": 45}, **of_paper)
    result = tradeoff.compute({"a": tmp_path / "a"}, tradeoff.Settings(paper=True))
    printed = [row for row in result.rows() if row["source"] == "paper"]
    assert [(row["method"], row["beta"], row["natural"], row["robust"]) for row in printed] == [
        ("trades", 6.0, 82.41, 49.37),
        ("st", 6.0, 83.10, 50.50),
    ]
    assert result.rows()[0]["pareto_optimal"]  # among our own points
    with pytest.raises(UsageError, match="paper: expected runs of resnet18 on cifar10"):
        tradeoff.compute(grid(tmp_path / "grid"), tradeoff.Settings(paper=True))


# Figures and the command


def inside(figure):
    """Nothing is cut off, and every panel has a name for what it shows."""
    figure.draw_without_rendering()
    box, (width, height) = figure.get_tightbbox(), figure.get_size_inches()
    assert min(box.x0, box.y0) > -0.01
    assert box.x1 < width + 0.01
    assert box.y1 < height + 0.01


@pytest.fixture(scope="module")
def logged(tmp_path_factory):
    path = tmp_path_factory.mktemp("logged")
    rows = accuracies((0.2, 0.1), (0.6, 0.3), (0.8, 0.2), best_epoch=2)
    shares = [{"collaborative_share": share, "collaborative_loss": 0.4} for share in (0.45, 0.3, 0.25)]
    make_run(path / "st", [{**row, **ST} for row in rows], beta=2.0, result={"natural": 70, "pgd20": 40})
    make_run(path / "js", [{**row, **ST} for row in rows], divergence="js", result={"natural": 72, "pgd20": 30})
    trades = [{**row, **TRADES, **share} for row, share in zip(rows, shares, strict=True)]
    for seed in range(2):
        make_run(path / f"t{seed}", trades, method="trades", seed=seed, result={"natural": 60 + seed, "pgd20": 35})
    return path


@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize("name", ["curves", "losses", "ratio", "tradeoff"])
def test_a_figure_has_named_axes_a_legend_and_nothing_cut_off(logged, name, dark):
    pytest.importorskip("matplotlib")
    from importlib import import_module

    analysis, drawer = (import_module(f"stcore.{part}.{name}") for part in ("analysis", "figures"))
    runs = {folder.name: folder for folder in sorted(logged.iterdir()) if name != "ratio" or "t" in folder.name[0]}
    figure = drawer.draw(analysis.compute(runs, analysis.Settings()), dark=dark)
    inside(figure)
    assert round(figure.get_size_inches()[0], 1) in (3.3, 6.9)
    axes = figure.axes
    supylabel = figure.get_supylabel()
    assert all(" in " in (one.get_ylabel() or supylabel) for one in axes)
    assert any(one.get_xlabel() in ("epoch", "natural accuracy in %") for one in axes)
    legends = [*figure.legends, *(one.get_legend() for one in axes if one.get_legend())]
    said = {text.get_text() for legend in legends for text in legend.get_texts()}
    wanted = {
        "curves": {"st", "js", "trades, 2 seeds", "best epoch", "lowest to highest seed"},
        "losses": {"natural", "adversarial", "collaborative"},
        "ratio": {"trades, 2 seeds"},
        "tradeoff": {"trades (as published)", "st", "Pareto-optimal"},
    }
    assert wanted[name] <= said


def test_a_long_name_of_an_attack_is_not_cut_off(tmp_path):
    pytest.importorskip("matplotlib")
    from stcore.figures.tradeoff import draw

    attack = "autoattack (epsilon 0.03137, norm l2, subset 1000)"
    make_run(tmp_path / "a", [], result={"natural": 80, attack: 50})
    inside(draw(tradeoff.compute({"a": tmp_path / "a"}, tradeoff.Settings(attack))))


def test_a_trade_off_has_a_panel_for_each_divergence_and_the_original_in_all(logged):
    pytest.importorskip("matplotlib")
    from stcore.figures.tradeoff import panels_of

    runs = {folder.name: folder for folder in sorted(logged.iterdir())}
    panels = panels_of(tradeoff.compute(runs, tradeoff.Settings()).lines)
    assert {title: [(line.method, line.divergence) for line in lines] for title, lines in panels.items()} == {
        "JS divergence": [("trades", "kl"), ("st", "js")],
        "symmetric KL": [("trades", "kl"), ("st", "symmetric_kl")],
        "all of st": [("trades", "kl"), ("st", "symmetric_kl"), ("st", "js")],
    }


@pytest.mark.parametrize("name", ["curves", "losses", "ratio", "tradeoff"])
def test_the_command_writes_the_figure_and_its_numbers(logged, tmp_path, name):
    pytest.importorskip("matplotlib")
    args = ["--intervals"] if name == "tradeoff" else []
    runs = logged / "t*" if name in ("ratio", "losses") else logged
    said = stcli("analyze", name, runs, "--out", tmp_path, "--formats", "png,svg,pdf", *args)
    assert said.code == 0, said.err
    assert {path.name for path in tmp_path.iterdir()} == {
        f"{name}.{kind}" for kind in ("png", "svg", "pdf", "csv", "json")
    }
    rows = list(csv.DictReader((tmp_path / f"{name}.csv").open()))
    content = json.loads((tmp_path / f"{name}.json").read_text())
    assert len(rows) == len(content["rows"]) > 1
    for row, same in zip(rows, content["rows"], strict=True):
        assert row == {key: "" if value is None else str(value) for key, value in same.items()}


@pytest.mark.parametrize("backend", NAMES)
def test_a_run_as_stcli_leaves_it(tmp_path, backend):
    pytest.importorskip("matplotlib")
    run = trained(backend)
    said = stcli("analyze", "curves", run.path, "--out", tmp_path)
    assert said.code == 0, said.err
    rows = json.loads((tmp_path / "curves.json").read_text())["rows"]
    assert [(row["natural"], row["robust"]) for row in rows] == [
        (row["natural_accuracy"], row["pgd20_accuracy"]) for row in run.metrics
    ]
    said = stcli("analyze", "losses", run.path, "--out", tmp_path)
    assert said.code == 0, said.err
    rows = json.loads((tmp_path / "losses.json").read_text())["rows"]
    assert len(rows) == 3 * len(run.metrics)
    for row in rows:
        logged = run.metrics[row["epoch"] - 1]
        assert row["loss"] == logged[f"{row['points']}_loss"]
        assert row["loss_deviation"] == logged[f"{row['points']}_loss_deviation"]
