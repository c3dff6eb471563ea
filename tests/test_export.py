"""An entry for RobustBench: the fields of its model_info, weights that load, and what may not be submitted."""

import json
import re
import shutil

import numpy as np
import pytest
from harness import lively_weights
from published import write_all
from small import stcli, trained, words

from stcore.base.weights_file import load_weights, save_weights
from stcore.runs.evaluation_identity import fingerprint

torch = pytest.importorskip("torch")

PAPER = {
    "name": "Li2023Squeeze_WRN-10-1",
    "title": "Squeeze Training for Adversarial Robustness",
    "authors": "Qizhang Li, Yiwen Guo, Wangmeng Zuo, Hao Chen",
    "link": "https://arxiv.org/abs/2205.11156",
    "venue": "ICLR 2023",
}


@pytest.fixture
def weights(tmp_path):
    """Those of a small WRN, as `stcli train` leaves them."""
    about = {"stcore": "0.1.0", "model": "wrn-10-1", "num_classes": 10, "image_shape": "32x32x3"}
    path = tmp_path / "best.safetensors"
    single = {name: array.astype("float32") for name, array in lively_weights("wrn-10-1", classes=10).items()}
    save_weights(path, single, about)
    return path


def evaluate(weights, /, attack="autoattack", **changes):
    """A folder such as an evaluation of `weights` leaves; a full one in a moment."""
    folder = weights.parent / "evaluation"
    folder.mkdir(exist_ok=True)
    about = {
        "dataset": "cifar10",
        "norm": "linf",
        "epsilon": 8 / 255,
        "weights": fingerprint(load_weights(weights)[0]),
    }
    accuracies = changes.pop("accuracies", counts(attack=attack))
    (folder / "evaluation.json").write_text(json.dumps(about | changes))
    (folder / "result.json").write_text(json.dumps({"accuracies": accuracies}))
    return folder


def counts(natural=(8310, 10000), robust=(5050, 10000), attack="autoattack"):
    both = {"natural": natural, attack: robust}
    return {name: {"correct": correct, "total": total} for name, (correct, total) in both.items()}


def export(weights, folder, *args, **changes):
    out = folder.parent / "entry"
    settings = {**PAPER, **changes, "evaluation": folder, "out": out}
    return stcli("export", "robustbench", weights, *words(settings), *args), out


def refusal(weights, folder, *args, **changes):
    said, out = export(weights, folder, *args, **changes)
    assert (said.code, said.out) == (2, "")
    assert not out.exists()
    return said.err


def test_the_entry_has_robustbenchs_fields(weights):
    folder = evaluate(weights)
    said, out = export(weights, folder)
    assert (said.code, said.err) == (0, "")
    assert "clean 83.10 %, AutoAttack 50.50 %" in said.out
    found = sorted(str(path.relative_to(out)) for path in out.rglob("*") if path.is_file())
    assert found == [
        "README.md",
        "evaluation.json",
        "model_info/cifar10/Linf/Li2023Squeeze_WRN-10-1.json",
        "models/cifar10/Linf/Li2023Squeeze_WRN-10-1.pt",
        "result.json",
    ]
    assert json.loads((out / found[2]).read_text()) == {
        "link": "https://arxiv.org/abs/2205.11156",
        "name": "Squeeze Training for Adversarial Robustness",
        "authors": "Qizhang Li, Yiwen Guo, Wangmeng Zuo, Hao Chen",
        "additional_data": False,
        "number_forward_passes": 1,
        "dataset": "cifar10",
        "venue": "ICLR 2023",
        "architecture": "WideResNet-10-1",
        "eps": "8/255",
        "clean_acc": "83.10",
        "reported": "50.50",
        "autoattack_acc": "50.50",
    }
    for name in ("evaluation.json", "result.json"):
        assert (out / name).read_bytes() == (folder / name).read_bytes()


def test_what_the_authors_say_is_in_it(weights):
    said, out = export(weights, evaluate(weights), "--additional-data", reported=51.2, footnote="Uses so and so.")
    assert said.code == 0, said.err
    info = json.loads(next((out / "model_info").rglob("*.json")).read_text())
    assert (info["additional_data"], info["reported"], info["footnote"]) == (True, "51.20", "Uses so and so.")
    readme = (out / "README.md").read_text()
    for line in ("[New Model] Li2023Squeeze_WRN-10-1", "**Threat Model**: Linf", "**Additional data**: true"):
        assert line in readme
    assert "Uses so and so." in readme


@pytest.mark.parametrize(
    ("dataset", "norm", "epsilon", "place", "eps"),
    [("cifar10", "l2", 0.5, "cifar10/L2", "0.5"), ("cifar100", "linf", 8 / 255, "cifar100/Linf", "8/255")],
)
def test_each_leaderboard_has_its_place(weights, dataset, norm, epsilon, place, eps):
    said, out = export(weights, evaluate(weights, dataset=dataset, norm=norm, epsilon=epsilon))
    assert said.code == 0, said.err
    info = json.loads((out / "model_info" / place / f"{PAPER['name']}.json").read_text())
    assert (info["eps"], info["dataset"]) == (eps, place.partition("/")[0])


def test_the_weights_load_as_the_readme_says(weights, monkeypatch):
    _, out = export(weights, evaluate(weights))
    monkeypatch.chdir(out)
    scope = {}
    exec(re.search(r"```python\n(.*?)```", (out / "README.md").read_text(), re.S)[1], scope)
    state = scope["model"].state_dict()
    for name, array in load_weights(weights)[0].items():
        np.testing.assert_array_equal(state[name], array)
    assert not scope["model"].training


def test_import_reads_what_export_wrote(weights, tmp_path):
    _, out = export(weights, evaluate(weights))
    said = stcli("import", next(out.rglob("*.pt")), "--model", "wrn-10-1", "--out", tmp_path / "again.safetensors")
    assert said.code == 0, said.err
    assert load_weights(tmp_path / "again.safetensors")[1]["model"] == "wrn-10-1"


# What `stcli evaluate` leaves


@pytest.fixture(scope="module")
def cifar(tmp_path_factory):
    """A few images in CIFAR-10's published form."""
    place = tmp_path_factory.mktemp("cifar")
    write_all(place)
    return place / "data"


@pytest.fixture
def evaluated(weights, cifar, tmp_path):
    """Makes a real evaluation."""

    def make(*args, **changes):
        given = {
            "dataset": f"cifar10:{cifar}",
            "attacks": "autoattack",
            "subset": 6,
            "epsilon": "8/255",
            **changes,
        }
        said = stcli("evaluate", weights, *words({**given, "out": tmp_path / "ours"}), "--no-audit", *args)
        assert said.code == 0, said.err
        return tmp_path / "ours" / "best"

    return make


def test_an_evaluation_by_stcli_makes_a_draft(weights, evaluated):
    folder = evaluated()
    assert "natural accuracy on 6 of 10000 images; AutoAttack on 6 of 10000 images" in refusal(weights, folder)
    said, out = export(weights, folder, "--draft")
    assert said.code == 0, said.err
    info = json.loads((out / "model_info" / "cifar10" / "Linf" / f"{PAPER['name']}.json").read_text())
    found = json.loads((folder / "result.json").read_text())["accuracies"]
    assert info["autoattack_acc"] == f"{100 * found['autoattack']['accuracy']:.2f}"
    assert info["clean_acc"] == f"{100 * found['natural']['accuracy']:.2f}"


def test_a_fast_one_by_stcli_is_known_as_such(weights, evaluated):
    folder = evaluated("--fast")
    assert "a fast AutoAttack, which overestimates" in refusal(weights, folder)


def test_one_by_stcli_of_other_weights_or_attacks_is_none(weights, evaluated):
    folder = evaluated(attacks="apgd-ce")
    assert "expected one with autoattack" in refusal(weights, folder, "--draft")
    shutil.rmtree(folder.parent)
    folder = evaluated("--fast")
    arrays, about = load_weights(weights)
    save_weights(weights, {name: array * 2 for name, array in arrays.items()}, about)
    assert "is of other weights" in refusal(weights, folder, "--draft")


# A run's folder


@pytest.fixture
def run(tmp_path):
    shutil.copytree(trained("torch").path, tmp_path / "run")
    return tmp_path / "run"


def test_a_run_gives_the_checkpoint_that_was_evaluated(run):
    arrays, about = load_weights(run / "last.safetensors")
    save_weights(run / "last.safetensors", {name: array * 2 for name, array in arrays.items()}, about)
    folder = evaluate(run / "last.safetensors")
    assert "is of other weights" in refusal(run, folder, checkpoint="best")
    said, out = export(run, folder, checkpoint="last")
    assert said.code == 0, said.err
    assert "TEST split" not in (out / "README.md").read_text()


def test_a_runs_extra_data_is_declared(run):
    with (run / "config.toml").open("a") as file:
        file.write('extra_data = "npz:generated.npz"\n')
    folder = evaluate(run / "best.safetensors")
    assert "the run mixed in npz:generated.npz; give --additional-data" in refusal(run, folder)
    assert export(run, folder, footnote="1M generated images.")[0].code == 0


def test_selection_on_the_test_split_is_said(run):
    config = run / "config.toml"
    config.write_text(config.read_text().replace('select = "val"', 'select = "test"'))
    said, out = export(run, evaluate(run / "best.safetensors"))
    assert said.code == 0, said.err
    assert "chosen on the TEST split" in (out / "README.md").read_text()


# What is refused

SHORT = {
    "a subset": ({"accuracies": counts(robust=(505, 1000))}, "AutoAttack on 1000 of 10000 images"),
    "natural on a subset": (
        {"accuracies": counts(natural=(831, 1000))},
        "natural accuracy on 1000 of 10000 images",
    ),
    "fast": ({"attack": "autoattack-fast"}, "a fast AutoAttack, which overestimates"),
    "tf32": ({"precision": "tf32"}, "products in tf32"),
}


@pytest.mark.parametrize(("changes", "said"), SHORT.values(), ids=SHORT)
def test_a_lesser_evaluation_makes_a_marked_draft_at_most(weights, changes, said):
    folder = evaluate(weights, **changes)
    assert f"received {said}. Or give --draft" in refusal(weights, folder)
    drafted, out = export(weights, folder, "--draft", footnote="Mine.")
    assert (drafted.code, f"DRAFT, not to be submitted: {said}" in drafted.out) == (0, True)
    info = json.loads(next((out / "model_info").rglob("*.json")).read_text())
    assert info["footnote"] == f"DRAFT, not to be submitted: {said}. Mine."
    assert info["footnote"] in (out / "README.md").read_text()


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"attack": "pgd20"}, "expected one with autoattack"),
        ({"epsilon": 0.031}, "received cifar10 linf 0.031"),
        ({"norm": "l1"}, "received cifar10 l1"),
        ({"dataset": "digits"}, "received digits linf 8/255"),
        ({"weights": "0" * 64}, "is of other weights"),
    ],
)
def test_an_evaluation_that_is_no_entrys_is_refused_even_as_a_draft(weights, changes, said):
    assert said in refusal(weights, evaluate(weights, **changes), "--draft")


def test_files_in_another_format_are_named(weights):
    folder = evaluate(weights, dataset="parquet")
    assert "received parquet linf 8/255" in refusal(weights, folder)
    assert export(weights, folder, dataset="cifar10")[0].code == 0


@pytest.mark.parametrize("name", ["evaluation.json", "result.json"])
def test_a_missing_or_damaged_report_is_refused(weights, name):
    folder = evaluate(weights)
    (folder / name).write_text("{")
    said, out = export(weights, folder)
    assert (said.code, f"{folder / name} is missing or damaged" in said.err) == (3, True)
    assert not out.exists()
    (folder / name).unlink()
    assert f"expected the folder of a finished evaluation; {folder} has no {name}" in refusal(weights, folder)


@pytest.mark.parametrize("name", ["Squeeze", "Li2023", "../Li2023Squeeze", "2023Squeeze"])
def test_a_name_of_another_form_is_refused(weights, name):
    assert "such as Li2023Squeeze" in refusal(weights, evaluate(weights), name=name)


def test_weights_that_do_not_name_their_network_are_refused(weights):
    save_weights(weights, load_weights(weights)[0], {})
    assert "does not name its model" in refusal(weights, evaluate(weights))


def test_nothing_is_overwritten(weights):
    folder = evaluate(weights)
    assert export(weights, folder)[0].code == 0
    said, _ = export(weights, folder)
    assert (said.code, "expected a new or empty folder" in said.err) == (2, True)


def test_the_command_has_help():
    said = stcli("export", "--help")
    assert (said.code, said.err) == (0, "")
    assert "usage: stcli export" in said.out
    assert "robustbench" in said.out


def test_a_target_that_there_is_not_is_what_is_named():
    """Not the options of another one."""
    said = stcli("export", "RobustBench", "net.safetensors")
    assert said.code == 2
    assert "expected an action among onnx, torch-export," in said.err
    assert "received 'RobustBench'. Did you mean 'robustbench'?" in said.err
