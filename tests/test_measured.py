"""Presets that were run: what ships is complete, what the command line does with them, how one is made, and the
statistics that say whether a run reproduces one."""

import json
import shlex
import shutil

import numpy as np
import pytest
from small import stcli

from stcore import measured
from stcore.base.files import write_json
from stcore.base.machine import processor
from stcore.base.weights_file import load_weights
from stcore.cli.training_plan import plan_from
from stcore.errors import DataError, UsageError
from stcore.evaluation.accuracy import Accuracy, difference, over_runs
from stcore.measured import NOT_SETTINGS, Measured
from stcore.results.comparison import compare
from stcore.runs import known_presets
from stcore.runs.evaluation_identity import fingerprint
from stcore.runs.folder import RunFolder
from stcore.runs.plan import make_plan
from stcore.runs.plan_changes import over
from stcore.runs.record import Record

EACH = pytest.mark.parametrize("name", measured.names())


# What ships


@EACH
def test_its_settings_are_a_whole_plan(name):
    preset = measured.read(name)
    plan = make_plan(dict(preset.settings))
    assert not preset.settings.keys() & {*NOT_SETTINGS, "out", "test_size", "init_weights", "extra_data"}
    assert preset.settings.items() <= {**plan.flat(), "dataset": plan.data.dataset}.items()
    assert {**make_plan({"preset": name}).flat(), "preset": plan.preset} == plan.flat()
    usual = {
        key: value for key, value in plan.flat().items() if value not in (None, ()) and key not in NOT_SETTINGS
    }
    assert usual == preset.settings  # no recipe fills in what is not said


@EACH
def test_its_numbers_are_whole(name):
    preset = measured.read(name)
    assert preset.name == name
    assert {"natural", "pgd20", "autoattack"} <= preset.accuracies.keys()
    whole = preset.data["test"]["images"]
    for score in preset.accuracies.values():
        assert len(score["correct"]) == len(preset.seeds) == len(preset.seconds)
        assert all(0 <= correct <= score["total"] <= whole for correct in score["correct"])
    share = {attack: [run.value for run in preset.runs(attack)] for attack in preset.accuracies}
    for weaker, stronger in (("natural", "pgd20"), ("natural", "autoattack")):
        assert all(one >= other for one, other in zip(share[weaker], share[stronger], strict=True))
    assert preset.accuracies["pgd20"]["total"] == whole
    assert {"processor", "cpus", "threads", "device", "stcore", "python"} <= preset.machine.keys()
    assert {"torch", "keras"} & preset.machine.keys()
    assert all(len(part["sha256"]) == 64 for part in preset.data.values())


@EACH
def test_its_commands_are_of_its_settings(name):
    preset = measured.read(name)
    train, *evaluations = map(shlex.split, preset.commands)
    assert train[:2] == ["stcli", "train"]
    plan, out, options = plan_from(train[2:])
    found = {key: value for key, value in plan.flat().items() if key in preset.settings}
    assert found == preset.settings
    seeds = options.seeds or str(plan.seed)
    assert seeds == ",".join(map(str, preset.seeds))
    for seed, words in zip(preset.seeds, evaluations, strict=True):
        assert words[2] == (f"{out}/seed{seed}" if options.seeds else out)
        assert words[3:5] == ["--checkpoint", preset.checkpoint]
        assert "autoattack" in words


# One made up for the tests

SCORES = {"natural": ([950, 952, 948], 1000), "pgd20": ([600, 610, 590], 1000), "autoattack": ([50, 52, 48], 100)}
DATA = {"train": {"images": 9, "sha256": "a"}, "test": {"images": 1000, "sha256": "b"}}
RECIPE = {
    "dataset": "cifar10",
    "method": "fast-st",
    "model": "resnet-s-16",
    "epochs": 6,
    "epsilon": 0.04,
    "ema": 0.9,
}


def settings_of(**recipe):
    flat = make_plan(recipe).flat()
    return {k: v for k, v in flat.items() if k not in NOT_SETTINGS and v not in (None, ())}


@pytest.fixture
def preset(tmp_path, monkeypatch):
    """fast/cifar10, of three seeds, whose AutoAttack saw the first tenth of the images."""
    monkeypatch.setattr("stcore.measured.preset.FOLDER", tmp_path)
    made = Measured(
        name="fast/cifar10",
        settings=settings_of(**RECIPE),
        checkpoint="last",
        seeds=(1, 2, 3),
        accuracies={attack: {"correct": correct, "total": total} for attack, (correct, total) in SCORES.items()},
        seconds=(1200.0, 1260.0, 1230.0),
        machine={"processor": "Some CPU", "cpus": 2, "threads": 1, "device": "cpu", "torch": "2.9"},
        data=DATA,
        commands=("stcli train --dataset cifar10", "stcli evaluate runs/fast-cifar10"),
    )
    write_json(measured.file_of("fast/cifar10"), vars(made))
    return measured.read("fast/cifar10")


def test_it_is_read_as_it_was_written_and_refused_when_damaged(preset):
    assert measured.names() == ("fast/cifar10",)
    assert preset.settings == settings_of(**RECIPE)  # tuples are tuples again
    assert preset.minutes == 20.5
    content = json.loads(measured.file_of(preset.name).read_text())
    write_json(
        measured.file_of(preset.name), {key: content[key] for key in content if key not in ("seeds", "checksum")}
    )
    with pytest.raises(DataError, match=r"fast-cifar10\.json is damaged"):
        measured.read(preset.name)


def test_a_run_takes_its_settings_and_flags_override_them(preset):
    plan = make_plan({"preset": preset.name})
    assert (plan.preset, plan.optimisation.epochs, plan.optimisation.ema) == (preset.name, 6, 0.9)
    assert plan.method.settings["epsilon"] == plan.evaluation.epsilon == 0.04
    other = make_plan(
        {"preset": preset.name, "epochs": 2, "dataset": "parquet:x", "epsilon": 0.02, "backend": "keras"}
    )
    assert (other.data.dataset, other.optimisation.epochs, other.optimisation.ema) == ("parquet:x", 2, 0.9)
    assert other.method.settings["epsilon"] == other.evaluation.epsilon == 0.02
    st = make_plan({"preset": preset.name, "method": "st"})
    assert (st.method.settings["steps"], st.optimisation.ema) == (10, 0.9)
    st = make_plan({"preset": preset.name, "method": "st", "epsilon": 0.02})
    assert st.method.settings["step_size"] == pytest.approx(0.005)  # the recipe's ratio: the row has no step size


def test_a_change_to_a_file_of_it(preset):
    file = make_plan({"preset": preset.name}).flat()
    kept = over(file, {"dataset": "parquet:x"})
    assert (kept["preset"], kept["ema"], kept["dataset"]) == (preset.name, 0.9, "parquet:x")
    for change in ({"dataset": "digits"}, {"preset": "digits"}):
        gone = over(file, change)
        assert gone.get("preset") in (None, "digits")
        assert not {"ema", "epochs", "epsilon"} & gone.keys()
    gone = over(file, {"preset": "cifar10"})
    assert gone["preset"] == "cifar10"
    assert not {"ema", "epochs", "epsilon"} & gone.keys()
    came = over({**make_plan({"dataset": "parquet:x"}).flat()}, {"preset": preset.name})
    assert came == {**came, "preset": preset.name, "dataset": "parquet:x"}
    assert not {"epochs", "model", "method"} & came.keys()


def test_its_name_is_found_like_a_row_s(preset):
    assert known_presets.find(preset.name) == preset
    assert known_presets.matching("fast") == [preset]
    assert [one.name for one in known_presets.matching()][:2] == [preset.name, "table1/cifar10/at"]
    for look in (known_presets.find, known_presets.matching):
        with pytest.raises(UsageError, match=r"or a row of the paper .* received 'fast/cifar1'\. Did you mean"):
            look("fast/cifar1")
    with pytest.raises(UsageError, match="Did you mean 'fast/cifar10'"):
        make_plan({"preset": "fast/cifra10"})


def test_a_sweep_takes_all_below_a_name(preset, tmp_path):
    said = stcli("sweep", "--vary", "preset=fast,cifar10", "--out", tmp_path / "sweep", "--dry-run", "--json")
    assert said.code == 0, said.err
    assert [one["settings"]["preset"] for one in json.loads(said.out)] == ["fast/cifar10", "cifar10"]


# stcli presets


def test_the_list_begins_with_them(preset):
    said = stcli("presets")
    assert (said.code, said.err) == (0, "")
    line = next(line for line in said.out.splitlines() if "fast/cifar10" in line)
    for cell in ("fast-st", "resnet-s-16", "95.00 ± 0.50", "60.00 ± 2.48", "50.00 ± 4.97*", "20 │"):
        assert cell in line
    assert said.out.index("fast/cifar10") < said.out.index("table1/cifar10/at")
    assert "table1" not in stcli("presets", "fast").out
    assert "fast" not in stcli("presets", "table1").out


def test_one_is_shown_in_full(preset):
    said = stcli("presets", preset.name)
    assert (said.code, said.err) == (0, "")
    for text in (
        *(
            "the last checkpoint of a run, with seed 1, 2, 3",
            "45.03 to 54.97",
            "50, 52, 48",
            "the first 100",
        ),
        *("Some CPU, 2 cores, 1 thread, device cpu", "torch 2.9", "20.00, 21.00, 20.50", *preset.commands),
    ):
        assert text in said.out
    row = next(line for line in said.out.splitlines() if line.startswith("│ epochs"))
    assert [cell.strip() for cell in row.strip("│").split("│")] == ["epochs", "6", "120"]
    (told,) = json.loads(stcli("presets", preset.name, "--json").out)
    assert told["settings"] == json.loads(json.dumps(preset.settings))
    natural = told["accuracies"]["natural"]
    assert (natural["correct"], natural["total"], natural["mean"]) == ([950, 952, 948], 1000, pytest.approx(95.0))
    assert natural["interval_95"] == pytest.approx([95 - 0.4968, 95 + 0.4968], abs=1e-3)


def test_of_one_seed_the_interval_is_over_images(preset):
    one = {attack: {"correct": correct[:1], "total": total} for attack, (correct, total) in SCORES.items()}
    write_json(
        measured.file_of(preset.name), {**vars(preset), "seeds": (1,), "seconds": (1.0,), "accuracies": one}
    )
    low, high = Accuracy(50, 100).interval()
    assert f"50.00 [{100 * low:.2f}, {100 * high:.2f}]*" in stcli("presets", "fast").out
    assert "95 % intervals over images" in stcli("presets", preset.name).out


# stcli verify


def record(seed=7, scores=(("natural", 951, 1000), ("pgd20", 603, 1000)), data=DATA, **changes):
    config = make_plan({**settings_of(**RECIPE), "seed": seed, **changes}).flat()
    counts = {attack: {"correct": correct, "total": total} for attack, correct, total in scores}
    return Record(f"run{seed}", config, {"data": data}, {"checkpoints": {"last": counts, "best": {}}})


def words(verdict):
    return {row.attack: verdict.word(row) for row in verdict.rows}


def test_each_accuracy_is_reproduced_or_off(preset):
    verdict = compare(preset, [record()])
    assert (verdict.reasons, verdict.missing) == ((), ("autoattack",))
    assert words(verdict) == {"natural": "reproduced", "pgd20": "reproduced"}
    low = compare(preset, [record(scores=[("natural", 951, 1000), ("pgd20", 540, 1000), ("autoattack", 51, 100)])])
    assert words(low) == {"natural": "reproduced", "pgd20": "off by -6.00 points", "autoattack": "reproduced"}
    three = [record(seed, [("pgd20", correct, 1000)]) for seed, correct in enumerate((625, 620, 630))]
    assert words(compare(preset, three)) == {"pgd20": "off by +2.50 points"}
    assert words(compare(preset, three[:1])) == {"pgd20": "reproduced"}  # one seed may lie as far away


def test_other_images_are_no_number(preset):
    verdict = compare(preset, [record(scores=[("natural", 951, 1000), ("autoattack", 300, 1000)])])
    assert verdict.missing == ("pgd20", "autoattack")


@pytest.mark.parametrize(
    ("run", "reason"),
    [
        ({"epochs": 7}, "epochs: the preset has 6, the run 7"),
        ({"beta": 5.0}, "beta: the preset has 6, the run 5"),
        ({"eval_epsilon": 0.03}, "eval_epsilon: the preset has 0.04, the run 0.03"),
        (
            {"data": {**DATA, "train": {"images": 8, "sha256": "a"}}},
            "data: the preset's train set has 9 images, the ",
        ),
        (
            {"data": {**DATA, "test": {"images": 1000, "sha256": "c"}}},
            "data: the run's test images are not the pres",
        ),
    ],
    ids=str,
)
def test_what_differs_is_the_reason(preset, run, reason):
    verdict = compare(preset, [record(**run)])
    (found,) = verdict.reasons
    assert found.startswith(reason)
    assert set(words(verdict).values()) == {"not comparable"}


def test_the_same_images_may_have_another_name(preset):
    other = {**DATA, "train": {"images": 9, "sha256": "another order"}}
    assert compare(
        preset, [record(dataset="parquet:elsewhere", data=other, backend="keras", threads=4)]
    ).comparable
    nothing = Record("run", record().config, None, record().result)
    assert compare(preset, [nothing]).reasons == ("the data of run are not known: it has no environment.json",)


def write(path, run):
    """The folder of a run, with weights of its own."""
    folder = RunFolder.create(path)
    folder.write_config(run.config)
    folder.write_json("environment.json", run.environment)
    folder.write_metrics([{"epoch": epoch, "seconds": 30.0} for epoch in range(1, 7)])
    if run.result is not None:
        folder.write_json("result.json", {**run.result, "images": 1000, "epsilon": 0.04})
    weights = {"head.weight": np.random.default_rng(run.config["seed"]).random(3)}
    folder.write_weights("last.safetensors", weights, {"num_classes": "10"})
    return path


def evaluate(run, correct, total=100, folder=None, **about):
    """An evaluation of the last checkpoint by AutoAttack on the first images, by default in the run's folder."""
    folder = folder or run / "evaluations" / f"{total}-{about}" / "last"
    folder.mkdir(parents=True)
    weights, _ = load_weights(run / "last.safetensors")
    identity = {"weights": fingerprint(weights), "data": "b", "subset": str(total), "shard": None}
    write_json(folder / "evaluation.json", {**identity, "norm": "linf", "epsilon": 0.04, **about})
    scores = {"natural": {"correct": 95, "total": total}, "autoattack": {"correct": correct, "total": total}}
    write_json(folder / "result.json", {"accuracies": scores})
    return folder


def test_later_evaluations_in_the_folder_count(preset, tmp_path):
    run = write(tmp_path / "run", record())
    for other in ({"epsilon": 0.01}, {"norm": "l2"}, {"precision": "tf32"}, {"subset": "0:100"}, {"shard": "1/2"}):
        evaluate(run, 1, **other)
    evaluate(run, 520, 1000)
    evaluate(run, 52)
    said = stcli("verify", run, "--preset", preset.name, "--json")
    assert said.code == 0, said.err
    told = json.loads(said.out)
    assert (told["comparable"], told["missing"]) == (True, [])
    row = told["accuracies"]["autoattack"]
    assert (row["mean"], row["reproduced"]) == (pytest.approx(52), True)
    assert row["expected"]["mean"] == pytest.approx(50)
    assert row["difference_95"][0] < row["difference"] < row["difference_95"][1]
    shown = stcli("verify", run, "--preset", preset.name).out
    line = next(line for line in shown.splitlines() if "autoattack" in line)
    for text in ("52.00 [41.78, 62.10]", "50.00 [45.03, 54.97]", "+2.00 [", "reproduced"):
        assert text in line
    shutil.rmtree(run / "evaluations")
    shown = stcli("verify", run, "--preset", preset.name).out
    assert "without a number on the preset's 100 images here: autoattack" in shown


# How one is made


@pytest.mark.parametrize(("flags", "has"), [("sse4_2 avx512_bf16", "with"), ("sse4_2 avx2", "without")])
def test_the_processor_s_name_is_the_system_s(tmp_path, monkeypatch, flags, has):
    (tmp_path / "cpuinfo").write_text(f"vendor_id\t: X\nmodel name\t: Some CPU @ 2 GHz\nflags\t: fpu {flags}\n")
    monkeypatch.setattr("stcore.base.machine._CPU_INFO", tmp_path / "cpuinfo")
    assert processor() == f"Some CPU @ 2 GHz, {has} bfloat16 instructions"


@pytest.fixture
def add(benchmark, tmp_path, monkeypatch):
    """The script's `add`, which writes into a folder of the test."""
    (tmp_path / "presets").mkdir()
    monkeypatch.setattr("stcore.measured.preset.FOLDER", tmp_path / "presets")
    return benchmark("preset_add").add


PLACE = {"processor": "Some CPU", "cpus": 2, "threads": 1, "device": "cpu", "torch": "2.9", "folder": "/here"}


def finished(path, seed, evaluated=True, place=PLACE, **changes):
    """The folder of a run on CIFAR-10 read from elsewhere, with its evaluation by AutoAttack."""
    plain = record(seed, dataset="parquet:/here/cifar10", **changes)
    run = write(path / f"seed{seed}", Record("", plain.config, {**place, "data": DATA}, plain.result))
    if evaluated:
        evaluate(run, 50 + seed)
    return run


def test_one_is_made_of_runs_and_their_evaluations(add, tmp_path):
    runs = [finished(tmp_path, seed) for seed in (3, 1)]
    runs.append(finished(tmp_path, 2, evaluated=False))
    apart = evaluate(runs[-1], 52, folder=tmp_path / "apart" / "last")
    add("fast/cifar10", runs, "last", [apart], "cifar10")
    made = measured.read("fast/cifar10")
    assert made.settings == settings_of(**RECIPE)
    assert (made.seeds, made.checkpoint, made.seconds) == ((1, 2, 3), "last", (180.0,) * 3)
    assert made.accuracies == {
        "natural": {"correct": [951] * 3, "total": 1000},
        "pgd20": {"correct": [603] * 3, "total": 1000},
        "autoattack": {"correct": [51, 52, 53], "total": 100},
    }
    assert made.machine == {key: PLACE[key] for key in ("processor", "cpus", "threads", "device", "torch")}
    assert made.data == DATA
    train, *evaluations = made.commands
    plan, out, options = plan_from(shlex.split(train)[2:])
    assert {key: value for key, value in plan.flat().items() if key in made.settings} == made.settings
    assert (out, options.seeds) == ("runs/fast-cifar10", "1,2,3")
    assert evaluations[1] == (
        "stcli evaluate runs/fast-cifar10/seed2 --checkpoint last --attacks autoattack --subset 100"
    )
    assert "/here" not in measured.file_of(made.name).read_text()


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"epochs": 7}, "they differ in epochs"),
        ({"eval_epsilon": 0.03}, "they differ in eval_epsilon"),
        ({"test_size": 100}, "they differ in test_size"),
        ({"seed": 1}, "seed 1 occurs more than once"),
        ({"unfinished": True}, "expected a finished run"),
        ({"place": {**PLACE, "threads": 2}}, "of one machine"),
        ({"place": {"cpus": 2}}, "names its processor and threads"),
        ({"evaluated": False}, "under autoattack, on the same images"),
    ],
    ids=str,
)
def test_runs_that_do_not_fit_are_refused(add, tmp_path, changes, says):
    changes = dict(changes)
    unfinished, seed = changes.pop("unfinished", False), changes.pop("seed", 2)
    runs = [finished(tmp_path / "one", 1), finished(tmp_path / "two", seed, **changes)]
    if unfinished:
        (runs[1] / "result.json").unlink()
    with pytest.raises(UsageError, match=says):
        add("fast/cifar10", runs, "last", [], "cifar10")
    assert measured.names() == ()


def test_names_and_evaluations_that_do_not_fit_are_refused(add, tmp_path):
    run, other = finished(tmp_path, 1, evaluated=False), finished(tmp_path, 2)
    for name in ("fast/digits", "best/cifar10", "cifar10"):
        with pytest.raises(UsageError, match="name: expected fast/cifar10"):
            add(name, [run], "last", [], "cifar10")
    with pytest.raises(UsageError, match="dataset: expected one of digits, cifar10"):
        add("fast/cifar10", [run], "last", [], None)
    with pytest.raises(UsageError, match="has other weights"):
        add("fast/cifar10", [run], "last", [*(other / "evaluations").glob("*/last")], "cifar10")
    elsewhere = evaluate(run, 40, folder=tmp_path / "l2" / "last", epsilon=0.5, norm="l2")
    with pytest.raises(UsageError, match=r"expected the runs' threat model, linf 0\.04; .* is of l2 0\.5"):
        add("fast/cifar10", [run], "last", [elsewhere], "cifar10")


# The difference of two groups of runs


def test_the_interval_of_a_difference():
    ours, theirs = ([Accuracy(correct, 1000) for correct in group] for group in ((600, 620), (590, 600, 610)))
    half = 3.182446 * np.sqrt((2 * 1.0 + 2 * 1.0) / 3 * (1 / 2 + 1 / 3))
    assert difference(ours, theirs) == pytest.approx((1.0, 1.0 - half, 1.0 + half), rel=1e-5)
    apart, low, high = difference(theirs, ours)
    assert (apart, low, high) == pytest.approx((-1.0, -1.0 - half, -1.0 + half), rel=1e-5)
    alike = [Accuracy(600, 1000)] * 3
    _, low, high = difference([Accuracy(601, 1000)], alike)
    assert low < 0 < high  # one image more is within rounding
    assert difference([Accuracy(604, 1000)], alike)[1] > 0
    one, other = (
        Accuracy(56, 70),
        Accuracy(48, 80),
    )  # Newcombe (1998), Table II, (a): Wilson's give 0.0524 to 0.3339
    apart, low, high = difference([one], [other])
    assert (apart, low, high) == pytest.approx((20.0, 5.24, 33.39), abs=1.5)


@pytest.mark.parametrize(("ours", "theirs"), [(1, 3), (3, 1), (3, 3), (1, 1)])
def test_it_holds_the_truth_as_often_as_it_says(ours, theirs):
    """Runs of one recipe: the share of intervals that hold zero. Their spread over seeds, or none for one each."""
    random, held = np.random.default_rng(ours), 0
    for _ in range(400):
        share = random.normal(0.6, 0.01 if ours + theirs > 2 else 0.0, ours + theirs)
        runs = [Accuracy(round(10_000 * one), 10_000) for one in share]
        if ours + theirs == 2:
            runs = [Accuracy(int(random.binomial(1000, one)), 1000) for one in share]
        _, low, high = difference(runs[:ours], runs[ours:])
        held += low <= 0 <= high
    assert 0.92 <= held / 400 <= 0.985


def test_over_runs_is_over_images_or_over_seeds():
    low, high = Accuracy(7, 10).interval()
    assert over_runs([Accuracy(7, 10)]) == (70.0, 100 * low, 100 * high)
    half = 4.302653 / 3**0.5
    assert over_runs([Accuracy(n, 100) for n in (82, 83, 84)]) == pytest.approx((83, 83 - half, 83 + half))
