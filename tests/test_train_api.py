"""Whole runs from Python: `stcore.train`, the `Run` that it returns, and `stcore.load` of its folder."""

import dataclasses
import gc
import os
import re
import signal
import sys
import tempfile
import types
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from harness import NAMES, load
from small import EAGER, SETTINGS, contents, stcli, train

import stcore
from stcore import data, models
from stcore.api.display import NotebookBar, in_notebook, make_display
from stcore.api.objects import given_data
from stcore.api.objects import named as named_data
from stcore.base.progress import Silent
from stcore.base.weights_file import load_weights
from stcore.core.dispatch import load_backend
from stcore.data.images import LoaderData
from stcore.data.loader import LoaderBatches, to_host
from stcore.errors import DataError, DeviceError, UsageError
from stcore.runs.folder import RunFolder

ON_EACH = pytest.mark.parametrize("backend", NAMES)
SIZES = {name: SETTINGS[name] for name in ("train_size", "validation_size", "test_size")}
QUICK = {**EAGER, "epochs": 1, "batch_size": 40, "preset": "digits", "progress": False}
"""Settings of the tiny runs here; those of the digits, whatever the data are called."""
FEW = "ignore:best is chosen on"
pytestmark = pytest.mark.filterwarnings(FEW)


def splits():
    return data.load("digits", **SIZES)


def arrays(part):
    return np.asarray(part.images), part.labels


def held_out():
    """Validation and test images as arguments."""
    parts = splits()
    return {"validation": arrays(parts.validation), "test": arrays(parts.test)}


def network(backend):
    """The network that `stcli train --model tiny` begins with, as an object."""
    load(backend)
    return models.build("tiny", backend, num_classes=10, in_channels=1, image_size=(8, 8))


def loader(backend, batch_size=16, **options):
    """The training images as a torch DataLoader, shuffled, or a tf.data pipeline in order."""
    images, labels = arrays(splits().train)
    if backend == "torch":
        import torch

        pixels = torch.from_numpy(images).permute(0, 3, 1, 2) / 255
        dataset = torch.utils.data.TensorDataset(pixels, torch.from_numpy(labels))
        return torch.utils.data.DataLoader(dataset, batch_size, **{"shuffle": True, **options})
    if load("keras").engine == "jax":
        return [(images[at : at + batch_size], labels[at : at + batch_size]) for at in range(0, 64, batch_size)]
    import tensorflow as tf

    return tf.data.Dataset.from_tensor_slices((images, labels)).batch(batch_size)


def of_loader(**given):
    return {**{name: value for name, value in QUICK.items() if name != "batch_size"}, **given}


def weights(run, name="last"):
    return load_weights(run.path / f"{name}.safetensors")[0]


def assert_same(one, other):
    assert one.keys() == other.keys()
    for name, array in one.items():
        np.testing.assert_array_equal(array, other[name], err_msg=name)


def without_times(rows):
    return [
        {name: value for name, value in row.items() if name not in ("seconds", "images_per_second")}
        for row in rows
    ]


def run_of(tmp_path, backend="torch", **given):
    return stcore.train("tiny", "digits", out=tmp_path / "run", backend=backend, **{**QUICK, **SIZES, **given})


@cache
def named(backend):
    """The tiny run by names; trained once for all tests that read it."""
    load(backend)
    return run_of(Path(_folders.name) / backend, backend)


_folders = tempfile.TemporaryDirectory(prefix="stcore-tests-")


# One way through the code with the command line


@ON_EACH
def test_a_run_is_that_of_the_command_line_bit_for_bit(tmp_path, backend):
    run = named(backend)
    flags = {name: value for name, value in QUICK.items() if name not in ("progress", "preset")}
    said = train(tmp_path / "cli", backend=backend, **flags)
    assert said.code == 0, said.err
    by_command = stcore.load(tmp_path / "cli", backend=backend)
    for name in ("best", "last"):
        assert_same(weights(run, name), weights(by_command, name))
    assert without_times(run.history) == without_times(by_command.history)
    assert run.accuracies == by_command.accuracies
    assert (run.path / "config.toml").read_text() == (by_command.path / "config.toml").read_text()
    assert {path.name for path in run.path.iterdir()} == {path.name for path in by_command.path.iterdir()}


@ON_EACH
def test_objects_give_the_numbers_of_their_names(tmp_path, backend):
    """A network and a data set that are handed over train to the weights of those that are named."""
    net = network(backend)
    given = stcore.train(net, splits(), out=tmp_path / "given", **QUICK)
    assert_same(weights(named(backend)), weights(given))
    assert given.accuracies == named(backend).accuracies
    assert given.model is net
    assert_same(weights(given, "best"), models.export_weights(net))
    assert given.config["model"] == f"given:{type(net).__name__}"
    assert given.config["backend"] == backend
    images = splits().test.images
    np.testing.assert_array_equal(given.predict(images), named(backend).predict(images))


def test_settings_are_checked_by_the_same_code(tmp_path):
    with pytest.raises(UsageError, match="Did you mean 'learning_rate'"):
        run_of(tmp_path, learnin_rate=0.1)
    with pytest.raises(UsageError, match="begin_epoch"):
        run_of(tmp_path, begin_epoch=3)  # of another method
    with pytest.raises(UsageError, match="save_every"):
        run_of(tmp_path, save_every=-1)
    assert not (tmp_path / "run").exists()


def test_a_preset_keeps_its_method(tmp_path, monkeypatch):
    """Without a method the row's is taken, not squeeze training."""
    load("torch")
    plans = []
    monkeypatch.setattr("stcore.api.training.carry_out_shown", lambda plan, *rest: plans.append(plan))
    monkeypatch.setattr("stcore.api.training.finished", lambda *rest: None)
    stcore.train("tiny", "digits", preset="table1/cifar10/trades", out=tmp_path / "run")
    assert plans[0].method.name == "trades"


# Arrays


def test_arrays_are_split_as_data_sets_are(tmp_path):
    load("torch")
    x, y = arrays(splits().train)
    test = arrays(splits().test)
    run = stcore.train("tiny", (x / 255, y), validation=0.25, test=test, out=tmp_path / "run", **QUICK)
    environment = RunFolder(run.path).read_json("environment.json")["data"]
    train_part, held = data.hold_out(data.ImageData.from_arrays(x, y, 10), 0.25)
    assert environment["train"] == {"images": 48, "sha256": train_part.fingerprint()}
    assert environment["validation"] == {"images": 16, "sha256": held.fingerprint()}
    assert run.config["select"] == "val"
    assert run.result["images"] == len(test[1])


def test_without_test_images_the_result_is_of_those_the_epoch_is_chosen_on_and_says_so(tmp_path):
    load("torch")
    with pytest.warns(UserWarning, match="16 validation images that the result is of"):
        run = stcore.train("tiny", arrays(splits().train), validation=16, out=tmp_path / "run", **QUICK)
    assert run.config["select"] == "test"
    assert run.result["images"] == 16
    assert run.result["selected_on"] == "pgd20@test"


def test_a_folder_is_data_by_its_path(tmp_path):
    assert named_data(tmp_path) == named_data(str(tmp_path)) == f"folder:{tmp_path}"
    for word in ("digits", "svhn", "parquet:DIR", "nowhere"):
        assert named_data(word) == word


def test_names_and_number_of_classes_come_from_any_part():
    """Of arrays the largest label of all parts counts; ImageData says both."""
    images = np.zeros((4, 8, 8, 1), np.uint8)
    few, many = (images, [0, 1, 0, 1]), (images, [0, 1, 2, 3])
    counted = given_data(few, few, many, 0, {}).splits
    assert counted.train.num_classes == counted.validation.num_classes == 4
    said = data.ImageData.from_arrays(images, [0, 1, 2, 3], class_names=list("abcde"))
    given = given_data(few, said, None, 0, {}).splits
    assert given.train.num_classes == 5
    assert given.train.class_names == given.test.class_names == tuple("abcde")
    with pytest.raises(DataError, match=r"data: expected labels in|arrays: expected labels in \[0, 2\)"):
        given_data(many, data.ImageData.from_arrays(images, [0, 1, 0, 1]), None, 0, {})


def test_torch_tensors_are_channels_first_and_arrays_channels_last():
    torch = pytest.importorskip("torch")

    images, labels = np.random.default_rng(0).random((4, 5, 6, 3), np.float32), np.arange(4)
    given = torch.from_numpy(images).permute(0, 3, 1, 2)
    np.testing.assert_array_equal(to_host(given, torch.arange(4), "x")[0], images)
    np.testing.assert_array_equal(to_host(images, labels, "x")[0], images)
    with pytest.raises(DataError, match=r"channels first.*permute\(0, 3, 1, 2\)"):
        to_host(torch.from_numpy(images), labels, "x")
    with pytest.raises(DataError, match=r"channels last.*transpose\(0, 2, 3, 1\)"):
        to_host(given.numpy(), labels, "x")


# Loaders


@ON_EACH
def test_a_network_trains_on_a_loader_of_its_framework(tmp_path, backend):
    net = network(backend)
    run = stcore.train(net, loader(backend), out=tmp_path / "run", **held_out(), **of_loader())
    assert run.model is net
    assert run.config["batch_size"] == 16
    assert run.config["augment"] == "none"
    assert RunFolder(run.path).read_json("environment.json")["data"]["train"] == {"images": 64, "sha256": None}
    assert run.result["images"] == 32
    report = run.report(tmp_path / "report.md", examples=False).read_text()
    assert report.startswith("# run")
    assert "unknown, of a loader" in report
    call = re.search(r"^stcore\.train\(model, data, 'st', .*\)$", report, re.M)[0]
    assert "validation=…, test=…" in call
    assert "steps=1" in call
    assert not re.search("batch_size|augment|select=|given:|stcli train --", call)
    card = run.report(tmp_path / "card.md", format="card").read_text()
    assert f'stcore.load("best.safetensors", backend="{backend}", model=model)' in card


def test_a_loaders_order_is_of_the_seed_and_the_epoch(tmp_path):
    """Two runs draw the same batches, another epoch or seed others; the caller's generators stay as they are."""
    torch = pytest.importorskip("torch")
    parts = LoaderData((8, 8, 1), 10, "loader", 64)
    batches = LoaderBatches(loader("torch"), parts, 0)
    torch.manual_seed(5)
    before = torch.get_rng_state(), np.random.get_state()[1].copy()

    def order(epoch, given=batches, **options):
        return [batch.labels.tolist() for batch in given.epoch(epoch, **options)]

    first = order(1)
    torch.rand(3)
    assert order(1) == first
    assert order(1, start=2) == first[2:]
    assert order(2) != first
    assert order(1, LoaderBatches(loader("torch"), parts, 1)) != first
    torch.manual_seed(5)
    order(3)
    assert torch.equal(torch.get_rng_state(), before[0])
    np.testing.assert_array_equal(np.random.get_state()[1], before[1])
    positions = [batch.positions for batch in batches.epoch(1, start=1)]
    np.testing.assert_array_equal(np.concatenate(positions), np.arange(16, 64))


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"batch_size": 21}, "at least 2 images"),  # 64 = 3 · 21 + 1
        ({"labels": 10}, r"labels in \[0, 10\)"),
        ({"shift": 1.0}, "float images in"),
    ],
)
def test_a_batch_that_does_not_fit_is_refused(options, said):
    torch = pytest.importorskip("torch")
    images = torch.rand(64, 1, 8, 8) + options.get("shift", 0.0)
    dataset = torch.utils.data.TensorDataset(images, torch.full((64,), options.get("labels", 3)))
    source = torch.utils.data.DataLoader(dataset, options.get("batch_size", 16))
    batches = LoaderBatches(source, LoaderData((8, 8, 1), 10, "loader", 64), 0)
    with pytest.raises(DataError, match=said):
        list(batches.epoch(1))


def test_a_loader_without_a_length_is_refused(tmp_path):
    load("torch")
    batches = (pair for pair in [arrays(splits().train)])
    with pytest.raises(DataError, match="a loader with a length"):
        stcore.train("tiny", batches, out=tmp_path / "run", **held_out(), **of_loader())


# Refusals


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"validation": 0.1}, "validation: expected none"),
        ({"dataset": "svhn"}, "dataset: expected none beside data"),
        ({"callbacks": [print]}, "callbacks: expected objects with on_begin"),
        ({"resume": True, "out": None}, "out: expected the folder"),
    ],
)
def test_what_does_not_fit_a_named_data_set_is_refused(tmp_path, given, said):
    with pytest.raises(UsageError, match=said):
        stcore.train("tiny", "digits", **{"out": tmp_path / "run", **given})


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"train_size": 10}, "train_size: expected none for data that are handed over"),
        ({"select": "test"}, "select: expected test images"),
        ({"validation": "digits"}, "validation: expected .images, labels., a loader"),
        ({"backend": "keras"}, "backend: expected torch, the model's own"),
        ({"dtype": "float64"}, "dtype: expected none for a network that is handed over"),
    ],
)
def test_what_does_not_fit_objects_is_refused(tmp_path, given, said):
    with pytest.raises(UsageError, match=said):
        stcore.train(network("torch"), arrays(splits().train), out=tmp_path / "run", **given)
    assert not (tmp_path / "run").exists()


def test_what_keras_takes_before_a_network_is_made_is_refused(tmp_path):
    for name, value in (("device", "cpu"), ("replicas", 1), ("threads", 1)):
        with pytest.raises(UsageError, match=f"{name}: expected none for a network that is handed over"):
            stcore.train(network("keras"), splits(), out=tmp_path / "run", **{name: value})


def test_a_device_is_not_chosen_after_tensorflows_first_tensor(monkeypatch):
    if load("keras").engine != "tensorflow":
        return  # JAX chooses a device at any time
    import tensorflow as tf

    def refused(devices, kind):
        raise RuntimeError("Visible devices cannot be modified after being initialized")

    monkeypatch.setattr(tf.config, "set_visible_devices", refused)
    with pytest.raises(DeviceError, match="CUDA_VISIBLE_DEVICES"):
        load_backend("keras").use_device("cpu")


def test_what_a_loader_decides_itself_is_refused(tmp_path):
    net, source = network("torch"), loader("torch")
    for given, said in [
        ({"batch_size": 8}, "batch_size: expected none for a loader"),
        ({"augment": "crop-flip"}, "augment: expected none for a loader"),
        ({"validation": 0.1}, "validation: expected .images, labels. or another loader"),
        ({}, "validation: expected .images, labels. or another loader"),
    ]:
        with pytest.raises(UsageError, match=said):
            stcore.train(net, source, out=tmp_path / "run", **given)


@pytest.mark.parametrize("strange", [{"x": 1}, 5, np.zeros((4, 8, 8, 1), np.uint8)])
def test_other_data_are_refused(strange):
    with pytest.raises(UsageError, match="data: expected a data set's name"):
        stcore.train("tiny", strange)


# Resuming


class PressesCtrlC(Silent):
    """Ctrl-C at the `at`-th advance of the first epoch."""

    def __init__(self, at):
        self._at = at

    def begin(self, label, total, unit="images"):
        self._training = label.startswith("epoch")

    def advance(self, amount, note=""):
        self._at -= self._training
        if self._at == 0:
            gc.disable()  # an exception raised within a collector's callback would be swallowed
            os.kill(os.getpid(), signal.SIGINT)
            gc.enable()


def on_loader(tmp_path, name="run", **given):
    """A run of a network on a shuffled DataLoader, both handed over."""
    options = {**held_out(), **of_loader(epochs=2), **given}
    return stcore.train(network("torch"), loader("torch"), out=tmp_path / name, **options)


def test_an_interrupted_run_resumes_to_the_same_weights(tmp_path):
    """Within an epoch, of a shuffled DataLoader: by the run itself, and as from another session."""
    whole = on_loader(tmp_path, "whole")
    for name in ("run", "session"):
        run = on_loader(tmp_path, name, progress=PressesCtrlC(3))
        assert run.result is None
        assert run.accuracies == {}
        assert run.model is None
        assert "unfinished after 0 epochs" in repr(run)
        resumed = run.resume(progress=False) if name == "run" else on_loader(tmp_path, name, resume=True)
        assert_same(weights(resumed), weights(whole))
        assert without_times(resumed.history) == without_times(whole.history)
        assert resumed.accuracies == whole.accuracies
        before = contents(resumed.path)
        assert resumed.resume() is resumed
        assert on_loader(tmp_path, name, resume=True).accuracies == whole.accuracies  # finished: nothing to do
        assert contents(resumed.path) == before


def test_a_named_run_resumes_from_its_folder(tmp_path):
    load("torch")
    run_of(tmp_path, progress=PressesCtrlC(1))
    run = stcore.load(tmp_path / "run")
    assert run.result is None
    with pytest.raises(UsageError, match="expected a network"):
        run.predict(splits().test.images)
    assert_same(weights(run.resume(progress=False)), weights(named("torch")))


def test_what_differs_from_the_run_is_refused(tmp_path):
    on_loader(tmp_path, progress=PressesCtrlC(3))
    with pytest.raises(UsageError, match=r"resume: expected learning_rate = 0\.1, with which"):
        on_loader(tmp_path, resume=True, learning_rate=0.2)
    parts = held_out()
    other = parts["validation"][0][::-1], parts["validation"][1]
    with pytest.raises(DataError, match=r"resume: expected the validation data.*hand over the same images"):
        on_loader(tmp_path, resume=True, validation=other)
    import torch

    linear, options = torch.nn.Linear(1, 1), {"out": tmp_path / "run", "resume": True, **of_loader(epochs=2)}
    with pytest.raises(UsageError, match="resume: expected model = given:Sequential"):
        stcore.train(linear, loader("torch"), **held_out(), **options)
    with pytest.raises(UsageError, match=r"resume: expected the network that .* Give it again: stcore\.train"):
        stcore.load(tmp_path / "run").resume()
    assert on_loader(tmp_path, "new", resume=True, epochs=1).result  # resume begins what is not there


# Folders of runs whose network was handed over


def test_a_given_network_gets_its_weights_by_load(tmp_path):
    net = network("torch")
    run = stcore.train(net, splits(), out=tmp_path / "run", **QUICK)
    images = splits().test.images
    opened = stcore.load(run.path)
    assert opened.model is None
    assert opened.class_names == run.class_names == tuple("0123456789")
    assert opened.history == run.history
    with pytest.raises(UsageError, match=r"give it again, by stcore\.load"):
        opened.predict(images)
    again = models.build("tiny", "torch", num_classes=10, in_channels=1, image_size=(8, 8), seed=3)
    loaded = stcore.load(run.path, model=again)
    assert loaded.model is again
    np.testing.assert_array_equal(loaded.predict(images), run.predict(images))
    with pytest.raises(UsageError, match=r"dataset: digits were handed to stcore\.train"):
        loaded.evaluate()
    scores = run.evaluate(attacks=["fgsm"], audit=False)
    assert scores == run.accuracies["best"]
    with pytest.raises(UsageError, match=r"model: .* is of given:Sequential; received given:Linear"):
        stcore.load(run.path, model=__import__("torch").nn.Linear(1, 1))


def test_the_command_line_says_what_to_do_with_a_given_network(tmp_path):
    run = stcore.train(network("torch"), splits(), out=tmp_path / "run", **QUICK)
    (run.path / "result.json").unlink()
    for words in (["evaluate", run.path, "--attacks", "fgsm"], ["train", "--resume", run.path]):
        said = stcli(*words)
        assert said.code == 2
        assert "Sequential was handed to stcore.train as an object" in said.err
    assert "No examples: they could not be computed" in run.report(tmp_path / "run.md").read_text()


def test_preprocess_gives_what_the_model_takes():
    run, images = named("torch"), splits().test.images[:3]
    pixels = run.preprocess(images)
    assert tuple(pixels.shape) == (3, 1, 8, 8)
    np.testing.assert_allclose(pixels.numpy()[:, 0], images[..., 0] / 255, atol=1e-7)


# Callbacks


def test_callbacks_are_called_at_their_places(tmp_path):
    calls = []

    class Recorder(stcore.Callback):
        def on_begin(self, run):
            calls.append(("begin", run.path, run.config["epochs"]))

        def on_epoch(self, row):
            calls.append(("epoch", row["epoch"], "pgd20_accuracy" in row))

        def on_step(self, step, metrics):
            assert np.isfinite(metrics["loss"])
            calls.append(("step", step))

        def on_end(self, result):
            calls.append(("end", result["best_epoch"] in (1, 2)))

    class Nothing(stcore.Callback):
        """Its methods are those of the class: they do nothing."""

    load("torch")
    run = run_of(tmp_path, epochs=2, batch_size=3, callbacks=[Recorder(), Nothing()])  # 21 steps an epoch
    assert calls == [
        ("begin", run.path, 2),
        *[("step", 10), ("step", 20), ("epoch", 1, True)],
        *[("step", 31), ("step", 41), ("epoch", 2, True)],
        ("end", True),
    ]


# What is shown


def test_a_run_shows_its_accuracies(tmp_path):
    run = named("torch")
    score = run.accuracies["best"]["fgsm"]
    assert f"{100 * score.value:.2f}" in repr(run)
    shown = run._repr_html_()
    assert shown.count("<tr>") == 3  # a head, best and last
    assert f"<td>{100 * score.value:.2f} [" in shown
    evaluated = run.evaluate(attacks=["fgsm"], audit=True)
    assert evaluated.doubts
    assert "<th>fgsm %</th>" in evaluated._repr_html_()
    assert evaluated.doubts[0].check in evaluated._repr_html_()
    unfinished = dataclasses.replace(run, path=tmp_path)
    assert unfinished._repr_html_().startswith("<p>Run ")


def test_the_lines_of_the_command_line_are_printed_or_not(tmp_path, capsys):
    run_of(tmp_path, progress=True)
    said = capsys.readouterr().out
    assert f"→ {tmp_path / 'run'}" in said
    assert "epoch   1/1  loss" in said
    run_of(tmp_path / "quiet")
    assert capsys.readouterr() == ("", "")


def test_a_notebooks_bar_is_updated_in_place(monkeypatch):
    pytest.importorskip("IPython")
    shown = []
    handle = types.SimpleNamespace(update=lambda html: shown.append(html.data))

    def display(html, display_id):
        shown.append(html.data)
        return handle

    monkeypatch.setattr("IPython.display.display", display)
    monkeypatch.setattr("stcore.api.display.REFRESH", 0.0)
    bar = NotebookBar()
    bar.begin("epoch <1>", 64)
    bar.advance(16)
    bar.end()
    assert 'value="0"' in shown[0]
    assert 'max="64" value="16"' in shown[1]
    assert "epoch &lt;1&gt;: 16/64 images, 0 s left" in shown[1]
    assert shown[2] == ""


def test_a_notebook_is_known_by_its_kernel(monkeypatch):
    assert not in_notebook()
    for config, expected in (({}, False), ({"IPKernelApp": {}}, True)):
        shell = types.SimpleNamespace(config=config)
        monkeypatch.setitem(sys.modules, "IPython", types.SimpleNamespace(get_ipython=lambda shell=shell: shell))
        assert in_notebook() is expected
        assert isinstance(make_display(True)[0], NotebookBar) is expected


@pytest.mark.slow  # a kernel of its own with a framework: ten seconds
def test_a_cell_shows_progress_and_a_table(tmp_path):
    nbformat, nbclient = pytest.importorskip("nbformat"), pytest.importorskip("nbclient")
    settings = {**QUICK, **SIZES, "progress": True, "out": str(tmp_path / "run")}
    cells = [nbformat.v4.new_code_cell(f"import stcore\nstcore.train('tiny', 'digits', **{settings!r})")]
    page = nbformat.v4.new_notebook(cells=cells)
    client = nbclient.NotebookClient(page, timeout=300, resources={"metadata": {"path": str(tmp_path)}})
    shown = []
    client.on_comm_open_jupyter_widget = None
    client.on_cell_executed = lambda **said: shown.extend(said["cell"].outputs)
    client.execute()
    kinds = [output.output_type for output in shown]
    assert "display_data" in kinds  # the bar
    assert "<th>fgsm %</th>" in next(it for it in shown if it.output_type == "execute_result").data["text/html"]


# Optimizers


@ON_EACH
def test_adamw_trains_by_its_name_with_its_own_defaults(tmp_path, backend):
    load(backend)
    run = run_of(
        tmp_path, backend, optimizer="adamw", warmup=0.5, clip_norm=1.0, layer_decay=0.5, freeze=["conv*"]
    )
    config = run.config
    assert (config["optimizer"], config["learning_rate"], config["weight_decay"]) == ("adamw", 1e-3, 0.05)
    assert tuple(config["betas"]) == (0.9, 0.999)
    assert config.get("momentum") is None
    started, ended = models.export_weights(network(backend)), weights(run)
    stayed = {name for name, array in started.items() if np.array_equal(array, ended[name])}
    assert stayed == {name for name in started if name.startswith("conv")}


@ON_EACH
def test_an_optimizer_that_is_handed_over_is_that_of_the_options(tmp_path, backend):
    """And has its own rate again afterwards; a report says what it was."""
    load(backend)
    settings = {"momentum": 0.8, "weight_decay": 1e-3, "nesterov": True}
    model = network(backend)
    if backend == "torch":
        import torch

        given = torch.optim.SGD(model.parameters(), lr=0.05, foreach=True, **settings)
        rate = lambda: given.param_groups[0]["lr"]  # noqa: E731
    else:
        from stcore.backends.keras import TorchSGD

        given = TorchSGD(0.05, **settings)
        rate = lambda: float(given.learning_rate)  # noqa: E731
    rest = {**QUICK, **held_out(), "schedule": "one-cycle"}
    run = stcore.train(model, arrays(splits().train), out=tmp_path / "given", optimizer=given, **rest)
    assert rate() == pytest.approx(0.05)
    named = stcore.train(
        network(backend), arrays(splits().train), out=tmp_path / "named", learning_rate=0.05, **settings, **rest
    )
    assert_same(weights(run), weights(named))
    assert run.config["optimizer"] == f"given:{type(given).__name__}"
    page = run.report(tmp_path / "report.md").read_text()
    assert f"of {type(given).__name__} with batches" in page
    assert "optimizer=optimizer" in page
    with pytest.raises(UsageError, match="learning_rate: expected none beside an optimizer"):
        stcore.train(model, arrays(splits().train), optimizer=given, learning_rate=0.1, **rest)
    with pytest.raises(UsageError, match=r"weight_decay: expected none with optimizer = given:"):
        stcore.train(model, arrays(splits().train), optimizer=given, weight_decay=0.1, **rest)
    with pytest.raises(UsageError, match="optimizer: expected a name, such as adamw, for a network by name"):
        stcore.train("tiny", "digits", optimizer=given)
    with pytest.raises(UsageError, match="optimizer: expected a name or a"):
        stcore.train(model, arrays(splits().train), optimizer=object(), **rest)


def test_an_optimizer_of_other_weights_and_a_schedule_inside_one_are_refused():
    torch, keras = load("torch") and pytest.importorskip("torch"), load("keras") and pytest.importorskip("keras")
    with pytest.raises(UsageError, match="expected one of the model's weights"):
        stcore.train(network("torch"), "digits", optimizer=torch.optim.Adam(network("torch").parameters()))
    decaying = keras.optimizers.Adam(keras.optimizers.schedules.ExponentialDecay(0.1, 10, 0.9))
    with pytest.raises(UsageError, match="expected a number as its learning rate; received a schedule"):
        stcore.train(network("keras"), "digits", optimizer=decaying)


@ON_EACH
def test_a_resumed_adamw_run_is_that_without_a_break(tmp_path, backend):
    load(backend)
    given = {"optimizer": "adamw", "warmup": 1, "epochs": 3, "clip_norm": 0.5}
    whole = run_of(tmp_path / "whole", backend, **given)
    part = run_of(tmp_path / "part", backend, **given, progress=PressesCtrlC(3))
    assert part.result is None
    assert_same(weights(part.resume(progress=False)), weights(whole))


def test_a_keras_network_that_is_not_built_is(tmp_path):
    """For the images that are handed over: then it trains as the one that was."""
    load("keras")
    import keras

    def layers():
        return [
            keras.layers.Flatten(),
            keras.layers.Dense(10, kernel_initializer=keras.initializers.GlorotUniform(1)),
        ]

    built, unbuilt = keras.Sequential([keras.Input((8, 8, 1)), *layers()]), keras.Sequential(layers())
    for name, net in (("built", built), ("unbuilt", unbuilt)):
        stcore.train(net, splits(), "at", out=tmp_path / name, **QUICK)
    for one, other in zip(built.get_weights(), unbuilt.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)
    with pytest.raises(UsageError, match=r"expected a built keras\.Model"):
        stcore.train(keras.Sequential(layers()), "digits", out=tmp_path / "named")
