"""The contract of an attack."""

from __future__ import annotations

from itertools import combinations
from typing import Any

import numpy as np

from stcore.attacks.minimum_norm import MinimumNorm
from stcore.evaluation.attack_names import ATTACKS
from stcore.protocols import Array, Mode
from stcore.testing.backends import STRICT, Backend, draw, installed, load, problem
from stcore.testing.watch import Watch

EPSILON = {"linf": 8 / 255, "l2": 0.5, "l1": 12.0}


def check_attack(
    attack: Any,
    *,
    epsilon: float | None = None,
    norm: str = "linf",
    forwards: int | None = None,
    backwards: int | None = None,
    strict: bool = True,
) -> None:
    """Holds an attack to its contract. Raises AssertionError that says what was expected.

    attack: a factory (epsilon, norm) → attack, a name, or an attack.
    epsilon, norm: of the ball; of an attack that is an object, by default its own. By default 8/255 in l∞, 0.5 in
        l2.
    forwards, backwards: how many passes it makes, if they are to be counted.
    strict: also run it on the strict backend, which knows the protocol alone; False for one that needs more.

    Examples: shaped like x, in the ball (not those of a minimum-norm attack) and in [0, 1], the same for the same
    noise, those of one image independent of the others, equal on all installed backends. Weights, statistics and
    the batch stay unchanged; forwards are in evaluation mode. `repr` is the same in each process, as it stands in
    an evaluation's identity.
    """
    made = attack
    if isinstance(attack, str | type) or not hasattr(attack, "find"):
        epsilon = EPSILON[norm] if epsilon is None else epsilon
        made = ATTACKS.find(attack)(epsilon, norm)
    radius = getattr(made, "epsilon", None) if epsilon is None else epsilon
    if isinstance(made, MinimumNorm):  # its radius bounds no example
        radius = None
    norm = getattr(made, "norm", norm)
    assert isinstance(made.noise_laws, tuple), f"expected noise_laws to be a tuple; received {made.noise_laws!r}"
    assert " at 0x" not in repr(made), (
        f"expected a repr of the settings, as a dataclass has: it names an evaluation; received {made}"
    )
    backends = installed()
    found = {backend: _check(backend, made, radius, norm, forwards, backwards) for backend in backends}
    for one, other in combinations(backends, 2):
        gap = np.abs(found[one] - found[other]).max()
        tolerance = 1e-9 if norm == "linf" else 1e-7
        assert gap <= tolerance, (
            f"expected the same examples on {one.name} and {other.name}; they differ by {gap:.1e}"
        )
    if strict:
        small = [_found(backend, made, *_small(made)) for backend in (*backends, load(STRICT))]
        for backend, examples in zip(backends, small, strict=False):
            gap = np.abs(examples - small[-1]).max()
            assert gap <= 1e-6, (
                f"expected the strict backend's examples on {backend.name}; they differ by {gap:.1e}"
            )


def _small(attack: Any) -> tuple[Any, tuple[Array, ...]]:
    given = problem(2, 3)
    return given, draw(attack.noise_laws, given.x.shape)


def _found(backend: Backend, attack: Any, given: Any, noise: tuple[Array, ...], net: Any = None) -> Array:
    """The examples, (B, H, W, C), on a new smooth network or on `net`."""
    classifier = backend.classifier(backend.build(side=given.x.shape[1])) if net is None else net
    batch, drawn = backend.batch(given), tuple(map(backend.images, noise))
    return backend.nhwc(classifier.ops.unrecorded(lambda: attack.find(classifier, batch.x, batch.y, drawn)))


def _check(
    backend: Backend, attack: Any, epsilon: float | None, norm: str, forwards: int | None, backwards: int | None
) -> Array:
    """The examples on one backend, checked."""
    where, given = f"on {backend.name}", problem()
    noise = draw(attack.noise_laws, given.x.shape)
    model = backend.build()
    before, watch = _state(model), Watch(backend.classifier(model))
    batch = backend.batch(given)
    x, drawn = batch.x, tuple(map(backend.images, noise))
    examples = backend.nhwc(attack.find(watch, x, batch.y, drawn))
    assert examples.shape == given.x.shape, f"expected examples of shape {given.x.shape} {where}; {examples.shape}"
    assert np.isfinite(examples).all(), f"expected finite examples {where}"
    assert examples.min() >= 0 and examples.max() <= 1, f"expected pixels in [0, 1] {where}"
    offset = np.abs(examples - given.x)
    sizes = {
        "linf": offset.max(),
        "l2": np.sqrt((offset**2).sum((1, 2, 3))).max(),
        "l1": offset.sum((1, 2, 3)).max(),
    }
    if epsilon is not None:
        assert sizes[norm] <= epsilon * (1 + 1e-9) + 1e-12, (
            f"expected examples within ε = {epsilon:g} in {norm} {where}; received {sizes[norm]:g}"
        )
    for name, array in _state(model).items():
        assert np.array_equal(array, before[name]), f"expected the network as it was {where}; {name} changed"
    assert np.array_equal(backend.nhwc(x), given.x), f"expected x as it was {where}; it changed"
    modes = {each.mode for each in watch.forwards}
    assert modes <= {Mode.EVAL}, f"expected forwards in Mode.EVAL {where}; received {modes}"
    assert not any(each.dropout for each in watch.forwards), f"expected forwards without dropout {where}"
    for name, counted, said in (
        ("forwards", len(watch.forwards), forwards),
        ("backwards", watch.backwards, backwards),
    ):
        assert said in (None, counted), f"expected {said} {name} {where}; it makes {counted}"
    again = _found(backend, attack, given, noise)
    assert np.array_equal(examples, again), f"expected the same examples from the same noise {where}; others came"
    half = given._replace(x=given.x[:3], y=given.y[:3], noise=())
    alone = _found(backend, attack, half, tuple(one[:3] for one in noise))
    assert np.abs(alone - examples[:3]).max() <= 1e-9, (
        f"expected an image's example to be independent of the others {where}; in half the batch it is another"
    )
    return examples


def _state(model: Any) -> dict[str, Array]:
    from stcore.models import export_weights

    return {name: np.array(array) for name, array in export_weights(model).items()}
