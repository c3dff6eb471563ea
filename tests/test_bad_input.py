"""Everything a user can get wrong: one clear sentence, the documented exit code, and nothing of theirs touched."""

import dataclasses
import importlib.util
import io
import os
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
from harness import load, problem
from small import SETTINGS, Run, contents, stcli, train, trained, words

import stcore
from stcore.attacks import FGSM, PGD
from stcore.base.weights_file import load_weights, save_weights
from stcore.data import ImageData
from stcore.errors import DataError, DivergedError, StcoreError, UsageError
from stcore.runs.folder import RunFolder

# The command line


@pytest.fixture
def place(tmp_path, monkeypatch):
    """The folder commands are run in, with someone's files in it; after the test they must all be as they were."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "earlier").mkdir()
    (tmp_path / "earlier" / "result.json").write_text("{}")
    (tmp_path / "a-file").write_text("precious")
    before = contents(tmp_path)
    yield tmp_path
    after = contents(tmp_path)
    assert {name: after.get(name) for name in before} == before


def assert_refused(said, code, message):
    """One sentence on stderr, with the exit code that errors.py documents; no traceback."""
    assert said.code == code, said.err
    assert said.err.startswith("stcli: ")
    assert said.err.count("\n") == 1, said.err
    assert "Traceback" not in said.out + said.err
    assert message in said.err, said.err


def flags(**settings):
    return words({**SETTINGS, "out": "out", **settings})


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["--backend", "jax"], "backend: expected one of torch, keras; received 'jax'"),
        (
            ["--dataset", "mnist"],
            "KIND:PLACE such as parquet:DIR, cifar10:PATH, cifar100:PATH, svhn:DIR, folder:DIR, hub:OWNER/NAME, "
            "npy:DIR, stream:DIR, safetensors:PATH, npz:PATH, or package.module:load; received 'mnist'",
        ),
        (["--model", "resnet9"], "received 'resnet9'. Did you mean 'resnet8'?"),
        (["--method", "pgd"], "method: expected one of st, standard, at, trades, mart, collaborative, at2"),
        (["--attacks", "fgsm,cw"], "attacks: expected one of fgsm, pgd20, pgd100, cw100"),
        (["--attacks", "fgsm,pgd_rst", "--norm", "l2", "--epsilon", "1"], "expected linf with the attack pgd_rst"),
        (["--eval-norm", "l3"], "eval_norm: expected one of linf, l2, l1, l0; received 'l3'"),
        (["--select-by", "aa"], "select_by: expected one of natural, fgsm, pgd20, pgd100, cw100"),
        (["--select", "train"], "select: expected one of val, test; received 'train'"),
        (
            ["--divergence", "l1"],
            "symmetric_kl, js, squared_l2, kl, improved_kl, gkl, hellinger, or package.module:name; received 'l1'",
        ),
        (["--inner-divergence", "l1"], "inner_divergence: expected one of symmetric_kl"),
        (["--label-smoothing", "1.5"], "label_smoothing: expected a number in"),
        (["--method", "mart", "--label-smoothing", "0.1"], "label_smoothing: not a setting of the method mart"),
        (
            ["--preset", "imagenet"],
            "preset: expected one of cifar10, cifar100, svhn, digits, finetune/sgd, finetune/adamw, or one",
        ),
        (
            ["--schedule", "linear"],
            "schedule: expected one of step, cosine, constant, one-cycle; received 'linear'",
        ),
        (["--norm", "l1"], "norm: expected one of linf, l2; received 'l1'"),
        (["--init", "natural"], "init: expected one of gaussian, uniform; received 'natural'"),
        (["--dtype", "float16"], "dtype: expected one of float32, float64; received 'float16'"),
        (
            ["--augment", "mixup"],
            "augment: expected one of none, flip, crop-flip, crop-flip-cutout, random-resized-crop-flip, "
            "trivial-augment; received 'mixup'",
        ),
        (["--compile", "maybe"], "compile: expected one of auto, on, off, xla; received 'maybe'"),
        (["--bogus", "1"], "Unrecognized options: --bogus"),
        (["extra"], "Unrecognized options: extra"),
        (["--epochs"], "Missing value for argument '--epochs'"),
        (["--method", "at", "--beta", "6"], "beta: not a setting of the method at, whose settings are: epsilon"),
        (["--method", "standard", "--epsilon", "0.1"], "epsilon: not a setting of the method standard"),
        (["--epsilon", "8/0"], "expected a number such as 0.03 or a fraction such as 8/255; received '8/0'"),
        (["--epsilon", "much"], "expected a number such as 0.03 or a fraction such as 8/255; received 'much'"),
        (["--epsilon", "-0.1"], "epsilon: expected a number of at least 0; received -0.1"),
        (["--epsilon", "nan"], "epsilon: expected a number of at least 0; received nan"),
        (["--epsilon", "8"], "expected a number in [0, 1]; received 8.0"),
        (["--eval-epsilon", "8"], "eval_epsilon: expected a number in [0, 1]; received 8.0"),
        (["--step-size", "inf"], "step_size: expected a number of at least 0; received inf"),
        (["--beta", "-1"], "beta: expected a number of at least 0; received -1.0"),
        (["--learning-rate", "-1"], "learning_rate: expected a number of at least 0; received -1.0"),
        (["--drops", "80", "100"], "drops (shares of the epochs): expected a number in [0, 1]; received 80.0"),
        (["--steps", "-1"], "steps: expected a whole number of at least 0; received -1"),
        (["--steps", "2.5"], "--steps: expected a whole number; received '2.5'"),
        (["--epochs", "0"], "epochs: expected a whole number of at least 1; received 0"),
        (["--epochs", "many"], "--epochs: expected a whole number; received 'many'"),
        (["--batch-size", "0"], "batch_size: expected a whole number of at least 2; received 0"),
        (["--eval-batch-size", "0"], "eval_batch_size: expected a whole number of at least 1; received 0"),
        (["--seed", "-1"], "seed: expected a whole number of at least 0; received -1"),
        (["--threads", "0"], "threads: expected a whole number of at least 1; received 0"),
        (["--threads", "all"], "--threads: expected a whole number; received 'all'"),
        (["--train-size", "5000"], "expected train_size in 1..1200, the size of digits, received 5000"),
        (["--select", "test"], "validation_size: nothing is held out with select = test; leave it out"),
        (["--nesterov", "--momentum", "0"], "nesterov: expected a momentum above 0; received 0"),
        (["--preset", "table1/cifar10/sst"], "or a row of the paper such as table1/cifar10/st"),
        (["--awp", "0.005", "--rwp", "0.005"], "awp, rwp: expected at most one of the two weight perturbations"),
        (["--awp", "-1"], "gamma: expected a number of at least 0; received -1.0"),
        (["--awp", "0.1", "--perturbation-warmup", "-1"], "warmup: expected a whole number of at least 0"),
        (["--perturbation-warmup", "5"], "perturbation_warmup: expected awp or rwp beside it; received neither"),
        (["--rwp", "0.1", "--rwp-steps", "0"], "steps: expected a whole number of at least 1; received 0"),
        (["--ema", "1.5"], "ema: expected a number in [0, 1]; received 1.5"),
        (["--extra-fraction", "0.5"], "extra_fraction: expected extra_data beside it; received none"),
        (["--extra-data", "tiny:x"], "expected extra data of the form npz:FILE, ti500k:FILE, received 'tiny:x'"),
        (["--method", "trades", "--init", "natural"], "init: expected one of gaussian, uniform"),
        (["--method", "gairat", "--weighting", "linear"], "weighting: expected one of tanh, sigmoid, discrete"),
        (["--method", "gairat", "--steps", "0"], "steps: expected a whole number of at least 1; received 0"),
        (["--method", "bat", "--segments", "0"], "segments: expected a whole number of at least 1; received 0"),
        (["--method", "gairat", "--shift", "-50"], "shift: expected a number in [-20, 20]; received -50.0"),
        (["--schedule", "cosine", "--drops", "0.5"], "drops: expected none with schedule = cosine; only step has"),
        (["--rwp-threshold", "2"], "rwp_steps, rwp_threshold: expected rwp beside them; received none"),
        (["--method", "bat", "--inner", "ce"], "inner: expected one of cross_entropy, kl; received 'ce'"),
        (["--method", "trades2", "--combine", "min"], "combine: expected one of mean, max; received 'min'"),
        (["--method", "mart", "--divergence", "js"], "divergence: not a setting of the method mart"),
        (["--norm", "l2"], "epsilon: expected one with norm = l2; the presets' are for linf"),
        (["--method", "at", "--norm", "l2"], "epsilon: expected one with norm = l2"),
        (["--image-column", "img"], "image_column, label_column: expected both or neither"),
        (["--config", "nowhere.toml"], "config: nowhere.toml cannot be read (No such file or directory)"),
        (["--config", "earlier"], "config: earlier cannot be read (Is a directory)"),
        (["--config="], "config: . cannot be read (Is a directory)"),
        (["--config", "a-file"], "config: a-file is not valid TOML"),
        (["--init-weights", "nowhere"], "weights: expected a .safetensors file; nowhere does not exist"),
        (["--init-weights", "a-file"], "weights: a-file is not a readable safetensors file"),
        (["--out", "earlier"], "out: expected a new or empty folder; earlier holds other files. Choose another"),
        (["--out", "a-file"], "out: expected a new or empty folder; a-file is a file. Choose another"),
        (["--out", "a-file/below"], "out: a-file/below cannot be made (Not a directory). Choose another"),
    ],
)
def test_options_that_do_not_fit(place, args, message):
    assert_refused(stcli("train", *flags(), *args), 2, message)
    assert not (place / "out").exists()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("epoch = 3", "mine.toml: epoch: no such setting; known are backend, dataset"),
        ("[train]\nepochs = 3", "mine.toml: train: no such setting"),
        ('epochs = "many"', "mine.toml: epochs: expected a valid integer; received 'many'"),
        ('epochs = "3"', "mine.toml: epochs: expected a valid integer; received '3'"),
        ("epochs = 2.5", "mine.toml: epochs: expected a valid integer; received 2.5"),
        ("epochs = true", "mine.toml: epochs: expected a valid integer; received True"),
        ('epsilon = "8/0"', "mine.toml: epsilon: expected a valid number; received '8/0'"),
        ("epsilon = nan", "epsilon: expected a number of at least 0; received nan"),
        ('nesterov = "yes"', "mine.toml: nesterov: expected a valid boolean; received 'yes'"),
        ("model = 18", "mine.toml: model: expected a valid string; received 18"),
        ('drops = ["late"]', "mine.toml: drops: expected a valid number; received 'late'"),
        ("drops = 0.5", "mine.toml: drops: expected a valid tuple; received 0.5"),
        ('method = "at"\nbeta = 6.0', "beta: not a setting of the method at"),
        ('model = "tiny', "mine.toml is not valid TOML"),
        ('model = "tiny"\nmodel = "tiny"', "mine.toml is not valid TOML"),
    ],
)
def test_configuration_files_that_do_not_fit(place, content, message):
    (place / "mine.toml").write_text(content)
    assert_refused(stcli("train", "--config", "mine.toml", "--out", "out"), 2, message)
    assert not (place / "out").exists()


def test_a_configuration_file_of_bytes(place):
    (place / "mine.toml").write_bytes(b"\xff\xfe\x00")
    assert_refused(stcli("train", "--config", "mine.toml"), 2, "mine.toml is not valid TOML")


@pytest.mark.parametrize("command", ["nope", "Train", "--trian"])
def test_unknown_commands(command):
    expected = (
        "expected a command among train, plan, sweep, evaluate, bracket, analyze, merge, evidence, replay, "
        "refute, presets, demo, report, table, verify, pseudo-label, import, predict, export, push, data, zoo, "
        "doctor, completion"
    )
    assert_refused(stcli(command), 2, f"{expected}; received '{command}'")


def test_doctor_takes_nothing():
    assert_refused(stcli("doctor", "--gpu"), 2, "doctor takes no options; received --gpu")


@pytest.mark.parametrize(("backend", "package"), [("torch", "torch"), ("keras", "tensorflow")])
def test_a_backend_that_is_not_installed_names_its_extra(place, monkeypatch, backend, package):
    monkeypatch.delitem(sys.modules, f"stcore.backends.{backend}", raising=False)  # as in a fresh process
    find = importlib.util.find_spec
    monkeypatch.setattr(
        "stcore.core.dispatch.importlib.util.find_spec",
        lambda name, *rest: None if name in (package, "jax") else find(name, *rest),  # nor Keras' other engine
    )
    said = stcli("train", *flags(backend=backend))
    assert_refused(
        said, 2, f"backend {backend}: {package} not installed; in the repository: pip install '.[{backend}]'"
    )
    assert backend not in stcore.available_backends()


@pytest.mark.parametrize(
    ("backend", "device"),
    [("torch", "cuda:99"), ("torch", "cuda:x"), ("torch", "nonsense"), ("keras", "gpu:99"), ("keras", "tpu")],
)
def test_a_device_that_is_not_there(place, backend, device):
    load(backend)  # or skip
    said = stcli("train", *flags(backend=backend, device=device))
    assert_refused(said, 4, "device: expected auto or one of ")
    assert f"received '{device}'" in said.err
    assert not (place / "out").exists()


def test_cuda_on_a_machine_without_it(place):
    torch = pytest.importorskip("torch")
    if torch.cuda.is_available():
        pytest.skip("there is a GPU here")
    assert_refused(stcli("train", *flags(device="cuda")), 4, "device: expected auto or one of cpu")


# Data sets


def png(pixels):
    image = pytest.importorskip("PIL.Image")
    stream = io.BytesIO()
    image.fromarray(pixels).save(stream, "PNG")
    return stream.getvalue()


def parquet(path, images, labels):
    arrow = pytest.importorskip("pyarrow")
    import pyarrow.parquet as pq

    path.parent.mkdir(parents=True, exist_ok=True)
    rows = arrow.array([{"bytes": one} for one in images], arrow.struct([("bytes", arrow.binary())]))
    pq.write_table(arrow.table({"img": rows, "label": labels}), path)


PICTURE = np.random.default_rng(0).integers(0, 256, (8, 8, 3), np.uint8)


def test_data_folders_that_are_none(place):
    (place / "empty").mkdir()
    data = {
        "nowhere": "expected a folder of parquet files, received 'nowhere'; check the path",
        "a-file": "expected a folder of parquet files, received 'a-file'; check the path",
        "empty": "empty: expected train-*.parquet here or in data/, received an empty folder",
    }
    for folder, message in data.items():
        assert_refused(stcli("train", *flags(dataset=f"parquet:{folder}")), 3, message)
    parquet(place / "half" / "train-0.parquet", [png(PICTURE)] * 4, [0, 1, 0, 1])
    said = stcli("train", *flags(dataset="parquet:half"))
    assert_refused(said, 3, "half: expected test-*.parquet here or in data/, received train-0.parquet")
    assert not (place / "out").exists()


@pytest.mark.parametrize(
    ("images", "labels", "message"),
    [
        ([PICTURE, PICTURE[:6]], [0, 1], "row 1: expected an image of 8x8 pixels like those before it"),
        ([PICTURE, b"no image"], [0, 1], "row 1: expected an image in one of PNG, JPEG, WEBP"),
        ([PICTURE, None], [0, 1], "row 1: expected an encoded image, received no bytes"),
        ([PICTURE] * 2, [0, -1], "expected labels in [0, 2), received -1 at position 1"),
        ([PICTURE] * 2, [0.5, 1.0], "expected integer labels, received a column of double"),
        ([PICTURE] * 2, [0, None], "expected a label in every row, received null"),
    ],
)
def test_data_sets_that_do_not_hold_what_they_should(place, images, labels, message):
    encoded = [png(one) if isinstance(one, np.ndarray) else one for one in images]
    parquet(place / "data" / "train-0.parquet", encoded, labels)
    parquet(place / "data" / "test-0.parquet", [png(PICTURE)] * 2, [0, 1])
    assert_refused(stcli("train", *flags(dataset="parquet:data")), 3, message)
    assert not (place / "out").exists()


def test_select_on_test_leaves_validation_files_aside(place):
    """The paper's rule holds nothing out, whatever files there are."""
    for part in ("train", "validation", "test"):
        parquet(place / "data" / f"{part}-0.parquet", [png(PICTURE)] * 4, [0, 1, 0, 1])
    quick = {"method": "standard", "select_by": "natural", "attacks": "", "select": "test", "schedule": "constant"}
    options = words({"model": "tiny", "epochs": 1, "batch_size": 40, "dataset": "parquet:data", **quick})
    said = stcli("train", *options, "--out", "out")
    assert said.code == 0, said.err
    images = {
        part: info["images"] for part, info in Run(place / "out", said).json("environment.json")["data"].items()
    }
    assert images["train"] == 4


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (np.full((2, 4, 4, 3), np.nan), "received NaN or infinity"),
        (np.full((2, 4, 4, 3), -1.0), "they look normalised by a mean and a standard deviation"),
        (np.full((2, 4, 4, 3), 255.0), "they look like 0..255 held as floats: divide by 255"),
    ],
)
def test_arrays_that_are_no_pixels(images, message):
    with pytest.raises(DataError, match=message):
        ImageData.from_arrays(images, [0, 1])


# Runs and checkpoints


def copy_of_run(place):
    """The shared run's folder, where a test may damage it."""
    return shutil.copytree(trained("torch").path, place / "run")


def test_folders_that_are_no_run(place):
    for folder in ("earlier", "nowhere"):
        said = stcli("evaluate", folder)
        assert_refused(
            said, 2, f"run: expected a folder with config.toml, as stcli train leaves it; received {folder}"
        )
    assert_refused(stcli("evaluate", "a-file"), 2, "weights: a-file is not a readable safetensors file")


def test_a_run_without_checkpoints(place):
    run = copy_of_run(place)
    for name in ("best", "last"):
        (run / f"{name}.safetensors").unlink()
    assert_refused(stcli("evaluate", run), 2, "holds neither best.safetensors nor last.safetensors")


def test_a_run_whose_config_was_broken(place):
    run = copy_of_run(place)
    (run / "config.toml").write_text("epochs = many")
    assert_refused(stcli("evaluate", run), 2, "config.toml is not valid TOML")


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (
            ["--attacks", "cw"],
            "apgd-ce+square, NAME-rand for a random network, or package.module:make_attack; received 'cw'",
        ),
        (["--attacks", "apgd-ce+cw"], "or package.module:make_attack; received 'apgd-ce+cw'"),
        (["--attacks", "square-rand"], "or package.module:make_attack; received 'square-rand'"),
        (["--attacks", "deepfool-rand"], "attack: expected one that averages gradients before -rand; received"),
        (
            ["--attacks", "malt+apgd-ce"],
            "attacks: expected apgd-t or fab-t after malt, which orders their targets",
        ),
        (["--attacks", "pma", "--norm", "l1", "--epsilon", "2"], "norm: expected one of linf, l2; received 'l1'"),
        (["--engine", "reference", "--attacks", "autoattack-malt"], "engine: expected only autoattack or members"),
        (["--bpda", "Rounds"], "layers: expected the name of one of the model's layers, or of their types, "),
        (["--bpda", "relu1,,linear"], "received ''"),
        (["--attacks", "pgd20", "--fast"], "fast: expected autoattack among the attacks; received pgd20"),
        (["--norm", "l2"], "epsilon: expected one with norm = l2; the run's is for linf"),
        (["--norm", "l1", "--epsilon", "2"], "norm: expected one of linf, l2; received 'l1'"),
        (["--subset", "0"], "subset: expected N or A:B within the 347 test images; received '0'"),
        (["--subset", "9:3"], "subset: expected N or A:B within the 347 test images; received '9:3'"),
        (["--subset", "1:2:3"], "subset: expected N or A:B; received '1:2:3'"),
        (["--shard", "3/2"], "shard: expected i/n with 1 <= i <= n <= 32, the number of images; received '3/2'"),
        (["--shard", "one"], "shard: expected i/n; received 'one'"),
        (["--engine", "theirs"], "engine: expected one of native, reference; received 'theirs'"),
        (["--engine", "reference"], "engine: expected only autoattack or members of it"),
        (["--engine", "reference", "--attacks", "fmn"], "engine: expected only autoattack or members of it"),
        (["--attacks", "ddn"], "norm: expected one of l2; received 'linf'"),
        (["--attacks", "sigma-zero", "--norm", "l1", "--epsilon", "9"], "norm: expected one of l0; received 'l1'"),
        (
            ["--attacks", "apgd-ce", "--norm", "l0", "--epsilon", "9"],
            "norm: expected one of linf, l2, l1; received",
        ),
        (
            ["--attacks", "pgd20", "--norm", "l0", "--epsilon", "9"],
            "norm: expected one of linf, l2; received 'l0'",
        ),
        (["--checkpoint", "first"], "checkpoint: expected one of best, last"),
        (["--save-every", "-1"], "save_every: expected a number of at least 0; received -1"),
        (["--out", "taken"], "out: expected a new or empty folder, or one of an evaluation"),
        (["--epsilon", "8/0"], "received '8/0'"),
        (["--epsilon", "8"], "eval_epsilon: expected a number in [0, 1]; received 8.0"),
        (["--batch-size", "0"], "eval_batch_size: expected a whole number of at least 1; received 0"),
        (["--backend", "jax"], "backend: expected one of torch, keras; received 'jax'"),
        (["--weights", "nowhere"], "weights: expected a .safetensors file; nowhere does not exist"),
        (["--predictions", "no/such/folder.json"], "predictions: expected a file in an existing folder"),
        (["--bogus"], "Unrecognized options: --bogus"),
    ],
)
def test_evaluate_options_that_do_not_fit(place, args, message):
    run = trained("torch").path
    before = contents(run)
    (place / "taken" / "best").mkdir(parents=True)
    (place / "taken" / "best" / "mine.txt").write_text("something else")
    assert_refused(stcli("evaluate", run, *args), 2, message)
    assert contents(run) == before


def test_a_checkpoint_of_another_network(place):
    weights, about = load_weights(trained("torch").path / "best.safetensors")
    run, other = trained("torch").path, place / "other.safetensors"

    for change, message in (
        ({"model": "resnet8"}, "weights: expected a checkpoint with model tiny; received resnet8"),
        ({"num_classes": 100}, "weights: expected a checkpoint with num_classes 10; received 100"),
        ({"image_shape": "32x32x3"}, "weights: expected a checkpoint with image_shape 8x8x1; received 32x32x3"),
    ):
        save_weights(other, weights, {**about, **change})
        assert_refused(stcli("evaluate", run, "--weights", other), 2, message)

    foreign = {name: array for name, array in weights.items() if name != "linear.bias"}
    save_weights(other, {**foreign, "head": weights["linear.bias"]}, {})  # says nothing of itself
    message = "that do not fit: 1 missing: linear.bias; 1 unexpected: head"
    assert_refused(stcli("evaluate", run, "--weights", other), 2, message)
    assert_refused(stcli("train", *flags(init_weights=other)), 2, message)
    assert_refused(stcli("train", *flags(model="resnet8", init_weights=run / "best.safetensors")), 2, "do not fit")
    assert not (place / "out").exists()


def test_checkpoints_that_are_damaged(place):
    whole = (trained("torch").path / "best.safetensors").read_bytes()
    damaged = place / "damaged.safetensors"
    for content in (whole[:-10], whole[: len(whole) // 2], whole[:4], b"", b"PK\x03\x04 a torch checkpoint"):
        damaged.write_bytes(content)
        message = "damaged.safetensors is not a readable safetensors file"
        assert_refused(stcli("evaluate", trained("torch").path, "--weights", damaged), 2, message)
        assert_refused(stcli("train", *flags(init_weights=damaged)), 2, message)


def test_a_checkpoint_that_has_diverged(place):
    weights, about = load_weights(trained("torch").path / "best.safetensors")
    ruined = place / "ruined.safetensors"
    save_weights(ruined, {**weights, "linear.bias": np.full(10, np.nan, np.float32)}, about)
    said = stcli("evaluate", trained("torch").path, "--weights", ruined)
    assert_refused(said, 2, "model: expected finite logits; received NaN")


def test_a_run_is_never_overwritten(place):
    run = copy_of_run(place)
    before = contents(run)
    assert_refused(stcli("train", *flags(out=run)), 2, "out: expected a new or empty folder")
    assert_refused(
        stcli("train", "--config", run / "config.toml", "--out", run), 2, "out: expected a new or empty"
    )
    assert contents(run) == before


# What goes wrong while running


def raising(error):
    def step(*args, **kwargs):
        raise error

    return step


class OutOfMemoryError(RuntimeError):
    """As torch.cuda.OutOfMemoryError is named."""


class ResourceExhaustedError(Exception):
    """As TensorFlow's is named."""


@pytest.mark.parametrize(
    "error",
    [
        OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB\nand more lines"),
        ResourceExhaustedError("OOM when allocating tensor"),
        MemoryError("Unable to allocate 3 TiB"),
        np._core._exceptions._ArrayMemoryError((10**6, 10**6), np.dtype("float64")),
        RuntimeError("[enforce fail at alloc_cpu.cpp:118] DefaultCPUAllocator: can't allocate memory"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_memory_that_runs_out(place, monkeypatch, error):
    monkeypatch.setattr("stcore.training.trainer.accumulated_step", raising(error))
    said = stcli("train", *flags())
    assert_refused(said, 4, "out of memory: ")
    assert "Lower --batch-size" in said.err


def test_a_loss_that_turns_into_nan(place):
    said = stcli("train", *flags(learning_rate=1e30, steps=1, epochs=2))
    assert_refused(said, 5, "in epoch 1. Likely the learning rate is too high")
    assert not list((place / "out").glob("*.safetensors"))


def test_a_disk_that_is_full_for_others(place, monkeypatch):
    for name, told in (("/data/x.parquet", "/data/x.parquet"), (None, "a file")):
        full = OSError(28, "No space left on device", *([name] if name else []))
        monkeypatch.setattr("stcore.runs.preparation.data.load", raising(full))
        said = stcli("train", *flags(steps=1))
        assert_refused(
            said, 2, f"{told} cannot be read or written (No space left on device). Choose another place"
        )


FULL = Path("/dev/full")


@pytest.mark.skipif(not FULL.exists(), reason="needs /dev/full")
@pytest.mark.parametrize("file", ["last.safetensors", "metrics.jsonl", "result.json"])
def test_a_disk_that_fills_up_in_the_second_epoch(place, monkeypatch, file):
    """Real writes to a full device: the sentence names the file, and what the first epoch left stays readable."""
    append, saved = RunFolder.append_metrics, {}

    def append_then_fill(self, row):
        append(self, row)
        if not saved:
            saved.update(contents(place / "out"))
            target = self.path / file
            beside = target.with_name(f".{file}.{os.getpid()}.part")
            if file == "metrics.jsonl":
                target.unlink()
                beside = target
            beside.symlink_to(FULL)

    monkeypatch.setattr(RunFolder, "append_metrics", append_then_fill)
    quick = {"method": "standard", "select_by": "natural", "attacks": "", "learning_rate": 0}
    said = stcli("train", *flags(epochs=2, **quick))
    assert_refused(
        said, 2, f"out/{file} cannot be written (No space left on device). Free space or choose another"
    )
    untouched = {"config.toml", "environment.json"} | (
        {"last.safetensors"} if file == "last.safetensors" else set()
    )
    assert {name: contents(place / "out").get(name) for name in untouched} == {n: saved[n] for n in untouched}
    assert (
        load_weights(place / "out" / "last.safetensors")[0].keys()
        == load_weights(place / "out" / "best.safetensors")[0].keys()
    )
    assert not list((place / "out").glob(".*"))


def test_what_nobody_foresaw_is_a_bug_and_shows_where(place, monkeypatch):
    monkeypatch.setattr("stcore.training.trainer.accumulated_step", raising(ZeroDivisionError("unforeseen")))
    said = stcli("train", *flags())
    assert said.code == 1
    assert "Traceback (most recent call last)" in said.err
    assert "ZeroDivisionError: unforeseen" in said.err
    assert said.err.endswith("stcli: this is a bug in stcore: please report it with the lines above\n")


def test_every_documented_error_has_its_code():
    codes = {kind.__name__: kind.exit_code for kind in StcoreError.__subclasses__()}
    assert codes == {"UsageError": 2, "DataError": 3, "DeviceError": 4, "DivergedError": 5, "UnconfirmedError": 6}


# The functions


@pytest.fixture
def model(backend):
    return backend.build()


BATCH = problem()
CONFIG = stcore.SqueezeConfig(steps=1)


def calls(backend, model):
    """Every public function that takes a batch, by name."""
    learner = backend.learner(model)
    return {
        "squeeze_step": lambda x, y: stcore.squeeze_step(model, x, y, None, CONFIG, rng=0),
        "find_squeeze_pair": lambda x, y: stcore.find_squeeze_pair(model, x, y, CONFIG, rng=0),
        "squeeze_loss": lambda x, y: stcore.squeeze_loss(model, x, y, None, CONFIG, rng=0),
        "train_step": lambda x, y: stcore.train_step(learner, CONFIG, x, y, rng=0),
        "evaluate": lambda x, y: stcore.evaluate(model, (x, y), ["fgsm"]),
        "FGSM": lambda x, y: FGSM()(model, x, y),
        "PGD": lambda x, y: PGD(steps=1)(model, x, y, rng=0),
    }


def refuses(backend, model, x, y, kind, message):
    """Each of them raises this; and the model is as it was."""
    from stcore.models import export_weights

    before = export_weights(model)
    for name, call in calls(backend, model).items():
        with pytest.raises(kind, match=message):
            pytest.fail(f"{name} took it: {call(x, y)}")
    after = export_weights(model)
    assert all((before[name] == after[name]).all() for name in before)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda x: (x - 0.5) / 0.25, r"received \[-1\.9.*make mean/std normalisation a layer of the model"),
        (lambda x: x * 255, r"expected pixels in \[0, 1\]; received \[.*, 25\d.*Divide 0–255 images by 255"),
        (lambda x: x * np.nan, "expected finite pixels; received NaN or infinity"),
        (lambda x: x / 0.0, "expected finite pixels; received NaN or infinity"),
        (lambda x: x[:0], "expected at least one image; received an empty batch"),
    ],
    ids=["normalised", "0-255", "nan", "inf", "empty"],
)
@pytest.mark.filterwarnings("ignore:divide by zero")
def test_pixels_that_are_none(backend, model, change, message):
    refuses(backend, model, backend.images(change(BATCH.x)), backend.tensor(BATCH.y), DataError, message)


@pytest.mark.parametrize("dtype", ["uint8", "int64"])
def test_bytes_that_are_no_pixels(backend, model, dtype):
    x = backend.images(BATCH.x * 255, dtype=dtype)
    message = (
        rf"expected (floating pixels in|a .* of the model's) .* received .*{dtype}. Divide 0–255 images by 255"
    )
    refuses(backend, model, x, backend.tensor(BATCH.y), (DataError, TypeError), message)


def test_tensors_of_another_kind(backend, model):
    """Only `evaluate` takes host arrays and other precisions; the others would compute on something else."""
    x, y = backend.images(BATCH.x), backend.tensor(BATCH.y)
    data = calls(backend, model)
    scores = data.pop("evaluate")
    for wrong, received in ((backend.images(BATCH.x, "float32"), "float32"), (backend.array(x), "ndarray")):
        for name, call in data.items():
            with pytest.raises(
                TypeError, match=rf"ensor of the model's (torch\.)?float64; received .*{received}$"
            ):
                pytest.fail(f"{name} took it: {call(wrong, y)}")
        assert scores(wrong, y)["natural"].total == 6
    noise = (backend.images(BATCH.noise[0], "float32"),) * 2
    with pytest.raises(TypeError, match=r"received .*float32"):
        stcore.squeeze_step(model, x, y, None, CONFIG, noise=noise)


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ([0, 1, 2, 3, 0, 1], r"expected labels in \[0, 3\), the model's number of classes; received \[0, 3\]"),
        ([0, 1, 2, 9, 0, 1], r"expected labels in \[0, 3\), .* received \[0, 9\]"),
        ([0, 1, 2, -1, 0, 1], r"expected labels in \[0, 3\), .* received \[-1, 2\]"),
        ([0.0, 1.0, 2.0, 0.0, 1.0, 2.0], r"expected integer labels of shape \(B,\); received float64"),
        ([0, 1], "y: expected a label for each image; received 2 for 6 images|as many labels as images"),
    ],
    ids=["beyond the classes", "far beyond", "negative", "floats", "too few"],
)
def test_labels_that_are_none(backend, model, labels, message):
    kind = (DataError, UsageError)
    refuses(backend, model, backend.images(BATCH.x), backend.tensor(np.array(labels)), kind, message)


def test_one_hot_integers_are_for_evaluations_alone(backend, model):
    """A step takes probabilities in the logits' dtype; an evaluation takes their largest."""
    x, y = backend.images(BATCH.x), np.eye(3, dtype=int)[BATCH.y]
    data = calls(backend, model)
    scores = data.pop("evaluate")
    for name, call in data.items():
        with pytest.raises(DataError, match=r"received int64 of shape \(6, 3\)"):
            pytest.fail(f"{name} took it: {call(x, backend.tensor(y))}")
    natural = [
        scores(x, backend.tensor(labels))["natural"]
        for labels in (BATCH.y, BATCH.y[:, None], y, 0.9 * y + 0.1 / 3)
    ]
    assert len(set(natural)) == 1


def test_labels_that_are_no_array_at_all(backend, model):
    x = backend.images(BATCH.x)
    with pytest.raises(DataError, match=r"y: expected integer labels of shape .*; received object"):
        stcore.squeeze_loss(model, x, object(), config=CONFIG)


def test_probabilities_instead_of_logits(backend):
    net = backend.build()
    if backend.name == "torch":
        import torch

        net = torch.nn.Sequential(net, torch.nn.Softmax(dim=1))
    else:
        import keras

        net = keras.Model(net.inputs, keras.layers.Softmax(dtype="float64")(net.outputs[0]))
    message = "model: expected logits; .* sum to 1, which are probabilities. Remove the final softmax"
    refuses(backend, net, backend.images(BATCH.x), backend.tensor(BATCH.y), UsageError, message)


def test_a_model_may_get_a_new_head():
    """The number of classes is remembered, but not for ever. (A functional Keras model keeps its outputs.)"""
    backend = load("torch")
    import torch

    net, x = backend.build(), backend.images(BATCH.x)
    stcore.squeeze_step(net, x, backend.tensor(BATCH.y), None, CONFIG, rng=0)
    net.linear = torch.nn.Linear(16, 5).double()
    stcore.squeeze_step(net, x, backend.tensor(BATCH.y + 2), None, CONFIG, rng=0)


@pytest.mark.parametrize("model", [None, "resnet18", lambda x: x, np.zeros(3)])
def test_models_of_no_framework(model):
    x, y = BATCH.x, BATCH.y
    for call in (
        lambda: stcore.squeeze_step(model, x, y),
        lambda: stcore.find_squeeze_pair(model, x, y),
        lambda: stcore.squeeze_loss(model, x, y),
        lambda: stcore.evaluate(model, (x, y)),
        lambda: stcore.make_classifier(model),
        lambda: stcore.make_learner(model, None),
        lambda: FGSM()(model, x, y),
    ):
        with pytest.raises(TypeError, match=r"model: expected a torch\.nn\.Module or a keras\.Model; received"):
            call()


def test_noise_that_does_not_fit(backend, model):
    given = backend.batch(BATCH)
    x, y, (one, two) = given.x, given.y, given.noise
    learner = backend.learner(model)

    def refused(noise, message, error=UsageError):
        for call in (
            lambda: stcore.squeeze_step(model, x, y, None, CONFIG, noise=noise),
            lambda: stcore.find_squeeze_pair(model, x, y, CONFIG, noise=noise),
            lambda: stcore.squeeze_loss(model, x, y, None, CONFIG, noise=noise),
            lambda: stcore.train_step(learner, CONFIG, x, y, noise=noise),
            lambda: stcore.training_loss(model, CONFIG, x, y, noise=noise),
        ):
            with pytest.raises(error, match=message):
                call()

    refused((one,), "noise: expected 2 tensors shaped like x; received 1")
    refused((one, two, two), "noise: expected 2 tensors shaped like x; received 3")
    refused((one, two[:3]), r"noise: expected tensors shaped like x, \(6, .*received shape \(3,")
    refused(one, "noise: expected 2 tensors shaped like x; received 6")
    refused(one[:2], r"noise: expected tensors shaped like x, \(6, .*received shape \(\d+, \d+, \d+\)")
    for number in (np.nan, np.inf):
        refused((one, two * number), "noise: expected finite numbers; received NaN or infinity", DataError)
    with pytest.raises(DataError, match="noise: expected finite"):
        PGD()(model, x, y, noise=(one * np.nan,))


def test_a_pair_that_does_not_fit(backend, model):
    given = backend.batch(BATCH)
    x, y = given.x, given.y

    def refused(pair, message, error=UsageError, config=CONFIG):
        for call in (stcore.squeeze_step, stcore.squeeze_loss):
            with pytest.raises(error, match=message):
                call(model, x, y, pair, config)

    refused((x,), "pair: expected 2 tensors shaped like x; received 1")
    refused((x, x[:3]), r"pair: expected tensors shaped like x, \(6, .*received shape \(3,")
    refused(x, "pair: expected 2 tensors shaped like x; received 6")
    refused((x, x * np.nan), "pair: expected finite numbers; received NaN or infinity", DataError)
    refused((x - 2 * CONFIG.epsilon, x), "pair: expected points at most .* from x .*; received one at", DataError)
    uniform = dataclasses.replace(CONFIG, init="uniform", epsilon=0.0)
    refused((x + 0.02, x), "pair: expected points at most 0 from x", DataError, uniform)


@pytest.mark.parametrize("epsilon", [0.0, 1e-6, 0.3])
def test_a_pair_that_was_found_fits(backend, model, epsilon):
    """Its start noise, too, which may be further than epsilon, and a pair that was rounded."""
    given, config = backend.batch(BATCH), dataclasses.replace(CONFIG, epsilon=epsilon, step_size=0.1)
    for pair in (
        stcore.find_squeeze_pair(model, given.x, given.y, dataclasses.replace(config, steps=0), rng=0),
        stcore.find_squeeze_pair(model, given.x, given.y, config, rng=0),
        tuple(backend.tensor(rounded(backend.array(given.x) + epsilon * sign)) for sign in (-1, 1)),
    ):
        stcore.squeeze_step(model, given.x, given.y, pair, config)
        stcore.squeeze_loss(model, given.x, given.y, pair, config)


def rounded(array):
    """To bfloat16."""
    bits = array.astype("float32").view("uint32")
    return ((bits + 0x8000) & 0xFFFF0000).view("float32").astype(array.dtype)


def test_evaluations_that_do_not_fit(backend, model):
    data = (backend.images(BATCH.x), backend.tensor(BATCH.y))
    for settings, message in (
        ({"attacks": ["cw"]}, "attacks: expected one of fgsm, pgd20, pgd100, cw100"),
        ({"epsilon": 8}, r"expected a number in \[0, 1\]; received 8"),
        ({"epsilon": float("nan")}, "epsilon .*received nan"),
        ({"batch_size": 0}, "batch_size: expected a whole number of at least 1; received 0"),
        ({"batch_size": 2.5}, "batch_size: expected a whole number of at least 1; received 2.5"),
    ):
        with pytest.raises(UsageError, match=message):
            stcore.evaluate(model, data, **settings)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"epsilon": -1}, r"epsilon .* expected a number in \[0, 1\]; received -1"),
        ({"epsilon": 8}, r"epsilon \(in units of pixels in \[0, 1\], such as 8/255\): .* received 8"),
        ({"epsilon": "8/255"}, "epsilon .* received '8/255'"),
        ({"epsilon": True}, "epsilon .* received True"),
        ({"step_size": float("inf")}, "step_size: expected a number of at least 0; received inf"),
        ({"steps": -1}, "steps: expected a whole number of at least 0; received -1"),
        ({"steps": 1.0}, "steps: expected a whole number of at least 0; received 1.0"),
        ({"beta": float("nan")}, "beta: expected a number of at least 0; received nan"),
        (
            {"divergence": "l1"},
            "symmetric_kl, js, squared_l2, kl, improved_kl, gkl, hellinger, or package.module:name; received 'l1'",
        ),
        ({"inner_divergence": "l1"}, "inner_divergence: expected one of"),
        ({"init": "natural"}, "init: expected one of gaussian, uniform; received 'natural'"),
        ({"norm": "l0"}, "norm: expected one of linf, l2; received 'l0'"),
        ({"bounds": (1.0, 0.0)}, r"bounds: expected \(low, high\) with low < high"),
        ({"noise_std": -1}, "noise_std: expected a number of at least 0; received -1"),
    ],
)
def test_settings_that_do_not_fit(settings, message):
    with pytest.raises(UsageError, match=message):
        stcore.SqueezeConfig(**settings)
    shared = {name: value for name, value in settings.items() if name in stcore.AdversarialConfig.__match_args__}
    if shared and shared != {"init": "natural"}:
        for config in (stcore.AdversarialConfig, PGD):
            with pytest.raises(UsageError, match=message.replace("gaussian, uniform", ".*")):
                config(**shared)


def test_errors_are_what_python_calls_them():
    for kind, base in ((UsageError, ValueError), (DataError, ValueError), (DivergedError, ArithmeticError)):
        assert issubclass(kind, base)


def test_a_run_after_all_that(place):
    """The settings the cases above were made from are good ones."""
    said = train("out", attacks="fgsm", select_by="natural")
    assert said.code == 0, said.err
