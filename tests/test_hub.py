"""Folders in the layout of the Hugging Face hub, and their way there and back, on the loopback interface."""

import dataclasses
import json
import shutil

import numpy as np
import pytest
import yaml
from fake_hub import TOKEN, serving
from harness import NAMES, load
from small import stcli, trained
from test_deployment import CLASSES, images, network, weights

import stcore
from stcore import zoo
from stcore.base.weights_file import load_weights
from stcore.errors import DataError, UsageError
from stcore.export.hub import config as hub_config

ON_EACH = pytest.mark.parametrize("backend", NAMES)


@ON_EACH
def test_a_folder_loads_in_either_framework(tmp_path, backend):
    network("torch").export("hub", tmp_path / "out", images=images())
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "README.md",
        "config.json",
        "model.safetensors",
    ]
    load(backend)
    again = stcore.load(tmp_path / "out", backend=backend)
    assert again.class_names == CLASSES
    np.testing.assert_allclose(again.logits(images()), network("torch").logits(images()), atol=1e-5)
    np.testing.assert_array_equal(again.predict(images()), network(backend).predict(images()))


def test_config_json_says_what_a_user_of_another_program_needs(tmp_path):
    network("torch").export("hub", tmp_path / "out", images=images())
    config = json.loads((tmp_path / "out" / "config.json").read_text())
    assert (config["architecture"], config["num_classes"], config["library_name"]) == ("tiny", 4, "stcore")
    assert config["id2label"] == {str(number): name for number, name in enumerate(CLASSES)}
    assert config["label2id"]["Käfer"] == 2
    assert config["preprocessing"] == {
        "size": [8, 12],
        "channels": 3,
        "mode": "RGB",
        "orientation": "exif",
        "resize": "centre crop, bicubic",
        "mean": [0.4, 0.5, 0.6],
        "std": [0.2, 0.3, 0.25],
    }


def test_folders_of_this_machine_stay_here():
    settings = {"dataset": "folder:/home/me/photos", "extra_data": "npz:gen/extra.npz", "init_weights": "/w/a.pth"}
    for config, published in [
        (settings, {"dataset": "folder:photos", "extra_data": "npz:extra.npz", "init_weights": "a.pth"}),
        ({"dataset": "hub:uoft-cs/cifar10", "extra_data": None, "init_weights": "zoo:net"},) * 2,
        ({"dataset": "digits", "beta": 6.0},) * 2,
    ]:
        assert hub_config(dataclasses.replace(network("torch"), config=config))["training"] == published


def front_matter(folder):
    return yaml.safe_load((folder / "README.md").read_text().split("---")[1])


@ON_EACH
def test_a_run_brings_its_card_its_settings_and_its_evaluations(tmp_path, backend):
    run = tmp_path / "run"
    shutil.copytree(trained(backend).path, run)
    args = ("--attacks", "apgd-ce", "--subset", 4, "--no-audit", "--checkpoint", "best")
    assert stcli("evaluate", run, *args).code == 0
    assert stcli("export", "hub", run, "--out", tmp_path / "hub", "--backend", backend).code == 0
    files = {str(path.relative_to(tmp_path / "hub")) for path in (tmp_path / "hub").rglob("*") if path.is_file()}
    (evaluation,) = (run / "evaluations").iterdir()
    kept = {
        f"evaluations/{evaluation.name}/best/{name}" for name in ("evaluation.json", "records.npz", "result.json")
    }
    assert files == {"README.md", "config.json", "model.safetensors", "result.json"} | kept
    front = front_matter(tmp_path / "hub")
    (entry,) = front["model-index"]
    metrics = {one["name"].split(",")[0]: one["value"] for one in entry["results"][0]["metrics"]}
    assert metrics["accuracy"] == round(
        100 * trained(backend).json("result.json")["checkpoints"]["best"]["natural"]["accuracy"], 2
    )
    assert 'stcore.load("hf://OWNER/NAME"' in (tmp_path / "hub" / "README.md").read_text()
    again = stcore.load(tmp_path / "hub", backend=backend)
    assert again.config["epochs"] == 2
    scores = stcore.load(run, backend=backend).evaluate(attacks=["fgsm"])
    assert again.evaluate(attacks=["fgsm"]) == scores
    words = ("--dataset", "digits", "--subset", 32, "--attacks", "fgsm", "--epsilon", again.config["epsilon"])
    said = stcli("evaluate", tmp_path / "hub", *words, "--no-audit", "--json")
    assert said.code == 0, said.err
    (row,) = json.loads(said.out).values()
    assert {name: row[name]["correct"] for name in scores} == {name: one.correct for name, one in scores.items()}


def test_a_network_of_the_zoo_brings_its_card_and_records(tmp_path):
    load("torch")
    name = zoo.names()[-1]
    assert stcli("export", "hub", f"zoo:{name}", "--out", tmp_path / "hub").code == 0
    card = zoo.read_card(name)
    assert (tmp_path / "hub/evaluations/autoattack/records.npz").read_bytes() == card.files["npz"].read_bytes()
    front = front_matter(tmp_path / "hub")
    assert front["license"] == card.licence.lower()
    values = [one["value"] for one in front["model-index"][0]["results"][0]["metrics"]]
    assert values == [round(100 * one["correct"] / one["total"], 2) for one in card.accuracies.values()]


def test_an_unfinished_run_has_no_card(tmp_path):
    shutil.copytree(trained("torch").path, tmp_path / "run")
    (tmp_path / "run" / "result.json").unlink()
    said = stcli("export", "hub", tmp_path / "run", "--out", tmp_path / "hub", "--checkpoint", "best")
    assert (said.code, "card: expected a finished run" in said.err) == (2, True)
    assert not (tmp_path / "hub").exists()


# The hub


@pytest.fixture
def hub(monkeypatch, tmp_path):
    constants = pytest.importorskip("huggingface_hub.constants", reason="huggingface_hub is not installed")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    with serving() as server:
        monkeypatch.setenv("HF_ENDPOINT", server.url)
        yield server


def test_a_push_and_a_load_are_a_round_trip(hub):
    address = network("torch").push("me/net", private=True)
    assert address == f"{hub.url}/me/net"
    assert hub.private == {"me/net": True}
    assert set(hub.files["me/net"]) == {"README.md", "config.json", "model.safetensors"}
    assert b'stcore.load("hf://me/net"' in hub.files["me/net"]["README.md"]
    again = stcore.load("hf://me/net", backend="torch")
    assert again.class_names == CLASSES
    np.testing.assert_array_equal(again.logits(images()), network("torch").logits(images()))


def test_a_folder_is_pushed_as_it_is(hub, tmp_path):
    network("torch").export("hub", tmp_path / "out", images=images())
    with (tmp_path / "out" / "README.md").open("a") as file:
        file.write("Mine.\n")
    said = stcli("push", tmp_path / "out", "me/net")
    assert said.code == 0, said.err
    assert f"{hub.url}/me/net" in said.out
    assert hub.files["me/net"]["README.md"].endswith(b"Mine.\n")
    assert hub.private == {"me/net": False}
    assert hub.files["me/net"]["model.safetensors"] == (tmp_path / "out" / "model.safetensors").read_bytes()


def test_a_run_is_pushed_by_the_command(hub):
    said = stcli("push", trained("torch").path, "me/run")
    assert said.code == 0, said.err
    assert "result.json" in hub.files["me/run"]
    said = stcli(
        "evaluate", "hf://me/run", "--dataset", "digits", "--attacks", "fgsm", "--subset", 8, "--no-audit"
    )
    assert said.code == 0, said.err


def test_what_the_hub_refuses_is_an_error_of_data(hub, monkeypatch):
    with pytest.raises(
        DataError, match="hf://me/other: expected the hub to accept this; received RepositoryNotFound"
    ):
        stcore.load("hf://me/other")
    with pytest.raises(UsageError, match="repository: expected OWNER/NAME; received 'me'"):
        stcore.load("hf://me")
    hub.files["me/timm"] = {"config.json": b'{"architecture": "resnet18"}', "model.safetensors": b""}
    with pytest.raises(DataError, match=r"received another program's\. Build its network"):
        stcore.load("hf://me/timm")
    hub.files["me/empty"] = {"README.md": b""}
    with pytest.raises(DataError, match=r"expected config.json and model.safetensors there"):
        stcore.load("hf://me/empty")
    monkeypatch.setenv("HF_TOKEN", "another")
    said = stcli("push", weights(), "me/net")
    assert (said.code, "hf auth login" in said.err) == (3, True)
    assert stcli("push", weights(), "net").code == 2


def test_damaged_weights_from_the_hub_are_refused(hub):
    network("torch").push("me/net")
    content = bytearray(hub.files["me/net"]["model.safetensors"])
    content[-1] ^= 1
    hub.files["me/net"]["model.safetensors"] = bytes(content)
    with pytest.raises(UsageError, match="is damaged: its contents are not what its checksum says"):
        stcore.load("hf://me/net", backend="torch")
    assert load_weights(weights())[1]["model"] == "tiny"
