"""The losses of Auto-PGD: pyautoattack's values and gradients, few classes, no change with scale or offset."""

from types import SimpleNamespace

import numpy as np
import pytest
from harness import load
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from stcore.core.losses import (
    best_other_probability,
    cross_entropy,
    difference_of_logits_ratio,
    label_probability,
    probability_margin,
    smoothed,
    targeted_difference_of_logits_ratio,
)


def random_problem(classes, batch=40, seed=0):
    """Logits without ties, and labels at every rank, with another class each."""
    rng = np.random.default_rng(seed)
    logits, y = rng.normal(size=(batch, classes)) * 4, rng.integers(classes, size=batch)
    return logits, y, (y + rng.integers(1, classes, size=batch)) % classes


def value_and_gradient(backend, logits, y, target=None):
    """Per example: the DLR loss, of a target if one is given, and the gradients of the sum."""
    ops = backend.ops
    if target is None:
        loss = lambda z: difference_of_logits_ratio(ops, z, backend.tensor(y))  # noqa: E731
    else:
        loss = lambda z: targeted_difference_of_logits_ratio(  # noqa: E731
            ops, z, backend.tensor(y), backend.tensor(target)
        )
    value, pullback = ops.vjp(loss, backend.tensor(logits))
    return backend.array(value), backend.array(pullback(ops.ones_like(value))[0])


def pyautoattacks(logits, y, target=None):
    pytest.importorskip("pyautoattack")
    torch = pytest.importorskip("torch")
    from pyautoattack.autopgd_base import APGDAttack, APGDAttack_targeted

    z = torch.tensor(logits, requires_grad=True)
    if target is None:
        value = APGDAttack.dlr_loss(None, z, torch.tensor(y))
    else:
        itself = SimpleNamespace(y_target=torch.tensor(target))
        value = APGDAttack_targeted.dlr_loss_targeted(itself, z, torch.tensor(y))
    return value.detach().numpy(), torch.autograd.grad(value.sum(), z)[0].numpy()


@pytest.mark.parametrize("classes", [3, 4, 10])
def test_dlr_is_pyautoattacks(backend, classes):
    logits, y, _ = random_problem(classes)
    rank = (logits > logits[np.arange(40), y][:, None]).sum(axis=1)
    assert set(rank) >= {0, 1, 2}  # the label is the first, the second, the third of the logits
    ours, theirs = value_and_gradient(backend, logits, y), pyautoattacks(logits, y)
    np.testing.assert_allclose(ours[0], theirs[0], rtol=1e-13)
    np.testing.assert_allclose(ours[1], theirs[1], rtol=1e-11, atol=1e-13)


@pytest.mark.parametrize("classes", [4, 5, 10])
def test_targeted_dlr_is_pyautoattacks(backend, classes):
    logits, y, target = random_problem(classes)
    ours, theirs = value_and_gradient(backend, logits, y, target), pyautoattacks(logits, y, target)
    np.testing.assert_allclose(ours[0], theirs[0], rtol=1e-13, atol=1e-14)
    np.testing.assert_allclose(ours[1], theirs[1], rtol=1e-11, atol=1e-13)


@pytest.mark.parametrize("classes", [2, 3, 4, 6])
@pytest.mark.parametrize("targeted", [False, True])
def test_gradients_are_the_finite_differences(backend, classes, targeted):
    """The way through the sorted denominator included."""
    logits, y, target = random_problem(classes, batch=12, seed=1)
    (value, gradient), (expected_value, expected) = (
        value_and_gradient(b, logits, y, target if targeted else None) for b in (backend, load("strict"))
    )
    np.testing.assert_allclose(value, expected_value, rtol=1e-13, atol=1e-14)
    np.testing.assert_allclose(gradient, expected, rtol=1e-7, atol=1e-8)


def test_by_hand(every_backend):
    logits = np.array([[3.0, 1.0, 0.0, -1.0], [3.0, 1.0, 0.0, -1.0]])
    y, target = np.array([0, 1]), np.array([2, 3])
    value, gradient = value_and_gradient(every_backend, logits, y)
    np.testing.assert_allclose(value, [-2 / 3, 2 / 3])
    # −(z_0 − z_1) / (z_0 − z_2), and the quotient rule
    np.testing.assert_allclose(gradient[0], [-1 / 3 + 2 / 9, 1 / 3, -2 / 9, 0], atol=1e-9)
    value, gradient = value_and_gradient(every_backend, logits, y, target)
    np.testing.assert_allclose(value, [-3 / 3.5, -2 / 3.5])
    over = 3 / 3.5**2
    np.testing.assert_allclose(
        gradient[0], [-1 / 3.5 + over, 0, 1 / 3.5 - over / 2, -over / 2], atol=1e-9
    )  # −(z_0 − z_2) / (z_0 − (z_2 + z_3) / 2)


@settings(deadline=None)
@given(z=arrays(float, (3, 4), elements=st.floats(-30, 30)), smoothing=st.floats(0, 1))
def test_smoothed_labels_are_those_of_torch(backend, z, smoothing):
    functional = pytest.importorskip("torch.nn.functional")
    torch, labels = pytest.importorskip("torch"), np.array([0, 3, 1])
    logits = backend.tensor(z)
    plain = cross_entropy(backend.ops, logits, backend.tensor(labels))
    expected = functional.cross_entropy(
        torch.tensor(z), torch.tensor(labels), reduction="none", label_smoothing=smoothing
    )
    np.testing.assert_allclose(
        backend.array(smoothed(backend.ops, plain, logits, smoothing)), expected.numpy(), atol=1e-12
    )


def test_of_three_classes_the_third_logit_stands_for_the_fourth_too(every_backend):
    logits, y, target = random_problem(3, batch=10)
    high, _, low = np.sort(logits)[:, ::-1].T
    lanes = np.arange(10)
    expected = (logits[lanes, target] - logits[lanes, y]) / (high - low)
    np.testing.assert_allclose(value_and_gradient(every_backend, logits, y, target)[0], expected)


def test_of_two_classes_both_are_the_plain_difference(every_backend):
    logits, y, target = random_problem(2, batch=10)
    lanes = np.arange(10)
    expected = logits[lanes, 1 - y] - logits[lanes, y]
    for wanted in (None, target):
        value, gradient = value_and_gradient(every_backend, logits, y, wanted)
        np.testing.assert_allclose(value, expected)
        np.testing.assert_allclose(gradient, np.where(np.arange(2) == y[:, None], -1, 1), atol=1e-9)


@settings(max_examples=60, deadline=None)
@given(
    data=st.data(),
    classes=st.integers(3, 7),
    scale=st.floats(0.05, 20),
    offset=st.floats(-50, 50),
    targeted=st.booleans(),
)
def test_scale_and_offset_change_nothing(data, classes, scale, offset, targeted):
    steps = data.draw(st.lists(st.floats(0.01, 5), min_size=classes, max_size=classes))
    logits = np.array([data.draw(st.permutations(list(np.cumsum(steps))))])
    y = data.draw(st.integers(0, classes - 1))
    target = (y + data.draw(st.integers(1, classes - 1))) % classes
    given = (np.array([y]), np.array([target]) if targeted else None)
    strict = load("strict")
    value, gradient = value_and_gradient(strict, logits, *given)
    other, _ = value_and_gradient(strict, logits * scale + offset, *given)
    np.testing.assert_allclose(other, value, rtol=1e-7, atol=1e-9)
    # So the loss does not change along the logits, nor along equal logits.
    np.testing.assert_allclose([gradient.sum(), (gradient * logits).sum()], 0, atol=1e-4)
    assert value >= -1 - 1e-9 or targeted


# Probabilities as log-odds


def of_probabilities(name, logits, y):
    """What a loss is of, and its gradient, by the softmax itself: p_max − p_y, p_y or p_max."""
    e = np.exp(logits - logits.max(axis=1, keepdims=True))
    p, lanes = e / e.sum(axis=1, keepdims=True), np.arange(len(y))
    others = p.copy()
    others[lanes, y] = -1
    best = others.argmax(axis=1)
    gradient = {j: p[lanes, c][:, None] * (np.eye(p.shape[1])[c] - p) for j, c in {"y": y, "max": best}.items()}
    return {
        "margin": (p[lanes, best] - p[lanes, y], gradient["max"] - gradient["y"]),
        "label": (p[lanes, y], gradient["y"]),
        "other": (p[lanes, best], gradient["max"]),
    }[name]


OF = {"margin": probability_margin, "label": label_probability, "other": best_other_probability}


def differentiated(backend, loss, logits, y):
    ops = backend.ops
    value, pullback = ops.vjp(lambda z: loss(ops, z, backend.tensor(y)), backend.tensor(logits))
    return backend.array(value), backend.array(pullback(ops.ones_like(value))[0])


@pytest.mark.parametrize("classes", [2, 3, 10])
@pytest.mark.parametrize("name", OF)
def test_log_odds_are_increasing_functions_of_the_softmaxs_values(every_backend, name, classes):
    """m = tanh(loss/2) and p = 1/(1 + exp(−loss)); so the gradients have the same direction."""
    logits, y, _ = random_problem(classes, batch=20)
    value, gradient = differentiated(every_backend, OF[name], logits, y)
    expected, its = of_probabilities(name, logits, y)
    tolerance = 1e-6 if every_backend.name == "strict" else 1e-9
    if name == "margin":
        np.testing.assert_allclose(np.tanh(value / 2), expected, atol=1e-12)
        slope = (1 - expected**2) / 2
    else:
        np.testing.assert_allclose(1 / (1 + np.exp(-value)), expected, atol=1e-12)
        slope = expected * (1 - expected)
    np.testing.assert_allclose(slope[:, None] * gradient, its, atol=tolerance)


@settings(max_examples=15, deadline=None)
@given(
    logits=arrays(np.float32, (3, 5), elements=st.floats(-1e6, 1e6, width=32)),
    y=arrays(np.int64, 3, elements=st.integers(0, 4)),
    name=st.sampled_from(list(OF)),
)
def test_log_odds_and_their_gradients_in_float32_are_those_in_float64(backend, logits, y, name):
    value, gradient = differentiated(backend, OF[name], logits, y)
    fine, its = differentiated(backend, OF[name], logits.astype(np.float64), y)
    np.testing.assert_allclose(value, fine, rtol=1e-5, atol=1e-4)
    np.testing.assert_allclose(gradient, its, atol=1e-5)
    assert np.isfinite(gradient).all()


@pytest.mark.parametrize("scale", [20.0, 1e3, 1e5])
def test_where_the_softmax_is_saturated_the_gradient_is_not(backend, scale):
    """The float32 margin is −1 with the gradient 0; its direction is known by hand: from the label to the best."""
    logits, y = scale * np.array([[4.0, 2.0, 0.0], [0.0, 4.0, 3.0]], "float32"), np.array([0, 1])
    z = logits - logits.max(axis=1, keepdims=True)
    p = np.exp(z) / np.exp(z).sum(axis=1, keepdims=True, dtype="float32")
    assert p.max(axis=1).tolist() == [1, 1]
    _, gradient = differentiated(backend, probability_margin, logits, y)
    np.testing.assert_allclose(gradient, [[-1, 1, 0], [0, -1, 1]], atol=1e-6)


def test_a_masked_class_takes_no_part(backend):
    logits, y = np.array([[1.0, 0.5, -np.inf, 0.2]]), np.array([0])
    for loss in OF.values():
        masked = differentiated(backend, loss, logits, y)
        without = differentiated(backend, loss, logits[:, [0, 1, 3]], y)
        np.testing.assert_allclose(masked[0], without[0])
        np.testing.assert_allclose(masked[1][:, [0, 1, 3]], without[1])
        assert masked[1][0, 2] == 0


def test_equal_classes_share_the_gradient(backend):
    _, gradient = differentiated(backend, probability_margin, np.array([[2.0, 1.0, 1.0, -3.0]]), np.array([0]))
    assert gradient[0, 1] == pytest.approx(gradient[0, 2])
    assert gradient[0, 1] > 0 > gradient[0, 0]
