"""The command line end to end: what a run leaves, that it comes again, and that either framework evaluates it."""

import io
import json
import re

import numpy as np
import pytest
from harness import NAMES, assert_same, load
from rich.console import Console
from small import SETTINGS, Run, contents, stcli, train, trained, words
from terminal import on_a_terminal

import stcore
from stcore.api import display
from stcore.api.display import title
from stcore.base.weights_file import load_weights
from stcore.cli import console
from stcore.cli.evaluation_plan import plan_from as evaluate_plan
from stcore.cli.options import EvaluateOptions, TrainOptions
from stcore.cli.parsing import from_file
from stcore.cli.training_plan import plan_from, run_options_from
from stcore.evaluation.accuracy import Accuracy, percent
from stcore.evaluation.assessment import StageResult
from stcore.runs.folder import RunFolder
from stcore.runs.plan import default_name, make_plan

ON_EACH = pytest.mark.parametrize("backend", NAMES)


def plan_of(*args):
    return plan_from([str(arg) for arg in args])[0]


# The command itself


def test_help_names_every_command_and_exit_code():
    said = stcli("--help")
    assert (said.code, said.err) == (0, "")
    for word in ("train", "evaluate", "doctor", "130 interrupted", "5 training diverged", "4 device or memory"):
        assert word in said.out
    assert stcli("-h") == stcli("help") == said


def test_no_command_prints_the_help_as_an_error():
    assert stcli() == (2, stcli("--help").out, "")


def test_version():
    assert stcli("--version") == (0, f"stcli {stcore.__version__}\n", "")


@pytest.mark.parametrize(
    "command",
    [
        "train",
        "plan",
        "evaluate",
        "bracket",
        "merge",
        "presets",
        "verify",
        "pseudo-label",
        "import",
        "export",
        "doctor",
    ],
)
def test_every_command_has_help(command):
    said = stcli(command, "--help")
    assert (said.code, said.err) == (0, "")
    assert f"usage: stcli {command}" in said.out


def shown_defaults(*args):
    """What `--help` shows: flag → default."""
    text = " ".join(line.strip("│ ") for line in stcli("train", *args, "--help").out.splitlines())
    flags = re.split(r" (?=--[a-z])", text)
    found = {flag.split()[0]: re.search(r"\(default: ([^)]*)\)", flag) for flag in flags}
    return {flag: default[1] for flag, default in found.items() if default}


def test_help_shows_the_presets_defaults():
    digits, svhn = shown_defaults(), shown_defaults("--preset", "svhn")
    assert (digits["--model"], digits["--epsilon"]) == ("small-cnn", "0.2")
    assert (svhn["--model"], svhn["--beta"], svhn["--epochs"]) == ("resnet18", "8", "80")
    assert (svhn["--learning-rate"], svhn["--epsilon"], svhn["--step-size"]) == ("0.01", "0.0313725", "0.00392157")
    assert shown_defaults("--dataset=parquet:DIR")["--preset"] == "cifar10"


def test_doctor_finds_the_machine_well():
    said = stcli("doctor")
    assert (said.code, said.err) == (0, "")
    for backend in NAMES:
        (line,) = (line for line in said.out.splitlines() if line.startswith(f"{backend}: "))
        assert "self-test passed" in line or "not installed" in line


def test_doctor_says_what_is_missing_or_ill(monkeypatch):
    monkeypatch.setattr("stcore.cli.doctor.missing_packages", lambda name: ["keras"] if name == "keras" else [])

    def ill(name):
        raise RuntimeError("the loss did not fall")

    monkeypatch.setattr("stcore.cli.doctor.check", ill)
    said = stcli("doctor")
    assert said.code == 1
    assert "keras: not installed (keras); in the repository: pip install '.[keras]'" in said.out
    assert "torch: FAILED: RuntimeError: the loss did not fall" in said.out


def test_doctor_without_any_backend_says_how_to_get_one(monkeypatch):
    for module in ("stcore.cli.doctor", "stcore.core.dispatch"):
        monkeypatch.setattr(f"{module}.missing_packages", lambda name: (name,))
    said = stcli("doctor")
    assert said.code == 2
    for backend in NAMES:
        assert f"{backend}: not installed ({backend}); in the repository: pip install '.[{backend}]'" in said.out
    assert said.err == "stcli: no backend is installed: in the repository, pip install '.[torch]' or '.[keras]'\n"


# Where settings come from


def test_defaults_give_way_to_presets_to_files_to_flags(tmp_path):
    file = tmp_path / "mine.toml"
    file.write_text('preset = "svhn"\nbeta = 5.0\nepsilon = "4/255"\nmomentum = 0.5\n')
    plan = plan_of("--config", file, "--beta", 3, "--momentum", "0.7")
    assert plan.optimisation.weight_decay == 5e-4  # the default
    assert (plan.optimisation.epochs, plan.optimisation.learning_rate) == (80, 0.01)  # the preset
    assert plan.method.settings["epsilon"] == 4 / 255  # the file
    assert plan.method.settings["step_size"] == pytest.approx(0.5 / 255)  # the preset's share of the file's ε
    assert (plan.method.settings["beta"], plan.optimisation.momentum) == (3.0, 0.7)  # the flags
    assert plan_of("--config", file, "--preset", "cifar100").optimisation.epochs == 120
    assert plan_of("--config", file, "--preset", "cifar100").method.settings["beta"] == 4.0


def test_of_a_flag_given_twice_the_last_counts(tmp_path):
    for name in ("one", "two"):
        (tmp_path / f"{name}.toml").write_text(f'model = "wrn-10-{len(name)}"\nseed = {len(name)}{len(name)}\n')
    (tmp_path / "two.toml").write_text("seed = 22\n")
    assert plan_of("--preset", "svhn", "--preset", "cifar100").method.settings["beta"] == 4
    assert plan_of("--config", tmp_path / "one.toml", "--config", tmp_path / "two.toml").seed == 22


def test_fractions_are_numbers_and_flags_may_be_written_either_way():
    plan = plan_of("--epsilon", "8/255", "--step-size=2/255", "--stop_gradient_targets", "--drops", "1/2", "0.75")
    assert (plan.method.settings["epsilon"], plan.method.settings["step_size"]) == (8 / 255, 2 / 255)
    assert plan.optimisation.drops == (0.5, 0.75)
    assert plan_of("--no-stop-gradient-targets", "--nesterov").method.settings["stop_gradient_targets"] is False


def test_an_l2_ball_may_be_larger_than_a_pixel():
    plan = plan_of("--norm", "l2", "--epsilon", 2)
    assert (plan.evaluation.epsilon, plan.method.settings["step_size"]) == (2.0, 0.5)


@pytest.fixture
def earlier(tmp_path):
    """Flags that start from the full config.toml of an earlier run with these settings."""

    def args(**settings):
        RunFolder(tmp_path).write_config(make_plan(settings).flat())
        return "--config", tmp_path / "config.toml"

    return args


EARLIER = {"epsilon": 0.1, "step_size": 0.01, "eval_epsilon": 0.3, "beta": 2.0, "init": "uniform", "epochs": 7}


def test_an_earlier_runs_config_holds_in_everything_no_flag_speaks_of(earlier):
    given = {**EARLIER, "norm": "l2", "preset": "svhn", "momentum": 0.5, "seed": 4, "model": "tiny", "steps": 3}
    args, plan = earlier(**given), make_plan(given)
    assert plan_of(*args) == plan
    assert plan_of(*args, "--seed", 5) == make_plan({**given, "seed": 5})
    assert plan_of(*args, "--step-size", 0.02) == make_plan({**given, "step_size": 0.02})
    # Naming what it was anyway changes nothing.
    assert plan_of(*args, "--method", "st", "--preset", "svhn", "--dataset", "digits") == plan


def test_another_epsilon_takes_step_size_and_evaluation_with_it(earlier):
    plan = plan_of(*earlier(**EARLIER), "--epsilon", 0.2)
    assert (plan.method.settings["epsilon"], plan.evaluation.epsilon) == (0.2, 0.2)
    assert plan.method.settings["step_size"] == pytest.approx(0.05)
    assert (plan.method.settings["beta"], plan.method.settings["init"], plan.optimisation.epochs) == (
        2.0,
        "uniform",
        7,
    )
    args = [*earlier(**EARLIER), "--epsilon", 0.2]
    assert plan_of(*args, "--step-size", 0.03, "--eval-epsilon", 0.4).method.settings["step_size"] == 0.03
    assert plan_of(*args, "--step-size", 0.03, "--eval-epsilon", 0.4).evaluation.epsilon == 0.4


def test_another_method_drops_the_old_ones_settings(earlier):
    given = {**EARLIER, "init": "gaussian", "noise_std": 0.01, "steps": 3}
    plan = plan_of(*earlier(**given), "--method", "at")
    assert plan == make_plan(
        {"method": "at", "epochs": 7, "eval_epsilon": 0.3, "epsilon": 0.1, "step_size": 0.01, "steps": 3}
    )
    assert (plan.method.settings["init"], plan.method.settings["noise_std"]) == ("uniform", 1e-3)
    assert "beta" not in plan.method.settings
    plan = plan_of(*earlier(**given), "--method", "standard")
    assert (plan.method.settings, plan.optimisation.epochs, plan.evaluation.epsilon) == ({}, 7, 0.3)
    plan = plan_of(*earlier(method="at", init="natural", norm="l2", epsilon=1.5), "--method", "st")
    assert (plan.method.settings["init"], plan.method.settings["norm"], plan.method.settings["epsilon"]) == (
        "gaussian",
        "l2",
        1.5,
    )
    assert plan.method.settings["beta"] == 6.0


@pytest.mark.parametrize("flags", [("--preset", "cifar10"), ("--dataset", "parquet:DIR")])
def test_another_preset_or_kind_of_data_takes_the_new_recipe(earlier, flags):
    given = {**EARLIER, "batch_size": 32, "augment": "none", "momentum": 0.5, "seed": 4}
    plan, new = plan_of(*earlier(**given), *flags), make_plan({"preset": "cifar10"})
    assert (plan.preset, plan.model.name, plan.optimisation.epochs, plan.optimisation.batch_size) == (
        "cifar10",
        "resnet18",
        120,
        128,
    )
    assert (plan.method.settings, plan.data.augment, plan.evaluation.epsilon) == (
        new.method.settings,
        "crop-flip",
        8 / 255,
    )
    assert (plan.optimisation.momentum, plan.seed) == (0.5, 4)  # no recipe speaks of these
    assert plan_of(*earlier(**given), *flags, "--epochs", 9, "--beta", 1).optimisation.epochs == 9
    assert plan_of(*earlier(**given), *flags, "--preset", "svhn").method.settings["beta"] == 8.0


def test_the_same_data_in_another_place_keeps_the_recipe(earlier, tmp_path):
    args = earlier(dataset="parquet:old", preset="svhn", beta=3.0)
    plan = plan_of(*args, "--dataset", "parquet:new")
    assert (plan.data.dataset, plan.preset, plan.optimisation.epochs, plan.method.settings["beta"]) == (
        "parquet:new",
        "svhn",
        80,
        3.0,
    )
    (tmp_path / "mine.toml").write_text('preset = "svhn"\nbeta = 3.0\n')  # says of no data set
    plan = plan_of("--config", tmp_path / "mine.toml", "--dataset", "parquet:new", "--method", "st")
    assert (plan.preset, plan.method.settings["beta"]) == ("svhn", 3.0)


def test_flags_may_mend_what_a_file_leaves_out(tmp_path):
    file = tmp_path / "mine.toml"
    file.write_text('norm = "l2"\nnesterov = true\nmomentum = 0.0\n')
    plan = plan_of("--config", file, "--epsilon", 2, "--momentum", 0.9)
    assert (plan.method.settings["norm"], plan.method.settings["epsilon"], plan.optimisation.nesterov) == (
        "l2",
        2.0,
        True,
    )


def test_evaluation_takes_the_runs_settings_unless_told(tmp_path):
    RunFolder(tmp_path).write_config(make_plan({**SETTINGS, "seed": 3, "threads": 7, "device": "cuda"}).flat())
    plan = evaluate_plan(EvaluateOptions(run=tmp_path))
    assert (plan.seed, plan.evaluation.epsilon, plan.data.test_size) == (3, 0.2, 32)
    assert (plan.runtime.device, plan.runtime.threads) == ("auto", None)  # another machine may evaluate it
    told = EvaluateOptions(run=tmp_path, epsilon=0.1, seed=4, attacks="pgd100", backend="keras", dtype="float64")
    plan = evaluate_plan(told)
    assert (plan.seed, plan.evaluation.epsilon, plan.evaluation.attacks) == (4, 0.1, ("pgd100",))
    assert (plan.runtime.backend, plan.runtime.dtype) == ("keras", "float64")


# A run


@ON_EACH
def test_a_run_leaves_its_folder(backend):
    run = trained(backend)
    files = {"config.toml", "environment.json", "metrics.jsonl", "result.json"}
    assert {path.name for path in run.path.iterdir()} == files | {"best.safetensors", "last.safetensors"}

    config = from_file(TrainOptions, run.path / "config.toml")
    assert config["backend"] == backend
    assert {name: config[name] for name in SETTINGS} == SETTINGS | {"epochs": 2}
    assert (config["epsilon"], config["step_size"], config["beta"], config["divergence"]) == (
        0.2,
        0.05,
        6.0,
        "symmetric_kl",
    )

    environment = run.json("environment.json")
    assert environment["stcore"] == stcore.__version__
    assert {"python", "numpy", "platform", "processor", "cpus", "threads", "device", backend} <= environment.keys()
    assert {part: info["images"] for part, info in environment["data"].items()} == {
        "train": 64,
        "validation": 32,
        "test": 32,
    }
    assert all(len(info["sha256"]) == 64 for info in environment["data"].values())

    result = run.json("result.json")
    assert (result["split"], result["images"], result["epsilon"]) == ("test", 32, 0.2)
    assert (result["selected_on"], result["epochs"]) == ("pgd20@val", 2)
    assert result["best_epoch"] == run.metrics[-1]["best_epoch"]
    for scores in result["checkpoints"].values():
        assert list(scores) == ["natural", "fgsm", "pgd20"]
        for score in scores.values():
            low, high = score["interval_95"]
            assert score["total"] == 32
            assert score["accuracy"] == score["correct"] / 32
            assert low <= score["accuracy"] <= high


@ON_EACH
def test_checkpoints_say_what_they_are(backend):
    run = trained(backend)
    for name, epoch in (("best", run.json("result.json")["best_epoch"]), ("last", 2)):
        weights, about = load_weights(run.path / f"{name}.safetensors")
        assert about == {
            "format": "stcore-weights-1",
            "stcore": stcore.__version__,
            "model": "tiny",
            "num_classes": "10",
            "image_shape": "8x8x1",
            "class_names": json.dumps([str(digit) for digit in range(10)]),
            "method": "st",
            "backend": backend,
            "normalize": about["normalize"],
            "resize": "centre crop, bicubic",
            "epoch": str(epoch),
        }
        assert weights["conv1.weight"].shape == (8, 1, 3, 3)
        assert {array.dtype for array in weights.values()} == {np.dtype("float32")}


@ON_EACH
def test_what_is_not_a_terminal_gets_plain_lines(backend):
    out = trained(backend).said.out
    assert all(char.isprintable() or char == "\n" for char in out)
    assert sum(line.startswith("epoch ") for line in out.splitlines()) == 2
    assert "best by pgd20 on validation" in out
    assert f"everything is in {trained(backend).path}" in out


@ON_EACH
def test_its_config_makes_the_run_again_bit_for_bit(backend, tmp_path):
    run = trained(backend)
    out = tmp_path / "again"
    said = stcli("train", "--config", run.path / "config.toml", "--out", out)
    assert said.code == 0, said.err
    again = Run(out, said)
    assert (out / "config.toml").read_text() == (run.path / "config.toml").read_text()
    for name in ("best.safetensors", "last.safetensors"):
        assert_same(again.weights(name), run.weights(name))
    untimed = [
        [
            {name: row[name] for name in row if name not in ("seconds", "images_per_second")}
            for row in which.metrics
        ]
        for which in (again, run)
    ]
    assert untimed[0] == untimed[1]
    assert again.json("result.json")["checkpoints"] == run.json("result.json")["checkpoints"]


@pytest.mark.parametrize("select_by", ["natural", "fgsm"])
def test_robust_accuracy_is_logged_whatever_selects(select_by, tmp_path):
    said = train(tmp_path / "run", select_by=select_by, steps=1, attacks="")
    assert said.code == 0, said.err
    (row,) = Run(tmp_path / "run", said).metrics
    names = {name for name in row if name.endswith("_accuracy")}
    assert names == {f"{name}_accuracy" for name in ("natural", "pgd20", select_by)}


def test_an_l2_run(tmp_path):
    said = train(tmp_path / "run", norm="l2", epsilon=0.5, steps=1, attacks="fgsm", select_by="fgsm")
    assert said.code == 0, said.err
    config = from_file(TrainOptions, tmp_path / "run" / "config.toml")
    assert (config["norm"], config["epsilon"], config["step_size"], config["eval_epsilon"]) == (
        "l2",
        0.5,
        0.125,
        0.5,
    )


@ON_EACH
def test_selection_on_the_test_split_trains_on_all_the_rest(backend, tmp_path):
    load(backend)  # or skip
    quick = {"backend": backend, "select": "test", "select_by": "natural", "method": "standard", "attacks": ""}
    small = {"model": "tiny", "epochs": 1, "batch_size": 725, "compile": "off", "out": tmp_path / "run"}
    said = stcli("train", *words({**small, **quick}))
    assert said.code == 0, said.err
    run = Run(tmp_path / "run", said)
    data = run.json("environment.json")["data"]
    assert {part: info["images"] for part, info in data.items()} == {"train": 1450, "validation": 347, "test": 347}
    assert data["validation"] == data["test"]
    assert run.json("result.json")["selected_on"] == "natural@test"


@pytest.mark.parametrize("method", ["at", "standard"])
def test_every_method_trains(method, tmp_path):
    said = train(tmp_path / "run", method=method, attacks="fgsm", select_by="natural")
    assert said.code == 0, said.err
    assert said.out.startswith(f"{method} on digits, tiny, torch")


def test_the_same_method_from_other_weights(tmp_path):
    weights = trained("torch").path / "last.safetensors"
    said = train(tmp_path / "run", "--init-weights", weights, steps=1, learning_rate=0, attacks="fgsm")
    assert said.code == 0, said.err
    before, after = load_weights(weights)[0], load_weights(tmp_path / "run" / "last.safetensors")[0]
    assert_same(
        {name: array for name, array in after.items() if ".running_" not in name},
        {name: array for name, array in before.items() if ".running_" not in name},
    )


def test_without_out_a_run_gets_a_folder_of_its_own(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    quick = words({**SETTINGS, "method": "standard", "select_by": "natural", "attacks": ""})
    for _ in range(2):
        assert stcli("train", *quick).code == 0
    assert {path.name for path in (tmp_path / "runs").iterdir()} == {
        "digits-tiny-standard-torch-seed0",
        "digits-tiny-standard-torch-seed0-2",
    }


def test_selection_on_the_test_split_is_said_wherever_its_result_is(tmp_path):
    out = tmp_path / "run"
    options = {name: value for name, value in SETTINGS.items() if name != "validation_size"}
    said = stcli("train", *words({**options, "out": out, "select": "test", "steps": 1, "attacks": "fgsm"}))
    assert said.code == 0, said.err
    assert "on test" in next(line for line in said.out.splitlines() if line.startswith("epoch "))
    assert "best by pgd20 on TEST, the paper's optimistic rule" in said.out
    assert Run(out, said).json("result.json")["selected_on"] == "pgd20@test"
    note = "best was selected on the TEST split (the paper's rule): its figures are optimistic"
    table, as_json = (stcli("evaluate", out, "--attacks", "fgsm", *more) for more in ([], ["--json"]))
    assert note in table.out
    assert note in as_json.err


# Evaluating it


@ON_EACH
def test_evaluate_prints_what_the_run_found(backend):
    run = trained(backend)
    before = contents(run.path)
    said = stcli("evaluate", run.path, "--json")
    assert said.code == 0, said.err
    result = run.json("result.json")
    assert json.loads(said.out) == {
        f"best (epoch {result['best_epoch']})": result["checkpoints"]["best"],
        "last (epoch 2)": result["checkpoints"]["last"],
    }
    assert contents(run.path) == before


def test_the_table_holds_the_same_numbers():
    run = trained("torch")
    said = stcli("evaluate", run.path, "--attacks", "fgsm", "--batch-size", 7)
    assert said.code == 0, said.err
    for name, scores in run.json("result.json")["checkpoints"].items():
        (line,) = (line for line in said.out.splitlines() if line.startswith(f"│ {name} "))
        for attack in ("natural", "fgsm"):
            low, high = scores[attack]["interval_95"]
            accuracy = scores[attack]["accuracy"]
            assert f"{100 * accuracy:.2f} [{100 * low:.2f}, {100 * high:.2f}]" in line
            assert f"{100 * accuracy:.2f} [" in run.said.out  # as training printed it


@pytest.mark.parametrize("attacks", [3, 5, 8])
def test_no_figure_is_cut_off_on_a_terminal(attacks):
    names = ["natural", "fgsm", "pgd20", "cw100", "autoattack", "pgd100", "autoattack-fast", "deepfool"][:attacks]
    checkpoints = ("best (epoch 118)", "last (epoch 120)")
    scores = {
        checkpoint: {name: Accuracy(9999 - 100 * n - k, 10000) for k, name in enumerate(names)}
        for n, checkpoint in enumerate(checkpoints)
    }
    cells = " ".join(on_a_terminal(console.score_table(scores)))
    for found in scores.values():
        for accuracy in found.values():
            assert all(part in cells for part in percent(accuracy).split(" ", 1))
    stages = [
        StageResult(f"stage {n}", Accuracy(5021 - n, 10000), 12345678 + n, 1234567, 4321.0) for n in range(4)
    ]
    cells = " ".join(on_a_terminal(console.stage_table("best, autoattack", stages)))
    for stage in stages:
        whole = (f"{stage.robust.correct}/10000", f"{stage.forwards:,}", "1,234,567", "4321")
        assert all(part in cells for part in (*whole, *percent(stage.robust).split(" ", 1)))


def test_a_table_has_a_line_for_each_row_where_there_is_room():
    scores = {"best": {"natural": Accuracy(90, 100), "pgd20": Accuracy(50, 100)}}
    cells = on_a_terminal(console.score_table(scores), width=250)
    assert cells[-3:] == ["best", *(percent(accuracy) for accuracy in scores["best"].values())]


def test_an_epoch_s_line_names_each_share_once():
    row = {"epoch": 1, "best_epoch": 1, "learning_rate": 0.1, "images_per_second": 9.0, "natural_accuracy": 0.417}
    line = display.epoch_line({**row, "selected_natural": 0.25, "pgd20_accuracy": 0.3}, 3, "val")
    assert "natural selected 25 %" in line
    assert "natural 41.7 %  pgd20 30.0 % on val" in line
    shares = {"selected_intended": 0.89, "selected_flipped": 0.01, "collaborative_share": 0.5}
    line = display.epoch_line({**row, **shares}, 3, "val")
    assert "col share 50 %  pair as intended 89 %  swapped 1 %  lr" in line


def test_the_radius_is_told_as_it_was_given():
    said = title(make_plan({"epsilon": 8 / 255, "dataset": "cifar10"}))
    assert "ε = 8/255," in said
    assert "ε = 8/255, evaluated at 4/255," in title(
        make_plan({"epsilon": 8 / 255, "eval_epsilon": 4 / 255, "dataset": "cifar10"})
    )
    assert "ε = 0.2," in title(make_plan({}))


def test_json_stands_alone_on_stdout(monkeypatch):
    monkeypatch.setattr(display, "LINE_EVERY", 0.0)
    said = stcli("evaluate", trained("torch").path, "--json", "--attacks", "fgsm", "--batch-size", 8)
    assert "images, " in said.err  # progress
    assert json.loads(said.out)


def test_a_weights_file_can_be_evaluated_by_itself():
    run = trained("torch")
    said = stcli("evaluate", run.path, "--weights", run.path / "best.safetensors", "--json", "--attacks", "fgsm")
    (scores,) = json.loads(said.out).values()
    assert scores["fgsm"] == run.json("result.json")["checkpoints"]["best"]["fgsm"]


def predictions(run, backend, dtype, attack, place):
    file = place / f"{backend}-{dtype}.json"
    options = ["--backend", backend, "--dtype", dtype, "--attacks", attack, "--checkpoint", "last"]
    said = stcli("evaluate", run.path, *options, "--predictions", file)
    assert said.code == 0, said.err
    return json.loads(file.read_text())


@ON_EACH
def test_the_other_framework_sees_the_same(backend, tmp_path):
    """Image by image: natural predictions in float32, those under PGD-20 in float64."""
    for name in NAMES:
        trained(name)  # both, or skip
    run = trained(backend)
    for dtype, attack, which in (("float32", "fgsm", ["natural"]), ("float64", "pgd20", ["natural", "pgd20"])):
        torch, keras = (predictions(run, name, dtype, attack, tmp_path) for name in NAMES)
        assert torch.keys() == keras.keys()
        for checkpoint in torch:
            for attack in which:
                assert len(torch[checkpoint][attack]) == 32
                assert torch[checkpoint][attack] == keras[checkpoint][attack]


# Progress


def test_bars_move_on_a_terminal_and_are_gone_afterwards():
    terminal = Console(force_terminal=True, file=io.StringIO(), width=80)
    bars = console.make_progress(terminal)
    assert isinstance(bars, console.Bars)
    for label in ("epoch 1/2", "evaluate"):
        bars.begin(label, 10)
        bars.advance(4)
        bars.advance(6)
        bars.end()
    shown = terminal.file.getvalue()
    assert "epoch 1/2" in shown
    assert "evaluate" in shown
    assert shown.count("\x1b[?25l") == shown.count("\x1b[?25h") == 2  # the cursor is hidden, and comes back


@pytest.mark.parametrize("columns", [1, 10, 40])
def test_a_narrow_terminal_gets_all_of_it(columns, monkeypatch):
    """Bars and lines end; a table is a list of its rows, and no cell is lost."""
    monkeypatch.setenv("COLUMNS", str(columns))
    monkeypatch.setenv("FORCE_COLOR", "1")
    bars = console.make_progress(console.make_console())
    bars.begin("epoch 1/2", 10)
    bars.advance(10)
    bars.end()
    lines = console.Lines(console.make_console())
    monkeypatch.setattr(display, "LINE_EVERY", 0)
    lines.begin("epoch 1/2", 10)
    lines.advance(5)
    said = "".join(stcli("presets", "table1/cifar10").out.split())
    for cell in ("preset:table1/cifar10/st-awp", "AutoAttack%:51.23±0.12"):
        assert cell in said
    monkeypatch.delenv("FORCE_COLOR")  # whose escapes are no columns
    scores = {"best": {"natural": Accuracy(90, 100), "pgd20": Accuracy(50, 100)}}
    assert on_a_terminal(console.score_table(scores), width=max(columns, console.NARROWEST))
    assert "checkpoint: best" in console.listed(console.score_table(scores).layouts[0])


def test_lines_tell_the_time_that_is_left(monkeypatch):
    said = io.StringIO()
    lines = console.make_progress(Console(file=said, width=100))
    assert isinstance(lines, console.Lines)
    clock = iter([0.0, 10.0, 40.0, 50.0, 80.0])
    monkeypatch.setattr(display.time, "monotonic", lambda: next(clock))
    lines.begin("epoch 1/2", 100)
    for images in (10, 30, 10, 50):
        lines.advance(images)
    lines.end()
    assert said.getvalue() == "  epoch 1/2: 40/100 images, 60 s left\n"


def test_paths_with_brackets_are_printed_as_they_are(monkeypatch):
    said = io.StringIO()
    monkeypatch.setattr("sys.stdout", said)
    console.make_console().print("→ /data/[bold]/:smile:/x")
    assert said.getvalue() == "→ /data/[bold]/:smile:/x\n"


# What a file does not give


@pytest.mark.parametrize(
    "line", ['resume = "runs/x"', "save_every = 5.0", "max_hours = 1.0", "tensorboard = true", "json = true"]
)
def test_what_is_about_one_invocation_is_no_setting(line, tmp_path):
    file = tmp_path / "mine.toml"
    file.write_text(f"{line}\nepochs = 1\n")
    said = stcli("train", "--config", file)
    assert said.code == 2
    assert f"{file}: {line.split()[0]}: expected as a flag, not in a file" in said.err


@pytest.mark.parametrize(
    "args",
    [
        ("--save-every", "-1"),
        ("--max-hours", "-2"),
        ("--max-hours", "nan"),
        ("--save_every=-1",),
        ("--max-hours=x",),
    ],
)
def test_times_that_are_none_are_refused(args, tmp_path):
    said = stcli("train", "--out", tmp_path / "run", *args)
    assert said.code == 2
    assert not (tmp_path / "run").exists()
    assert args[0].lstrip("-").partition("=")[0].replace("-", "_") in said.err.replace("-", "_")


def test_keeping_is_read_off_the_options():
    run_options = run_options_from(plan_from(["--max-hours", "1/2", "--save_every=7"])[2], lambda text: None)
    assert (run_options.seconds, run_options.save_every, run_options.resume) == (1800.0, 7.0, False)
    assert run_options_from(plan_from(["--max-hours", "none"])[2], lambda text: None).seconds is None


@pytest.mark.parametrize(
    ("settings", "name"),
    [
        ({"model": "timm:resnet18.a1_in1k"}, "digits-timm-resnet18.a1_in1k-st-torch-seed0"),
        ({"model": "mine.nets:Net"}, "digits-mine.nets-Net-st-torch-seed0"),
        ({"dataset": "hub:owner/name:plain text"}, "name-plain-text-resnet18-st-torch-seed0"),
        ({"dataset": "parquet:data/mine/", "awp": 0.1}, "mine-resnet18-st-awp-torch-seed0"),
    ],
)
def test_a_runs_own_name_is_one_that_any_file_system_takes(settings, name):
    assert default_name(make_plan(settings)) == name
