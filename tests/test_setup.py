"""One way from a plan to its parts: each command sets up once, and loads only the data that it uses."""

import json
import shutil

import numpy as np
import pytest
import test_data
import test_memory_map
import test_more_readers
import test_readers
import test_streams
from harness import load as load_backend
from small import EAGER, SETTINGS, stcli, words

from stcore.data import decoding, load
from stcore.data.images import ImageData
from stcore.data.readers.shards import NOTHING, Known
from stcore.data.readers.sources import load_test
from stcore.errors import DataError
from stcore.models.weights_files import recorded_shape
from stcore.runs import preparation
from stcore.runs.plan import make_plan
from stcore.runs.preparation import set_up

pytest.importorskip("torch")


def parquet(folder):
    for part, (images, labels) in test_more_readers.PARTS.items():
        pictures = [test_data.encoded(image) for image in images]
        test_data.write(folder / f"{part}-00000-of-00001.parquet", pictures, labels.tolist())
    return f"parquet:{folder}"


def cifar10(folder):
    return f"cifar10:{test_readers.write_folder(folder, 10, 'python')}"


def archive(folder):
    return f"cifar100:{test_readers.write_archive(folder, 100, 'binary')}"


def without_train(folder):
    """Writes the archive again, without its training file."""
    files = test_readers.cifar_files(100, "binary")
    test_readers.write_archive(folder, 100, "binary", {n: raw for n, raw in files.items() if n != "train.bin"})


def npz(folder):
    test_readers.write_npz(folder)
    np.savez(folder / "test.npz", images=test_readers.pictures(20, 1), labels=np.arange(20) % 3)  # lacks class 3
    return f"npz:{folder}"


FORMATS = {
    "parquet": (parquet, "train-*"),
    "cifar10": (cifar10, "*/data_batch_*"),
    "cifar100 archive": (archive, without_train),
    "svhn": (lambda folder: f"svhn:{test_readers.write_svhn(folder)}", "train_*"),
    "folder": (lambda folder: f"folder:{test_more_readers.write_folder(folder)}", "train"),
    "npy": (lambda folder: f"npy:{test_memory_map.write(folder)}", "train_*"),
    "npz": (npz, "train.npz"),
    "safetensors": (lambda folder: f"safetensors:{test_more_readers.write_safetensors(folder)}", "train.*"),
    "stream": (lambda folder: f"stream:{test_streams.write(folder)}", "train-*"),
}
ON_EACH = pytest.mark.parametrize(("write", "train"), FORMATS.values(), ids=FORMATS)


def remove(folder, train):
    if callable(train):
        return train(folder)
    found = list(folder.glob(train))
    assert found
    for path in found:
        shutil.rmtree(path) if path.is_dir() else path.unlink()


# The test part alone


@ON_EACH
def test_the_test_part_alone_is_that_of_the_whole_set(tmp_path, write, train):
    spec = write(tmp_path)
    whole = load(spec, validation="test")
    *_, channels = whole.train.image_shape
    remove(tmp_path, train)
    with pytest.raises(DataError):
        load(spec, validation="test")
    alone = load_test(spec, Known(whole.train.num_classes, channels))
    assert alone.fingerprint() == whole.test.fingerprint()
    assert (alone.num_classes, alone.class_names) == (whole.test.num_classes, whole.test.class_names)
    assert load_test(spec, Known(whole.train.num_classes, channels), test_size=3).fingerprint() == (
        whole.test.head(3).fingerprint()
    )


def test_a_grey_test_part_gets_the_channels_of_the_whole_set(tmp_path):
    spec = parquet(tmp_path)
    grey = [test_data.encoded(image[..., 0]) for image in test_more_readers.PARTS["test"][0]]
    test_data.write(tmp_path / "test-00000-of-00001.parquet", grey, [0, 1, 0, 1, 0, 1])
    whole = load(spec, validation="test").test
    assert (whole.image_shape, whole.num_classes) == ((6, 5, 3), 3)
    assert load_test(spec, Known(3, 3)).fingerprint() == whole.fingerprint()
    assert load_test(spec, NOTHING).image_shape == (6, 5, 1)


def test_more_labels_than_a_checkpoint_knows_show(tmp_path):
    """As a number of classes, which the checkpoint is then compared with."""
    assert load_test(npz(tmp_path), Known(2, 3)).num_classes == 3


def test_folders_of_a_class_that_the_training_images_lack_are_refused(tmp_path):
    test_more_readers.write_folder(tmp_path)
    (tmp_path / "test" / "fox").mkdir()
    with pytest.raises(DataError, match="which differ in fox"):
        load_test(f"folder:{tmp_path}", Known(3, 3))


# What commands load


SHORT = ("--model", "tiny", "--epochs", 1, "--batch-size", 8, "--steps", 1, "--attacks", "", "--threads", 1)
QUICK = ("--attacks", "fgsm", "--checkpoint", "last", "--save-examples", "--no-audit", "--threads", 1)


def trained(tmp_path, write):
    """A run on a data set of this format; by the paper's rule, since some have no images to hold out."""
    data = tmp_path / "data"
    data.mkdir()
    run, spec = tmp_path / "run", write(data)
    said = stcli("train", "--dataset", spec, "--select", "test", *SHORT, "--out", run)
    assert said.code == 0, said.err
    return run, data


@ON_EACH
def test_evaluate_needs_no_training_images(tmp_path, write, train):
    run, data = trained(tmp_path, write)
    remove(data, train)
    said = stcli("evaluate", run, *QUICK, "--json")
    assert said.code == 0, said.err
    (about,) = run.glob("evaluations/*/last/evaluation.json")
    known = json.loads((run / "environment.json").read_text())["data"]
    assert json.loads(about.read_text())["data"] == known["test"]["sha256"]
    assert stcli("train", "--config", run / "config.toml", "--out", tmp_path / "new").code == DataError.exit_code


def test_evaluate_decodes_no_training_images(tmp_path, monkeypatch):
    run, data = trained(tmp_path, FORMATS["folder"][0])
    decoded, decode_one = [], decoding.decode_one

    def counting(where, *rest):
        decoded.append(where)
        return decode_one(where, *rest)

    monkeypatch.setattr(decoding, "decode_one", counting)
    monkeypatch.setenv("STCLI_DATA_CACHE", "off")
    assert stcli("evaluate", run, *QUICK).code == 0
    assert len(decoded) == len(test_more_readers.PARTS["test"][1])
    assert all(where.startswith(str(data / "test")) for where in decoded)
    assert stcli("train", "--config", run / "config.toml", "--out", tmp_path / "new").code == 0
    assert any(where.startswith(str(data / "train")) for where in decoded)  # so it would show


def test_each_command_sets_up_once(tmp_path, monkeypatch):
    places = ("stcore.runs.training_run", "stcore.costs.probe", "stcore.cli.evaluate")
    asked = []
    for place in places:
        pytest.importorskip(place)
        monkeypatch.setattr(
            f"{place}.set_up", lambda *given, place=place, **rest: asked.append(place) or set_up(*given, **rest)
        )
    run = tmp_path / "run"
    given = ("--train-size", 64, "--validation-size", 32, "--test-size", 32, *SHORT)
    assert stcli("train", *given, "--out", run).code == 0
    assert stcli("plan", *given, "--probe-seconds", 0.1).code == 0
    assert stcli("evaluate", run, *QUICK).code == 0
    assert asked == list(places)


def test_a_setup_loads_each_part_once_and_only_what_is_asked(monkeypatch):
    asked = []
    whole = load("digits")
    monkeypatch.setattr(preparation.data, "load", lambda *given, **rest: asked.append("all") or whole)
    monkeypatch.setattr(preparation, "load_test", lambda *given, **rest: asked.append("test") or whole.test)
    plan = make_plan({"model": "tiny"})
    setup = set_up(plan, {"num_classes": "10", "image_shape": "8x8x1"})
    assert (setup.network_shape, asked) == (((8, 8, 1), 10), [])
    assert setup.test is setup.test is whole.test
    assert asked == ["test"]
    setup = set_up(plan)
    assert (setup.selection, setup.test, len(setup.batches)) == (whole.validation, whole.test, 19)
    assert asked == ["test", "all"]
    assert set_up(plan, loaded=whole.test).test is whole.test
    assert asked == ["test", "all"]
    assert set_up(plan).test is whole.test  # grey, as the training images need not be
    assert asked == ["test", "all", "test", "all"]


def test_weights_that_say_no_shape_need_no_training_images_of_a_set_that_names_its_classes(tmp_path):
    """As the state dict of another project."""
    test_more_readers.write_folder(tmp_path)
    plan = make_plan({"model": "tiny", "dataset": f"folder:{tmp_path}", "image_size": 8})
    setup = set_up(plan)
    assert (setup.network_shape, len(setup.test)) == (((8, 8, 3), 3), 6)
    assert "splits" not in vars(setup)
    shutil.rmtree(tmp_path / "train")
    assert set_up(plan).test.fingerprint() == setup.test.fingerprint()


@pytest.mark.parametrize("metadata", [{}, {"num_classes": "10"}, {"num_classes": "x", "image_shape": "8x8x1"}])
def test_a_checkpoint_that_says_no_shape_takes_that_of_the_data(metadata):
    assert recorded_shape(metadata) is None
    setup = set_up(make_plan({"model": "tiny"}), {})
    assert setup.network_shape == ((8, 8, 1), 10)
    assert isinstance(setup.test, ImageData)


@pytest.mark.parametrize(
    ("images", "asked", "said"), [(440, (), 9), (440, ("--validation-size", 9), None), (2500, (), None)]
)
def test_a_best_epoch_chosen_on_few_images_is_said(images, asked, said, tmp_path):
    """2 % of 440 are 9: one of them more or less decides."""
    load_backend("torch")
    rng = np.random.default_rng(0)
    for part, count in (("train", images), ("test", 40)):
        pixels = rng.integers(0, 256, (count, 8, 8, 1), np.uint8)
        np.savez(tmp_path / f"{part}.npz", images=pixels, labels=np.arange(count) % 10)
    settings = {**SETTINGS, **EAGER, "dataset": f"npz:{tmp_path}", "out": tmp_path / "run"}
    del settings["validation_size"], settings["test_size"]
    run = stcli("train", *words(settings), *asked)
    assert run.code == 0, run.err
    assert (f"chosen on {said} validation images: each is 11 points" in run.out + run.err) == (said is not None)
    assert ("validation images: each" in run.out + run.err) == (said is not None)


def test_a_run_finds_its_data_from_another_folder(tmp_path, monkeypatch):
    """A relative path is relative to where the run was begun, unless there is something here."""
    load_backend("torch")
    begun, elsewhere = tmp_path / "begun", tmp_path / "elsewhere"
    begun.mkdir()
    elsewhere.mkdir()
    test_readers.write_npz(begun)
    (begun / "photos").mkdir()
    for path in begun.glob("*.npz"):
        path.rename(begun / "photos" / path.name)
    monkeypatch.chdir(begun)
    settings = {**EAGER, "dataset": "npz:photos", "model": "tiny", "epochs": 1, "out": "run", "batch_size": 8}
    assert stcli("train", *words(settings), "--max-hours", 0).code in (0, 130)
    assert stcli("train", "--resume", "run").code == 0
    monkeypatch.chdir(elsewhere)
    said = stcli("evaluate", begun / "run", "--attacks", "fgsm", "--no-audit")
    assert said.code == 0, said.err
    (begun / "photos").rename(begun / "moved")
    said = stcli("evaluate", begun / "run", "--attacks", "fgsm", "--no-audit", "--checkpoint", "best")
    assert said.code == 3
    assert "photos" in said.err


def test_weights_alone_know_the_size_of_pictures(tmp_path):
    """Pictures of several sizes are brought to the side of the network's."""
    load_backend("torch")
    pytest.importorskip("PIL")
    test_more_readers.write_folder(tmp_path / "data")
    settings = {**EAGER, "dataset": f"folder:{tmp_path / 'data'}", "model": "tiny", "epochs": 1, "batch_size": 4}
    said = stcli("train", *words(settings), "--image-size", 8, "--augment", "none", "--out", tmp_path / "run")
    assert said.code == 0, said.err
    alone = ("evaluate", tmp_path / "run" / "last.safetensors", "--dataset", f"folder:{tmp_path / 'data'}")
    said = stcli(*alone, "--attacks", "fgsm", "--epsilon", 0.1, "--no-audit")
    assert said.code == 0, said.err
