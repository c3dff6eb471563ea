"""The networks that come with the package: cards hold, both frameworks predict the same, and `stcore.load` and the
command line take them by name."""

import dataclasses
import json
import shutil

import numpy as np
import pytest
from harness import NAMES, load
from small import stcli, train, trained, words
from test_data import CIFAR10

import stcore
from stcore import data, zoo
from stcore.base.files import file_checksum, read_arrays, write_arrays, write_json
from stcore.base.weights_file import load_weights, save_weights
from stcore.errors import DataError, UsageError
from stcore.runs.evaluation_identity import fingerprint

DIGITS = "zoo:digits-small-cnn-st"
EACH = pytest.mark.parametrize("name", zoo.names())
ON_EACH = pytest.mark.parametrize("backend", NAMES)


def digits():
    return data.load("digits").test


def data_of(card):
    """The name of the card's data on this machine; skips where CIFAR-10 is not there."""
    name = card.config["dataset"]
    if name == "cifar10":
        if not CIFAR10.is_dir():
            pytest.skip(f"no CIFAR-10 parquet folder at {CIFAR10}; set STCORE_CIFAR10 to one")
        return f"parquet:{CIFAR10}"
    return name


# Cards


@EACH
def test_a_card_is_of_its_files(name):
    card = zoo.read_card(name)
    weights, metadata = load_weights(card.files["safetensors"])
    assert card.name == name
    assert fingerprint(weights) == card.weights
    assert file_checksum(card.files["npz"]) == card.records
    assert sum(array.size for key, array in weights.items() if ".running_" not in key) == card.parameters
    assert metadata["model"] == card.config["model"]
    assert any(f"--method {card.config['method']}" in command for command in card.commands)
    assert any("stcli evaluate" in command and "autoattack" in command for command in card.commands)
    assert card.licence
    assert card.data_note
    assert not any("/" in str(value) for key, value in card.config.items() if key not in ("preset",))


@EACH
def test_a_card_counts_what_its_records_say(name):
    card = zoo.read_card(name)
    records = card.read_records()
    robust = (records["autoattack/natural"] == records["label"]) & (records["autoattack/attack"] < 0)
    assert card.accuracies["autoattack"] == {"correct": robust.sum(), "total": len(robust)}
    natural = records["predicted/natural"] == records["label"]
    assert robust.sum() <= natural.sum()
    if card.accuracies["natural"]["total"] == len(natural):
        assert card.accuracies["natural"]["correct"] == natural.sum()
    np.testing.assert_array_equal(records["position"], np.arange(len(natural)))  # the first of the split, in order


@EACH
def test_both_frameworks_predict_the_same_and_what_the_records_say(name):
    card = zoo.read_card(name)
    networks = [stcore.load(f"zoo:{name}", backend=load(backend).name) for backend in NAMES]
    images = np.random.default_rng(0).integers(0, 256, (16, *networks[0].image_shape), dtype=np.uint8)
    if card.config["dataset"] == "digits":
        test = digits()
        assert test.fingerprint() == card.data
        images, records = test.images, card.read_records()
        for network in networks:
            np.testing.assert_array_equal(network.predict(images), records["predicted/natural"])
    one, *others = (network.probabilities(images) for network in networks)
    np.testing.assert_allclose(one.sum(axis=1), 1, atol=1e-12)
    for other in others:
        assert np.abs(other - one).max() <= 1e-5


@pytest.mark.slow  # AutoAttack on 200 images: 25 s for the digits, minutes for CIFAR-10
@EACH
def test_autoattack_again_finds_what_the_records_say(name, tmp_path):
    """The first 200 images again, with the seed and the batches of the evaluation that was recorded."""
    card = zoo.read_card(name)
    load("torch")
    settings = {"attacks": "autoattack", "subset": 200, "dataset": data_of(card), "out": tmp_path}
    said = stcli("evaluate", f"zoo:{name}", *words(settings), "--no-audit")
    assert said.code == 0, said.err
    assert json.loads((tmp_path / name / "evaluation.json").read_text())["data"] == card.data
    again, records = read_arrays(tmp_path / name / "records.npz"), card.read_records()
    for key in ("label", "predicted/natural", "autoattack/natural", "autoattack/attack"):
        np.testing.assert_array_equal(again[key], records[key][:200], err_msg=key)


def test_a_damaged_card_is_refused(tmp_path, monkeypatch):
    card = dataclasses.asdict(zoo.read_card(zoo.names()[0]))
    monkeypatch.setattr("stcore.zoo.card.FOLDER", tmp_path)
    write_json(tmp_path / "some.json", {key: value for key, value in card.items() if key != "norm"})
    with pytest.raises(DataError, match=r"some\.json is damaged"):
        zoo.read_card("some")


# stcore.load


@ON_EACH
def test_a_run_loads_in_either_framework(backend):
    load(backend)
    run = trained("torch")
    network, test = stcore.load(run.path, backend=backend), digits()
    assert network.class_names == tuple("0123456789")
    assert network.config["method"] == "st"
    assert network.card is None
    result = run.json("result.json")["checkpoints"]["best"]["natural"]
    correct = int((network.predict(test.images[:32], batch_size=7) == test.labels[:32]).sum())
    assert (correct, 32) == (result["correct"], result["total"])
    last = stcore.load(str(run.path), backend=backend, checkpoint="last")
    assert fingerprint(stcore.make_classifier(last.model).weights()) == fingerprint(run.weights())


def test_a_torch_network_comes_in_evaluation_mode():
    load("torch")
    assert not stcore.load(DIGITS, backend="torch").model.training


def test_floats_and_bytes_are_the_same_images():
    load("torch")
    network, images = stcore.load(DIGITS, backend="torch"), digits().images[:9]
    one, other = network.probabilities(images), network.probabilities(images / 255)
    np.testing.assert_allclose(one, other, rtol=0, atol=1e-6)


@ON_EACH
def test_it_evaluates_itself_on_its_own_data_and_threat_model(backend):
    load(backend)
    network, test, scores = stcore.load(DIGITS, backend=backend), digits(), zoo.read_card(DIGITS[4:]).accuracies
    found = network.evaluate(attacks=["fgsm"], audit=False)
    assert {name: found[name].correct for name in found} == {a: scores[a]["correct"] for a in ("natural", "fgsm")}
    few = network.evaluate((test.images[:40], test.labels[:40]), ["fgsm"], audit=False, batch_size=16, epsilon=0.0)
    assert few["fgsm"] == few["natural"]
    assert few["fgsm"].total == 40


def test_a_weights_file_loads_but_names_no_data(tmp_path):
    load("torch")
    run, test = trained("torch"), digits()
    network = stcore.load(run.path / "best.safetensors", backend="torch")
    assert network.config == {}
    assert network.evaluate((test.images[:8], test.labels[:8]), [], audit=False)["natural"].total == 8
    with pytest.raises(UsageError, match="a weights file names no data"):
        network.evaluate()


def test_a_factory_s_weights_load_with_its_name_or_its_run(tmp_path, monkeypatch):
    load("torch")
    (tmp_path / "nets_of_mine.py").write_text(
        "from torch import nn\n\n\ndef make(num_classes):\n"
        "    return nn.Sequential(nn.Flatten(), nn.Linear(64, num_classes))\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    said = train(tmp_path / "run", backend="torch", model="nets_of_mine:make", method="standard", attacks="")
    assert said.code == 0, said.err
    images = digits().images[:20]
    by_name = stcore.load(tmp_path / "run" / "best.safetensors", model="nets_of_mine:make")
    by_run = stcore.load(tmp_path / "run")
    np.testing.assert_array_equal(by_name.probabilities(images), by_run.probabilities(images))
    with pytest.raises(UsageError, match="a network that exists only there"):
        stcore.load(tmp_path / "run", backend="keras")


@pytest.mark.parametrize(
    ("images", "error", "says"),
    [
        (np.zeros((8, 8, 1), np.uint8), UsageError, r"expected \(N, 8, 8, 1\); received \(8, 8, 1\)"),
        (np.zeros((2, 1, 8, 8), np.uint8), UsageError, r"expected \(N, 8, 8, 1\); received \(2, 1, 8, 8\)"),
        (np.zeros((2, 8, 8, 1), np.int64), DataError, "expected uint8, or floats"),
        (np.full((2, 8, 8, 1), 255.0), DataError, "Divide 0–255 images by 255"),
        (np.full((2, 8, 8, 1), np.nan), DataError, "finite"),
        (np.zeros((0, 8, 8, 1), np.uint8), DataError, "at least one image"),
    ],
)
def test_what_are_no_images_is_refused(images, error, says):
    load("torch")
    with pytest.raises(error, match=says):
        stcore.load(DIGITS, backend="torch").predict(images)


def test_as_many_labels_as_images():
    load("torch")
    test = digits()
    with pytest.raises(UsageError, match="as many labels as images; received 3 and 4"):
        stcore.load(DIGITS, backend="torch").evaluate((test.images[:4], test.labels[:3]))


def test_what_cannot_be_loaded_says_why(tmp_path):
    load("torch")
    run = trained("torch")
    arrays, metadata = load_weights(run.path / "best.safetensors")
    save_weights(tmp_path / "bare.safetensors", arrays, {})
    save_weights(tmp_path / "foreign.safetensors", arrays, {**metadata, "model": "mynets:make"})
    shutil.copy(run.path / "config.toml", tmp_path)
    for source, options, says in [
        ("zoo:digits-small-cnn-ts", {}, "Did you mean 'digits-small-cnn-st'"),
        (tmp_path / "none.safetensors", {}, "does not exist"),
        (tmp_path / "bare.safetensors", {}, "which network its weights are of"),
        (tmp_path / "foreign.safetensors", {}, "is of mynets:make; received none. Give model="),
        (run.path / "best.safetensors", {"model": "tiny"}, "is of tiny; received tiny"),
        (tmp_path, {"checkpoint": "bset"}, "Did you mean 'best'"),
        (tmp_path, {"checkpoint": "best"}, "does not exist"),  # without one it is a run without weights yet
        (DIGITS, {"checkpoint": "last"}, "checkpoint: expected none with"),
        (DIGITS, {"backend": "tensorflw"}, "backend: expected one of torch, keras"),
    ]:
        with pytest.raises(UsageError, match=says):
            stcore.load(source, **options)


# The command line


def test_the_list_has_every_network():
    said = stcli("zoo", "list")
    assert (said.code, said.err) == (0, "")
    card = zoo.read_card(DIGITS[4:])
    score = card.accuracies["autoattack"]
    assert all(f"zoo:{name}" in said.out for name in zoo.names())
    for text in ("l∞, ε = 0.2", "ST", f"{card.parameters:,}", f"{100 * score['correct'] / score['total']:.2f} ["):
        assert text in said.out
    assert [one["name"] for one in json.loads(stcli("zoo", "list", "--json").out)] == list(zoo.names())


@EACH
def test_a_card_is_shown(name):
    card = zoo.read_card(name)
    said = stcli("zoo", "show", name)
    assert (said.code, said.err) == (0, "")
    for text in (*card.commands, card.weights, card.records, card.licence, card.data_note):
        assert text in said.out
    assert stcli("zoo", "show", f"zoo:{name}") == said
    as_json = json.loads(stcli("zoo", "show", name, "--json").out)
    assert as_json == {k: v for k, v in json.loads(card.files["json"].read_text()).items() if k != "checksum"}


def test_what_is_not_there_is_refused():
    for args, says in [
        (("zoo",), ""),
        (("zoo", "lst"), "Did you mean 'list'"),
        (("zoo", "show", "digits-small-cnn-ts"), "Did you mean 'digits-small-cnn-st'"),
        (("evaluate", "zoo:digits-small-cnn-ts"), "Did you mean 'digits-small-cnn-st'"),
        (("evaluate", DIGITS, "--checkpoint", "best"), "expected neither with a weights file"),
        (("evaluate", DIGITS, "--model", "tiny"), "model: expected none with a run"),
        (("train", "--init-weights", "zoo:none"), "zoo: expected a network among"),
    ]:
        said = stcli(*args)
        assert said.code == 2
        assert says in said.err


@ON_EACH
def test_evaluation_takes_data_and_threat_model_from_the_card(backend, tmp_path, monkeypatch):
    load(backend)
    monkeypatch.chdir(tmp_path)
    said = stcli("evaluate", DIGITS, "--backend", backend, "--attacks", "fgsm", "--no-audit", "--json")
    assert said.code == 0, said.err
    ((name, found),) = json.loads(said.out).items()
    assert name.startswith("digits-small-cnn-st")
    scores = zoo.read_card(DIGITS[4:]).accuracies
    assert {a: found[a]["correct"] for a in found} == {a: scores[a]["correct"] for a in ("natural", "fgsm")}
    assert not list(tmp_path.iterdir())


def test_its_folder_is_here_and_not_in_the_package(tmp_path, monkeypatch):
    load("torch")
    monkeypatch.chdir(tmp_path)
    said = stcli("evaluate", DIGITS, "--attacks", "fgsm", "--subset", 8, "--save-examples", "--no-audit")
    assert said.code == 0, said.err
    (folder,) = (tmp_path / "evaluations").glob("*/digits-small-cnn-st")
    assert json.loads((folder / "evaluation.json").read_text())["weights"] == zoo.read_card(DIGITS[4:]).weights
    assert not (zoo.FOLDER / "evaluations").exists()


def test_training_starts_from_it(tmp_path):
    load("torch")
    said = train(tmp_path / "run", model="small-cnn", init_weights=DIGITS, learning_rate=0, method="standard")
    assert said.code == 0, said.err
    arrays, _ = load_weights(tmp_path / "run" / "last.safetensors")
    kept, _ = load_weights(zoo.weights_path(DIGITS))
    assert "init_weights" in (tmp_path / "run" / "config.toml").read_text()
    for name, array in kept.items():
        if ".running_" not in name:  # batch norm still sees batches
            np.testing.assert_array_equal(arrays[name], array, err_msg=name)


# How an entry is made


@pytest.fixture
def entry(tmp_path, monkeypatch):
    """A run, an evaluation of its best checkpoint by AutoAttack, and the folder of entries."""
    load("torch")
    run = tmp_path / "run"
    shutil.copytree(trained("torch").path, run)
    weights, _ = load_weights(run / "best.safetensors")
    identity = {
        "weights": fingerprint(weights),
        "data": "d" * 64,
        "subset": "32",
        "shard": None,
        "norm": "linf",
        "epsilon": 0.2,
        "attacks": {"autoattack": "AutoAttack(epsilon=0.2)"},
        "seed": 0,
        "backend": "torch",
        "dtype": "float32",
    }
    evaluation = tmp_path / "aa" / "best"
    evaluation.mkdir(parents=True)
    scores = {"natural": {"correct": 9, "total": 16}, "autoattack": {"correct": 3, "total": 16}}
    write_json(evaluation / "evaluation.json", identity)
    write_json(evaluation / "result.json", {"accuracies": scores})
    write_arrays(evaluation / "records.npz", {"label": np.arange(16), "autoattack/distance": np.full(16, 0.1)})
    out = tmp_path / "zoo"
    out.mkdir()
    monkeypatch.setattr("stcore.zoo.card.FOLDER", out)
    return run, evaluation, out


def test_an_entry_is_made_of_a_run_and_its_evaluation(benchmark, entry):
    run, evaluation, out = entry
    benchmark("zoo_add").add("digits-tiny-st", run, evaluation, None, out)
    card = zoo.read_card("digits-tiny-st")
    result = json.loads((run / "result.json").read_text())["checkpoints"]["best"]
    assert card.checkpoint == "best"
    assert card.accuracies["autoattack"] == {"correct": 3, "total": 16}
    assert card.accuracies["natural"] == {"correct": result["natural"]["correct"], "total": 32}  # on more images
    assert card.config["model"] == "tiny"
    assert "--model tiny" in card.commands[0]
    assert "--attacks autoattack --subset 32" in card.commands[1]
    assert card.versions["torch"]
    assert card.records == file_checksum(out / "digits-tiny-st.npz")
    records = card.read_records()
    assert records["label"].dtype == np.uint8
    assert records["autoattack/distance"].dtype == np.float32
    assert (out / "digits-tiny-st.safetensors").read_bytes() == (run / "best.safetensors").read_bytes()
    assert card.size == sum(path.stat().st_size for path in out.iterdir())


def test_a_run_of_data_in_a_folder_names_the_published_set(benchmark, entry):
    run, evaluation, out = entry
    config = run / "config.toml"
    config.write_text(config.read_text().replace('dataset = "digits"', 'dataset = "npz:/home/me/digits"'))
    add = benchmark("zoo_add").add
    with pytest.raises(UsageError, match="dataset: expected one of digits, cifar10"):
        add("x", run, evaluation, None, out)
    card = add("x", run, evaluation, "digits", out)
    assert card.config["dataset"] == "digits"
    assert "/home" not in (out / "x.json").read_text()


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"weights": "0" * 64}, "received one of other weights"),
        ({"epsilon": 0.1}, "expected the threat model of the run, linf 0.2; received linf 0.1"),
        ({"precision": "tf32"}, "precision tf32"),
        ({"shard": "1/2"}, "shard 1/2"),
        ({"subset": "8:16"}, "subset 8:16"),
    ],
)
def test_an_evaluation_of_something_else_is_refused(benchmark, entry, changes, says):
    run, evaluation, out = entry
    identity = json.loads((evaluation / "evaluation.json").read_text())
    del identity["checksum"]
    write_json(evaluation / "evaluation.json", identity | changes)
    with pytest.raises(UsageError, match=says):
        benchmark("zoo_add").add("x", run, evaluation, None, out)
    assert not list(out.iterdir())


def test_a_run_that_starts_from_a_file_is_refused(benchmark, entry):
    run, evaluation, out = entry
    config = run / "config.toml"
    config.write_text(config.read_text() + 'init_weights = "w.safetensors"\n')
    with pytest.raises(UsageError, match="it has init_weights, a file's name"):
        benchmark("zoo_add").add("x", run, evaluation, None, out)
    with pytest.raises(UsageError, match="name: expected lower-case words"):
        benchmark("zoo_add").add("X y", run, evaluation, None, out)
