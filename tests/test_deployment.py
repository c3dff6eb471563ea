"""Networks as files of other programs: each target's numbers, its metadata, and what is refused."""

import json
import subprocess
import sys
import tempfile
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from harness import NAMES, lively_weights, load, needs_timm
from small import stcli, trained

import stcore
from stcore import models
from stcore.api.loading import LoadedNetwork
from stcore.base.weights_file import save_weights
from stcore.errors import UsageError
from stcore.export import TARGETS, Description
from stcore.export.description import FILE

CLASSES = ("cat", "dog", "Käfer", "tree")
NORMALIZE = "0.4,0.5,0.6/0.2,0.3,0.25"
SHAPE = (8, 12, 3)
COMPUTING = [
    ("torch", "onnx", "inside"),
    ("torch", "onnx", "beside"),
    ("torch", "torch-export", "beside"),
    ("torch", "savedmodel", "beside"),  # by its twin
    ("torch", "tflite", "beside"),
    ("keras", "onnx", "beside"),
    ("keras", "torch-export", "inside"),
    ("keras", "savedmodel", "inside"),
    ("keras", "tflite", "inside"),
]
_folders = tempfile.TemporaryDirectory(prefix="stcore-tests-")


def images(count=20):
    return np.random.default_rng(1).integers(0, 256, (count, *SHAPE), np.uint8)


@cache
def weights():
    """A weights file of a normalised network of coloured images that are not square."""
    path = Path(_folders.name) / "net.safetensors"
    arrays = {name: array.astype("float32") for name, array in lively_weights("tiny", classes=4).items()}
    metadata = {
        "stcore": "0.1.0",
        "model": "tiny",
        "num_classes": 4,
        "image_shape": "x".join(map(str, SHAPE)),
        "normalize": NORMALIZE,
        "class_names": json.dumps(CLASSES),
    }
    save_weights(path, arrays, metadata)
    return path


@cache
def network(backend):
    load(backend)
    return stcore.load(weights(), backend=backend)


@cache
def exported(backend, target, preprocessing=None):
    """What an export made, with its folder; made once for all tests."""
    needs(backend, target)
    out = Path(_folders.name) / f"{backend}-{target}-{preprocessing}"
    return network(backend).export(target, out, preprocessing=preprocessing, images=images())


def needs(backend, target):
    """Skips where a package that the target needs is not installed."""
    for name in {backend, *TARGETS[target].backends} if target != "onnx" else [backend]:
        load(name)
    if target == "onnx":
        for name in ("onnx", "onnxruntime", "onnxscript" if backend == "torch" else "tf2onnx"):
            pytest.importorskip(name, reason=f"{name} is not installed")
        if load(backend).engine == "jax":
            pytest.skip("on JAX the ONNX of a Keras network is refused")


@pytest.mark.parametrize(("backend", "target", "preprocessing"), COMPUTING)
def test_an_artefact_has_the_networks_numbers_and_says_what_it_takes(backend, target, preprocessing):
    found = exported(backend, target, preprocessing)
    assert (found.images, found.same) == (20, 20)
    assert 0 <= found.difference < 1e-5
    content = json.loads((found.path / FILE).read_text())
    assert content["class_names"] == list(CLASSES)
    assert (content["size"], content["mode"], content["resize"]) == ([8, 12], "RGB", "centre crop, bicubic")
    assert (content["mean"], content["std"]) == ([0.4, 0.5, 0.6], [0.2, 0.3, 0.25])
    floats = ("float32", "NCHW" if set(TARGETS[target].backends) == {"torch"} else content["layout"])
    assert (content["dtype"], content["layout"]) == (("uint8", "NHWC") if preprocessing == "inside" else floats)


@pytest.mark.parametrize("backend", NAMES)
def test_a_state_dict_is_the_networks_own(backend):
    load("torch")
    import torch

    path = exported(backend, "state-dict").path / "model.pth"
    plain = models.build("tiny", "torch", num_classes=4, image_size=SHAPE[:2]).eval()
    plain.load_state_dict(torch.load(path, weights_only=True))  # counters of batch norm too
    with torch.no_grad():
        pixels = Description.read(path.parent).prepare(images())
        logits = plain(torch.from_numpy(pixels)).numpy()
    np.testing.assert_allclose(logits, network(backend).logits(images()), atol=1e-5)


ALONE = """
import json, sys
from pathlib import Path
class Blocked:
    def find_spec(self, name, *_):
        if name.split(".")[0] == "stcore":
            raise ImportError(name)
sys.meta_path.insert(0, Blocked())
import numpy as np
folder, images = Path(sys.argv[1]), np.load(sys.argv[2])
content = json.loads((folder / "preprocessing.json").read_text())
def prepared(content):
    if content["preprocessing"] == "inside":
        return images
    pixels = (images / 255 - np.array(content["mean"])) / np.array(content["std"])
    return np.ascontiguousarray(pixels.transpose(0, 3, 1, 2) if content["layout"] == "NCHW" else pixels, "float32")
{body}
np.save(sys.argv[3], np.concatenate([run(prepared(content)) for content in (content,)]))
assert not any(name.split(".")[0] in {never} for name in sys.modules)
"""
ONNX = """
import onnxruntime
session = onnxruntime.InferenceSession(folder / "model.onnx")
content = {name: json.loads(text) for name, text in session.get_modelmeta().custom_metadata_map.items()}
def run(pixels):
    return session.run(None, {session.get_inputs()[0].name: pixels})[0]
"""
PROGRAM = """
import torch
extra = {"preprocessing.json": ""}
program = torch.export.load(folder / "model.pt2", extra_files=extra).module()
content = json.loads(extra["preprocessing.json"])
def run(pixels):
    with torch.no_grad():
        return program(torch.from_numpy(pixels)).numpy()
"""
TENSORFLOW = """
import tensorflow as tf
if (folder / "model.tflite").exists():
    interpreter = tf.lite.Interpreter(model_path=str(folder / "model.tflite"))
    def run(pixels):
        interpreter.resize_tensor_input(interpreter.get_input_details()[0]["index"], pixels.shape)
        interpreter.allocate_tensors()
        interpreter.set_tensor(interpreter.get_input_details()[0]["index"], pixels)
        interpreter.invoke()
        return interpreter.get_tensor(interpreter.get_output_details()[0]["index"])
else:
    saved = tf.saved_model.load(str(folder))
    def run(pixels):
        return saved.signatures["serving_default"](**{
            name: tf.constant(pixels) for name in saved.signatures["serving_default"].structured_input_signature[1]
        })["output_0"].numpy()
"""
BY_ITSELF = [
    pytest.param("torch", "onnx", "inside", ONNX, ("torch", "keras", "tensorflow"), id="onnx"),
    pytest.param("keras", "onnx", "beside", ONNX, ("torch", "keras", "tensorflow"), id="onnx of keras"),
    # importing torch and its exporter anew takes 4 s of processor time, TensorFlow 5 s
    pytest.param(
        "torch", "torch-export", "beside", PROGRAM, ("keras", "onnx"), id="torch", marks=pytest.mark.slow
    ),
    pytest.param("keras", "savedmodel", "inside", TENSORFLOW, ("torch",), id="saved", marks=pytest.mark.slow),
    pytest.param("torch", "tflite", "beside", TENSORFLOW, ("torch",), id="tflite", marks=pytest.mark.slow),
]


@pytest.mark.parametrize(("backend", "target", "preprocessing", "body", "never"), BY_ITSELF)
def test_an_artefact_needs_its_own_program_alone(tmp_path, backend, target, preprocessing, body, never):
    np.save(tmp_path / "images.npy", images())
    folder = exported(backend, target, preprocessing).path
    script = ALONE.replace("{body}", body).replace("{never}", repr(("stcore", *never)))
    args = [folder, tmp_path / "images.npy", tmp_path / "logits.npy"]
    subprocess.run([sys.executable, "-c", script, *args], check=True, cwd=tmp_path)
    np.testing.assert_allclose(np.load(args[2]), network(backend).logits(images()), atol=1e-4)


# By the command line, from a run


@pytest.mark.parametrize("backend", NAMES)
def test_a_run_is_compared_on_its_test_split(tmp_path, backend):
    run = trained(backend).path
    said = stcli("export", "state-dict", run, "--out", tmp_path / "out")
    assert (said.code, said.err) == (0, ""), said.err
    assert "32 of 32 images of the test split in the same class, logits within" in said.out
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["model.pth", FILE]


def test_a_photo_can_be_what_it_is_compared_on(tmp_path):
    pillow = pytest.importorskip("PIL.Image")
    pillow.new("RGB", (40, 30), "red").save(tmp_path / "one.png")
    load("torch")
    said = stcli("export", "hub", weights(), "--out", tmp_path / "out", "--images", tmp_path / "one.png")
    assert said.code == 0, said.err
    assert "1 of 1 images given" in said.out


def test_without_data_images_are_random_and_that_is_said(tmp_path):
    load("torch")
    said = stcli("export", "state-dict", weights(), "--out", tmp_path / "out", "--backend", "torch")
    assert said.code == 0, said.err
    assert "100 of 100 random images: its data are not here" in said.out


# What is refused, and leaves nothing


def own(model, backend):
    """A network of a user's own, which has no twin."""
    metadata = {"model": models.name_of(model), "num_classes": "4", "image_shape": "8x12x3", "backend": backend}
    return LoadedNetwork(model, {}, metadata)


def torch_network(forward):
    load("torch")
    import torch

    class Own(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.linear = torch.nn.Linear(3, 4)

        def forward(self, x):
            return self.linear(forward(x))

    return own(Own().eval(), "torch")


def keras_network():
    load("keras")
    import keras

    pixels = keras.Input((8, 12, 3))
    return own(keras.Model(pixels, keras.layers.Dense(4)(keras.layers.GlobalAveragePooling2D()(pixels))), "keras")


def refused(tmp_path, net, target, match, **options):
    with pytest.raises(UsageError, match=match):
        net.export(target, tmp_path / "out", images=images(), **options)
    assert list(tmp_path.iterdir()) == []


def test_a_network_without_a_twin_goes_to_its_frameworks_targets(tmp_path):
    net = torch_network(lambda x: x.mean((2, 3)))
    refused(
        tmp_path, net, "tflite", "given:Own is in torch and has no twin there. Its targets are onnx, torch-export"
    )
    assert net.export("torch-export", tmp_path / "out", images=images()).same == 20
    assert net.export("state-dict", tmp_path / "other", images=images()).same == 20


@pytest.mark.parametrize("name", ["test_vit", "test_resnet"])
def test_networks_of_timm_are_exported(name, tmp_path):
    load("torch")
    needs_timm()
    needs("torch", "onnx")
    model = models.build(f"timm:{name}", "torch", num_classes=4, in_channels=3, image_size=(32, 32), seed=0)
    about = {"model": f"timm:{name}", "num_classes": "4", "image_shape": "32x32x3", "backend": "torch"}
    net = LoadedNetwork(model.eval(), {}, about)
    pictures = np.random.default_rng(1).integers(0, 256, (100, 32, 32, 3), np.uint8)
    for target in ("onnx", "torch-export", "state-dict"):
        assert net.export(target, tmp_path / target, images=pictures).same == 100


def test_a_keras_network_without_a_twin_goes_to_its_frameworks_targets(tmp_path):
    net = keras_network()
    refused(tmp_path, net, "torch-export", "Its targets are onnx, savedmodel, tflite, hub")
    needs("keras", "onnx")
    for target in ("onnx", "savedmodel"):
        assert net.export(target, tmp_path / target, images=images()).same == 20


def test_a_network_that_cannot_be_traced_is_refused(tmp_path):
    net = torch_network(lambda x: x.mean((2, 3)) if float(x.sum()) > 1 else x.amax((2, 3)))
    refused(tmp_path, net, "torch-export", "expected a network that torch can trace, without steps that depend")


@pytest.mark.parametrize("factor", [1.5, np.nan])
def test_an_artefact_with_other_numbers_is_refused(tmp_path, monkeypatch, factor):
    load("torch")
    import torch

    from stcore.backends.torch import export

    def wrong(model, path, *rest):
        torch.save({name: tensor * factor for name, tensor in model.state_dict().items()}, path)

    monkeypatch.setattr(export, "WRITE", {**export.WRITE, "state-dict": wrong})
    refused(tmp_path, network("torch"), "state-dict", "expected the logits of the network on 20 images; received")


def test_nothing_is_left_of_an_export_that_breaks_off(tmp_path, monkeypatch):
    load("torch")
    from stcore.backends.torch import export

    def full(model, path, *rest):
        path.write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(export, "WRITE", {**export.WRITE, "state-dict": full})
    refused(tmp_path, network("torch"), "state-dict", r"model.pth cannot be written \(No space left on device\)")


def test_images_may_be_floats(tmp_path):
    found = network("torch").export("state-dict", tmp_path / "out", images=images() / 255)
    assert (found.images, found.same) == (20, 20)


def test_what_is_there_is_not_overwritten(tmp_path):
    (tmp_path / "mine").write_text("mine")
    with pytest.raises(UsageError, match="expected a new or empty folder"):
        network("torch").export("state-dict", tmp_path, images=images())
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]


def test_other_words_are_refused(tmp_path):
    net = network("torch")
    refused(tmp_path, net, "onxn", "target: expected one of onnx.*Did you mean 'onnx'")
    refused(tmp_path, net, "onnx", "preprocessing: expected one of inside, beside", preprocessing="within")
    refused(tmp_path, net, "hub", "preprocessing: expected one of beside", preprocessing="inside")
