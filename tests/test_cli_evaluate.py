"""`stcli evaluate` with AutoAttack: its folder, how it goes on, and what it refuses."""

import json
import os
import shutil
import signal
import tempfile
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from forked import Forked
from harness import NAMES, assert_same, load
from small import contents, plan, stcli, train, words
from test_training import PressesCtrlC

from stcore import models
from stcore.audit import Finding
from stcore.base.files import read_arrays
from stcore.base.weights_file import load_weights, save_weights
from stcore.data import load_digits
from stcore.errors import UsageError
from stcore.evaluation.attack_names import MONITORS
from stcore.evaluation.folder import EvaluationFolder
from stcore.runs.evaluation_identity import folder_name, identity
from stcore.runs.plan import make_plan
from stcore.runs.preparation import set_up

torch = pytest.importorskip("torch")

ON_EACH = pytest.mark.parametrize("backend", NAMES)
BOTH = "apgd-ce+apgd-t"
QUICK = {"attacks": BOTH, "epsilon": 0.05, "subset": 12, "checkpoint": "best"}
"""Of the 12 images 10 are classified correctly, and 3 withstand."""
_folders = tempfile.TemporaryDirectory(prefix="stcore-tests-")


@cache
def sound():
    """A run whose network is right on most digits."""
    out = Path(_folders.name) / "run"
    given = {"method": "standard", "epochs": 6, "train_size": 1200, "learning_rate": 0.05}
    said = train(out, select_by="natural", attacks="", **given)
    assert said.code == 0, said.err
    return out


@pytest.fixture
def run(tmp_path):
    """A copy, to write in."""
    return Path(shutil.copytree(sound(), tmp_path / "run"))


def evaluate(*args, **settings):
    return stcli("evaluate", *args, *words({**QUICK, **settings}))


def evaluated(out, *args, run=None, **settings):
    """The folder of the only checkpoint evaluated."""
    said = evaluate(run or sound(), "--no-audit", *args, out=out, **settings)
    assert (said.code, said.err) == (0, "")
    (folder,) = out.iterdir()
    return folder


def correct(folder, attack=BOTH):
    return json.loads((folder / "result.json").read_text())["accuracies"][attack]["correct"]


def same_records(one, other):
    assert_same(read_arrays(one / "records.npz"), read_arrays(other / "records.npz"))


def pixels():
    """The digits that `sound` is tested on."""
    return set_up(plan()).test.images.astype(np.float32) / np.float32(255)


def classes(weights, images):
    model = models.build("tiny", "torch", num_classes=10, in_channels=1, image_size=(8, 8)).eval()
    model.load_state_dict({name: torch.tensor(array) for name, array in weights.items()})
    return model(torch.tensor(images).permute(0, 3, 1, 2)).argmax(1).numpy()


@cache
def standard():
    """AutoAttack of 12 digits, with everything that is printed."""
    run = Path(shutil.copytree(sound(), Path(_folders.name) / "standard"))
    said = evaluate(run, attacks="autoattack")
    assert (said.code, said.err) == (0, "")
    return run, said.out


@cache
def plain():
    """A folder that `evaluated` left; read only."""
    folder = Path(_folders.name) / "plain"
    evaluated(folder)
    return folder


# What it leaves


def test_autoattack_leaves_a_folder_in_the_runs():
    run, said = standard()
    (base,) = (run / "evaluations").iterdir()
    assert base.name.startswith("autoattack-")
    assert said.endswith(f"everything is in {base}\n")
    assert {path.name for path in base.rglob("*")} == {
        "best",
        "evaluation.json",
        "state.npz",
        "records.npz",
        "result.json",
    }

    about, result = (json.loads((base / "best" / f"{name}.json").read_text()) for name in ("evaluation", "result"))
    assert (about["dataset"], about["subset"], about["shard"], about["images"]) == ("digits", "12", None, 12)
    assert list(about["attacks"]) == ["autoattack"]
    assert list(result["accuracies"]) == ["natural", "autoattack"]
    stages = result["cascades"]["autoattack"]
    assert [stage["attack"] for stage in stages] == ["apgd-ce", "apgd-t", "fab-t", "square"]
    robust = result["accuracies"]["autoattack"]
    assert 0 < robust["correct"] == stages[-1]["robust"] < result["accuracies"]["natural"]["correct"]
    assert stages[3]["forwards"] >= 5000 * robust["correct"]
    for stage in stages:
        assert f"│ {stage['attack']}" in said
        assert f"{stage['robust']}/12" in said


def test_records_say_what_became_of_each_image():
    run, _ = standard()
    (folder,) = (run / "evaluations").glob("*/best")
    records = read_arrays(folder / "records.npz")
    known = {name.removeprefix("autoattack/"): array for name, array in records.items()}
    fields = ["label", "natural", "predicted", "attack", "target", "restart", "iteration", "distance", "attacks"]
    whole = {"position", "label", "predicted/natural", "predicted/autoattack"}
    assert set(records) == whole | {f"autoattack/{name}" for name in fields}
    np.testing.assert_array_equal(known["position"], np.arange(12))
    fell = known["attack"] >= 0
    assert (known["predicted/natural"] == known["label"])[fell].all()
    assert (known["predicted/autoattack"] != known["label"])[fell].all()
    assert (known["distance"][fell] <= 0.05 + 1e-6).all()
    assert np.isnan(known["distance"][~fell]).all()
    assert set(known["attacks"][known["attack"][fell]]) == {"apgd-ce", "apgd-t"}


def test_the_audit_is_printed_and_kept():
    run, said = standard()
    (folder,) = (run / "evaluations").glob("*/best")
    audit = json.loads((folder / "result.json").read_text())["audit"]
    assert len(audit) > 8
    assert "audit of best" in said
    for finding in audit:
        assert f"│ {finding['check']} " in said
        assert finding["value"][:30] in said


def test_an_audit_that_was_broken_off_or_left_out_can_be_had_later_and_the_figures_stay(run, monkeypatch):
    def pressed(*args, **settings):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("stcore.runs.checkpoint_evaluation.audit", pressed)
        assert evaluate(run).code == 130
    (folder,) = (run / "evaluations").glob("*/best")
    assert correct(folder) > 0
    said = evaluate(run, "--no-audit")
    assert said.code == 0, said.err
    assert "finished before" in said.out
    assert "audit of" not in said.out
    assert json.loads((folder / "result.json").read_text())["audit"] is None
    said = evaluate(run, "--audit")
    assert "finished before" in said.out
    assert "audit of best" in said.out
    assert len(json.loads((folder / "result.json").read_text())["audit"]) > 8


def test_of_several_checkpoints_each_is_audited_with_the_others_examples(run):
    weights, about = load_weights(run / "best.safetensors")
    save_weights(run / "last.safetensors", {name: array * 1.01 for name, array in weights.items()}, about)
    said = stcli("evaluate", run, *words({"attacks": "apgd-ce", "epsilon": 0.05, "subset": 12}))
    assert said.code == 0, said.err
    (base,) = (run / "evaluations").iterdir()
    for name in ("best", "last"):
        assert f"audit of {name}" in said.out
        audit = json.loads((base / name / "result.json").read_text())["audit"]
        (transfer,) = (finding for finding in audit if finding["check"] == "transfer")
        assert transfer["status"] != "skipped"


def test_there_is_no_audit_in_l1(tmp_path):
    said = evaluate(sound(), attacks="apgd-ce", norm="l1", epsilon=1, out=tmp_path / "out")
    assert (said.code, said.err) == (0, "")
    assert "audit: none for l1\n" in said.out
    assert correct(tmp_path / "out" / "best", "apgd-ce") < 10


# It goes on


def test_the_same_command_again_ends_at_once(monkeypatch):
    run, said = standard()
    before = contents(run)

    def called(*args, **settings):
        raise AssertionError("a forward")

    monkeypatch.setattr(torch.nn.Module, "__call__", called)
    again = evaluate(run, attacks="autoattack")
    assert (again.code, again.err) == (0, "")
    assert contents(run) == before
    (folder,) = (run / "evaluations").glob("*/best")
    assert again.out == f"finished before: {folder}\n{said}"


def stopped(monkeypatch, label, at, out, **settings):
    """Ctrl-C at so many advances of this part."""
    with monkeypatch.context() as patch:
        patch.setattr("stcore.cli.evaluate.make_progress", lambda _: PressesCtrlC(label, at))
        said = evaluate(sound(), "--no-audit", out=out, **settings)
    assert said.code == 130
    assert f"interrupted: kept in {out}; run the same command again to resume\n" in said.out
    assert not (out / "best" / "result.json").exists()
    assert not (out / "best" / "records.npz").exists()


@ON_EACH
def test_ctrl_c_and_the_same_command_again(monkeypatch, tmp_path, backend):
    load(backend)
    attack = BOTH if backend == "torch" else "apgd-ce"  # Keras traces all anew each time
    given = {"backend": backend, "attacks": f"fgsm,{attack}", "batch_size": 8}
    whole = evaluated(tmp_path / "whole", **given)
    if backend == "torch":  # where it was stopped is the same to both
        stopped(monkeypatch, "test", 2, tmp_path / "out", **given)  # the first advance tells where it begins
        stopped(monkeypatch, f"{BOTH} apgd-ce", 40, tmp_path / "out", **given)
    stopped(monkeypatch, f"{BOTH} apgd-t" if attack == BOTH else attack, 40, tmp_path / "out", **given)
    said = evaluate(sound(), "--no-audit", out=tmp_path / "out", **given)
    assert said.code == 0, said.err
    assert f"resumes: {tmp_path / 'out' / 'best'}\n" in said.out
    same_records(whole, tmp_path / "out" / "best")
    results = [json.loads((path / "result.json").read_text()) for path in (whole, tmp_path / "out" / "best")]
    for result in results:
        del result["checksum"]  # of the seconds, too
        for stage in result["cascades"][attack]:
            del stage["seconds"]
    assert results[0] == results[1]


def test_ctrl_c_without_a_folder_says_so(monkeypatch):
    monkeypatch.setattr("stcore.cli.evaluate.make_progress", lambda _: PressesCtrlC("test"))
    said = evaluate(sound(), attacks="fgsm")
    assert (said.code, said.out) == (130, "interrupted: nothing was kept: give --out\n")


DIES = """
import os, signal, sys
from stcore.cli.main import main
from stcore.evaluation.folder import EvaluationFolder

save, saves = EvaluationFolder.save, []

def saving(self, state, examples):
    if state.get("{attack}/stage", 0) >= 1:
        saves.append(1)
    if len(saves) == 3:
        os.replace = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
    save(self, state, examples)

EvaluationFolder.save = saving
sys.exit(main(sys.argv[1:]))
"""


def test_a_killed_process_goes_on(tmp_path):
    """Killed in its second stage, with a state written that is not in its place yet."""
    out = tmp_path / "out"
    args = ["evaluate", sound(), "--no-audit", *words({**QUICK, "out": out})]
    process = Forked("-c", DIES.format(attack=BOTH), *args, "--save-every", "0")
    _, err = process.communicate()
    assert process.returncode == -signal.SIGKILL, err
    folder = out / "best"
    assert read_arrays(folder / "state.npz")[f"{BOTH}/stage"] == 1
    assert list(folder.glob("*.part"))
    assert not (folder / "result.json").exists()
    said = stcli(*args)
    assert (said.code, f"resumes: {folder}\n" in said.out) == (0, True)
    same_records(folder, plain() / "best")
    assert {path.suffix for path in folder.iterdir()} <= {".json", ".npz", ".part"}


def test_another_evaluations_folder_is_refused(run, tmp_path):
    out = Path(shutil.copytree(plain(), tmp_path / "out"))
    folder = out / "best"
    before = contents(out)
    for changes, name in (({"seed": 1}, "seed"), ({"epsilon": 0.06}, "attacks"), ({"subset": 11}, "images")):
        said = evaluate(run, "--no-audit", out=out, **changes)
        assert said.code == 2
        assert f"out: {folder} holds another evaluation: its {name} is" in said.err
    weights, about = load_weights(run / "best.safetensors")
    save_weights(run / "best.safetensors", {name: array * 1.01 for name, array in weights.items()}, about)
    said = evaluate(run, "--no-audit", out=out)
    assert (said.code, "its weights is" in said.err) == (2, True)
    assert contents(out) == before


def test_a_folder_of_something_else_is_refused(tmp_path):
    (tmp_path / "best").mkdir()
    (tmp_path / "best" / "thesis.tex").write_text("mine")
    said = evaluate(sound(), out=tmp_path)
    assert (said.code, "out: expected a new or empty folder" in said.err) == (2, True)


@pytest.mark.parametrize("name", ["state.npz", "evaluation.json", "result.json"])
def test_a_damaged_file_is_named(tmp_path, name):
    folder = Path(shutil.copytree(plain(), tmp_path / "out")) / "best"
    whole = (folder / name).read_bytes()
    (folder / name).write_bytes(whole[: len(whole) // 2])
    said = evaluate(sound(), out=tmp_path / "out")
    assert said.code == 3
    assert f"{folder / name} is missing or damaged" in said.err
    assert "Traceback" not in said.err


# What is evaluated


def test_examples_are_misclassified_and_in_the_ball(tmp_path):
    folder = evaluated(tmp_path / "out", "--save-examples", attacks=f"fgsm,{BOTH}", subset="4:16")
    kept, records = (read_arrays(folder / name) for name in (f"{BOTH}-examples.npz", "records.npz"))
    rows, points = kept["rows"], kept["examples"]
    np.testing.assert_array_equal(rows, np.flatnonzero(records[f"{BOTH}/attack"] >= 0))
    images = pixels()[records["position"][rows]]
    assert np.abs(points - images).max() <= 0.05 + 1e-6
    assert (points.min(), points.max()) >= (0, 0)
    assert points.max() <= 1
    weights, _ = load_weights(sound() / "best.safetensors")
    np.testing.assert_array_equal(classes(weights, points), records[f"predicted/{BOTH}"][rows])
    assert (classes(weights, points) != records["label"][rows]).all()
    flat = read_arrays(folder / "fgsm-examples.npz")
    np.testing.assert_array_equal(flat["rows"], np.arange(12))


def test_examples_of_other_attacks_have_a_folder_too(run):
    said = evaluate(run, "--save-examples", "--no-audit", attacks="fgsm")
    assert said.code == 0, said.err
    (folder,) = (run / "evaluations").glob("*/best")
    assert (folder / "fgsm-examples.npz").is_file()


def test_a_subset_is_a_part_of_the_whole(tmp_path):
    whole = read_arrays(evaluated(tmp_path / "whole", subset=12, dtype="float64") / "records.npz")
    part = read_arrays(evaluated(tmp_path / "part", subset="5:9", dtype="float64") / "records.npz")
    np.testing.assert_array_equal(part["position"], [5, 6, 7, 8])
    for name, array in part.items():
        if not name.endswith("/attacks"):
            np.testing.assert_allclose(array, whole[name][5:9], atol=1e-9)


def test_a_weights_file_alone_needs_the_data(run):
    file = run / "best.safetensors"
    given = {name: value for name, value in QUICK.items() if name != "checkpoint"}
    said = stcli("evaluate", file, *words(given))
    assert (said.code, said.err.count("dataset: expected the data")) == (2, 1)
    said = stcli("evaluate", file, "--no-audit", *words({**given, "dataset": "digits"}))
    assert said.code == 0, said.err
    (folder,) = (run / "evaluations").glob(f"{BOTH}-*/best")
    assert json.loads((folder / "evaluation.json").read_text())["dataset"] == "digits"
    # Another file in its place is another evaluation.
    weights, about = load_weights(file)
    save_weights(file, {name: array * 1.01 for name, array in weights.items()}, about)
    assert stcli("evaluate", file, "--no-audit", *words({**given, "dataset": "digits"})).code == 0
    assert len(list((run / "evaluations").iterdir())) == 2


@pytest.mark.parametrize("status", ["pass", "warn"])
def test_fast_is_not_enough_where_the_audit_warns(run, monkeypatch, status):
    """On a network that masks its gradients it left 36 images of 60, AutoAttack 14."""
    found = [Finding("no gradients (Square)", status, "3 of 12", "gradients are masked")]
    monkeypatch.setattr("stcore.runs.checkpoint_evaluation.audit", lambda *_, **__: found)
    for fast in ((), ("--fast",)):
        said = evaluate(run, *fast, attacks="autoattack-fast" if not fast else "autoattack")
        assert said.code == 0, said.err
        assert ("Evaluate without --fast" in said.out) == (status == "warn" and fast != ())


def test_fast_is_autoattacks(tmp_path):
    folder = evaluated(tmp_path / "fast", "--fast", attacks="fgsm,autoattack")
    result = json.loads((folder / "result.json").read_text())
    assert list(result["accuracies"]) == ["natural", "fgsm", "autoattack-fast"]
    assert "square" not in [stage["attack"] for stage in result["cascades"]["autoattack-fast"]]
    said = evaluate(sound(), "--fast", out=tmp_path / "other")
    assert (said.code, "fast: expected autoattack among the attacks" in said.err) == (2, True)


def test_another_norm_needs_its_epsilon(tmp_path):
    folder = evaluated(tmp_path / "l2", norm="l2", epsilon=0.3)
    records = read_arrays(folder / "records.npz")
    distance = records[f"{BOTH}/distance"]
    assert 0.05 < np.nanmax(distance) <= 0.3 * (1 + 1e-5)
    given = {name: value for name, value in QUICK.items() if name != "epsilon"}
    said = stcli("evaluate", sound(), *words({**given, "norm": "l2"}))
    assert (said.code, "epsilon: expected one with norm = l2" in said.err) == (2, True)
    said = evaluate(sound(), norm="l1", attacks="pgd20")
    assert (said.code, "norm: expected one of linf, l2" in said.err) == (2, True)


def test_deepfool_is_an_attack_but_no_monitor(backend, tmp_path):
    said = evaluate(sound(), "--json", "--no-audit", attacks="fgsm,deepfool", backend=backend.name)
    assert said.code == 0, said.err
    (scores,) = json.loads(said.out).values()
    assert 0 < scores["deepfool"]["correct"] < scores["natural"]["correct"]
    assert not {"deepfool", "collaborative", "pgd_rst"} & set(MONITORS)
    said = train(tmp_path / "run", select_by="deepfool")
    assert (said.code, "select_by: expected one of natural, fgsm" in said.err) == (2, True)


def test_json_stands_alone_on_stdout(run):
    said = evaluate(run, "--json", attacks=f"fgsm,{BOTH}")
    (scores,) = json.loads(said.out).values()
    assert list(scores) == ["natural", "fgsm", BOTH]
    assert "everything is in" in said.err
    again = evaluate(run, "--json", attacks=f"fgsm,{BOTH}")
    assert again.out == said.out
    assert "finished before" in again.err


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"attacks": "apgd"}, "attacks: expected one of"),
        ({"attacks": "apgd-ce+pgd20"}, "attacks: expected one of"),
        ({"attacks": "apgd-ce+apgd-ce"}, "attacks: expected each attack once"),
        ({"subset": "0"}, "subset: expected N or A:B within the 347 test images"),
        ({"subset": "348"}, "subset: expected N or A:B within the 347 test images"),
        ({"subset": "5:5"}, "subset: expected N or A:B"),
        ({"subset": "a:b"}, "subset: expected N or A:B"),
        ({"shard": "0/2"}, "shard: expected i/n"),
        ({"shard": "3/2"}, "shard: expected i/n"),
        ({"shard": "1/13"}, "shard: expected i/n with 1 <= i <= n <= 12"),
        ({"shard": "1"}, "shard: expected i/n"),
        ({"checkpoint": "first"}, "checkpoint: expected one of best, last"),
        ({"save_every": -1}, "save_every: expected"),
        ({"engine": "theirs"}, "engine: expected one of native, reference"),
        ({"norm": "l3"}, "norm: expected one of linf, l2, l1"),
    ],
    ids=str,
)
def test_what_makes_no_sense_is_refused_before_anything_is_made(tmp_path, settings, said):
    out = tmp_path / "out"
    answer = evaluate(sound(), out=out, **settings)
    assert answer.code == 2
    assert said in answer.err
    assert not out.exists()


# The reference


def test_the_reference_agrees(tmp_path):
    pytest.importorskip("pyautoattack")
    said = evaluate(sound(), engine="reference", attacks="apgd-ce")
    assert said.code == 0, said.err
    ours = correct(evaluated(tmp_path / "out", attacks="apgd-ce"), "apgd-ce")
    (line,) = (line for line in said.out.splitlines() if line.startswith("│ best "))
    assert "apgd-ce" in line
    assert f" {100 * ours / 12:.2f} [" in line
    said = evaluate(sound(), "--json", engine="reference", attacks="apgd-ce")
    assert json.loads(said.out)["best"]["apgd-ce"]["correct"] == ours


@pytest.mark.parametrize(
    "settings", [{"attacks": "fgsm,apgd-ce"}, {"out": "somewhere"}, {"predictions": "here.json"}], ids=str
)
def test_the_reference_refuses_what_it_does_not_do(settings, tmp_path, monkeypatch):
    pytest.importorskip("pyautoattack")
    monkeypatch.chdir(tmp_path)
    said = evaluate(sound(), engine="reference", **{"attacks": "apgd-ce", **settings})
    assert (said.code, "engine: expected only autoattack or members of it" in said.err) == (2, True)
    assert os.listdir() == []


# The final evaluation of a training run

FINAL = {"attacks": f"fgsm,{BOTH}", "method": "standard", "train_size": 600, "epochs": 3, "select_by": "natural"}
FINAL |= {"eval_epsilon": 0.02, "test_size": 12}


@ON_EACH
def test_training_ends_with_the_same_evaluation(backend, tmp_path):
    load(backend)
    final = FINAL if backend == "torch" else {**FINAL, "attacks": "fgsm,apgd-ce"}
    said = train(tmp_path / "run", backend=backend, **final)
    assert said.code == 0, said.err
    (base,) = (tmp_path / "run" / "evaluations").iterdir()
    scores = json.loads((tmp_path / "run" / "result.json").read_text())["checkpoints"]
    kept = json.loads((base / "best" / "result.json").read_text())
    assert kept["accuracies"] == scores["best"]
    again = stcli("evaluate", tmp_path / "run", "--no-audit", "--attacks", final["attacks"])
    assert again.code == 0, again.err
    assert f"finished before: {base / 'best'}\n" in again.out
    given = {"attacks": final["attacks"], "epsilon": final["eval_epsilon"]}
    fresh = evaluated(tmp_path / "fresh", run=tmp_path / "run", **given)
    same_records(fresh, base / "best")


def test_an_interrupted_final_evaluation_is_finished_by_evaluate(monkeypatch, tmp_path):
    run = tmp_path / "run"
    monkeypatch.setattr("stcore.cli.train.make_progress", lambda _: PressesCtrlC(f"{BOTH} apgd-t", 5))
    said = train(run, **FINAL)
    assert said.code == 130
    assert f"stcli evaluate {run} --attacks fgsm,{BOTH}\n" in said.out
    said = stcli("evaluate", run, "--attacks", FINAL["attacks"], "--no-audit")
    assert said.code == 0, said.err
    (base,) = (run / "evaluations").iterdir()
    assert f"resumes: {base / 'best'}\n" in said.out
    assert (base / "best" / "result.json").is_file()


def test_training_knows_no_monitor_in_l1(tmp_path):
    said = train(tmp_path / "run", attacks="apgd-ce", eval_norm="l1", eval_epsilon=1)
    assert (said.code, "eval_norm: expected linf or l2 in training" in said.err) == (2, True)
    assert not (tmp_path / "run").exists()


# What a weights file does not know of


def squares(folder, side):
    """An image folder: two classes, told by their colour."""
    image = pytest.importorskip("PIL.Image")
    rng = np.random.default_rng(0)
    for part, count in (("train", 40), ("test", 10)):
        for place, name in enumerate(("dark", "light")):
            (folder / part / name).mkdir(parents=True)
            for number in range(count):
                pixels = rng.integers(100 * place, 100 * place + 100, (side, side, 3)).astype(np.uint8)
                image.fromarray(pixels).save(folder / part / name / f"{number}.png")
    return f"folder:{folder}"


def test_a_weights_file_takes_an_image_size(tmp_path):
    load("torch")
    place, run = squares(tmp_path / "data", 12), tmp_path / "run"
    settings = {"dataset": place, "image_size": 8, "validation_size": 2, "model": "tiny", "epochs": 1}
    assert stcli("train", *words({**settings, "out": run})).code == 0
    weights = run / "last.safetensors"
    flags = ("--dataset", place, "--attacks", "fgsm", "--no-audit")
    said = stcli("evaluate", weights, *flags, "--image-size", 9)
    assert said.code == 2
    assert "8x8x3" in said.err
    found = []
    for size in ((), ("--image-size", 8)):  # the file itself knows it
        said = stcli("evaluate", weights, *flags, *size, "--json")
        assert said.code == 0, said.err
        found.append(json.loads(said.out))
    assert found[0] == found[1]
    said = stcli("evaluate", run, "--image-size", 8)
    assert said.code == 2
    assert "image_size: expected none with a run" in said.err


def test_another_normalisation_is_another_evaluation(tmp_path):
    """Folders that were written before normalisation was said are those of networks without."""
    load("torch")
    plain, normalised = (
        make_plan({"normalize": text, "attacks": "fgsm", "model": "tiny"}) for text in ("none", "0.5/0.25")
    )
    test = load_digits().test
    one, other = (identity(plan, test, {}, {}, images=4) for plan in (plain, normalised))
    assert "normalize" not in one
    assert other == {**one, "normalize": "0.5/0.25"}
    assert folder_name(one, whatever_weights=True) != folder_name(other, whatever_weights=True)
    EvaluationFolder(tmp_path / "e", one)
    EvaluationFolder(tmp_path / "e", one)
    with pytest.raises(UsageError, match=r"its normalize is None, here it is '0\.5/0\.25'"):
        EvaluationFolder(tmp_path / "e", other)
