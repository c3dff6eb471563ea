"""`stcli analyze robustness-curve`: curves by hand from made-up records, their figure, the report's section."""

import csv
import json
import math

import numpy as np
import pytest
from reported import Page, make_run
from scipy.stats import beta
from small import stcli
from test_cli_evaluate import sound

from stcore.analysis import robustness
from stcore.analysis.robustness import TOGETHER, Settings, compute
from stcore.autoattack.records import Records
from stcore.base.files import write_arrays, write_json
from stcore.base.weights_file import load_weights
from stcore.cli.analyze_options import OPTIONS
from stcore.errors import UsageError
from stcore.runs.evaluation_identity import fingerprint

NORMS = {"fmn": [0.0, 0.1, 0.2, 0.2, math.inf], "ddn": [0.0, 0.3, 0.1, 0.25, 0.6]}


def records_of(norms, epsilon, *, nearest=True, name="fmn"):
    """A cascade's arrays: 0 stands for a misclassified image, infinity for one without an example."""
    norms = np.array(norms)
    label, natural = np.zeros(len(norms), int), (norms == 0).astype(int)
    records = Records.untouched(label, natural)
    known = (norms > 0) & np.isfinite(norms)
    records.distance[known] = norms[known]
    within = known & (norms <= epsilon * (1 + 1e-6) + 1e-7)
    records.attack[within], records.predicted[within] = 0, 1
    arrays = {f"{name}/{key}": array for key, array in records.arrays().items()}
    arrays |= {f"predicted/{name}": records.predicted, f"{name}/attacks": np.array([name])}
    return arrays | ({f"{name}/minimum_norm": records.minimum_norm} if nearest else {})


def make_evaluation(folder, arrays, *, positions=None, **identity):
    attacks = [key.removeprefix("predicted/") for key in arrays if key.startswith("predicted/")]
    images = len(arrays[f"predicted/{attacks[0]}"])
    folder.mkdir(parents=True)
    settings = {
        "weights": "w" * 64,
        "data": "d" * 64,
        "subset": None,
        "shard": None,
        "images": images,
        "attacks": {name: f"{name}()" for name in attacks},
        "epsilon": 0.2,
        "norm": "l2",
    }
    write_json(folder / "evaluation.json", settings | identity)
    positions = np.arange(images) if positions is None else np.array(positions)
    write_arrays(folder / "records.npz", {"position": positions, "label": np.zeros(images, int), **arrays})
    score = {"accuracy": 0.5, "correct": 1, "total": 2, "interval_95": [0.1, 0.9]}
    write_json(folder / "result.json", {"accuracies": dict.fromkeys(attacks, score), "audit": None})
    return folder


@pytest.fixture
def both(tmp_path):
    arrays = {**records_of(NORMS["fmn"], 0.2), **records_of(NORMS["ddn"], 0.2, name="ddn")}
    return make_evaluation(tmp_path / "both", arrays)


def test_a_curve_falls_at_each_norm_and_the_smallest_norms_are_the_lowest(both):
    result = compute({"net": both}, Settings())
    assert result.norm == "l2"
    by_attack = {curve.attack: curve for curve in result.curves}
    assert list(by_attack) == ["fmn", "ddn", TOGETHER]
    np.testing.assert_array_equal(by_attack["fmn"].norms, NORMS["fmn"])
    np.testing.assert_array_equal(by_attack[TOGETHER].norms, [0.0, 0.1, 0.1, 0.2, 0.6])
    fmn = by_attack["fmn"]
    assert fmn.radii == [0.0, 0.1, 0.2]
    assert [fmn.at(radius).correct for radius in (0.0, 0.0999, 0.1, 0.19, 0.2, 9.0)] == [4, 4, 3, 3, 1, 1]
    assert fmn.median == pytest.approx(0.2)  # of 0.1, 0.2, 0.2 and infinity
    assert by_attack[TOGETHER].median == pytest.approx(0.15)
    for curve in by_attack.values():
        for radius in np.linspace(0, 1, 30):
            assert by_attack[TOGETHER].at(radius).correct <= curve.at(radius).correct


def test_rows_carry_clopper_pearson_intervals(both):
    result = compute({"net": both}, Settings())
    rows = [row for row in result.rows() if row["attack"] == "fmn"]
    assert [(row["epsilon"], row["correct"], row["images"]) for row in rows] == [
        (0, 4, 5),
        (0.1, 3, 5),
        (0.2, 1, 5),
    ]
    for row in rows:
        k, n = row["correct"], row["images"]
        assert row["robust"] == k / n
        assert row["low"] == pytest.approx(beta.ppf(0.025, k, n - k + 1))
        assert row["high"] == pytest.approx(beta.ppf(0.975, k + 1, n - k))
    assert result.table()[0] == {
        "network": "net",
        "attack": "fmn",
        "images": 5,
        "natural": 0.8,
        "median_norm": pytest.approx(0.2),
        "without_example": 1,
    }
    json.dumps(result.content(), allow_nan=False)


def test_no_median_where_more_than_half_have_no_example(tmp_path):
    folder = make_evaluation(tmp_path / "a", records_of([0.1, math.inf, math.inf], 0.2))
    (curve,) = compute({"net": folder}, Settings()).curves
    assert curve.median is None
    assert curve.at(5.0).correct == 2
    json.dumps(compute({"net": folder}, Settings()).content(), allow_nan=False)


def test_attacks_in_a_ball_are_points_and_their_examples_count_in_the_smallest_norms(tmp_path):
    fmn = make_evaluation(tmp_path / "x" / "best", records_of([0.0, 0.3, 0.1, 0.5], 0.2))
    # Two examples on the sphere, one of them outside by a rounding.
    ball = records_of([0.0, 0.2, 0.2 + 1e-8, math.inf], 0.2, nearest=False, name="autoattack")
    ball["predicted/pgd20"] = np.array([1, 1, 0, 0])
    ball["predicted/pgd_trades"] = np.array([1, 1, 1, 0])  # at a radius of its own
    aa = make_evaluation(tmp_path / "y" / "best", ball)
    result = compute({"one": fmn, "two": aa}, Settings())
    assert [(curve.network, curve.attack) for curve in result.curves] == [("one", "fmn"), ("one", TOGETHER)]
    np.testing.assert_array_equal(result.curves[1].norms, [0.0, 0.2, 0.1, 0.5])
    assert result.curves[1].at(0.2).correct == 1
    points = {point.attack: (point.epsilon, point.robust.correct) for point in result.points}
    assert points == {"autoattack": (0.2, 1), "pgd20": (0.2, 2)}


def test_an_attack_counts_in_the_norm_and_at_the_radius_that_its_name_says(tmp_path):
    """As the members of a union do, whatever the ball of their evaluation."""
    arrays = records_of([0.1, 0.3, 0.1, 0.5], 0.2)
    arrays |= records_of([0.05, 0.3, math.inf, 0.4], 0.5, nearest=False, name="l2:0.5")
    arrays |= records_of([0.01, 0.01, 0.01, 0.01], 0.03, nearest=False, name="linf:0.03")
    arrays |= records_of([0.02, 0.03, 0.04, 0.05], 0.03, name="linf:0.03:fmn")
    arrays |= {f"predicted/{name}": np.array([1, 1, 0, 0]) for name in ("l2:0.1:pgd20", "linf:0.01:pgd20")}
    folder = make_evaluation(tmp_path / "x" / "best", arrays)
    result = compute({"net": folder}, Settings(norm="l2"))
    assert {c.attack: c.norms.tolist() for c in result.curves} == {
        "fmn": [0.1, 0.3, 0.1, 0.5],
        TOGETHER: [0.05, 0.3, 0.1, 0.4],
    }
    assert {point.attack: point.epsilon for point in result.points} == {"l2:0.5": 0.5, "l2:0.1:pgd20": 0.1}
    result = compute({"net": folder}, Settings(norm="linf"))
    assert {c.attack: c.norms.tolist() for c in result.curves} == {
        "linf:0.03:fmn": [0.02, 0.03, 0.04, 0.05],
        TOGETHER: [0.01] * 4,
    }
    assert {point.attack: point.epsilon for point in result.points} == {"linf:0.03": 0.03, "linf:0.01:pgd20": 0.01}
    with pytest.raises(UsageError, match="expected one of l2, linf, in which there are minimum norms"):
        compute({"net": folder}, Settings())


def test_curves_are_of_the_images_that_all_searches_saw(tmp_path):
    make_evaluation(tmp_path / "a", records_of([0.1, 0.2, 0.3, 0.4], 0.2), positions=[7, 3, 5, 1])
    make_evaluation(tmp_path / "b", records_of([0.25, 0.15], 0.2, name="ddn"), positions=[3, 5])
    ball = {"predicted/pgd20": np.array([0, 1, 1])}
    make_evaluation(tmp_path / "c", ball, positions=[5, 3, 9])
    make_evaluation(tmp_path / "d", ball | {"predicted/fgsm": np.zeros(3, int)}, positions=[3, 8, 9])
    result = compute({name: tmp_path / name for name in "abcd"}, Settings())
    by_attack = {curve.attack: curve.norms.tolist() for curve in result.curves}
    assert by_attack == {"fmn": [0.2, 0.3], "ddn": [0.25, 0.15], TOGETHER: [0.2, 0.15]}  # at 3 and 5
    assert [(point.attack, point.robust.correct, point.robust.total) for point in result.points] == [
        ("pgd20", 1, 2)
    ]
    make_evaluation(tmp_path / "e", records_of([0.1], 0.2), positions=[100])
    with pytest.raises(UsageError, match="expected evaluations of the same images"):
        compute({name: tmp_path / name for name in "ae"}, Settings())


def test_networks_have_curves_of_their_own_and_names_that_differ(tmp_path):
    for name, weights in (("a", "1" * 64), ("b", "2" * 64)):
        folder = tmp_path / name
        make_evaluation(folder / "evaluations" / "it" / "best", records_of(NORMS["fmn"], 0.2), weights=weights)
        make_evaluation(folder / "evaluations" / "it" / "last", records_of(NORMS["ddn"], 0.2), weights="3" * 64)
    result = compute({name: tmp_path / name for name in "ab"}, Settings())
    assert [curve.network for curve in result.curves] == ["a", "b"]
    last = compute({"a": tmp_path / "a"}, Settings(checkpoint="last"))
    np.testing.assert_array_equal(last.curves[0].norms, NORMS["ddn"])
    make_evaluation(tmp_path / "a" / "evaluations" / "later" / "best", records_of([0.1], 0.2), weights="4" * 64)
    both = compute({"a": tmp_path / "a"}, Settings())
    assert [curve.network for curve in both.curves] == ["a (11111111)", "a (44444444)"]


def test_several_norms_are_chosen_from(tmp_path):
    make_evaluation(tmp_path / "a", records_of([0.1, 0.4], 0.2))
    make_evaluation(tmp_path / "b", records_of([0.01, 0.04], 0.02), norm="linf", epsilon=0.02)
    runs = {name: tmp_path / name for name in "ab"}
    with pytest.raises(UsageError, match="norm: expected one of l2, linf"):
        compute(runs, Settings())
    assert compute(runs, Settings(norm="linf")).curves[0].norms.tolist() == [0.01, 0.04]
    with pytest.raises(UsageError, match="received l0, which has none"):
        compute(runs, Settings(norm="l0"))


def test_what_cannot_be_drawn_is_told(tmp_path):
    with pytest.raises(UsageError, match="expected a run with an evaluation of its best checkpoint, or"):
        compute({"a": tmp_path}, Settings())
    make_evaluation(tmp_path / "pgd", {"predicted/pgd20": np.zeros(2, int)})
    with pytest.raises(UsageError, match="expected an evaluation with minimum norms, by stcli evaluate"):
        compute({"a": tmp_path / "pgd"}, Settings())
    unfinished = make_evaluation(tmp_path / "unfinished", records_of([0.1], 0.2))
    (unfinished / "records.npz").unlink()
    with pytest.raises(UsageError, match=r"unfinished is unfinished\. To resume it"):
        compute({"a": unfinished}, Settings())
    shard = make_evaluation(tmp_path / "shard", records_of([0.1], 0.2), shard="1/2")
    whole = make_evaluation(tmp_path / "whole", records_of([0.1], 0.2))
    (reason,) = compute({"a": shard, "b": whole}, Settings()).left_out
    assert "is shard 1/2. Merge the shards" in reason
    other = make_evaluation(tmp_path / "other", records_of([0.1], 0.2), data="e" * 64, weights="x")
    with pytest.raises(UsageError, match="expected one data set for all"):
        compute({"a": other, "b": whole}, Settings())


def test_the_command_writes_figure_and_numbers(both, tmp_path):
    pytest.importorskip("matplotlib")
    out = tmp_path / "figures"
    said = stcli("analyze", "robustness-curve", both, "--out", out, "--formats", "png,svg", "--names", "net")
    assert said.code == 0, said.err
    assert "median norm" in said.out
    rows = list(csv.DictReader((out / "robustness-curve.csv").open()))
    assert [row["attack"] for row in rows].count("fmn") == 3
    record = json.loads((out / "robustness-curve.json").read_text())
    assert record["norm"] == "l2"
    assert record["table"][0]["median_norm"] == pytest.approx(0.2)
    drawn = (out / "robustness-curve.svg").read_text()
    assert "FMN, median 0.2" in drawn
    assert "all attacks, median 0.15" in drawn
    assert (out / "robustness-curve.png").stat().st_size > 10_000
    said = stcli("analyze", "robustness-curve", tmp_path / "nowhere")
    assert said.code == 2
    assert "expected a run with an evaluation" in said.err
    assert OPTIONS["robustness-curve"].__dataclass_fields__.keys() >= Settings.__dataclass_fields__.keys()


@pytest.mark.parametrize("norm", ["linf", "l0"])
def test_the_figure_is_drawn_in_the_units_of_its_norm(tmp_path, norm):
    draw = pytest.importorskip("stcore.figures.robustness").draw
    scale = {"linf": 1 / 255, "l0": 1.0}[norm]
    folder = make_evaluation(
        tmp_path / "a", records_of(np.array([0, 1, 2, 8]) * scale, 4 * scale), norm=norm, epsilon=4 * scale
    )
    axes = draw(compute({"net": folder}, Settings())).axes[0]
    (line,) = axes.get_lines()
    x, y = line.get_data()
    assert line.get_drawstyle() == "steps-post"
    np.testing.assert_allclose(x[:4], np.array([0, 1, 2, 8]) * scale)
    np.testing.assert_allclose(y, [75, 50, 25, 0, 0])
    shown = [tick.get_text() for tick in axes.get_xticklabels() if tick.get_text()]
    assert {"0", "2", "4"} <= set(shown) or {"0", "3", "6"} <= set(shown), shown


def test_a_report_carries_the_curve_of_the_runs_own_evaluations(tmp_path):
    pytest.importorskip("matplotlib")
    run = make_run(tmp_path / "run")
    known = {
        "weights": fingerprint(load_weights(run / "best.safetensors")[0]),
        "data": json.loads((run / "environment.json").read_text())["data"]["test"]["sha256"],
        "backend": "torch",
    }
    make_evaluation(
        run / "evaluations" / "other" / "best", records_of([0.1, 0.3], 0.2), **known | {"weights": "w"}
    )
    page = page_of(run, tmp_path)
    assert "Robust accuracy against ε" not in page.text
    make_evaluation(run / "evaluations" / "fmn" / "best", records_of([0.0, 0.1, 0.3, 0.5], 0.2), **known)
    page = page_of(run, tmp_path)
    assert "Robust accuracy against ε" in page.text
    rows = page.table("Median l2 norm of the nearest examples, over the images that are classified correctly")
    assert rows[1:] == [["best", "FMN", "4", "0.3"]]
    described = [image["alt"] for image in page.all("img") if "robust accuracy against ε" in image["alt"]]
    assert described
    assert "from 75.00 % at ε = 0; median norm 0.3" in described[0]
    assert robustness.TOGETHER not in described[0]


def test_from_an_evaluation_of_a_run_to_its_curve(tmp_path):
    """The accuracy of the evaluation is the curve's at its ε, and the table states the median."""
    pytest.importorskip("matplotlib")
    run, folder = sound(), tmp_path / "it"
    said = stcli(
        *("evaluate", run, "--attacks", "fmn,apgd-ce", "--epsilon", "0.1", "--subset", "20", "--no-audit"),
        *("--checkpoint", "best", "--out", folder, "--save-examples"),
    )
    assert said.code == 0, said.err
    assert "median l∞ norm of the nearest examples" in " ".join(said.out.split())
    result = compute({"net": folder}, Settings())
    scores = json.loads((folder / "best" / "result.json").read_text())["accuracies"]
    curves = {curve.attack: curve for curve in result.curves}
    assert curves["fmn"].at(0.1).correct == scores["fmn"]["correct"]
    assert curves["fmn"].at(0.0).correct == scores["natural"]["correct"] > 0
    assert curves[TOGETHER].at(0.1).correct <= scores["apgd-ce"]["correct"]
    (point,) = result.points
    assert (point.attack, point.robust.correct) == ("apgd-ce", scores["apgd-ce"]["correct"])
    examples = np.load(folder / "best" / "fmn-examples.npz")
    found = np.flatnonzero(np.isfinite(curves["fmn"].norms) & (curves["fmn"].norms > 0))
    np.testing.assert_array_equal(examples["rows"], found)
    l0 = ("--norm", "l0", "--epsilon", "4", "--subset", "8", "--out", tmp_path / "l0")
    said = stcli("evaluate", run, "--attacks", "fmn", *l0)
    assert said.code == 0, said.err
    assert "audit: none for l0" in said.out


def page_of(run, tmp_path):
    said = stcli("report", run, "--out", tmp_path / "report.html", "--no-examples")
    assert said.code == 0, said.err
    return Page.of(tmp_path / "report.html")
    own_ball = ("--attacks", "l2:1:ddn", "--subset", "8", "--no-audit", "--out", tmp_path / "l2")
    said = stcli("evaluate", run, *own_ball)
    assert said.code == 0, said.err
    assert "median l2 norm of the nearest examples" in " ".join(said.out.split())
