"""Weights of other programs: state dicts and Keras' files, into networks that their users hand over."""

import numpy as np
import pytest
from harness import load
from small import stcli, train
from test_deployment import CLASSES, NORMALIZE, SHAPE, images, network, weights

import stcore
from stcore import models
from stcore.base.weights_file import load_weights
from stcore.errors import UsageError
from stcore.models.weights_files import read_weights


@pytest.fixture
def torch():
    load("torch")
    import torch

    return torch


@pytest.fixture
def keras():
    load("keras")
    import keras

    return keras


def tiny(backend, seed=1):
    return models.build("tiny", backend, num_classes=4, image_size=SHAPE[:2], normalize=NORMALIZE, seed=seed)


def lively(backend):
    """The network of `weights()` as an object."""
    model = tiny(backend)
    models.load_weights(model, load_weights(weights())[0])
    return model.eval() if backend == "torch" else model


@pytest.mark.parametrize("suffix", ["pth", "safetensors"])
def test_a_networks_own_state_dict_loads(tmp_path, torch, suffix):
    state, path = lively("torch").state_dict(), tmp_path / f"own.{suffix}"
    assert any(name.endswith("num_batches_tracked") for name in state)
    if suffix == "pth":
        torch.save(state, path)
    else:
        from safetensors.torch import save_file

        save_file(state, path)
    net = stcore.load(path, model=tiny("torch"), image_shape=SHAPE, class_names=CLASSES)
    np.testing.assert_allclose(net.logits(images()), network("torch").logits(images()), rtol=1e-6)
    assert (net.class_names, net.image_shape) == (CLASSES, SHAPE)
    assert not net.model.training
    assert net.export("state-dict", tmp_path / "out", images=images()).same == 20


def test_a_released_state_dict_loads_by_name_in_either_framework(tmp_path, torch):
    torch.save({"state_dict": lively("torch").state_dict()}, tmp_path / "released.pth")
    for backend in ("torch", "keras"):
        load(backend)
        net = stcore.load(tmp_path / "released.pth", model="tiny", backend=backend, image_shape=SHAPE)
        assert net.metadata["num_classes"] == "4"
        found = models.export_weights(net.model)
        np.testing.assert_array_equal(found["conv1.weight"], load_weights(weights())[0]["conv1.weight"])


def test_a_networks_images_are_asked_for_where_nobody_knows_them(tmp_path, torch):
    torch.save(lively("torch").state_dict(), tmp_path / "own.pth")
    net = stcore.load(tmp_path / "own.pth", model=tiny("torch"))
    with pytest.raises(UsageError, match=r"image_shape: expected that of the images of given:Sequential"):
        net.predict(images())
    with pytest.raises(UsageError, match=r"image_shape: expected \(H, W, C\) that the network takes"):
        stcore.load(tmp_path / "own.pth", model=tiny("torch"), image_shape=(8, 12, 5))
    with pytest.raises(UsageError, match="class_names: expected 4, one per class; received 2"):
        stcore.load(tmp_path / "own.pth", model=tiny("torch"), image_shape=SHAPE, class_names=("a", "b"))


@pytest.mark.parametrize("suffix", ["weights.h5", "keras", "h5"])
def test_keras_own_files_load_into_a_network(tmp_path, keras, suffix):
    path, model = tmp_path / f"own.{suffix}", lively("keras")
    if suffix == "weights.h5":
        model.save_weights(path)
    else:
        model.save(path)
    other = tiny("keras")
    net = stcore.load(path, model=other, class_names=CLASSES)
    assert net.model is other
    np.testing.assert_array_equal(net.logits(images()), network("keras").logits(images()))
    assert net.image_shape == SHAPE  # the network says it


def test_a_keras_file_holds_its_network(tmp_path, keras):
    lively("keras").save(tmp_path / "own.keras")
    net = stcore.load(tmp_path / "own.keras")
    np.testing.assert_array_equal(net.logits(images()), network("keras").logits(images()))


def test_a_keras_file_that_would_run_code_is_refused(tmp_path, keras):
    pixels = keras.Input(SHAPE)
    keras.Model(pixels, keras.layers.Lambda(lambda x: x * 2)(pixels)).save(tmp_path / "own.keras")
    with pytest.raises(UsageError, match=r"expected a \.keras file of Keras' own layers"):
        stcore.load(tmp_path / "own.keras")


def test_other_layers_are_refused_and_change_nothing(tmp_path, keras):
    keras.Sequential([keras.Input(SHAPE), keras.layers.Dense(3)]).save_weights(tmp_path / "own.weights.h5")
    model = lively("keras")
    before = models.export_weights(model)
    with pytest.raises(UsageError, match=r"expected those of the layers of tiny; .*does not fit"):
        stcore.load(tmp_path / "own.weights.h5", model=model)
    for name, array in models.export_weights(model).items():
        np.testing.assert_array_equal(array, before[name])


def test_a_file_of_some_of_the_layers_is_refused(tmp_path, keras):
    import h5py

    model, path = lively("keras"), tmp_path / "own.weights.h5"
    model.save_weights(path)
    with h5py.File(path, "a") as file:
        del file["layers/dense"]
    with pytest.raises(UsageError, match="does not fit"):
        stcore.load(path, model=model)


def test_a_run_starts_from_a_file_of_keras(tmp_path, keras):
    start = models.build("tiny", "keras", num_classes=10, in_channels=1, image_size=(8, 8), seed=7)
    start.save_weights(tmp_path / "start.weights.h5")
    quick = {"backend": "keras", "compile": "off", "method": "standard", "attacks": "fgsm", "learning_rate": 1e-30}
    said = train(tmp_path / "run", init_weights=tmp_path / "start.weights.h5", weight_decay=0, **quick)
    assert said.code == 0, said.err
    found, _ = load_weights(tmp_path / "run" / "last.safetensors")
    np.testing.assert_allclose(found["conv1.weight"], models.export_weights(start)["conv1.weight"], rtol=1e-6)


def test_a_file_that_names_no_network_is_refused(tmp_path, torch):
    torch.save(lively("torch").state_dict(), tmp_path / "own.pth")
    (tmp_path / "own.weights.h5").write_bytes(b"junk")
    with pytest.raises(UsageError, match=r"own\.pth does not say which network its weights are of"):
        stcore.load(tmp_path / "own.pth")
    with pytest.raises(UsageError, match=r"own\.weights\.h5, which holds weights alone"):
        stcore.load(tmp_path / "own.weights.h5")
    with pytest.raises(UsageError, match=r"expected the network itself for .*; received timm:resnet18"):
        stcore.load(tmp_path / "own.pth", model="timm:resnet18")
    with pytest.raises(UsageError, match="expected a network in Keras"):
        read_weights(tmp_path / "own.weights.h5", tiny("torch"))
    with pytest.raises(UsageError, match="image_shape, class_names: expected neither"):
        stcore.load(weights(), class_names=CLASSES)
    said = stcli("evaluate", tmp_path / "own.weights.h5", "--dataset", "digits")
    assert (said.code, "--backend keras --init-weights" in said.err) == (2, True)
