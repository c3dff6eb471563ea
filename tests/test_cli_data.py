"""`stcli data`: what it prints, its exit codes, and that a fetched set is trained on by its name."""

import json

import numpy as np
import pytest
from harness import load as load_backend
from small import contents, stcli, train
from test_fetching import ARCHIVE, PAGE, archive, bare_environment, calls, publish, server, status, whole

from stcore.data import load, save_arrays
from stcore.data.download.registry import PUBLISHED

__all__ = ["archive", "bare_environment", "calls", "server"]  # the fixtures


@pytest.fixture
def data(tmp_path, monkeypatch):
    """The data folder, empty."""
    monkeypatch.setenv("STCLI_DATA", str(tmp_path / "data"))
    return tmp_path / "data"


def refused(said, code, message):
    """A command that ended with one line of stderr."""
    assert said.code == code
    assert said.err.startswith("stcli: ")
    assert said.err.count("\n") == 1, said.err
    assert message in said.err, said.err


def test_help_is_there_for_each_action():
    said = stcli("data", "--help")
    assert said.code == 0
    for action in ("list", "fetch", "verify", "import", "info"):
        assert f"\n  {action}" in said.out
        said_of = stcli("data", action, "--help")
        assert said_of.code == 0
        assert f"usage: stcli data {action}" in said_of.out
    assert stcli("data") == (2, said.out, "")
    assert "  data  " in stcli("--help").out


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["get"], "expected an action among list, fetch, verify, import, info, convert, cache; received 'get'"),
        (["fetch"], "Missing from stcli data fetch: NAME cifar10, cifar100 or svhn"),
        (["fetch", "mnist"], "expected a published set among cifar10, cifar100, svhn; received 'mnist'"),
        (["verify", "mnist"], "expected a published set among cifar10, cifar100, svhn; received 'mnist'"),
        (
            ["fetch", "svhn", "--mirror", "here"],
            "mirror: expected a URL such as https://host/folder/, received 'here'",
        ),
        (["fetch", "svhn", "--timeout", "0"], "timeout: expected a number of seconds above 0; received 0"),
        (["fetch", "svhn", "--timeout", "soon"], "expected a number such as 0.03"),
        (
            ["info", "mnist"],
            "npz:PATH, or package.module:load; received 'mnist'",
        ),
        (["info", "digits", "--image-column", "img"], "image_column, label_column: expected both or neither"),
    ],
)
def test_a_wrong_word_is_a_usage_error(data, args, message):
    refused(stcli("data", *args), 2, message)
    assert not data.exists()


def test_list_tells_what_is_here(data, monkeypatch):
    publish(monkeypatch, "cifar10", {ARCHIVE: b"ten"})
    publish(monkeypatch, "svhn", {"a.mat": b"aaa", "b.mat": b"bbb"})
    for name, raw in {f"cifar10/{ARCHIVE}": b"ten", "svhn/a.mat": b"aa"}.items():
        (data / name).parent.mkdir(parents=True)
        (data / name).write_bytes(raw)
    said = stcli("data", "list")
    assert said.code == 0
    rows = {line.split()[1]: line for line in said.out.splitlines() if line.startswith("│")}
    assert " here " in rows["cifar10"]
    assert " missing " in rows["cifar100"]
    assert PUBLISHED["cifar100"].about in rows["cifar100"]
    assert " a.mat is damaged; b.mat is missing " in rows["svhn"]
    assert f"the data folder is {data}\n" in said.out
    found = json.loads(stcli("data", "list", "--json").out)
    assert {name: [one["state"] for one in files] for name, files in found.items()} == {
        "cifar10": ["here"],
        "cifar100": ["missing"],
        "svhn": ["damaged", "missing"],
    }
    assert found["svhn"][0]["path"] == str(data / "svhn" / "a.mat")
    elsewhere = json.loads(stcli("data", "list", "--json", "--data-dir", data / "other").out)
    assert elsewhere["cifar10"][0]["state"] == "missing"


def test_fetch_verify_and_info_of_a_set(data, monkeypatch, server, archive):
    publish(
        monkeypatch, "cifar10", {ARCHIVE: archive}, server.at("/bad", status(503)), server.at("/f", whole(archive))
    )
    refused(
        stcli("data", "verify", "cifar10"),
        3,
        f"expected all files as published, received: {ARCHIVE} is missing; run stcli data fetch cifar10\n",
    )
    said = stcli("data", "fetch", "cifar10")
    assert said.code == 0
    assert said.out.splitlines() == [
        f"{ARCHIVE}: 503 Server Error: Service Unavailable from {server.host}",
        f"cifar10 is complete, in {data / 'cifar10'}",
        "  stcli train --dataset cifar10",
    ]
    assert stcli("data", "verify", "cifar10") == (0, f"{data / 'cifar10' / ARCHIVE}: here\n", "")
    parts = json.loads(stcli("data", "info", "cifar10", "--json").out)
    splits = load("cifar10")
    assert {name: part["images"] for name, part in parts.items()} == {"train": 98, "validation": 2, "test": 20}
    for name, part in parts.items():
        own = getattr(splits, name)
        assert part["fingerprint"] == own.fingerprint()
        assert part["class_counts"] == [int((own.labels == label).sum()) for label in range(10)]
        assert part["image_shape"] == [32, 32, 3]
        assert part["class_names"][3] == "cat"


def test_fetch_into_a_folder_of_ones_own(tmp_path, data, monkeypatch, server, archive):
    publish(monkeypatch, "cifar10", {ARCHIVE: archive}, server.at("/never", whole(PAGE)))
    server.at(f"/mirror/{ARCHIVE}", whole(archive))
    own = tmp_path / "my sets"
    args = ["cifar10", "--data-dir", own, "--mirror", f"http://{server.host}/mirror", "--timeout", "5"]
    said = stcli("data", "fetch", *args, "--json")
    assert said.code == 0
    (file,) = json.loads(said.out)
    assert file["state"] == "here"
    assert file["path"] == str(own / "cifar10" / ARCHIVE)
    again = stcli("data", "fetch", *args)
    assert f"  stcli train --dataset cifar10:{own / 'cifar10'}\n" in again.out
    assert server.asked == [f"/mirror/{ARCHIVE}"]
    assert not data.exists()
    (own / "cifar10" / ARCHIVE).write_bytes(archive[:-1] + b"!")
    said = stcli("data", "verify", "cifar10", "--data-dir", own, "--json")
    assert json.loads(said.out)[0]["state"] == "damaged"
    refused(said, 3, f"{ARCHIVE} is damaged; run stcli data fetch cifar10 --data-dir '{own}'\n")


def test_what_cannot_be_fetched_is_a_data_error(data, monkeypatch, server, archive):
    publish(monkeypatch, "cifar10", {ARCHIVE: archive}, server.at("/page", whole(PAGE)))
    said = stcli("data", "fetch", "cifar10", "--json")
    assert said.code == 3
    assert said.out == ""
    progress, error = said.err.splitlines()
    assert progress == f"{ARCHIVE}: an HTML page of {len(PAGE)} bytes from {server.host}"
    assert error.startswith(f"stcli: expected {ARCHIVE} of {len(archive)} bytes")
    assert contents(data) == {}


@pytest.mark.parametrize("how", ["option", "environment"])
def test_offline_names_the_command(data, monkeypatch, calls, how):
    if how == "environment":
        monkeypatch.setenv("STCLI_OFFLINE", "1")
    said = stcli("data", "fetch", "cifar100", *["--offline"] * (how == "option"))
    command = "STCLI_OFFLINE=0 " * (how == "environment") + "stcli data fetch cifar100"
    refused(said, 3, f"offline no network call is made; with a network, run {command}\n")
    assert calls == []


def test_import_says_what_is_still_missing(tmp_path, data, monkeypatch):
    publish(monkeypatch, "svhn", {"train.mat": b"ttt", "test.mat": b"eeee"})
    (tmp_path / "downloaded").write_bytes(b"ttt")
    said = stcli("data", "import", tmp_path / "downloaded")
    assert said.code == 0
    assert said.out.splitlines() == [
        f"{tmp_path / 'downloaded'} → {data / 'svhn' / 'train.mat'}",
        "svhn: test.mat is missing",
    ]
    (tmp_path / "downloaded").write_bytes(b"eeee")
    files = json.loads(stcli("data", "import", tmp_path / "downloaded", "--json").out)
    assert [file["state"] for file in files] == ["here", "here"]
    (tmp_path / "downloaded").write_bytes(PAGE)
    refused(stcli("data", "import", tmp_path / "downloaded"), 3, "expected one of cifar-10-python.tar.gz, ")
    refused(stcli("data", "import", tmp_path / "none"), 3, "which is not there: check the path")


def test_info_of_any_set(tmp_path):
    rng = np.random.default_rng(0)
    labels = {"train": np.arange(200) % 3, "test": np.array([0, 0, 2, 1])}
    for part, marks in labels.items():
        images = rng.integers(0, 256, (len(marks), 6, 5, 1), np.uint8)
        save_arrays(tmp_path / f"{part}.npz", images, marks, num_classes=3)
    said = stcli("data", "info", f"npz:{tmp_path}")
    assert said.code == 0
    splits = load(f"npz:{tmp_path}")
    for name in ("train", "validation", "test"):
        part = getattr(splits, name)
        assert f"{name}: {len(part)} images of 6x5x1, fingerprint {part.fingerprint()}\n" in said.out
    rows = [line.strip("│").split("│") for line in said.out.splitlines() if line.startswith("│")]
    assert [[cell.strip() for cell in row][-1] for row in rows] == ["2", "1", "1"]  # of test
    assert sum(int(cell) for row in rows for cell in row[2:4]) == 200


def test_a_set_that_was_not_fetched_ends_in_the_command_that_fetches_it(tmp_path, data):
    said = train(tmp_path / "run", dataset="cifar10")
    refused(
        said, 3, f"expected {ARCHIVE} of 170498071 bytes in {data / 'cifar10'}, received no such file; run stcli "
    )
    assert "run stcli data fetch cifar10, or" in said.err


def test_a_fetched_set_is_trained_on(tmp_path, data, monkeypatch, server, archive):
    load_backend("torch")
    publish(monkeypatch, "cifar10", {ARCHIVE: archive}, server.at("/f", whole(archive)))
    assert stcli("data", "fetch", "cifar10").code == 0
    flags = {"backend": "torch", "dataset": "cifar10", "steps": 1, "attacks": "fgsm", "select_by": "natural"}
    sizes = {"train_size": 40, "validation_size": 2, "test_size": 20}
    said = train(tmp_path / "run", **flags, **sizes)
    assert said.code == 0, said.err
    assert "on cifar10, tiny" in said.out
    assert 'dataset = "cifar10"\n' in (tmp_path / "run" / "config.toml").read_text()
