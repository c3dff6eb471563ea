"""Reproduced, off, or not comparable: `stcli verify` on run folders made up for it."""

import json

import pytest
from small import trained

from stcore.cli.verify import main
from stcore.errors import UsageError
from stcore.evaluation.accuracy import Accuracy, over_runs
from stcore.results.comparison import compare
from stcore.runs.folder import RunFolder
from stcore.runs.known_presets import find
from stcore.runs.plan import make_plan
from stcore.runs.record import Record, read_record

ROW = "table1/cifar10/st"  # 83.10 ± 0.10, FGSM 59.51 ± 0.22, PGD-20 54.62 ± 0.14, PGD-100 54.39 ± 0.16
ACCURACIES = {"natural": 83.5, "fgsm": 59.5, "pgd20": 54.5, "pgd100": 54.4}


def scores(accuracies, total=10_000):
    return {
        attack: {"accuracy": value / 100, "correct": round(value / 100 * total), "total": total}
        for attack, value in accuracies.items()
    }


def record(
    name="run", preset=ROW, accuracies=ACCURACIES, *, images=(50_000, 10_000), extra=500_000, other=None, **changes
):
    """A finished run of the preset's settings, but for the changes."""
    config = make_plan({**find(preset).settings, **changes}).flat()
    train, test = images
    data = {"train": {"images": train, "sha256": "a"}, "test": {"images": test, "sha256": "b"}}
    if "extra_data" in config and config["extra_data"] is not None:
        data["extra"] = {"images": extra, "sha256": "c"}
    result = {"checkpoints": {"best": scores(accuracies), "last": scores(other or {"natural": 1.0})}}
    return Record(name, config, {"data": data}, result)


def write(path, run):
    """The record as the folder of a run."""
    folder = RunFolder.create(path)
    folder.write_config(run.config)
    folder.write_json("environment.json", run.environment)
    if run.result is not None:
        folder.write_json("result.json", run.result)
    return path


def words(verdict):
    return {row.attack: verdict.word(row) for row in verdict.rows}


# Verdicts


def test_one_run_is_judged_by_its_interval_over_images():
    verdict = compare(find(ROW), [record()])
    assert verdict.comparable
    assert set(words(verdict).values()) == {"reproduced"}
    natural = verdict.rows[0]
    low, high = Accuracy(8350, 10_000).interval()
    assert (natural.low, natural.high) == pytest.approx((100 * low, 100 * high))
    assert natural.difference == pytest.approx(0.4)
    assert verdict.missing == ("cw100", "autoattack")


def test_off_by_so_many_points_of_this_sign():
    verdict = compare(find(ROW), [record(accuracies={**ACCURACIES, "pgd20": 51.0, "natural": 86.0})])
    assert words(verdict) == {
        "natural": "off by +2.90 points",
        "fgsm": "reproduced",
        "pgd20": "off by -3.62 points",
        "pgd100": "reproduced",
    }


def test_the_papers_interval_counts_too():
    """84.00 ± 0.07 over three seeds: apart from 83.10 by more than both; 83.27 ± 0.07 meets 83.10 ± 0.10."""
    for mean, word in ((84.00, "off by +0.90 points"), (83.27, "reproduced")):
        runs = [
            record(f"run-{seed}", accuracies={"natural": mean + by}, seed=seed)
            for seed, by in enumerate((-0.03, 0.0, 0.03))
        ]
        verdict = compare(find(ROW), runs)
        assert verdict.comparable
        assert words(verdict) == {"natural": word}


def test_several_runs_are_judged_by_the_t_interval_over_seeds():
    half = 4.302653 * 1.0 / 3**0.5
    found = over_runs([Accuracy(correct, 100) for correct in (82, 83, 84)])
    assert found == pytest.approx((83, 83 - half, 83 + half))


def test_without_a_half_width_the_mean_must_lie_in_our_interval():
    row = "table5/cifar10/resnet18/at"  # 82.66
    for mean, word in ((82.0, "reproduced"), (81.0, "off by -1.66 points")):
        verdict = compare(find(row), [record(preset=row, accuracies={"natural": mean})])
        assert words(verdict) == {"natural": word}


def test_the_rows_own_checkpoint_is_compared():
    run = record(preset="table4/rst", accuracies={"natural": 10.0}, other={"natural": 89.7})
    assert words(compare(find("table4/rst"), [run])) == {"natural": "reproduced"}


def test_a_lost_number_is_not_compared():
    run = record(preset="table6/cifar10/mart2", accuracies={"natural": 80.3, "pgd20": 54.5})
    verdict = compare(find("table6/cifar10/mart2"), [run])
    assert words(verdict) == {"natural": "reproduced"}
    assert "pgd20" in verdict.missing


# Not comparable


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"epochs": 3}, "epochs: the row has 120, the run 3"),
        ({"batch_size": 64}, "batch_size: the row has 128, the run 64"),
        ({"epsilon": 4 / 255}, "epsilon: the row has 0.0313725, the run 0.0156863"),
        ({"eval_epsilon": 0.031}, "eval_epsilon: the row has 0.0313725, the run 0.031"),
        ({"model": "resnet8"}, "model: the row has resnet18, the run resnet8"),
        ({"select": "val"}, "select: the row has test, the run val"),
        ({"select_by": "natural"}, "select_by: the row has pgd20, the run natural"),
        ({"train_size": 10_000}, "train_size: the row has none, the run 10000"),
        ({"test_size": 1000}, "test_size: the row has none, the run 1000"),
        ({"dtype": "float64"}, "dtype: the row has float32, the run float64"),
        ({"init_weights": "w"}, "init_weights: the row has none, the run w"),
        ({"awp": 0.005}, "awp: the row has none, the run 0.005"),
        ({"stop_gradient_targets": False}, "stop_gradient_targets: the row has True, the run False"),
        ({"drops": (0.5, 0.75)}, "drops: the row has (0.666667, 0.833333), the run (0.5, 0.75)"),
        (
            {"dataset": "parquet:cifar10"},
            "dataset: the row has cifar10, the run parquet, whose pixels are not known to be the published ones",
        ),
        ({"dataset": "cifar100:data"}, "dataset: the row has cifar10, the run cifar100"),
    ],
    ids=str,
)
def test_a_setting_that_differs_is_the_reason(changes, reason):
    verdict = compare(find(ROW), [record(**changes)])
    assert reason in verdict.reasons
    assert len(verdict.reasons) == 1
    assert set(words(verdict).values()) == {"not comparable"}


def test_what_does_not_change_the_experiment_is_none():
    immaterial = {"backend": "keras", "seed": 7, "device": "cpu", "threads": 2, "compile": "off", "ema": 0.99}
    immaterial |= {"eval_batch_size": 10, "dataset": "cifar10:/elsewhere", "attacks": "fgsm,pgd20"}
    assert compare(find(ROW), [record(**immaterial, epsilon=0.0313725, step_size=0.00784314)]).comparable
    rst = record(preset="table4/rst", extra_data="ti500k:/elsewhere.pickle", other={"natural": 89.7})
    assert compare(find("table4/rst"), [rst]).comparable


def test_extra_data_must_be_the_published_half_million():
    run = record(preset="table4/rst", extra=1000, other={"natural": 89.7})
    (reason,) = compare(find("table4/rst"), [run]).reasons
    assert reason == "data: the published extra data has 500000 images, the run's 1000"


def test_another_method_is_told_once():
    verdict = compare(find(ROW), [record(preset="table1/cifar10/mart")])
    assert [reason for reason in verdict.reasons if "beta" not in reason] == [
        "method: the row has st, the run mart"
    ]


def test_part_of_the_published_images_is_not_the_published_set():
    verdict = compare(find(ROW), [record(images=(45_000, 9_000))])
    assert verdict.reasons == (
        "data: the published train set has 50000 images, the run's 45000",
        "data: the published test set has 10000 images, the run's 9000",
    )


def test_an_unfinished_run_is_not_comparable():
    run = record()
    unfinished = Record(run.name, run.config, run.environment, None)
    verdict = compare(find(ROW), [unfinished])
    assert verdict.reasons == ("run is unfinished: it has no result",)
    assert (verdict.rows, verdict.missing[0]) == ((), "natural")


def test_runs_must_differ_in_their_seeds_alone():
    one, two = record("one"), record("two", seed=1, batch_size=64)
    assert "the runs differ from each other in batch_size" in compare(find(ROW), [one, two]).reasons
    assert compare(find(ROW), [one, record("again")]).reasons == (
        "the runs are not independent: seed 0 occurs more than once",
    )
    other = {"data": {**two.environment["data"], "train": {"images": 50_000, "sha256": "c"}}}
    run = record("two", seed=1)
    elsewhere = Record("two", run.config, other, run.result)
    assert compare(find(ROW), [one, elsewhere]).reasons == ("the runs differ from each other in their data",)


def test_a_row_without_numbers_has_nothing_to_compare():
    row = "table2/st/js/beta-6"
    verdict = compare(find(row), [record(preset=row)])
    assert verdict.reasons == ("the runs and the paper's text have no accuracy of this row in common",)


# The command


def test_it_reads_folders_and_prints_the_verdict(tmp_path, capsys):
    runs = [write(tmp_path / f"run-{seed}", record(seed=seed)) for seed in range(2)]
    assert main([*map(str, runs), "--preset", ROW]) == 0
    said = capsys.readouterr().out
    assert f"{ROW}, best checkpoint of 2 runs" in said
    natural = next(line for line in said.splitlines() if line.startswith("│ natural"))
    assert "83.10 ± 0.10" in natural
    assert "off by +0.40 points" in natural  # two runs alike have no spread
    assert "cw100, autoattack" in said
    assert "selected on the TEST split" in said


def test_json_says_the_same(tmp_path, capsys):
    run = write(tmp_path / "run", record(epochs=3))
    assert main(["--json", "--preset", ROW, str(run)]) == 0  # whatever the verdict
    told = json.loads(capsys.readouterr().out)
    assert told == compare(find(ROW), [read_record(run)]).as_json()
    assert told["comparable"] is False
    assert told["reasons"] == ["epochs: the row has 120, the run 3"]
    assert told["accuracies"]["natural"]["reproduced"] is None
    assert told["accuracies"]["natural"]["expected"] == {"mean": 83.10, "half_width": 0.10}


def test_it_reads_a_run_as_stcli_leaves_it(capsys):
    run = trained("torch")
    assert main([str(run.path), "--preset", ROW, "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    best = run.json("result.json")["checkpoints"]["best"]
    assert {"natural", "pgd20"} <= told["accuracies"].keys()
    for attack, row in told["accuracies"].items():
        assert row["mean"] == pytest.approx(100 * best[attack]["accuracy"])
        assert row["interval_95"] == pytest.approx([100 * end for end in best[attack]["interval_95"]])
    for reason in ("dataset: the row has cifar10, the run digits", "model: the row has resnet18, the run tiny"):
        assert any(one.startswith(reason) for one in told["reasons"])


def test_reasons_are_printed(tmp_path, capsys):
    run = record(dataset="parquet:x", select="val", epochs=3, train_size=10_000)
    folder = write(tmp_path / "run", Record(run.name, run.config, run.environment, None))
    assert main([str(folder), "--preset", ROW]) == 0
    said = capsys.readouterr().out
    assert "not comparable:" in said
    for word in ("dataset:", "select:", "epochs:", "train_size:", "unfinished"):
        assert f"{word}" in said
    assert "TEST split" not in said


def test_what_cannot_be_read_is_a_usage_error(tmp_path):
    run = write(tmp_path / "run", record())
    with pytest.raises(UsageError, match=r"or a row of the paper \(stcli presets lists them\); received 'table9'"):
        main([str(run), "--preset", "table9"])
    with pytest.raises(UsageError, match=r"expected a folder with config\.toml"):
        main([str(tmp_path), "--preset", ROW])
    with pytest.raises(UsageError, match="expected at least one run's folder"):
        main(["--preset", ROW])
    with pytest.raises(UsageError, match="--preset"):
        main([str(run)])
    (run / "result.json").write_text("{")
    with pytest.raises(UsageError, match=r"result\.json is missing or damaged"):
        main([str(run), "--preset", ROW])
    (run / "result.json").unlink()
    (run / "config.toml").write_text('method = "none"\n')
    with pytest.raises(UsageError, match="was not made by this version of stcli train: method: expected one of"):
        main([str(run), "--preset", ROW])
