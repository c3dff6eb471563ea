"""Any method as a loss in one's own loop: the same numbers as a training step, in either framework."""

import numpy as np
import pytest
from harness import built, load, problem
from rows import SHORT, noise

import stcore
from stcore import SqueezeConfig, TradesConfig
from stcore.errors import DataError, UsageError

TRADES = SHORT["trades"]


def given(backend, objective):
    data = problem()
    return backend.batch(data), tuple(backend.images(one) for one in noise(objective, data.x.shape))


@pytest.mark.parametrize("objective", SHORT.values(), ids=SHORT)
def test_the_loss_is_that_of_a_training_step(backend, objective):
    batch, drawn = given(backend, objective)
    phase = objective.phase(1)
    loss = stcore.training_loss(built(backend), objective, batch.x, batch.y, noise=drawn, phase=phase)
    learner = backend.learner(built(backend))
    step = stcore.train_step(learner, objective, batch.x, batch.y, noise=drawn, phase=phase)
    assert float(backend.array(loss.total)) == float(backend.array(step.loss))
    assert loss.metrics.keys() == step.metrics.keys()
    for name, value in loss.metrics.items():
        assert float(backend.array(value)) == float(backend.array(step.metrics[name]))


def test_ones_own_torch_loop_is_the_training_step():
    backend = load("torch")
    model, twin = backend.build("tiny"), backend.build("tiny")
    batch, drawn = given(backend, TRADES)
    optimizer, learner = backend.optimizer(model, momentum=0.9), backend.learner(twin, weight_decay=0.0)
    for _ in range(2):
        optimizer.zero_grad()
        stcore.training_loss(model, TRADES, batch.x, batch.y, noise=drawn).total.backward()
        optimizer.step()
        stcore.train_step(learner, TRADES, batch.x, batch.y, noise=drawn)
    for one, other in zip(model.state_dict().values(), twin.state_dict().values(), strict=True):
        np.testing.assert_array_equal(one.numpy(), other.numpy())


@pytest.mark.parametrize("traced", [False, True])
def test_ones_own_keras_loop_is_the_training_step(traced):
    backend = load("keras")
    import tensorflow as tf

    model, twin = backend.build("tiny"), backend.build("tiny")
    batch, drawn = given(backend, TRADES)
    optimizer, learner = backend.optimizer(model, momentum=0.9), backend.learner(twin, weight_decay=0.0)
    optimizer.build(model.trainable_variables)

    def step(x, y, one):
        with tf.GradientTape() as tape:
            loss = stcore.training_loss(model, TRADES, x, y, noise=(one,))
        optimizer.apply(tape.gradient(loss.total, model.trainable_variables), model.trainable_variables)

    step = tf.function(step) if traced else step
    for _ in range(2):
        step(batch.x, batch.y, *drawn)
        stcore.train_step(learner, TRADES, batch.x, batch.y, noise=drawn)
    for one, other in zip(model.get_weights(), twin.get_weights(), strict=True):
        np.testing.assert_allclose(one, other, rtol=0, atol=1e-14)


def test_it_is_the_squeeze_loss(backend):
    batch, drawn = given(backend, SqueezeConfig())
    one = stcore.training_loss(built(backend), SqueezeConfig(), batch.x, batch.y, noise=drawn)
    other = stcore.squeeze_loss(built(backend), batch.x, batch.y, noise=drawn)
    assert float(backend.array(one.total)) == float(backend.array(other.total))


def test_a_seed_draws_the_same_noise_and_nothing_global(backend, global_random_state):
    batch, _ = given(backend, TRADES)
    loss = lambda seed: stcore.training_loss(built(backend), TRADES, batch.x, batch.y, rng=seed)  # noqa: E731
    values = [float(backend.array(loss(seed).total)) for seed in (1, 1, 2)]
    assert values[0] == values[1] != values[2]


def test_what_does_not_fit_is_refused(backend):
    batch, drawn = given(backend, TRADES)
    model = built(backend)
    with pytest.raises(DataError, match=r"expected pixels in \[0, 1\]"):
        stcore.training_loss(model, TRADES, batch.x * 255.0, batch.y)
    with pytest.raises(UsageError, match="noise: expected 2 tensors shaped like x; received 1"):
        stcore.training_loss(model, TradesConfig(examples=2), batch.x, batch.y, noise=drawn)
    with pytest.raises(TypeError, match="y: expected a tensor, as x is; received ndarray"):
        stcore.training_loss(model, TRADES, batch.x, problem().y)
    with pytest.raises(UsageError, match=r"objective: expected a method's settings.*received 'trades'"):
        stcore.training_loss(model, "trades", batch.x, batch.y)
    with pytest.raises(TypeError, match="y: expected a tensor, as x is; received ndarray"):
        stcore.training_loss(model, TRADES, batch.x, problem().y)
    with pytest.raises(UsageError, match=r"objective: expected a method's settings.*received 'trades'"):
        stcore.train_step(backend.learner(model), "trades", batch.x, batch.y)
    with pytest.raises(TypeError, match=r"expected a torch.nn.Module or a keras.Model"):
        stcore.training_loss(object(), TRADES, batch.x, batch.y)
