"""The networks: counts, initial laws, and that the torch and Keras twins compute the same."""

import os
import pickle
import re
import subprocess
import sys
from math import sqrt
from pathlib import Path

import numpy as np
import pytest

from stcore.errors import UsageError
from stcore.models import build, count_parameters, describe, export_weights, known_names, load_weights
from stcore.models.description import Conv, leaves, weight_shapes
from stcore.models.initialize import initial_weights
from stcore.paper.cost import macs_per_image
from stcore.testing.backends import lively

COUNTS = {
    "resnet18": (11_173_962, 11_220_132),
    "preact-resnet18": (11_172_170, 11_218_340),
    "wrn-28-10": (36_479_194, 36_536_884),
    "wrn-34-5": (11_554_074, 11_582_964),
    "wrn-34-10": (46_160_474, 46_218_164),
    "vgg16-bn": (14_728_266, 14_774_436),
    "resnet-s-64": (2_777_674, 2_800_804),
}
# Name, side of the image, batch.
TWINS = [
    ("tiny", 8, 6),
    ("tiny-smooth", 8, 6),
    ("small-cnn", 8, 6),
    ("resnet8", 9, 4),  # odd sides too
    ("resnet-s-8", 9, 4),  # odd sides under the stem's stride
    ("preact-resnet8", 8, 4),
    ("wrn-10-1", 8, 4),
    ("vgg16-bn", 32, 4),
    ("resnet8-silu", 8, 4),
    ("resnet-s-16-silu", 16, 4),
    ("wrn-10-1-silu", 8, 4),
]
FRAMEWORKS = ("torch", "tensorflow", "keras", "jax")


@pytest.fixture(scope="module")
def torch():
    module = pytest.importorskip("torch")
    threads = module.get_num_threads()
    module.set_num_threads(1)
    yield module
    module.set_num_threads(threads)


@pytest.fixture(scope="module")
def keras(torch):  # torch first: the two do not load in the other order everywhere
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    os.environ.setdefault("KERAS_BACKEND", "tensorflow")
    pytest.importorskip("tensorflow")
    return pytest.importorskip("keras")


def twins(name, side=8, channels=3, dtype="float64", classes=10):
    """Torch's and Keras' model of that name on the same lively weights."""
    options = {"num_classes": classes, "in_channels": channels, "image_size": (side, side), "dtype": dtype}
    models = build(name, "torch", **options), build(name, "keras", **options)
    weights = lively(describe(name, classes, channels), seed=1)
    for model in models:
        load_weights(model, weights)
    return models


def images(batch, side, channels=3, seed=2):
    return np.random.default_rng(seed).uniform(size=(batch, side, side, channels))


def nchw(torch, x):
    return torch.from_numpy(np.ascontiguousarray(x.transpose(0, 3, 1, 2)))


def assert_same_weights(one, other):
    assert one.keys() == other.keys()
    for name in one:
        np.testing.assert_array_equal(one[name], other[name], err_msg=name)


def worst(one, other):
    """The largest difference relative to the largest value."""
    return np.abs(one - other).max() / np.abs(other).max()


# --- Descriptions ---


@pytest.mark.parametrize("name", COUNTS)
def test_parameter_counts_are_the_published_ones(name):
    assert tuple(count_parameters(describe(name, classes)) for classes in (10, 100)) == COUNTS[name]


def test_the_page_states_what_each_network_costs():
    """docs/models.md, for 10 classes and images of 32×32 pixels: counted from the descriptions."""
    page = (Path(__file__).parents[1] / "docs" / "models.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| (`\S.*`) \| ([\d .]+)( million)? \| ([\d.]+) M \|$", page, re.M)
    listed = {name: row for row in rows for name in re.findall(r"`([^`]+)`", row[0])}
    assert {"small-cnn", "resnet-s-32", "resnet-s-64", "resnet18", "wrn-28-10"} <= listed.keys()
    for name, (_, count, in_millions, macs) in listed.items():
        parameters = count_parameters(describe(name, 10))
        assert count.replace(" ", "") == (f"{parameters / 1e6:.1f}" if in_millions else f"{parameters}"), name
        assert macs == f"{macs_per_image(name) / 1e6:.1f}", name


def test_small_networks_are_small():
    assert 20_000 < count_parameters(describe("small-cnn", 10, 1)) < 100_000
    assert count_parameters(describe("tiny", 10)) < 2_000


@pytest.mark.parametrize("name", known_names())
def test_every_known_name_is_described_and_hashable(name):
    assert hash(describe(name, 7, 1)) == hash(describe(name, 7, 1))
    assert weight_shapes(describe(name, 7, 1))["linear.bias"] == (7,)


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("resnet-18-silu", "Did you mean 'resnet18'"),
        ("resnet-18", "Did you mean 'resnet18'"),
        ("wrn-32-10", "6n \\+ 4"),
        ("wrn-4-10", "6n \\+ 4"),
        ("wrn-28-0", "K from 1 to 64"),
        ("resnet-s-12", "W a multiple of 8 from 8 to 256, received 'resnet-s-12'"),
        ("resnet-s-0", "W a multiple of 8"),
        ("resnet-s-264-silu", "W a multiple of 8"),
        ("resnet-s-", "Did you mean 'resnet-s-"),
        ("", "one of small-cnn"),
    ],
)
def test_unknown_names_say_what_is_known(name, says):
    with pytest.raises(UsageError, match=says):
        describe(name, 10)


def test_counts_below_one_are_refused():
    with pytest.raises(UsageError, match="num_classes"):
        describe("tiny", 0)
    with pytest.raises(UsageError, match="in_channels"):
        describe("tiny", 10, 0)


def test_importing_the_models_imports_no_framework():
    code = f"import sys, stcore.models; print([m for m in {FRAMEWORKS} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


# --- Initial weights ---


def test_the_seed_decides_the_weights():
    node = describe("tiny", 10)
    assert_same_weights(initial_weights(node, 3), initial_weights(node, 3))
    assert not np.array_equal(initial_weights(node, 3)["conv1.weight"], initial_weights(node, 4)["conv1.weight"])


@pytest.mark.parametrize("name", ["resnet8", "preact-resnet8", "small-cnn", "vgg16-bn"])
def test_torchs_own_law(name):
    for key, array in initial_weights(node := describe(name, 100), 0).items():
        owner, kind = key.rsplit(".", 1)
        shape = weight_shapes(node)[f"{owner}.weight"]
        if len(shape) == 1:
            assert np.all(array == (1 if kind in ("weight", "running_var") else 0))
            continue
        bound = 1 / sqrt(np.prod(shape[1:]))
        assert np.abs(array).max() <= bound
        if array.size > 2000:
            assert np.abs(array).max() > 0.99 * bound
            assert array.std() == pytest.approx(bound / sqrt(3), rel=0.05)
            assert abs(array.mean()) < 0.05 * bound


def test_wide_resnets_law():
    node = describe("wrn-10-2", 100)
    weights = initial_weights(node, 0)
    for path, leaf in leaves(node):
        if isinstance(leaf, Conv):
            array = weights[f"{path}.weight"]
            deviation = sqrt(2 / (leaf.kernel**2 * leaf.out_channels))
            assert array.std() == pytest.approx(deviation, rel=4 / sqrt(2 * array.size)), path
    assert np.abs(weights["linear.weight"]).max() <= 1 / sqrt(128)
    assert np.all(weights["linear.bias"] == 0)


def test_both_frameworks_start_from_the_same_weights_and_touch_no_generator(torch, keras):
    torch.manual_seed(5)
    keras.utils.set_random_seed(5)
    expected = {
        name: array.astype("float32") for name, array in initial_weights(describe("resnet8", 10), 7).items()
    }
    before = torch.get_rng_state()
    for backend in ("torch", "keras"):
        assert_same_weights(export_weights(build("resnet8", backend, num_classes=10, seed=7)), expected)
    assert torch.equal(torch.get_rng_state(), before)


# --- The twins ---


@pytest.mark.parametrize(("name", "side", "batch"), TWINS)
def test_twins_agree_in_float64(torch, keras, name, side, batch):
    ours, theirs = twins(name, side)
    x = images(batch, side)
    start = export_weights(theirs)

    for training in (False, True):  # a training forward comes second, as it moves the running statistics
        ours.train(training)
        with torch.no_grad():
            expected = ours(nchw(torch, x)).numpy()
        received = keras.ops.convert_to_numpy(theirs(x, training=training))
        assert received.dtype == np.float64
        assert np.abs(received - expected).max() <= 1e-10

    left, right = export_weights(ours), export_weights(theirs)
    for key in left:
        if ".running_" in key:
            assert not np.array_equal(right[key], start[key]), key
            assert worst(right[key], left[key]) <= 1e-12, key
        else:
            np.testing.assert_array_equal(right[key], start[key])


@pytest.mark.parametrize("name", ["resnet8", "resnet8-silu", "resnet-s-8", "preact-resnet8-silu"])
def test_input_gradients_agree_with_batch_statistics(torch, keras, name):
    import tensorflow as tf

    ours, theirs = twins(name)
    x = images(4, 8)
    theirs_x = tf.constant(x)
    with tf.GradientTape() as tape:
        tape.watch(theirs_x)
        total = keras.ops.sum(keras.ops.square(theirs(theirs_x, training=True)))
    ours_x = nchw(torch, x).requires_grad_()
    ours.train()(ours_x).square().sum().backward()
    expected = ours_x.grad.numpy().transpose(0, 2, 3, 1)
    assert worst(tape.gradient(total, theirs_x).numpy(), expected) <= 1e-9


def test_silu_is_the_same_network_but_for_its_activation(torch):
    """By the activation's own formula: pre-activations of both signs, before the classifier's pool."""
    plain, other = (build(name, "torch", num_classes=10, dtype="float64") for name in ("tiny", "tiny-silu"))
    assert_same_weights(export_weights(plain), export_weights(other))
    seen = {}
    activations = [module for module in other.modules() if isinstance(module, torch.nn.SiLU)]
    assert len(activations) == 2
    assert not any(isinstance(module, torch.nn.ReLU) for module in other.modules())
    activations[0].register_forward_hook(lambda module, given, out: seen.update(x=given[0], y=out))
    other(nchw(torch, images(2, 8)))
    x = seen["x"].detach().numpy()
    assert x.min() < 0 < x.max()
    np.testing.assert_allclose(seen["y"].detach().numpy(), x / (1 + np.exp(-x)), rtol=1e-12)


def test_traced_with_an_unknown_batch(torch, keras):
    import tensorflow as tf

    ours, theirs = twins("resnet8")

    @tf.function(input_signature=[tf.TensorSpec((None, 8, 8, 3), tf.float64)])
    def forward(x):
        return theirs(x, training=True)

    ours.train()
    for batch in (5, 3):
        x = images(batch, 8, seed=batch)
        with torch.no_grad():
            assert np.abs(forward(x).numpy() - ours(nchw(torch, x)).numpy()).max() <= 1e-10
    left, right = export_weights(ours), export_weights(theirs)
    assert max(worst(right[key], left[key]) for key in left) <= 1e-12


def test_a_stateless_scope_keeps_the_running_statistics(keras):
    _, theirs = twins("tiny")
    before = export_weights(theirs)
    with keras.StatelessScope():
        theirs(images(4, 8), training=True)
    assert_same_weights(export_weights(theirs), before)


def test_a_frozen_layer_uses_its_running_statistics(keras):
    _, theirs = twins("tiny")
    x, before = images(4, 8), export_weights(theirs)
    expected = keras.ops.convert_to_numpy(theirs(x, training=False))
    for layer in theirs.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.trainable = False
    np.testing.assert_array_equal(keras.ops.convert_to_numpy(theirs(x, training=True)), expected)
    assert_same_weights(export_weights(theirs), before)


def test_one_value_per_channel_leaves_finite_statistics(keras):
    from stcore.models.keras_layers import TorchBatchNormalization

    layer = TorchBatchNormalization()
    layer(np.full((1, 3), 2.0, "float32"), training=True)
    np.testing.assert_allclose(layer.moving_variance, 0.9)


@pytest.mark.parametrize("shape", [(6, 5, 4, 3), (1, 1, 1, 3)], ids=["images", "one value"])
def test_the_fused_normalisation_is_the_formula(keras, shape):
    """In float32, whose kernel is TensorFlow's own; float64, which has none, is the formula written out."""
    import tensorflow as tf

    from stcore.models.keras_layers import TorchBatchNormalization

    x, found = images(shape[0], max(shape[1:3]))[:, : shape[1], : shape[2]], []
    for dtype in ("float32", "float64"):
        layer = TorchBatchNormalization(dtype=dtype, epsilon=1e-6)  # TensorFlow's own function would raise it
        layer.build(x.shape)
        layer.gamma.assign([0.5, 2.0, -1.0])
        layer.beta.assign([0.1, 0.0, 3.0])
        given = tf.constant(x, dtype)
        with tf.GradientTape() as tape:
            tape.watch(given)
            y = layer(given, training=True)
            loss = tf.reduce_sum(y * y * y)
        gradients = tape.gradient(loss, [given, layer.gamma.value, layer.beta.value])
        found.append([y, layer.moving_mean, layer.moving_variance, *gradients])
    for fused, formula in zip(*found, strict=True):
        scale = np.abs(formula).max() + 1e-3
        np.testing.assert_allclose(fused, formula, rtol=0, atol=2e-5 * scale)


@pytest.mark.parametrize(("dtype", "kernels"), [("float32", 2), ("mixed_bfloat16", 2), ("float64", 0)])
def test_each_normalisation_of_a_batch_is_one_kernel(keras, dtype, kernels):
    import tensorflow as tf

    from stcore.models.keras_layers import TorchBatchNormalization

    layers = [TorchBatchNormalization(dtype=dtype) for _ in range(2)]
    forward = tf.function(lambda x: layers[1](layers[0](x, training=True), training=True))
    given = tf.zeros((4, 2, 2, 3), "float64" if dtype == "float64" else "float32")
    graph = forward.get_concrete_function(given).graph
    assert [op.type for op in graph.get_operations()].count("FusedBatchNormV3") == kernels


def test_half_precision_keeps_its_statistics_in_float32(keras):
    from stcore.models.keras_layers import TorchBatchNormalization

    layer = TorchBatchNormalization(dtype="mixed_bfloat16")
    out = layer(1000 + np.arange(8, dtype="float32").reshape(4, 2), training=True)
    assert keras.backend.standardize_dtype(out.dtype) == "bfloat16"
    assert keras.backend.standardize_dtype(layer.moving_variance.dtype) == "float32"


def test_keras_models_survive_saving(keras, tmp_path):
    _, theirs = twins("resnet8", dtype="float32")
    theirs.save(tmp_path / "model.keras")
    again = keras.models.load_model(tmp_path / "model.keras")
    assert_same_weights(export_weights(again), export_weights(theirs))
    x = images(2, 8).astype("float32")
    np.testing.assert_array_equal(again(x), theirs(x))


def test_torch_models_are_plain_and_pickle(torch):
    model = build("preact-resnet8", "torch", num_classes=10).eval()
    kinds = {type(module) for module in model.modules()}
    assert {torch.nn.Conv2d, torch.nn.BatchNorm2d, torch.nn.Linear} <= kinds
    again = pickle.loads(pickle.dumps(model))
    x = torch.rand(2, 3, 32, 32)
    assert torch.equal(again(x), model(x))
    names = {key for key in model.state_dict() if not key.endswith("num_batches_tracked")}
    assert names == set(weight_shapes(describe("preact-resnet8", 10)))
    assert all(int(m.num_batches_tracked) == 0 for m in model.modules() if hasattr(m, "num_batches_tracked"))


def test_models_compile_without_a_graph_break(torch):
    model = build("preact-resnet8", "torch", num_classes=10)
    compiled = torch.compile(model, backend="eager", fullgraph=True)
    x = torch.rand(2, 3, 32, 32)
    assert torch.equal(compiled.eval()(x), model.eval()(x))
    assert_same_weights(export_weights(compiled), export_weights(model))
    load_weights(compiled, initial_weights(describe("preact-resnet8", 10), 9))
    assert_same_weights(export_weights(model), export_weights(compiled))


# --- The bridge ---


@pytest.mark.parametrize("name", ["resnet8", "resnet-s-8", "wrn-10-1"])
def test_round_trip_is_bit_equal(torch, keras, name):
    ours, theirs = twins(name, dtype="float32")
    start = export_weights(ours)
    load_weights(theirs, initial_weights(describe(name, 10), 8))
    load_weights(theirs, start)
    back = export_weights(theirs)
    assert_same_weights(back, start)
    assert all(array.flags.c_contiguous and array.dtype == np.float32 for array in back.values())
    load_weights(ours, back)
    assert_same_weights(export_weights(ours), start)


def test_exported_weights_are_copies(torch, keras):
    for model in twins("tiny"):
        before = export_weights(model)
        export_weights(model)["conv1.weight"][:] = 0
        assert_same_weights(export_weights(model), before)


@pytest.mark.parametrize("backend", ["torch", "keras"])
def test_weights_that_do_not_fit_change_nothing(torch, keras, backend):
    model = build("resnet8", backend, num_classes=10)
    before = export_weights(model)
    other = initial_weights(describe("resnet8", 7), 1)
    with pytest.raises(UsageError, match=r"linear\.weight \(expected \(10, 64\), received \(7, 64\)\)"):
        load_weights(model, other)
    with pytest.raises(UsageError, match=r"missing: stage1\.block1\.conv1\.weight.*unexpected: conv2\.weight"):
        load_weights(model, initial_weights(describe("tiny", 10), 1))
    partial = dict(initial_weights(describe("resnet8", 10), 1))
    del partial["linear.bias"]
    with pytest.raises(UsageError, match=r"1 missing: linear\.bias"):
        load_weights(model, partial)
    assert_same_weights(export_weights(model), before)


def test_a_model_within_a_model_keeps_its_names_apart(keras):
    _, inner = twins("tiny", dtype="float32")
    inputs = keras.Input((8, 8, 3))
    outer = keras.Model(inputs, inner(keras.layers.Rescaling(2.0)(inputs)))
    expected = {f"tiny.{name}": array for name, array in export_weights(inner).items()}
    assert_same_weights(export_weights(outer), expected)


def test_weights_of_one_name_in_a_layer_are_refused(keras):
    """Exported, one would take the other's place, and the network would come back with the wrong weights."""

    class Composite(keras.layers.Layer):
        def __init__(self):
            super().__init__(name="both")
            self.one, self.two = keras.layers.Dense(4, name="same"), keras.layers.Dense(3, name="same")

        def build(self, shape):
            self.one.build(shape)
            self.two.build((None, 4))

        def call(self, x):
            return self.two(self.one(x))

    inputs = keras.Input((5,))
    model = keras.Model(inputs, Composite()(inputs))
    assert len(model.weights) == 4
    message = (
        "expected one weight of each name in a layer; same holds several called kernel. Give its layers names of"
    )
    for call in (export_weights, lambda model: load_weights(model, {})):
        with pytest.raises(UsageError, match=message):
            call(model)


def test_what_is_no_model_is_refused():
    with pytest.raises(UsageError, match=r"expected a torch\.nn\.Module or a keras\.Model, received dict"):
        export_weights({})


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"backend": "jax"}, "backend"),
        ({"dtype": "float16"}, "dtype"),
        ({"seed": -1}, "seed"),
        ({"name": "vgg16-bn", "image_size": (28, 28)}, "32×32"),
    ],
)
def test_build_refuses_what_it_cannot_build(options, says):
    with pytest.raises(UsageError, match=says):
        build(**({"name": "tiny", "backend": "torch", "num_classes": 10} | options))
