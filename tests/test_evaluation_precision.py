"""`stcli evaluate --precision tf32`: on within the evaluation alone, and named wherever its figures stand."""

import json
import shutil

import pytest
from harness import NAMES, load
from reported import make_evaluation, make_run
from small import stcli, trained, words

from stcore.autoattack.cascade import Cascade
from stcore.core.dispatch import load_backend
from stcore.errors import DeviceError
from stcore.evaluation.evaluator import Evaluator
from stcore.evaluation.results import PRECISIONS
from stcore.runs.checkpoint_evaluation import CheckpointEvaluation

ON_EACH = pytest.mark.parametrize("name", NAMES)
QUICK = {"attacks": "fgsm,apgd-ce", "epsilon": 0.05, "subset": 4, "checkpoint": "best"}


def switched_on(name):
    """Whether products are in TF32 now."""
    if name == "torch":
        import torch

        both = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
        assert both[0] == both[1]
        return both[0]
    if load(name).engine == "jax":
        import jax

        return jax.config.jax_default_matmul_precision == "tensorfloat32"
    import tensorflow as tf

    return tf.config.experimental.tensor_float_32_execution_enabled()


@pytest.fixture
def capable(monkeypatch):
    """As if this machine's device had TF32, which on a CPU rounds as before."""
    for name in NAMES:
        backend = load(name)
        if backend.name == "torch":
            monkeypatch.setattr("stcore.backends.torch.precision.check_precision", lambda *_: None)
        else:
            from stcore.backends.keras.engine import native

            monkeypatch.setattr(native, "has_tensor_float_32", lambda: True)
        load_backend(name).use_device("cpu")


def evaluate(run, *args, **settings):
    return stcli("evaluate", run, *args, *words({**QUICK, **settings}))


# On, and off again


@ON_EACH
def test_it_is_on_in_its_context_alone(capable, name):
    backend = load_backend(name)
    with backend.evaluating("fp32", "cpu"):
        assert not switched_on(name)
    with backend.evaluating("tf32", "cpu"):
        assert switched_on(name)
    assert not switched_on(name)
    with pytest.raises(KeyError), backend.evaluating("tf32", "cpu"):
        raise KeyError
    assert not switched_on(name)


@ON_EACH
def test_a_device_without_it_refuses(name):
    load(name)
    backend = load_backend(name)
    wanted = r"precision: expected a .* of compute capability 8.0 or more for tf32"
    with pytest.raises(DeviceError, match=wanted), backend.evaluating("tf32", backend.use_device("cpu")):
        pass
    said = evaluate(trained("torch").path, "--no-audit", backend=name, precision="tf32", device="cpu")
    assert (said.code, "of compute capability 8.0 or more for tf32" in said.err) == (4, True)


@pytest.mark.parametrize("precision", PRECISIONS)
@ON_EACH
def test_every_pass_of_an_evaluation_is_in_its_precision(capable, monkeypatch, tmp_path, name, precision):
    seen = {}

    def watch(owner, method):
        real = getattr(owner, method)

        def watched(*args, **kwargs):
            seen.setdefault(f"{owner.__name__}.{method}", set()).add(switched_on(name))
            return real(*args, **kwargs)

        monkeypatch.setattr(owner, method, watched)

    for method in ("evaluate_batch", "logits"):
        watch(Evaluator, method)
    for method in ("load", "run", "audit"):
        watch(CheckpointEvaluation, method)
    watch(Cascade, "advance")
    watch(load_backend(name).make_classifier, "logits")
    said = evaluate(trained("torch").path, out=tmp_path / "it", backend=name, precision=precision)
    assert said.code == 0, said.err
    assert len(seen) == 7
    assert set.union(*seen.values()) == {precision == "tf32"}
    assert not switched_on(name)


def test_float64_has_no_tf32(capable):
    said = evaluate(trained("torch").path, precision="tf32", dtype="float64")
    assert said.code == 2
    assert "dtype: expected float32 with tf32; received float64" in said.err


def test_bf16_is_for_training():
    said = evaluate(trained("torch").path, precision="bf16")
    assert said.code == 2
    assert "precision: expected one of fp32, tf32; received 'bf16'" in said.err


# Named

FILES = ("evaluation", "result")


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """The same evaluation in each precision."""
    place = tmp_path_factory.mktemp("precisions")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("stcore.backends.torch.precision.check_precision", lambda *_: None)
        printed = {}
        for precision in PRECISIONS:
            said = evaluate(trained("torch").path, "--no-audit", out=place / precision, precision=precision)
            assert said.code == 0, said.err
            printed[precision] = said.out
    return place, printed


def test_identity_result_and_tables_name_it(folders):
    place, printed = folders
    read = {
        precision: [json.loads((place / precision / "best" / f"{file}.json").read_text()) for file in FILES]
        for precision in PRECISIONS
    }
    assert "precision" not in read["fp32"][0]  # as the folders of earlier versions
    assert read["tf32"][0]["precision"] == "tf32"
    assert {precision: result["precision"] for precision, (_, result) in read.items()} == {
        precision: precision for precision in PRECISIONS
    }
    assert "tf32" not in printed["fp32"].replace(str(place), "")
    labels = [line for line in printed["tf32"].replace(str(place), "").splitlines() if "tf32" in line]
    assert any("best (epoch" in line for line in labels)
    assert any("apgd-ce" in line for line in labels)


def test_json_and_predictions_name_it(capable, tmp_path):
    files = {"out": tmp_path / "it", "predictions": tmp_path / "p.json"}
    said = evaluate(trained("torch").path, "--no-audit", "--json", precision="tf32", **files)
    for found in (json.loads(said.out), json.loads((tmp_path / "p.json").read_text())):
        (label,) = found
        assert label.endswith(", tf32)")


def test_an_evaluation_is_not_resumed_in_another_precision(folders, capable, tmp_path):
    place, _ = folders
    for precision, other in (PRECISIONS, reversed(PRECISIONS)):
        out = shutil.copytree(place / precision, tmp_path / precision)
        said = evaluate(trained("torch").path, "--no-audit", out=out, precision=other)
        assert said.code == 2
        assert "holds another evaluation: its precision is" in said.err
        assert evaluate(trained("torch").path, "--no-audit", out=out, precision=precision).code == 0


def test_by_default_each_precision_has_a_folder_of_its_own(capable, tmp_path):
    run = shutil.copytree(trained("torch").path, tmp_path / "run")
    for precision in PRECISIONS:
        assert evaluate(run, "--no-audit", precision=precision).code == 0
    assert len(list((run / "evaluations").iterdir())) == 2


def test_shards_of_two_precisions_are_not_merged(capable, tmp_path):
    def shard(number, precision):
        out = tmp_path / f"{number}-{precision}"
        given = {"out": out, "shard": f"{number}/2", "precision": precision}
        assert evaluate(trained("torch").path, "--no-audit", **given).code == 0
        return out

    one, two, other = shard(1, "tf32"), shard(2, "tf32"), shard(2, "fp32")
    said = stcli("merge", one, other, "--out", tmp_path / "mixed")
    assert said.code == 2
    assert "expected shards of one evaluation; precision is 'tf32' in" in said.err
    said = stcli("merge", one, two, "--out", tmp_path / "merged")
    assert said.code == 0, said.err
    assert "best (tf32)" in said.out
    assert json.loads((tmp_path / "merged" / "best" / "result.json").read_text())["precision"] == "tf32"


def test_a_report_names_it_beside_every_figure(tmp_path):
    run = make_run(tmp_path / "run")
    make_evaluation(run)
    make_evaluation(run, correct=39, precision="tf32")
    said = stcli("report", run, "--out", tmp_path / "page.md", "--format", "markdown", "--no-examples")
    assert said.code == 0, said.err
    page = (tmp_path / "page.md").read_text()
    assert page.count("--precision tf32") == 1  # of the command that reproduces it
    stages, audit = "AutoAttack on best in tf32, stage by stage", "under AutoAttack in tf32: 1 of 3 checks passed"
    for text in ("AutoAttack (100 images, tf32)", "| best | natural tf32 |", ", tf32 |", stages, audit):
        assert text in page, text
