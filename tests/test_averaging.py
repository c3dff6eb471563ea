"""Averaged weights: the recursion, on weights and statistics, the same on both backends."""

import numpy as np
import pytest
from harness import assert_close, assert_same, load, problem
from hypothesis import given, settings
from hypothesis import strategies as st

import stcore
from stcore import StandardConfig
from stcore.training.trainer import follow

DECAY = 0.7


def averaged(backend, steps=3):
    """The average after some steps, and the trained weights after each."""
    learner = backend.learner(backend.build("tiny"))
    average, path = learner.copy(), [learner.weights()]
    for seed in range(steps):
        batch = backend.batch(problem(seed=seed))
        stcore.train_step(learner, StandardConfig(), batch.x, batch.y)
        follow(average, learner, DECAY)
        path.append(learner.weights())
    return average, path


def test_the_average_is_the_recursion_by_hand(backend):
    average, path = averaged(backend)
    for name, expected in path[0].items():
        for weights in path[1:]:
            expected = DECAY * expected + (1 - DECAY) * weights[name]
        np.testing.assert_allclose(average.weights()[name], expected, rtol=1e-12, atol=1e-15)
    assert any(".running_" in name for name in path[0])


def test_both_backends_have_the_same_average():
    ours, theirs = (averaged(load(name))[0].weights() for name in ("torch", "keras"))
    assert_close(theirs, ours, 1e-10)


def test_a_twin_is_equal_and_then_goes_its_own_way(every_backend):
    learner = every_backend.learner(every_backend.build("tiny", side=4))
    twin, before = learner.copy(), learner.weights()
    twin.blend([tensor + 1.0 for tensor in twin.state()], 0.25)
    assert_same(learner.weights(), before)
    for one, other in zip(twin.state(), learner.state(), strict=True):
        np.testing.assert_allclose(every_backend.array(one), every_backend.array(other) + 0.25, rtol=1e-14)


def test_the_average_evaluates_by_its_own_weights(backend):
    average, path = averaged(backend)
    batch = backend.batch(problem())
    learner = backend.learner(backend.build("tiny"))
    from stcore.protocols import Mode

    logits = lambda model: backend.array(model.logits(batch.x, Mode.EVAL))  # noqa: E731
    learner.load_weights(average.weights())
    np.testing.assert_array_equal(logits(average), logits(learner))
    learner.load_weights(path[-1])
    assert np.abs(logits(average) - logits(learner)).max() > 1e-3


@given(decay=st.floats(0, 1))
@settings(max_examples=20, deadline=None)
def test_the_average_stays_between_the_two(decay):
    backend = load("torch")
    learner = backend.learner(backend.build("tiny"))
    average = learner.copy()
    learner.load_weights({name: array + 1.0 for name, array in learner.weights().items()})
    before = average.weights()
    follow(average, learner, decay)
    for name, value in average.weights().items():
        np.testing.assert_allclose(value, before[name] + (1 - decay), rtol=1e-12, atol=1e-12)


def test_a_compiled_torch_model_has_a_plain_twin():
    backend = load("torch")
    torch = pytest.importorskip("torch")
    model = backend.build("tiny")
    learner = backend.learner(model)
    learner.model = torch.compile(model, backend=lambda graph, inputs: graph.forward)
    twin = learner.copy()
    assert not hasattr(twin.model, "_orig_mod")
    assert_same(twin.weights(), learner.weights())
