"""Proved bounds: sound at every point for the network that runs, in float32 too, and tight."""

import itertools

import numpy as np
import pytest
from harness import load
from hypothesis import given, settings
from hypothesis import strategies as st

from stcore.bounds import relaxation
from stcore.bounds.ball import Ball
from stcore.bounds.layers import Builder
from stcore.bounds.proof import INTERVALS, METHODS, ascended, bounded, check, margins, prove
from stcore.core.dispatch import backend_of, make_classifier
from stcore.core.threat import lengths, reach
from stcore.errors import UsageError

NORMS = ("linf", "l2", "l1")


def dense_network(sizes, seed, dtype="float64"):
    """Layers of a perceptron with random weights, which numpy alone computes."""
    rng = np.random.default_rng(seed)
    builder, value, weights = Builder((sizes[0],), dtype), 0, []
    for number, (inputs, outputs) in enumerate(itertools.pairwise(sizes), start=1):
        weight, bias = rng.normal(size=(outputs, inputs)) / np.sqrt(inputs), rng.normal(size=outputs) / 4
        if dtype == "float32":
            weight, bias = (each.astype(np.float32).astype(np.float64) for each in (weight, bias))
        weights.append((weight, bias))
        value = builder.dense(value, weight, bias, f"dense{number}")
        if number < len(sizes) - 1:
            value = builder.relu(value, f"relu{number}")
    return builder.finish(value), weights


def perceptron(weights, x, dtype=np.float64, order=None):
    """Logits of points (R, d), by numpy, in an order of summation."""
    for number, (weight, bias) in enumerate(weights, start=1):
        picked = (
            np.arange(weight.shape[1])
            if order is None
            else np.random.default_rng(order).permutation(weight.shape[1])
        )
        total = np.zeros((len(x), len(weight)), dtype)
        for column in picked:  # one after the other, each rounded
            total = (total + x[:, column : column + 1].astype(dtype) * weight[:, column].astype(dtype)).astype(
                dtype
            )
        x = total + bias.astype(dtype)
        x = np.maximum(x, 0) if number < len(weights) else x
    return x


def points(ball_center, epsilon, norm, count, seed):
    """Random points of a ball within [0, 1], many of them on its boundary."""
    rng = np.random.default_rng(seed)
    flat = ball_center.reshape(-1)
    offsets = rng.normal(size=(count, flat.size))
    if norm == "l1":
        offsets *= rng.uniform(size=offsets.shape) < 0.3
        offsets[np.arange(count), rng.integers(flat.size, size=count)] += 1e-3
    if norm == "linf":
        offsets = np.where(
            rng.uniform(size=offsets.shape) < 0.7, np.sign(offsets), rng.uniform(-1, 1, offsets.shape)
        )
    else:
        offsets /= lengths(offsets, norm)[:, None]
    return np.clip(flat + epsilon * offsets, 0, 1).reshape(count, *ball_center.shape)


@settings(deadline=None, max_examples=25)
@given(seed=st.integers(0, 10**6), norm=st.sampled_from(NORMS), epsilon=st.floats(0, 0.6), tight=st.booleans())
def test_every_value_is_within_its_bounds(seed, norm, epsilon, tight):
    layers, weights = dense_network((5, 7, 6, 3), seed)
    x = np.random.default_rng(seed).uniform(size=5)
    intervals = bounded(layers, Ball.around(x, epsilon, norm), tight=tight)
    values = [points(x, epsilon, norm, 200, seed).T]
    for node in layers.nodes:
        values.append(node.layer.apply(*(values[i] for i in node.inputs)))
    np.testing.assert_allclose(values[-1].T, perceptron(weights, values[0].T), atol=1e-12)
    for low, value, high in zip(intervals.low, values, intervals.high, strict=True):
        assert (low[:, None] <= value).all()
        assert (value <= high[:, None]).all()


@settings(deadline=None, max_examples=25)
@given(seed=st.integers(0, 10**6), norm=st.sampled_from(NORMS), epsilon=st.floats(1e-3, 0.5))
def test_a_method_is_no_looser_than_the_one_before_it_and_no_point_is_below(seed, norm, epsilon):
    layers, weights = dense_network((5, 8, 8, 4), seed)
    x = np.random.default_rng(seed).uniform(size=5)
    label = int(perceptron(weights, x[None]).argmax())
    found = [prove(layers, x, label, epsilon, norm, method).margin for method in METHODS]
    assert found[0] <= found[1] <= found[2]
    logits = perceptron(weights, points(x, epsilon, norm, 300, seed))
    assert found[2] <= (logits[:, [label]] - np.delete(logits, label, axis=1)).min()


@settings(deadline=None, max_examples=25)
@given(seed=st.integers(0, 10**6), norm=st.sampled_from(NORMS), epsilon=st.floats(0, 0.4))
def test_crown_is_within_the_intervals(seed, norm, epsilon):
    layers, _ = dense_network((4, 6, 6, 6, 3), seed)
    ball = Ball.around(np.random.default_rng(seed).uniform(size=4), epsilon, norm)
    loose, tight = bounded(layers, ball), bounded(layers, ball, tight=True)
    for value in range(len(loose.low)):
        assert (loose.low[value] <= tight.low[value] + 1e-12).all()
        assert (tight.high[value] <= loose.high[value] + 1e-12).all()


@pytest.mark.parametrize("seed", range(5))
def test_tightness_against_enumeration(seed):
    """Two inputs, one hidden layer: the minimum is at a corner, on an edge at a kink, or where two kinks meet."""
    layers, weights = dense_network((2, 3, 2), seed)
    (first, shift), _ = weights
    x, epsilon = np.array([0.5, 0.5]), 0.1
    low, high = x - epsilon, x + epsilon
    candidates = [np.array(corner) for corner in itertools.product(*zip(low, high, strict=True))]
    for row, c in zip(first, shift, strict=True):
        for axis in (0, 1):
            for end in (low[axis], high[axis]):
                other = -(c + row[axis] * end) / row[1 - axis]
                candidates.append(np.array([end, other] if axis == 0 else [other, end]))
    for i, j in itertools.combinations(range(3), 2):
        candidates.append(np.linalg.solve(first[[i, j]], -shift[[i, j]]))
    inside = np.array([c for c in candidates if (c >= low - 1e-12).all() and (c <= high + 1e-12).all()])
    logits = perceptron(weights, inside)
    exact = (logits[:, 0] - logits[:, 1]).min()
    natural = np.diff(perceptron(weights, x[None])[0])[0] * -1
    found = prove(layers, x, 0, epsilon, "linf").margin
    assert found <= exact + 1e-9
    assert exact - found <= 0.35 * (natural - exact) + 1e-6  # most of the fall is explained
    stable = ((x @ first.T + shift > 0) == (inside @ first.T + shift > -1e-9)).all()
    if stable:
        assert found == pytest.approx(exact, abs=1e-5)


def test_a_linear_network_is_bounded_exactly_in_every_norm():
    layers, ((weight, bias),) = dense_network((6, 2), 3)
    x = np.full(6, 0.5)
    w = weight[0] - weight[1]
    middle = w @ x + bias[0] - bias[1]
    falls = {"linf": 0.1 * np.abs(w).sum(), "l2": 0.1 * np.linalg.norm(w), "l1": 0.1 * np.abs(w).max()}
    for norm, fall in falls.items():
        assert prove(layers, x, 0, 0.1, norm).margin == pytest.approx(middle - fall, abs=1e-5)
    steep = np.sort(np.abs(w))[::-1]  # in l1 a pixel moves no further than the range of pixels
    far = middle - 0.5 * steep[0] - 0.5 * steep[1] - 0.2 * steep[2]
    assert prove(layers, x, 0, 1.2, "l1").margin == pytest.approx(far, abs=1e-4)


def test_the_ascent_of_slopes_tightens_and_its_gradient_is_the_bounds_own():
    layers, _ = dense_network((6, 12, 12, 3), 4)
    intervals = bounded(layers, Ball.around(np.full(6, 0.5), 0.5, "linf"), tight=True)
    a, last = margins(3, 0), len(layers.nodes)
    crown = relaxation.lower(intervals, last, a)
    assert (ascended(intervals, last, a, crown) > crown + 1e-3).any()

    rng = np.random.default_rng(0)
    slopes = {at: rng.uniform(0.2, 0.8, (12, 2)) for at in (2, 4)}
    trace = relaxation.Trace()
    relaxation.lower(intervals, last, a, slopes, trace)
    found = relaxation.gradients(intervals, slopes, trace)
    undecided = {at: (intervals.low[at - 1] < 0) & (intervals.high[at - 1] > 0) for at in slopes}
    assert undecided[2].sum() > 5
    assert undecided[4].sum() > 5
    for at, row in ((number, row) for number, rows in undecided.items() for row in np.flatnonzero(rows)):
        moved = {n: s.copy() for n, s in slopes.items()}
        moved[at][row] += 1e-6
        before, after = (relaxation.lower(intervals, last, a, s) for s in (slopes, moved))
        np.testing.assert_allclose((after - before) / 1e-6, found[at][row], atol=1e-4)


# Floating point


@settings(deadline=None, max_examples=20)
@given(seed=st.integers(0, 10**6), order=st.integers(0, 5))
def test_bounds_hold_in_float32_in_any_order_of_summation(seed, order):
    """Of a ball that is one point: the bounds are then of the rounding alone."""
    layers, weights = dense_network((30, 40, 40, 3), seed, "float32")
    x = np.random.default_rng(seed).uniform(size=30).astype(np.float32)
    intervals = bounded(layers, Ball(x.astype(np.float64), 0.0, "linf"))
    logits = perceptron(weights, x[None], np.float32, order)[0]
    assert (intervals.low[-1] <= logits).all()
    assert (logits <= intervals.high[-1]).all()
    width = (intervals.high[-1] - intervals.low[-1]).max()
    assert 1e-8 < width < 1e-3
    rounded = np.abs(logits - perceptron(weights, x[None].astype(np.float64))[0]).max()
    assert rounded < width


def test_the_margin_of_float32_is_below_that_of_float64():
    """A network whose float32 forward misclassifies what real arithmetic classifies right is not proved."""
    builders = {dtype: Builder((2,), dtype) for dtype in ("float32", "float64")}
    rows = np.array([[2.0**25, 1.0, -(2.0**25)]])
    found = {}
    for dtype, builder in builders.items():
        spread = builder.dense(0, np.array([[1.0, 0.0], [0.0, 1.0], [1.0, 0.0]]), None, "copies")
        summed = builder.dense(spread, np.concatenate([rows, np.zeros((1, 3))]), np.array([0.0, 0.4]), "sum")
        found[dtype] = prove(builder.finish(summed), np.array([1.0, 1.0]), 0, 0.0, "linf", INTERVALS)
    assert found["float64"].holds
    assert not found["float32"].holds
    assert np.float32(2.0**25) + np.float32(1) - np.float32(2.0**25) == 0  # below 0.4


def test_a_point_that_counts_as_in_the_ball_is_in_it():
    x = np.random.default_rng(0).uniform(size=50).astype(np.float32)
    for norm in NORMS:
        ball = Ball.around(x, 0.03, norm)
        assert ball.radius >= reach(0.03, norm)
    moved = np.clip(x + np.float32(0.03), 0, 1).astype(np.float32)
    ball = Ball.around(x, 0.03, "linf")
    assert (ball.low <= moved).all()
    assert (moved <= ball.high).all()


# Layers of both frameworks


@pytest.mark.parametrize(
    ("net", "dtype"),
    [("tiny", "float64"), ("small-cnn", "float32"), ("resnet8", "float32"), ("preact-resnet8", "float64")],
)
def test_layers_are_the_networks(backend, net, dtype):
    assert_read(backend.build(net, dtype=dtype, side=4), (4, 4, 3))


def assert_read(model, shape, scale=1.0):
    """The layers compute the model's logits, for the check of which rounding alone may differ; and bound them."""
    classifier = make_classifier(model)
    ordered = (shape[2], shape[0], shape[1]) if len(shape) == 3 else shape
    layers = backend_of(model).read_layers(model, ordered)
    rng = np.random.default_rng(0)
    images = rng.uniform(size=(3, *shape)).astype(layers.dtype)
    x = classifier.images(images)
    logits, pixels = classifier.eval_logits(x), layers.pixels(classifier.host_images(x))
    np.testing.assert_allclose(layers.logits(pixels), logits, atol=2e-5 if layers.dtype == "float32" else 1e-10)
    for one, its in zip(pixels, logits, strict=True):
        check(layers, one, its)
    near = points(images[0].astype(np.float64), 0.01 * scale, "linf", 30, 1).astype(layers.dtype)
    found = classifier.eval_logits(classifier.images(near))
    for tight in (False, True):
        intervals = bounded(layers, Ball.around(pixels[0], 0.01 * scale, "linf"), tight=tight)
        assert (intervals.low[-1] <= found).all()
        assert (found <= intervals.high[-1]).all()
    proof = prove(layers, pixels[0], int(logits[0].argmax()), 0.01 * scale, "linf")
    label = logits[0].argmax()
    assert proof.margin <= (found[:, [label]] - np.delete(found, label, axis=1)).min()
    return layers


def torch_kinds():
    import torch
    from torch import nn

    class Functional(nn.Module):
        """Written out: a normalisation of its own, functions and methods, a residual sum."""

        def __init__(self):
            super().__init__()
            self.register_buffer("mean", torch.tensor([0.4, 0.5, 0.6]).reshape(1, 3, 1, 1))
            self.conv, self.head = nn.Conv2d(3, 3, 3, padding=1), nn.Linear(3, 4)

        def forward(self, x):
            x = (x - self.mean) / 0.25
            y = torch.relu(self.conv(x)) + x
            y = nn.functional.dropout(y.relu(), 0.5, training=self.training)
            return self.head(y.mean(dim=(2, 3)).view(x.size(0), -1))

    return {
        "groups, dilation, stride": nn.Sequential(
            nn.Conv2d(3, 6, 3, stride=2, padding=2, dilation=2, groups=3, bias=False), nn.ReLU(), nn.Flatten(),
            nn.Linear(96, 3),
        ),
        "same padding, batch norm without gain": nn.Sequential(
            nn.Conv2d(3, 4, (3, 2), padding="same"), nn.BatchNorm2d(4, affine=False), nn.ReLU(),
            nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 3),
        ),
        "maxima that overlap": nn.Sequential(
            nn.Conv2d(3, 4, 3), nn.ReLU(), nn.MaxPool2d(3, 2, padding=1), nn.Conv2d(4, 4, 2), nn.MaxPool2d(2),
            nn.Flatten(), nn.Linear(4, 3),
        ),
        "averages, batch norm of features": nn.Sequential(
            nn.AvgPool2d(2), nn.Flatten(), nn.Linear(48, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Dropout(),
            nn.Identity(), nn.Linear(8, 3),
        ),
        "functional": Functional(),
    }  # fmt: skip


@pytest.mark.parametrize("kind", range(5))
def test_layers_of_a_torch_module(kind):
    load("torch")
    import torch

    torch.manual_seed(kind)
    model = list(torch_kinds().values())[kind]
    for _ in range(2):  # statistics that are not the identity
        model.train()(torch.rand(8, 3, 8, 8))
    before = model.training, {n: t.clone() for n, t in model.state_dict().items()}
    assert_read(model, (8, 8, 3))
    assert model.training == before[0]
    assert all(torch.equal(before[1][n], t) for n, t in model.state_dict().items())


def keras_kinds():
    import keras
    from keras import layers

    pixels = keras.Input((8, 8, 3))
    one = layers.Conv2D(4, 3, padding="same", activation="relu")(pixels)
    two = layers.Add()([layers.BatchNormalization()(layers.Conv2D(4, 3, padding="same")(one)), one])
    inner = keras.Sequential([keras.Input((4,)), layers.Dense(5, activation="relu")])
    residual = keras.Model(pixels, layers.Dense(3)(inner(layers.GlobalAveragePooling2D()(layers.ReLU()(two)))))
    return [
        residual,
        keras.Sequential(
            [
                keras.Input((8, 8, 3)),
                layers.Rescaling(2.0, -1.0),
                layers.Conv2D(6, 3, strides=2, padding="same", groups=3),
                layers.Activation("relu"),
                layers.Dropout(0.5),
                layers.Flatten(),
                layers.Dense(3),
            ]
        ),
        keras.Sequential(
            [
                keras.Input((8, 8, 3)),
                layers.ZeroPadding2D(1),
                layers.DepthwiseConv2D(3, depth_multiplier=2, activation="relu"),
                layers.MaxPooling2D(3, 2, padding="same"),
                layers.AveragePooling2D(2),
                layers.Flatten(),
                layers.Dense(3, use_bias=False),
            ]
        ),
        keras.Sequential(
            [keras.Input((8, 8, 3)), layers.Conv2D(4, 3, dilation_rate=2), layers.Flatten(), layers.Dense(3)]
        ),
    ]


@pytest.mark.parametrize("kind", range(4))
def test_layers_of_a_keras_model(kind):
    load("keras")
    import keras

    keras.utils.set_random_seed(kind)
    model = keras_kinds()[kind]
    rng = np.random.default_rng(kind)
    for variable in model.variables:
        if "float" in variable.dtype:
            variable.assign(
                0.5 + rng.uniform(size=variable.shape)
                if "variance" in variable.name
                else rng.normal(size=variable.shape) / 3
            )
    assert_read(model, (8, 8, 3))


def test_an_unknown_layer_is_named():
    load("torch")
    from torch import nn

    for layer, said in ((nn.Sigmoid(), "2: Sigmoid"), (nn.GELU(), "2: GELU"), (nn.LayerNorm(4), "2: LayerNorm")):
        model = nn.Sequential(nn.Flatten(), nn.Linear(12, 4), layer, nn.Linear(4, 2))
        with pytest.raises(UsageError, match=rf"whose bounds are known; received {said}"):
            backend_of(model).read_layers(model, (3, 2, 2))

    class Branches(nn.Module):
        def forward(self, x):
            return x.flatten(1) if x.sum() > 0 else -x.flatten(1)

    with pytest.raises(UsageError, match="without decisions in its forward"):
        backend_of(Branches()).read_layers(Branches(), (3, 2, 2))


def test_an_unknown_keras_layer_is_named():
    load("keras")
    import keras
    from keras import layers

    for layer, said in (
        (layers.Dense(4, activation="gelu", name="one"), "one: the activation gelu"),
        (layers.LayerNormalization(name="two"), "two: LayerNormalization"),
        (layers.ReLU(6.0, name="six"), "six: ReLU"),
    ):
        model = keras.Sequential([keras.Input((4,)), layer, layers.Dense(2)])
        with pytest.raises(UsageError, match=f"received {said}"):
            backend_of(model).read_layers(model, (4,))

    class Own(keras.Model):
        def call(self, x):
            return x

    model = Own()
    model(np.zeros((1, 4)))
    with pytest.raises(UsageError, match="functional or sequential model"):
        backend_of(model).read_layers(model, (4,))


def test_a_network_that_is_too_large_is_refused_before_its_matrices_are_made():
    builder = Builder((64, 64, 64), "float32")
    with pytest.raises(UsageError, match="at most 20,000,000 products a forward"):
        builder.conv(0, np.ones((64, 64, 3, 3)), None, "conv1")


def test_logits_of_another_arithmetic_are_refused():
    layers, weights = dense_network((5, 6, 3), 0, "float32")
    x = np.full(5, 0.5)
    logits = perceptron(weights, x[None])[0]
    check(layers, x, logits)
    with pytest.raises(UsageError, match=r"off by 0\.001"):
        check(layers, x, logits + 0.001)
