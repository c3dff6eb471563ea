"""BPDA: a quantised network that gradient attacks leave standing, and that falls once its layer is named."""

import numpy as np
import pytest
from harness import load
from small import train
from test_cli_evaluate import evaluate

import stcore
from stcore.attacks import bpda
from stcore.errors import UsageError

LEVELS = 8
EPSILON = 0.07  # a little more than half a level: a pixel reaches the next


def quantised(backend):
    """Two classes, by ⟨w, q(x) − 1/2⟩ + 5 with w = ±1 and q(x) = round(8x)/8."""
    weight = np.random.default_rng(1).choice([-1.0, 1.0], size=(64, 1)) * [-0.5, 0.5]
    bias = np.array([-2.5, 2.5]) - 0.5 * weight.sum(axis=0)
    if backend.name == "torch":
        import torch

        class Quantise(torch.nn.Module):
            def forward(self, x):
                return torch.round(LEVELS * x) / LEVELS

        model = torch.nn.Sequential(Quantise(), torch.nn.Flatten(), torch.nn.Linear(64, 2)).double().eval()
        model[2].weight.data, model[2].bias.data = torch.tensor(weight.T), torch.tensor(bias)
        return model
    import keras

    class Quantise(keras.layers.Layer):
        def call(self, x):
            return keras.ops.round(LEVELS * x) / LEVELS

    pixels = keras.Input((8, 8, 1), dtype="float64")
    flat = keras.layers.Flatten(dtype="float64")(Quantise(dtype="float64", name="0")(pixels))
    dense = keras.layers.Dense(2, dtype="float64")
    model = keras.Model(pixels, dense(flat))
    dense.set_weights([weight, bias])
    return model


def images(backend, count=20):
    """Images on the levels, all of class 1, (count, H, W, 1) in the model's layout, and their labels."""
    x = np.random.default_rng(2).choice([3.0, 4.0, 5.0], size=(count, 8, 8, 1)) / LEVELS
    return x if backend.name == "keras" else x.transpose(0, 3, 1, 2), np.ones(count, int)


def standing(model, data, attacks=("apgd-ce", "pgd20")):
    scores = stcore.evaluate(model, data, attacks, epsilon=EPSILON, audit=False)
    return [scores[name].correct for name in ("natural", *attacks)]


@pytest.mark.parametrize("name", ["0", "Quantise"])
def test_a_quantised_network_falls_once_its_layer_is_named(backend, name):
    model, data = quantised(backend), images(backend)
    assert standing(model, data) == [20, 20, 20]
    with bpda(model, [name]) as same:
        assert same is model
        assert standing(model, data, ("apgd-ce", "pgd20", "pma", "apgd-t", "fab-t")) == [20, 0, 0, 0, 0, 0]
    assert standing(model, data) == [20, 20, 20]


def test_the_forward_is_the_same_bit_for_bit_and_the_gradient_that_of_the_identity(backend):
    model = quantised(backend)
    classifier, ops = backend.classifier(model), backend.ops
    x = np.random.default_rng(3).uniform(size=(5, 8, 8, 1))
    x[0, 0, 0] = 0.01  # rounds to zero
    native = backend.images(x)

    def differentiated():
        value, pullback = ops.vjp(lambda x: classifier.logits(x, stcore.protocols.Mode.EVAL), native)
        return backend.array(value), backend.nhwc(pullback(value)[0])

    plain, none = differentiated()
    eager = classifier.eval_logits(native)
    with bpda(model, ["Quantise"]):
        value, gradient = differentiated()
        np.testing.assert_array_equal(classifier.eval_logits(native), eager)
    np.testing.assert_array_equal(value, plain)
    assert not none.any()
    weight = np.asarray(classifier.weights()["2.weight"] if backend.name == "torch" else model.get_weights()[0].T)
    np.testing.assert_allclose(gradient.reshape(5, 64), value @ weight, rtol=1e-12)
    again, still = differentiated()
    np.testing.assert_array_equal(again, plain)
    assert not still.any()


def test_a_function_of_ones_own(backend):
    """Its gradient is taken at the layer's input, and its value nowhere."""
    model, given = quantised(backend), []

    def tripled(x):
        given.append(x)
        return 3.0 * x + 100.0

    classifier, ops = backend.classifier(model), backend.ops
    native = backend.images(np.random.default_rng(3).uniform(size=(2, 8, 8, 1)))
    gradients = []
    for by in (tripled, None):
        with bpda(model, {"Quantise": by}):
            value, pullback = ops.vjp(lambda x: classifier.logits(x, stcore.protocols.Mode.EVAL), native)
            gradients.append(backend.array(pullback(ops.ones_like(value) * value)[0]))
    np.testing.assert_allclose(gradients[0], 3 * gradients[1], rtol=1e-12)
    assert len(given) == 1


def test_it_is_as_it_was_after_an_error_too(backend):
    model, data = quantised(backend), images(backend)
    with pytest.raises(ZeroDivisionError), bpda(model, ["Quantise"]):
        raise ZeroDivisionError
    layer = model[0] if backend.name == "torch" else model.layers[1]
    assert not layer._forward_hooks if backend.name == "torch" else "call" not in vars(layer)
    assert standing(model, data) == [20, 20, 20]


def test_layers_of_a_model_within_and_operations_of_keras():
    backend = load("keras")
    import keras

    inner = keras.Sequential([keras.Input((4,)), keras.layers.Identity(name="twice")])
    other = keras.Sequential([keras.Input((4,)), keras.layers.Identity(name="twice")])
    pixels = keras.Input((4,))
    model = keras.Model(pixels, keras.layers.Dense(2)(keras.ops.round(other(inner(pixels)))))
    x = backend.tensor(np.full((1, 4), 0.7, "float32"))
    calls = []
    layers = {"Round": None, "twice": lambda x: calls.append(1) or 2.0 * x}
    with bpda(model, layers):
        value, pullback = backend.ops.vjp(lambda x: model(x), x)
        (gradient,) = pullback(backend.ops.ones_like(value))
    assert len(calls) == 2  # one in each of the two models
    np.testing.assert_allclose(backend.array(gradient)[0], 4 * model.layers[-1].get_weights()[0].sum(1), rtol=1e-6)


def test_a_nested_module_by_its_dotted_name():
    load("torch")
    import torch

    model = torch.nn.Sequential(torch.nn.Sequential(torch.nn.ReLU(), torch.nn.Linear(4, 4)), torch.nn.Linear(4, 2))
    x = torch.full((1, 4), -1.0, requires_grad=True)
    with bpda(model, ["0.0"]):
        model(x).sum().backward()
    assert x.grad.abs().max() > 0
    assert (x.grad == model[1].weight.sum(0) @ model[0][1].weight).all()


@pytest.mark.parametrize(
    ("layers", "message"),
    [
        (["Quantize"], "layers: expected the name of one of the model's layers.*Did you mean 'Quantise'"),
        ([], r"layers: expected a list of names of layers; received \[\]"),
        ("Quantise", "layers: expected a list of names of layers; received 'Quantise'"),
        ({"Quantise": 3}, "None for the identity; received 'Quantise': 3"),
        ([3], "received 3: None"),
        (["Quantise", "0"], "layers: expected each layer once; Quantise and 0 are the same"),
    ],
)
def test_names_that_do_not_fit(backend, layers, message):
    with pytest.raises(UsageError, match=message):
        bpda(quantised(backend), layers)


def test_a_layer_that_does_not_keep_the_shape_is_refused_by_name(backend):
    data = images(backend)
    for layers, message in (
        (
            ["Flatten"],
            "expected Flatten to return the shape and dtype of its input, .*Give a differentiable function",
        ),
        ({"Flatten": lambda x: x}, "expected Flatten to return the shape and dtype of its approximation"),
    ):
        model = quantised(backend)
        with pytest.raises(UsageError, match=message) as error, bpda(model, layers):
            standing(model, data)
        assert "Exception encountered" not in str(error.value)


def test_a_compiled_or_scripted_module_is_refused():
    load("torch")
    import torch

    model = quantised(load("torch"))
    for made in (torch.compile(model), torch.jit.trace(model, torch.zeros(1, 1, 8, 8, dtype=torch.float64))):
        with pytest.raises(UsageError, match="model: expected a module whose layers run in Python"):
            bpda(made, ["0"])


@pytest.fixture(scope="module")
def trained_quantised(tmp_path_factory):
    load("torch")
    path = tmp_path_factory.mktemp("quantised") / "run"
    said = train(path, backend="torch", model="factories:torch_quantised", attacks="fgsm", steps=1)
    assert said.code == 0, said.err
    return path


def test_the_command_line_names_layers_and_so_does_all_that_it_leaves(trained_quantised, tmp_path):
    options = {"attacks": "apgd-ce", "checkpoint": "best", "epsilon": "0.2"}
    plain = evaluate(trained_quantised, "--no-audit", out=tmp_path / "plain", **options)
    named = evaluate(trained_quantised, "--no-audit", out=tmp_path / "named", bpda="Quantise", **options)
    assert (plain.code, named.code) == (0, 0), plain.err + named.err
    about, result = evaluated_files(tmp_path / "named")
    other, before = evaluated_files(tmp_path / "plain")
    assert about["bpda"] == "Quantise"
    assert "bpda" not in other
    robust = lambda found: found["accuracies"]["apgd-ce"]["correct"]  # noqa: E731
    assert robust(result) < robust(before)
    assert "BPDA of Quantise" in named.out
    assert "BPDA" not in plain.out
    again = evaluate(trained_quantised, "--no-audit", out=tmp_path / "named", **options)
    assert again.code == 2
    assert "bpda" in again.err


def test_an_unknown_layer_ends_the_command_before_a_folder_is_made(trained_quantised, tmp_path):
    said = evaluate(trained_quantised, out=tmp_path / "it", attacks="apgd-ce", bpda="Round")
    assert said.code == 2
    assert "layers: expected the name of one of the model's layers, or of their types" in said.err
    assert not (tmp_path / "it").exists()


def evaluated_files(folder):
    from stcore.base.files import read_json

    return [read_json(folder / "best" / name) for name in ("evaluation.json", "result.json")]
