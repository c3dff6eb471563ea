"""The divergences: oracle values, gradients against finite differences, and what holds for all logits."""

import math

import numpy as np
import pytest
from harness import load
from hypothesis import given, settings
from hypothesis import strategies as st

from stcore.core.divergences import DIVERGENCES
from stcore.testing import check_divergence

# methods.md 1.6: six digits, of the released function and of the formulas.
U = np.array([[2, 0, -1], [0.3, 0.1, -0.4]])
L = np.array([[0, 1, 0.5], [1, -1, 0.2]])
STOPPED_U = np.array([[0.164368, -0.098071, -0.066296], [-0.049785, 0.067053, -0.017267]])
PRINTED_U = np.array([[0.267653, -0.169740, -0.097913], [-0.120829, 0.168014, -0.047185]])
PRINTED_L = np.array([[-0.285228, 0.149400, 0.135828], [0.078511, -0.101597, 0.023086]])
KL_L_U, KL_U_L = [1.084203, 0.197093], [1.020803, 0.278781]
TRADES_ADVERSARIAL = np.array([[-0.328736, 0.196143, 0.132593], [0.099571, -0.134106, 0.034535]])
TRADES_NATURAL = np.array([[0.206570, -0.143337, -0.063233], [-0.142088, 0.201922, -0.059835]])
SIX_DIGITS = {"rtol": 0, "atol": 1.001e-6}  # one unit of the last digit: the sheet's were rounded in float32


def value_and_gradients(backend, name, reference, other, stop):
    """Per example, of logits; and the gradients of the batch mean."""
    ops, divergence = backend.ops, DIVERGENCES[name]
    value, pullback = ops.vjp(
        lambda a, b: divergence(ops, ops.log_softmax(a), ops.log_softmax(b), stop),
        backend.tensor(reference),
        backend.tensor(other),
    )
    gradients = pullback(ops.ones_like(value) / float(len(reference)))
    return backend.array(value), [backend.array(g) for g in gradients]


@pytest.mark.parametrize("stop", [True, False])
@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("kl", KL_L_U),
        ("symmetric_kl", np.add(KL_L_U, KL_U_L) / 2),
        ("js", [0.237348, 0.055779]),
        ("squared_l2", [0.656479, 0.116366]),
    ],
)
def test_values_are_the_oracles(every_backend, name, expected, stop):
    value, _ = value_and_gradients(every_backend, name, L, U, stop)
    np.testing.assert_allclose(value, expected, **SIX_DIGITS)


@pytest.mark.parametrize(
    ("name", "stop", "reference", "other", "expected"),
    [
        ("symmetric_kl", True, L, U, (-STOPPED_U, STOPPED_U)),
        ("symmetric_kl", False, L, U, (PRINTED_L, PRINTED_U)),
        ("kl", False, U, L, (TRADES_NATURAL, TRADES_ADVERSARIAL)),
        ("kl", True, U, L, (TRADES_NATURAL, TRADES_ADVERSARIAL)),
    ],
)
def test_gradients_are_the_oracles(every_backend, name, stop, reference, other, expected):
    _, gradients = value_and_gradients(every_backend, name, reference, other, stop)
    for gradient, oracle in zip(gradients, expected, strict=True):
        np.testing.assert_allclose(gradient, oracle, **SIX_DIGITS)


def test_the_improved_kl_is_its_papers(every_backend):
    """Cui et al., 2024: a sum over pairs of classes of how their logits' gaps differ, and KL's other half."""
    value, (to_reference, to_other) = value_and_gradients(every_backend, "improved_kl", L, U, True)
    p, q = (np.exp(z) / np.exp(z).sum(1, keepdims=True) for z in (L, U))
    gaps = (L[:, :, None] - L[:, None]) - (U[:, :, None] - U[:, None])
    pairs = np.einsum("bj,bk,bjk->b", p, p, gaps**2) / 4
    np.testing.assert_allclose(value, KL_L_U + pairs, **SIX_DIGITS)
    of_kl = value_and_gradients(every_backend, "kl", L, U, True)[1]
    np.testing.assert_allclose(to_reference, of_kl[0], rtol=0, atol=1e-10)  # their Theorem 1
    np.testing.assert_allclose(to_other, (q - p) / 2 - to_reference, rtol=0, atol=1e-10)  # the broken asymmetry


@pytest.mark.parametrize("stop", [True, False])
@pytest.mark.parametrize("name", DIVERGENCES)
def test_gradients_are_the_finite_differences(backend, name, stop):
    _, gradients = value_and_gradients(backend, name, L, U, stop)
    _, expected = value_and_gradients(load("strict"), name, L, U, stop)
    np.testing.assert_allclose(gradients, expected, atol=1e-10)


@pytest.mark.parametrize("name", ["kl", "js", "squared_l2", "improved_kl", "gkl"])
def test_only_the_symmetric_kl_stops_its_targets(backend, name):
    np.testing.assert_array_equal(*(value_and_gradients(backend, name, L, U, stop)[1] for stop in (True, False)))


logits = st.lists(
    st.lists(st.floats(-30, 30), min_size=4, max_size=4), min_size=2, max_size=2
).map(np.array)  # fmt: skip


@settings(deadline=None)
@given(one=logits, two=logits)
def test_divergences_are_divergences(backend, one, two):
    def value(name, a, b):
        log_p, log_q = (backend.ops.log_softmax(backend.tensor(z)) for z in (a, b))
        return backend.array(DIVERGENCES[name](backend.ops, log_p, log_q, True))

    for name in DIVERGENCES:
        assert (value(name, one, two) >= -1e-14).all(), name
        assert np.abs(value(name, one, one)).max() <= 1e-15, name
        if name not in ("kl", "improved_kl", "gkl"):
            np.testing.assert_allclose(value(name, one, two), value(name, two, one), atol=1e-13, err_msg=name)
    assert (value("js", one, two) <= math.log(2) + 1e-12).all()
    assert (value("squared_l2", one, two) <= 2 + 1e-12).all()
    halves = (value("kl", one, two) + value("kl", two, one)) / 2
    np.testing.assert_allclose(value("symmetric_kl", one, two), halves, rtol=1e-14, atol=1e-15)


@pytest.mark.parametrize("name", DIVERGENCES)
def test_saturated_logits_stay_finite_in_float32(backend, name):
    far = np.array([[200.0, 0, 0], [0, 200.0, 0]], "float32")
    value, gradients = value_and_gradients(backend, name, far, far[::-1].copy(), True)
    assert np.isfinite(value).all()
    assert np.isfinite(gradients).all()


@pytest.mark.parametrize("name", DIVERGENCES)
def test_a_divergence_passes_the_contract_of_plug_ins(name):
    load("torch")
    check_divergence(name)
