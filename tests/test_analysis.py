"""The analyses of checkpoints: against closed forms on linear networks, and one backend against the other."""

import dataclasses
from functools import cache
from types import SimpleNamespace

import numpy as np
import pytest
from harness import NAMES, load, problem
from hypothesis import given, settings
from hypothesis import strategies as st

import stcore
from stcore.analysis import collaborative, examples, findings, landscape
from stcore.analysis.angles import angle
from stcore.analysis.examples import one_per_class
from stcore.analysis.landscape import orthogonal
from stcore.analysis.subject import Subject
from stcore.base.progress import Silent
from stcore.data.batches import Batch
from stcore.errors import DataError, UsageError
from stcore.evaluation.evaluator import Evaluator

ALL = ("collaborative", "examples", "landscape", "angles")
SHORT = {
    "collaborative": {"budgets": (0.02, 0.05), "step_size": 0.02, "steps": 4},
    "examples": {"epsilon": 0.05, "step_size": 0.02, "steps": 4},
    "landscape": {"epsilon": 0.05, "step_size": 0.02, "steps": 4, "grid": 5, "seed": 3},
    "angles": {"epsilon": 0.05, "step_size": 0.02, "steps": 4},
}


def linear(backend, weight, bias):
    """Flat pixels (B, D) to logits x·W + b, in float64."""
    weight, bias = np.asarray(weight, np.float64), np.asarray(bias, np.float64)
    if backend.name == "torch":
        import torch

        model = torch.nn.Linear(*weight.shape, dtype=torch.float64)
        with torch.no_grad():
            model.weight.copy_(torch.tensor(weight.T))
            model.bias.copy_(torch.tensor(bias))
        return model
    import keras

    layer = keras.layers.Dense(weight.shape[1], dtype="float64")
    model = keras.Sequential([keras.Input(weight.shape[:1], dtype="float64"), layer])
    layer.set_weights([weight, bias])
    return model


def cross_entropy(logits, labels):
    """By its definition."""
    return np.log(np.exp(logits).sum(axis=1)) - logits[np.arange(len(labels)), labels]


def two_classes(images=5, pixels=12, seed=0, low=0.3, high=0.7):
    """A linear network of two classes, whose gradient has the same signs everywhere, with images and labels.

    The loss falls along `s`, (N, D): by d(z_y − z_other)/dx."""
    rng = np.random.default_rng(seed)
    weight, bias = rng.normal(size=(pixels, 2)), rng.normal(size=2)
    x, y = rng.uniform(low, high, (images, pixels)), rng.integers(2, size=images)
    s = np.sign(np.where(y[:, None] == 1, 1, -1) * (weight[:, 1] - weight[:, 0]))
    return SimpleNamespace(weight=weight, bias=bias, x=x, y=y, s=s, logits=lambda x: x @ weight + bias)


def numbers(content):
    if isinstance(content, dict):
        return [n for one in content.values() for n in numbers(one)]
    if isinstance(content, (list, tuple)):
        return [n for one in content for n in numbers(one)]
    return [content] if isinstance(content, (int, float)) else []


def of_net(backend, what, batch_size=250, dtype="float64", **changes):
    given = problem(batch=7, seed=4)
    net = backend.build(dtype=dtype)
    data = (backend.array(backend.images(given.x, dtype)), given.y)
    return stcore.analyze(net, data, what, batch_size=batch_size, **{**SHORT[what], **changes})


@cache
def found_on(backend, what):
    """With all that is usual; read only."""
    return of_net(backend, what)


@pytest.mark.parametrize("what", ALL)
def test_both_backends_find_the_same(what):
    found = [found_on(load(name), what) for name in NAMES]
    one, other = (np.array(numbers(result.content())) for result in found)
    assert len(one) > 15
    np.testing.assert_allclose(one, other, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("what", ALL)
def test_results_do_not_depend_on_the_batch_size(backend, what):
    one, other = found_on(backend, what), of_net(backend, what, batch_size=3)
    np.testing.assert_allclose(numbers(one.content()), numbers(other.content()), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("what", ALL)
def test_float32_is_near(backend, what):
    one, other = found_on(backend, what), of_net(backend, what, dtype="float32")
    exact, rounded = numbers(one.table()), numbers(other.table())
    np.testing.assert_allclose(rounded, exact, rtol=0.02, atol=0.02)


def test_collaborative_examples_of_a_linear_network(backend):
    """Two classes: the signs never change, so K steps go min(K·α, ε) along them, within [0, 1]."""
    given = two_classes(low=0.0, high=1.0)
    found = stcore.analyze(
        linear(backend, given.weight, given.bias),
        (given.x, given.y),
        "collaborative",
        budgets=(0.02, 0.1, 0.5),
        step_size=0.03,
        steps=10,
    )
    (curve,) = found.curves
    for k, way in enumerate((0.0, 0.02, 0.1, 0.3)):
        at = given.logits(np.clip(given.x + way * given.s, 0, 1))
        np.testing.assert_allclose(curve.losses[k], cross_entropy(at, given.y), rtol=1e-12)
        np.testing.assert_array_equal(curve.correct[k], at.argmax(axis=1) == given.y)
    first, *_, last = found.rows()
    assert (first["budget"], first["loss"]) == (0.0, pytest.approx(curve.losses[0].mean(), rel=1e-12))
    assert last["loss_deviation"] == pytest.approx(np.std(curve.losses[3]), rel=1e-12)
    assert last["images"] == 5


@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 10**6), steps=st.integers(1, 6))
def test_on_a_linear_network_a_larger_ball_has_a_smaller_loss(seed, steps):
    given = two_classes(seed=seed)
    model = linear(load("torch"), given.weight, given.bias)
    asked = {"budgets": (0.01, 0.02, 0.2), "step_size": 0.01, "steps": steps}
    means = stcore.analyze(model, (given.x, given.y), "collaborative", **asked).curves[0].mean
    assert (np.diff(means) <= 1e-12).all()
    assert means[1] < means[0]


def test_angles_of_a_linear_network_are_180_away_from_the_border(backend):
    given = two_classes()
    model = linear(backend, given.weight, given.bias)
    (found,) = stcore.analyze(model, (given.x, given.y), "angles", epsilon=0.05, step_size=0.02, steps=4).models
    assert not found.border.any()
    assert found.median_off_border(4) == pytest.approx(180)
    np.testing.assert_allclose(found.degrees, 180, atol=1e-5)
    assert found.histogram(1)[-1] == 5


def test_pixels_at_the_border_take_some_of_the_first_angle(backend):
    """A pixel at 0 can only rise: one of the two perturbations is zero there, and cos = −n₀/√(n₁·n₂)."""
    given = two_classes(images=1, pixels=10)
    given.x[0, :4] = 0.0
    model = linear(backend, given.weight, given.bias)
    (found,) = stcore.analyze(model, (given.x, given.y), "angles", epsilon=0.05, step_size=0.02, steps=1).models
    falling, rising = (int((given.s[0, :4] == sign).sum()) for sign in (-1, 1))  # by the collaborative one
    cosine = -6 / np.sqrt((6 + rising) * (6 + falling))
    assert found.border.tolist() == [True]
    assert found.median_off_border(1) is None
    assert found.degrees[0, 0] == pytest.approx(np.degrees(np.arccos(cosine)), abs=1e-9)


def test_an_angle_without_a_perturbation_is_left_out_and_counted(backend):
    given = two_classes()
    model = linear(backend, np.zeros((12, 2)), [0.0, 2.0])
    found = stcore.analyze(model, (given.x, given.y), "angles", steps=2)
    assert np.isnan(found.models[0].degrees).all()
    (first, _) = found.rows()
    assert (first["images"], first["undefined"], first["median"]) == (0, 5, None)
    assert first.keys() == found_on(backend, "angles").rows()[0].keys()


@settings(max_examples=50, deadline=None)
@given(seed=st.integers(0, 10**6), degrees=st.floats(1e-4, 180 - 1e-4))
def test_angle_between_rows(seed, degrees):
    """Two vectors made with this angle between them, of lengths of their own."""
    rng = np.random.default_rng(seed)
    one, other = np.linalg.qr(rng.normal(size=(9, 2)))[0].T
    turned = np.cos(np.radians(degrees)) * one + np.sin(np.radians(degrees)) * other
    found = angle(rng.uniform(0.1, 9) * one[None], rng.uniform(0.1, 9) * turned[None])
    assert found[0] == pytest.approx(degrees, abs=1e-10, rel=1e-9)


def subject_of(backend, given):
    classifier = stcore.make_classifier(linear(backend, given.weight, given.bias))
    return Subject("it", classifier, given.x, given.y, np.arange(len(given.y)))


def test_landscape_is_the_loss_at_each_point(backend):
    """u is what the closed form says; the loss at x + a·u + b·v is the definition's, not clipped."""
    given = two_classes(images=3)
    subject = subject_of(backend, given)
    asked = landscape.Settings(epsilon=0.2, step_size=0.05, steps=9, grid=4, reach=3.0, seed=7)
    found = landscape.compute([subject], asked, progress=Silent()).surfaces[0]
    evaluator = Evaluator(subject.classifier, {"collaborative": asked.collaborative})
    x, u, v = landscape.directions(evaluator, Batch(given.x, given.y, np.arange(3)), seed=7)
    np.testing.assert_allclose(u, 0.2 * given.s, atol=1e-12)
    np.testing.assert_allclose((u * v).sum(axis=1), 0, atol=1e-12)
    np.testing.assert_allclose(np.linalg.norm(v, axis=1), np.linalg.norm(u, axis=1), rtol=1e-12)
    axis = np.array([-3.0, -1.0, 1.0, 3.0])
    expected = [[cross_entropy(given.logits(x + a * u + b * v), given.y).mean() for b in axis] for a in axis]
    np.testing.assert_allclose(found.loss, expected, rtol=1e-12)
    assert (found.images, found.undefined) == (3, 0)
    assert found.length == pytest.approx(0.2 * np.sqrt(12))
    assert abs(x + 3 * u).max() > 1  # a point outside [0, 1] was among them


def test_another_seed_turns_the_landscape(backend):
    again, turned = (of_net(backend, "landscape", seed=seed) for seed in (3, 4))
    one, same, other = (found.surfaces[0].loss for found in (found_on(backend, "landscape"), again, turned))
    np.testing.assert_array_equal(one, same)
    np.testing.assert_allclose(one[:, 2], other[:, 2], rtol=1e-12)  # b = 0: along u nothing was drawn
    assert abs(one[:, 0] - other[:, 0]).max() > 1e-6


def test_a_landscape_without_any_direction_is_refused(backend):
    given = two_classes()
    with pytest.raises(DataError, match="none of 5 has one"):
        stcore.analyze(linear(backend, np.zeros((12, 2)), [0.0, 2.0]), (given.x, given.y), "landscape", grid=2)


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 10**6), pixels=st.integers(2, 40), scale=st.floats(1e-6, 1e6))
def test_orthogonal_directions(seed, pixels, scale):
    rng = np.random.default_rng(seed)
    drawn, u = rng.normal(size=(3, pixels, 1)), scale * rng.normal(size=(3, pixels, 1))
    v = orthogonal(drawn, u)
    lengths = np.linalg.norm(u, axis=1)
    np.testing.assert_allclose(np.linalg.norm(v, axis=1), lengths, rtol=1e-12)
    assert (abs((u * v).sum(axis=1)) <= 1e-12 * lengths**2).all()


def test_examples_are_in_the_ball_and_in_range_and_go_their_ways(backend):
    found = found_on(backend, "examples")
    (model,) = found.models
    given = problem(batch=7, seed=4)
    np.testing.assert_array_equal(model.images["natural"], given.x)
    for kind in ("adversarial", "collaborative"):
        assert abs(model.perturbation(kind)).max() <= 0.05 + 1e-12
        assert model.images[kind].min() >= 0
        assert model.images[kind].max() <= 1
    assert (model.losses["collaborative"] < model.losses["natural"]).all()
    assert (model.losses["natural"] < model.losses["adversarial"]).all()
    classifier = backend.classifier(backend.build())
    for kind, images in model.images.items():
        logits = classifier.eval_logits(classifier.images(images))
        np.testing.assert_allclose(model.losses[kind], cross_entropy(logits, given.y), rtol=1e-9)
        np.testing.assert_array_equal(model.predicted[kind], logits.argmax(axis=1))
    assert found.amplification == pytest.approx(0.5 / 0.05)
    assert len(found.rows()) == 7 * 3


def test_models_come_back_as_they_were(backend):
    net = backend.build()
    before = stcore.make_classifier(net).weights()
    given = problem(batch=4)
    for what in ALL:
        stcore.analyze(net, (backend.array(backend.images(given.x)), given.y), what, **SHORT[what])
    after = stcore.make_classifier(net).weights()
    assert all(np.array_equal(before[name], after[name]) for name in before)


def test_settings_in_proportion_to_another_epsilon():
    assert collaborative.Settings.at(8 / 255) == collaborative.Settings()
    scaled = collaborative.Settings.at(0.2)
    assert scaled.budgets == pytest.approx((0.1, 0.2, 0.4, 0.8))
    assert scaled.step_size == pytest.approx(0.2 / 8)
    assert collaborative.Settings.at(0.4).budgets == pytest.approx((0.2, 0.4, 0.8, 1.0))
    assert collaborative.Settings.at(0.5, "l2").budgets == pytest.approx((0.25, 0.5, 1.0, 2.0))
    assert examples.Settings.at(0.2).epsilon == pytest.approx(0.4)


@pytest.mark.parametrize(
    ("what", "wrong", "said"),
    [
        ("curves", {}, "what: expected one of collaborative"),
        ("angles", {"grid": 3}, "settings: expected some of epsilon.*received grid"),
        ("angles", {"steps": 0}, "steps: expected a whole number of at least 1"),
        ("angles", {"epsilon": 1.5}, "epsilon"),
        ("collaborative", {"budgets": (0.2, 0.1)}, "ascending"),
        ("collaborative", {"budgets": ()}, "budgets: expected radii above 0"),
        ("collaborative", {"norm": "l1"}, "norm: expected one of linf, l2"),
        ("landscape", {"grid": 1}, "grid: expected a whole number of at least 2"),
    ],
)
def test_what_is_refused(what, wrong, said):
    given = two_classes()
    with pytest.raises(UsageError, match=said):
        stcore.analyze(linear(load("torch"), given.weight, given.bias), (given.x, given.y), what, **wrong)


def test_models_side_by_side_see_the_same_images():
    given = two_classes()
    one = subject_of(load("torch"), given)
    other = dataclasses.replace(one, name="other", images=1 - given.x)
    with pytest.raises(DataError, match="other: expected the images and labels of it"):
        collaborative.compute([one, other], collaborative.Settings(steps=1), progress=Silent())
    found = collaborative.compute([one, one], collaborative.Settings(steps=1), progress=Silent())
    np.testing.assert_array_equal(found.curves[0].losses, found.curves[1].losses)


def test_one_image_of_each_class():
    labels = np.array([3, 0, 1, 0, 3, 0, 1])
    drawn = [one_per_class(labels, 2, seed) for seed in range(20)]
    assert all(labels[places].tolist() == [0, 1] for places in drawn)
    assert len({tuple(places) for places in drawn}) == 6
    assert labels[one_per_class(labels, 9, 0)].tolist() == [0, 1, 3]


def robust(standard, other):
    return {"standard": standard, "at": other, "trades": other, "st": other}


def collaborative_rows(standard, other):
    return [
        {"model": name, "budget": budget, "loss": loss}
        for name, losses in robust(standard, other).items()
        for budget, loss in zip((0.0, 0.1), losses, strict=True)
    ]


def angle_rows(first, last, spread):
    return [
        {"model": name, "step": step, "median": median, "median_off_border": median, "deviation": wide}
        for name, wide in robust(*spread).items()
        for step, median in ((1, first), (20, robust(*last)[name]))
    ]


def loss_rows(st, trades):
    return [
        {"run": run, "epoch": epoch, "points": points, "loss": loss + 9 * (2 - epoch)}
        for run, losses in (("st", st), ("trades", trades))
        for epoch in (1, 2)
        for points, loss in zip(("collaborative", "natural", "adversarial"), losses, strict=True)
    ]


@pytest.mark.parametrize(
    ("analysis", "rows", "holds"),
    [
        ("collaborative", collaborative_rows((0.2, 0.001), (0.9, 0.3)), [True, True]),
        ("collaborative", collaborative_rows((0.2, 0.05), (0.9, 0.04)), [False, False]),
        ("angles", angle_rows(179.95, (95, 120), (4, 9)), [True, True, True, True]),
        ("angles", angle_rows(150, (120, 95), (9, 4)), [False, False, False, False]),
        ("ratio", [{"run": "trades", "collaborative_share": s} for s in (0.45, 0.4, 0.3)], [True, True]),
        ("ratio", [{"run": "trades", "collaborative_share": s} for s in (0.4, 0.55, 0.45)], [False, False]),
        ("losses", loss_rows((0.8, 1.0, 1.2), (0.5, 0.9, 1.6)), [True, True]),
        ("losses", loss_rows((0.5, 0.9, 1.6), (0.8, 1.0, 1.2)), [False, False]),
    ],
)
def test_findings_are_told_either_way(analysis, rows, holds):
    found = findings.CHECKED[analysis](rows)
    assert [one.holds for one in found] == holds
    assert all(one.numbers for one in found)
