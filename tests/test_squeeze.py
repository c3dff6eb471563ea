"""Algorithm 1: who is chosen, where the points may be, and a slow direct reading of it to compare with."""

from dataclasses import replace

import numpy as np
import pytest
from harness import load, problem, worst
from hypothesis import example, given, settings
from hypothesis import strategies as st

import stcore
from stcore import SqueezeConfig, SqueezePair
from stcore.core.divergences import DIVERGENCES
from stcore.core.losses import cross_entropy
from stcore.core.threat import L2
from stcore.methods.triplet import MEMBERS, roles, selection_shares
from stcore.protocols import Mode

# --- The selection ---


def chosen(backend, logits, y):
    """Cross-entropies (3, B) of natural, adversarial and collaborative logits, and who is highest, who lowest."""
    ops, y = backend.ops, np.asarray(y)
    triplet = backend.tensor(np.concatenate(np.asarray(logits, "float64")))
    losses = cross_entropy(ops, triplet, backend.tensor(np.tile(y, MEMBERS)))
    members = backend.tensor(np.repeat(np.arange(MEMBERS), len(y)) * 1.0)
    selected = ops.take(members, roles(ops, -losses))
    highest, lowest = (backend.array(one).astype(int) for one in ops.split(selected, 2))
    return backend.array(losses).reshape(MEMBERS, -1), highest, lowest


coarse = st.lists(st.lists(st.sampled_from([-1.0, 0.0, 2.0]), min_size=3, max_size=3), min_size=5, max_size=5)
fine = st.lists(st.lists(st.floats(-50, 50), min_size=3, max_size=3), min_size=5, max_size=5)


@settings(max_examples=100, deadline=None)
@given(logits=st.one_of(st.tuples(coarse, coarse, coarse), st.tuples(fine, fine, fine)), y=st.integers(0, 2))
def test_the_selected_fulfil_the_constraint_of_eq_6_and_ties_go_to_the_earlier(every_backend, logits, y):
    losses, highest, lowest = chosen(every_backend, logits, [y] * 5)
    np.testing.assert_array_equal(highest, losses.argmax(0))  # numpy's, too, is the first of equals
    np.testing.assert_array_equal(lowest, losses.argmin(0))
    confidence = np.exp(-losses)
    everyone = np.arange(5)
    assert (confidence[lowest, everyone] >= confidence[0]).all()
    assert (confidence[0] >= confidence[highest, everyone]).all()


NATURAL, ADVERSARIAL, COLLABORATIVE = range(3)
CASES = [  # p_y as a logit of class y for natural, adversarial, collaborative; who is highest and lowest in loss
    ((0, -1, 1), ADVERSARIAL, COLLABORATIVE),
    ((0, 1, -1), COLLABORATIVE, ADVERSARIAL),  # flipped
    ((-1, 0, 1), NATURAL, COLLABORATIVE),
    ((1, 0, -1), COLLABORATIVE, NATURAL),
    ((-1, 1, 0), NATURAL, ADVERSARIAL),
    ((1, -1, 0), ADVERSARIAL, NATURAL),
    ((0, 0, 0), NATURAL, NATURAL),
    ((0, 0, 1), NATURAL, COLLABORATIVE),
    ((0, 1, 0), NATURAL, ADVERSARIAL),
    ((0, -1, -1), ADVERSARIAL, NATURAL),
    ((1, 0, 0), ADVERSARIAL, NATURAL),
    ((0, 1, 1), NATURAL, ADVERSARIAL),
]


def test_a_table_of_selections(every_backend):
    logits = [[[case[0][i], 0.0, 0.5] for case in CASES] for i in range(3)]
    _, highest, lowest = chosen(every_backend, logits, [0] * len(CASES))
    assert list(zip(highest, lowest, strict=True)) == [case[1:] for case in CASES]


def test_shares_of_selections(every_backend):
    """Intended, flipped, natural: for each example exactly one."""
    ops = every_backend.ops
    confidence = every_backend.tensor(np.array([case[0] for case in CASES], float).T.reshape(-1))
    like = every_backend.tensor(np.zeros(len(CASES)))
    shares = selection_shares(ops, roles(ops, confidence), like)
    received = np.stack([every_backend.array(shares[f"selected_{n}"]) for n in ("intended", "flipped", "natural")])
    kinds = [{(1, 2): 0, (2, 1): 1}.get(case[1:], 2) for case in CASES]
    np.testing.assert_array_equal(received, np.eye(3)[kinds].T)


# --- The ball ---

configs = st.builds(
    SqueezeConfig,
    epsilon=st.one_of(st.just(0.0), st.floats(1e-3, 1.0)),
    step_size=st.floats(0, 1),
    steps=st.integers(1, 3),
    divergence=st.sampled_from(["symmetric_kl", "js", "squared_l2", "kl"]),
    norm=st.sampled_from(["linf", "l2"]),
    init=st.sampled_from(["gaussian", "uniform"]),
)
pixels = st.one_of(st.just("random"), st.just("black"), st.just("white"), st.just("binary"))


def images(kind, seed):
    x = problem(4, 4, seed).x
    return {"random": x, "black": 0 * x, "white": 0 * x + 1, "binary": (x > 0.5) * 1.0}[kind]


@settings(max_examples=12, deadline=None)
@example(config=SqueezeConfig(steps=2, norm="l2", epsilon=0.0), kind="random", seed=0)
@example(config=SqueezeConfig(steps=2, step_size=0.0), kind="binary", seed=0)
@given(config=configs, kind=pixels, seed=st.integers(0, 99))
def test_the_pair_is_in_the_ball_and_in_the_pixel_range(backend, config, kind, seed):
    x, given_ = images(kind, seed), problem(4, 4, seed)
    model = small_model(backend)
    noise = tuple(backend.images(n) for n in given_.noise)
    pair = stcore.find_squeeze_pair(model, backend.images(x), backend.tensor(given_.y), config, noise=noise)
    for one in pair:
        point = backend.nhwc(one)
        offset = (point - x).reshape(len(x), -1)
        size = np.abs(offset).max(1) if config.norm == "linf" else np.linalg.norm(offset, axis=1)
        assert (size <= config.epsilon + 1e-15 + 1e-14 * config.epsilon).all()
        assert point.min() >= 0
        assert point.max() <= 1


_models = {}


def small_model(backend):
    if backend.name not in _models:
        _models[backend.name] = backend.build("tiny-smooth", side=4)
    return _models[backend.name]


@pytest.mark.parametrize(("init", "scale"), [("gaussian", 1e-3), ("uniform", 8 / 255)])
def test_without_steps_the_starts_are_returned_unclamped(backend, init, scale):
    given_ = problem(4, 4)
    x = np.round(given_.x)  # half the noise leads out of the pixel range
    noise = tuple(backend.images(n) for n in given_.noise)
    config = SqueezeConfig(steps=0, init=init)
    pair = stcore.find_squeeze_pair(
        small_model(backend), backend.images(x), backend.tensor(given_.y), config, noise=noise
    )
    for point, n in zip(pair, given_.noise, strict=True):
        np.testing.assert_allclose(backend.nhwc(point), x + scale * n, rtol=0, atol=1e-16)
        assert backend.nhwc(point).min() < 0


@settings(max_examples=200, deadline=None)
@example(scale=1e-38, factors=[1.0] * 48)
@example(scale=1e-19, factors=[1.0] * 48)
@example(scale=1e3, factors=[1.0] * 48)
@given(
    scale=st.integers(-38, 3).map(lambda n: 10.0**n), factors=st.lists(st.floats(-1, 1), min_size=48, max_size=48)
)
def test_an_l2_step_is_never_longer_than_its_size(backend, scale, factors):
    """In float32, where squares underflow: it may then be shorter; from 1e-13 on it has its size."""
    gradient = (scale * np.array(factors)).astype("float32").reshape(1, 4, 4, 3)
    native = backend.tensor(gradient)
    moved = backend.array(L2(1.0).step(backend.ops, backend.tensor(0 * gradient), native, 0.125)).astype("float64")
    length = np.linalg.norm(moved)
    assert length <= 0.125 * (1 + 1e-5)
    if np.linalg.norm(gradient.astype("float64")) > 1e-13:
        assert length == pytest.approx(0.125, rel=1e-5)


# --- The search ---


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_k_single_steps_are_the_search(backend, norm):
    model, batch = small_model(backend), backend.batch(problem(5, 4))
    config = SqueezeConfig(steps=4, norm=norm, epsilon=8 / 255 if norm == "linf" else 0.5)
    found = stcore.find_squeeze_pair(model, batch.x, batch.y, config, noise=batch.noise)
    pair = stcore.squeeze_step(model, batch.x, batch.y, config=config, noise=batch.noise)
    for _ in range(config.steps - 1):
        pair = stcore.squeeze_step(model, batch.x, batch.y, pair, config)
    for one, other in zip(pair, found, strict=True):
        np.testing.assert_array_equal(backend.array(one), backend.array(other))


def test_flipped_points_get_their_roles_anew(every_backend):
    """x' and x'' handed in the wrong way round: the step puts the loser of p_y in the adversarial place again."""
    given_ = problem(4, 4, seed=1)
    classifier = every_backend.classifier(every_backend.build("tiny-smooth", side=4))
    batch, config = every_backend.batch(given_), SqueezeConfig(steps=1, init="uniform")
    losses = lambda x: every_backend.array(  # noqa: E731
        cross_entropy(classifier.ops, classifier.logits(x, Mode.BATCH), batch.y)
    )
    one, two = config.start(batch.x, batch.noise)
    assert (losses(one) != losses(two)).all()  # no ties
    straight, swapped = (
        search_step(classifier, batch, SqueezePair(*order), config) for order in ((one, two), (two, one))
    )
    for a, b in zip(straight, swapped, strict=True):
        np.testing.assert_array_equal(every_backend.array(a), every_backend.array(b))


def search_step(classifier, batch, pair, config):
    return config.ascend(classifier, batch.x, batch.y, pair, steps=1)


@pytest.mark.parametrize("divergence", DIVERGENCES)
def test_the_search_changes_its_pair_in_both_places(backend, divergence):
    """Both points climb: neither is left where the noise put it, and the divergence between them grows."""
    model, batch = small_model(backend), backend.batch(problem(6, 4))
    gaps = []
    for steps in (0, 2, 4):
        config = SqueezeConfig(steps=steps, divergence=divergence)
        pair = stcore.find_squeeze_pair(model, batch.x, batch.y, config, noise=batch.noise)
        gaps.append(float(stcore.squeeze_loss(model, batch.x, batch.y, pair, config).divergence))
        moved = [np.abs(backend.nhwc(p) - backend.nhwc(batch.x)).mean() for p in pair]
        assert steps == 0 or min(moved) > 1 / 255
    assert 10 * gaps[0] < gaps[1] < gaps[2]


def test_noise_drawn_from_a_seed_is_the_same_in_every_layout():
    given_, config = problem(4, 4), SqueezeConfig(steps=0)
    pairs = []
    for backend in (load("torch"), load("keras")):
        batch = backend.batch(given_)
        pair = stcore.find_squeeze_pair(small_model(backend), batch.x, batch.y, config, rng=0)
        pairs.append([backend.nhwc(point) - given_.x for point in pair])
    np.testing.assert_array_equal(*pairs)
    assert np.ptp(pairs[0]) > config.noise_std


def test_labels_may_have_another_integer_type(backend):
    given_, results = problem(6, 4), []
    for dtype in ("int32", "int64"):
        model, batch = backend.build("tiny-smooth", side=4), backend.batch(given_)
        y = backend.tensor(given_.y.astype(dtype))
        pair = stcore.find_squeeze_pair(model, batch.x, y, SqueezeConfig(steps=2), noise=batch.noise)
        loss = stcore.squeeze_loss(model, batch.x, y, pair)
        results.append([*map(backend.nhwc, pair), backend.array(loss.total)])
    for one, other in zip(*results, strict=True):
        np.testing.assert_array_equal(one, other)


def test_host_pixels_are_no_tensors_and_the_message_says_what_is_expected(backend):
    x, y, _ = backend.batch(problem(6, 4))
    names = {"torch": "torch.Tensor", "tensorflow": "TensorFlow tensor", "jax": "JAX array"}
    expected = f"expected a {names[backend.engine]}"
    with pytest.raises(TypeError, match=f"{expected} of the model's .*float64; received ndarray"):
        stcore.find_squeeze_pair(small_model(backend), backend.array(x), y)
    with pytest.raises(TypeError, match=expected):
        stcore.find_squeeze_pair(small_model(backend), x, y, noise=(backend.array(x), x))


# --- The loss ---


def test_only_the_total_of_the_loss_can_be_differentiated(backend):
    model, batch = backend.build("tiny-smooth", side=4), backend.batch(problem(6, 4))
    run = lambda: stcore.squeeze_loss(model, batch.x, batch.y, noise=batch.noise)  # noqa: E731
    if backend.name == "torch":
        graphs = [part.requires_grad for part in run()]
    elif backend.engine == "jax":
        import jax
        import keras

        weight = model.trainable_variables[0]

        def part(value, which):
            with keras.StatelessScope([(weight, value)]):
                return run()[which]

        graphs = [bool((jax.grad(part)(weight.value, which) != 0).any()) for which in range(5)]
    else:
        import tensorflow as tf

        with tf.GradientTape(persistent=True) as tape:
            loss = run()
        weight = model.trainable_variables[0].value
        graphs = [tape.gradient(part, weight) is not None for part in loss]
    assert graphs == [True, False, False, False, False]


@pytest.mark.parametrize("divergence", ["symmetric_kl", "js", "squared_l2", "kl"])
def test_the_parts_of_the_loss_fit_together(backend, divergence):
    model, batch = backend.build("tiny-smooth", side=4), backend.batch(problem(6, 4))
    config = SqueezeConfig(steps=3, divergence=divergence, beta=2.5)
    loss = stcore.squeeze_loss(model, batch.x, batch.y, config=config, noise=batch.noise)
    total, natural, adversarial, collaborative, divergence = (float(part) for part in loss)
    assert total == pytest.approx(natural + 2.5 * divergence, rel=1e-14)
    assert collaborative <= natural <= adversarial
    assert divergence > 0


def test_the_selected_shares_sum_to_one(every_backend):
    classifier = every_backend.classifier(every_backend.build("tiny-smooth", side=4))
    batch, config = every_backend.batch(problem(6, 4)), SqueezeConfig()
    metrics = config.losses(classifier, batch.x, batch.y, config.start(batch.x, batch.noise)).metrics
    shares = [every_backend.array(v) for name, v in metrics.items() if name.startswith("selected_")]
    np.testing.assert_array_equal(np.sum(shares, axis=0), np.ones(6))
    ce = [every_backend.array(metrics[f"{who}_loss"]) for who in ("collaborative", "natural", "adversarial")]
    assert (ce[0] <= ce[1]).all()
    assert (ce[1] <= ce[2]).all()


# --- A slow, direct reading of Algorithm 1 in plain torch ---


def reference_divergence(name, torch, z_low, z_high, stop):
    """ℓ_reg by torch's own functionals, summed over the batch."""
    from torch.nn.functional import kl_div, log_softmax, softmax

    target = (lambda z: softmax(z, 1).detach()) if stop else (lambda z: softmax(z, 1))
    low, high = log_softmax(z_low, 1), log_softmax(z_high, 1)
    if name == "kl":  # never stopped
        return kl_div(high, softmax(z_low, 1), reduction="sum")
    if name == "symmetric_kl":
        halves = kl_div(high, target(z_low), reduction="sum"), kl_div(low, target(z_high), reduction="sum")
        return (halves[0] + halves[1]) / 2
    p, q = softmax(z_low, 1), softmax(z_high, 1)
    if name == "squared_l2":
        return ((p - q) ** 2).sum()
    middle = ((p + q) / 2).log()
    return (kl_div(middle, p, reduction="sum") + kl_div(middle, q, reduction="sum")) / 2


def reference_selection(torch, logits, y):
    """Indices into the triplet, by p_y: of the highest and of the lowest loss, the first of equals."""
    p = torch.stack([torch.log_softmax(z, 1)[torch.arange(len(y)), y] for z in logits])
    return p.argmin(0), p.argmax(0)


def reference_pair(torch, model, x, y, noise, config):
    """Everything is forwarded again at every step, and one autograd call goes all the way to the pixels."""
    points = [x, *(x + config.noise_std * n for n in noise)]
    everyone, orders = torch.arange(len(x)), []
    for _ in range(config.steps):
        points = [p.detach().requires_grad_() for p in points]
        logits = [model(p) for p in points]
        high, low = reference_selection(torch, logits, y)
        orders.append((high, low))
        z = torch.stack(logits)
        name = config.inner_divergence or config.divergence
        gap = reference_divergence(name, torch, z[low, everyone], z[high, everyone], config.stop_gradient_targets)
        gradients = torch.stack(torch.autograd.grad(gap, points))
        candidates = torch.stack(points).detach()
        moved = [
            reference_move(torch, candidates[i, everyone], gradients[i, everyone], x, config) for i in (high, low)
        ]
        points = [x, *moved]
    return points[1:], orders


def reference_move(torch, point, gradient, x, config):
    if config.norm == "linf":
        point = point + config.step_size * gradient.sign()
        return torch.min(torch.max(point, x - config.epsilon), x + config.epsilon).clamp(0, 1)
    norm = lambda v: v.flatten(1).norm(dim=1)[:, None, None, None]  # noqa: E731
    delta = point + config.step_size * gradient / norm(gradient) - x
    return (x + delta * (config.epsilon / norm(delta)).clamp(max=1)).clamp(0, 1)


DEFAULT = SqueezeConfig(steps=6)
VARIANTS = {
    "as released": DEFAULT,
    "as printed": replace(DEFAULT, stop_gradient_targets=False),
    "js": replace(DEFAULT, divergence="js"),
    "squared l2": replace(DEFAULT, divergence="squared_l2"),
    "kl": replace(DEFAULT, divergence="kl"),
    "js within, symmetric KL without": replace(DEFAULT, inner_divergence="js"),
    "l2 norm": replace(DEFAULT, norm="l2", epsilon=0.5, step_size=0.125),
}


@pytest.mark.parametrize("net", ["tiny", "tiny-smooth"])
@pytest.mark.parametrize("config", VARIANTS.values(), ids=VARIANTS)
def test_algorithm_1_read_directly(config, net):
    """The natural image forwarded once per search is the natural image forwarded at every step."""
    torch_backend = load("torch")
    import torch

    model, batch = torch_backend.build(net), torch_backend.batch(problem(8, seed=3))
    reference = torch_backend.build(net)  # its own: in plain training mode it updates statistics
    expected, orders = reference_pair(torch, reference, *batch, config)
    order = torch.stack([high - low for high, low in orders])
    assert (order.abs() == 2).any()  # the natural image plays a part
    assert (order == -1).any()  # both neighbours, as intended
    assert (order == 1).any()  # and flipped

    pair = stcore.find_squeeze_pair(model, batch.x, batch.y, config, noise=batch.noise)
    for one, other in zip(pair, expected, strict=True):
        assert (one - other).abs().max() <= (0 if config.norm == "linf" else 1e-12)

    z = [reference(p) for p in (batch.x, *expected)]
    high, low = reference_selection(torch, z, batch.y)
    low, high = (torch.stack(z)[i, torch.arange(8)] for i in (low, high))
    gap = reference_divergence(config.divergence, torch, low, high, config.stop_gradient_targets) / 8
    total = torch.nn.functional.cross_entropy(z[0], batch.y) + config.beta * gap
    loss = stcore.squeeze_loss(model, batch.x, batch.y, pair, config)
    assert float(loss.total) == pytest.approx(float(total), rel=1e-12)
    for one, other in zip(
        torch.autograd.grad(loss.total, list(model.parameters())),
        torch.autograd.grad(total, list(reference.parameters())),
        strict=True,
    ):
        assert worst(one, other) <= 1e-11
