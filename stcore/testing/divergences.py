"""The contract of a divergence."""

from __future__ import annotations

from typing import Any

import numpy as np

from stcore.core.divergences import DIVERGENCES
from stcore.protocols import Array
from stcore.testing.backends import STRICT, Backend, installed, load


def check_divergence(divergence: Any) -> None:
    """Holds a divergence to its contract. Raises AssertionError that says what was expected.

    divergence: a function (ops, log_p, log_q, stop_targets) → (B,), or a name.

    One finite number per example, at least 0 and 0 for equal predictions; each row for itself; the same value
    with and without constant targets; value and gradients equal on all installed backends and, by finite
    differences, on the strict one; gradients finite also for predictions of almost one and zero.
    """
    function = DIVERGENCES.find(divergence)
    rng = np.random.default_rng(0)
    logits = rng.normal(0, 2, (2, 5, 4))
    results = {
        backend: _value_and_gradients(backend, function, *logits) for backend in (*installed(), load(STRICT))
    }
    strict, *_ = reversed(results.values())
    for backend, (value, free, gradients) in results.items():
        where = f"on {backend.name}"
        assert value.shape == (5,), f"expected one number per example, (5,), {where}; received {value.shape}"
        assert np.isfinite(value).all(), f"expected finite numbers {where}; received {value}"
        assert value.min() >= -1e-12, f"expected numbers of at least 0 {where}; received {value.min():g}"
        assert np.allclose(value, free, rtol=1e-12, atol=1e-14), (
            f"expected the same value with and without constant targets {where}; received {value} and {free}"
        )
        for name, here, there in (
            ("value", value, strict[0]),
            *zip(("∂p", "∂q"), gradients, strict[2], strict=True),
        ):
            gap = np.abs(here - there).max()
            assert gap <= 1e-8, f"expected the strict backend's {name} {where}; they differ by {gap:.1e}"
        same, _, _ = _value_and_gradients(backend, function, logits[0], logits[0])
        assert np.abs(same).max() <= 1e-12, f"expected 0 for equal predictions {where}; received {same}"
        row, _, _ = _value_and_gradients(backend, function, logits[0][:1], logits[1][:1])
        assert np.allclose(row, value[:1], rtol=1e-12), f"expected each row for itself {where}; alone it is {row}"
        _, _, steep = _value_and_gradients(backend, function, 40 * logits[0], 40 * logits[1])
        assert all(np.isfinite(one).all() for one in steep), f"expected finite gradients at certainty {where}"


def _value_and_gradients(
    backend: Backend, function: Any, first: Array, second: Array
) -> tuple[Array, Array, list[Array]]:
    """The value with constant targets and without, and the former's gradients with respect to both logits."""
    ops, p, q = backend.ops, backend.tensor(first), backend.tensor(second)

    def of(a: Any, b: Any, stop: bool = True) -> Any:
        return function(ops, ops.log_softmax(a), ops.log_softmax(b), stop)

    value, pullback = ops.vjp(of, p, q)
    gradients = [backend.array(one) for one in pullback(ops.ones_like(value))]
    return backend.array(value), backend.array(of(p, q, False)), gradients
