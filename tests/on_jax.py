"""What is JAX's alone: run by test_jax.py in a process whose Keras is on JAX."""

import re

import jax
import jax.numpy as jnp
import keras
import numpy as np
import pytest
from harness import load, problem
from keras import ops

import stcore
from stcore import ClassWise
from stcore.backends.keras import SqueezeModel, TorchSGD, make_optimizer
from stcore.backends.keras import jax as engine
from stcore.core.objective import training_step
from stcore.core.optimizers import SGD
from stcore.core.perturbation import AWP
from stcore.errors import DataError, DeviceError, UsageError
from stcore.methods.guided import Guided, make_guidance, published
from stcore.methods.squeeze import SqueezeConfig
from stcore.methods.standard import StandardConfig
from stcore.methods.trades import TradesConfig
from stcore.protocols import Mode
from stcore.training.trainer import follow

SHORT = SqueezeConfig(steps=2)


@pytest.fixture
def backend():
    assert keras.backend.backend() == "jax"
    return load("keras")


def weights(model):
    return [np.asarray(variable) for variable in model.variables]


def linear(*layers, dtype="float32"):
    """No more than a matrix, behind these layers: all that a test needs which is not about convolutions."""
    shape = [keras.Input((8, 8, 3), dtype=dtype), keras.layers.Flatten(dtype=dtype)]
    return keras.Sequential([*shape, *layers, keras.layers.Dense(3, dtype=dtype)])


def steps_of(learner, compiled, batches, perturbation=None, config=SHORT):
    step = lambda x, y, noise: training_step(learner, config, x, y, noise, 0, perturbation)  # noqa: E731
    run = learner.compile(step) if compiled else step
    return [float(run(batch.x, batch.y, batch.noise).loss) for batch in batches]


@pytest.mark.slow  # ten seconds of XLA; runs of `stcli` compile a step in the other tier
@pytest.mark.parametrize("perturbation", [None, AWP(0.01)], ids=["plain", "awp"])
def test_a_compiled_step_is_the_eager_one(backend, perturbation):
    batches = [backend.batch(problem(seed=seed)) for seed in range(2)]
    results = []
    for compiled in (False, True):
        model = backend.build()
        losses = steps_of(backend.learner(model), compiled, batches, perturbation)
        results.append((losses, weights(model)))
    (one, eager), (other, whole) = results
    np.testing.assert_allclose(other, one, rtol=1e-9)
    for a, b in zip(eager, whole, strict=True):
        np.testing.assert_allclose(b, a, rtol=1e-7, atol=1e-9)


def test_a_teacher_that_moves_is_no_constant_of_the_compiled_step(backend):
    """The run's average: the step reads it, and moves it at its end."""
    batches, results = [backend.batch(problem(seed=seed)) for seed in range(3)], []
    for compiled in (False, True):
        keras.utils.set_random_seed(1)  # of the initial weights
        learner = backend.learner(linear(dtype="float64"))
        average = learner.copy()
        objective = Guided(StandardConfig(), make_guidance("adr", **published("adr", 3)), 3, average)

        def step(numbers, x, y, of=learner, method=objective, mean=average):
            result = training_step(of, method.told(numbers), x, y, (), 1)
            follow(mean, of, 0.5)
            return result

        run = learner.compile(step) if compiled else step
        numbers = [tuple(map(ops.convert_to_tensor, objective.numbers(epoch, None))) for epoch in (1, 2, 3)]
        losses = [float(run(each, b.x, b.y).loss) for each, b in zip(numbers, batches, strict=True)]
        results.append((losses, weights(average.model)))
    (one, eager), (other, whole) = results
    np.testing.assert_allclose(other, one, rtol=1e-9)
    for a, b in zip(eager, whole, strict=True):
        np.testing.assert_allclose(b, a, rtol=1e-7, atol=1e-9)


def test_a_compiled_step_with_class_means_is_the_eager_one(backend):
    means, results = jnp.asarray([[0.5, 0.3, 0.2], [0.1, 0.8, 0.1], [0.2, 0.2, 0.6]]), []
    method = ClassWise(TradesConfig(divergence="gkl", beta=20.0, steps=1))
    for compiled in (False, True):
        model = linear(dtype="float64")
        model.set_weights([np.random.default_rng(0).normal(0, 0.1, w.shape) for w in model.get_weights()])
        learner, batch = backend.learner(model), backend.batch(problem())

        def step(means, x, y, noise, learner=learner):
            return training_step(learner, method.told((means,)), x, y, noise)

        run = learner.compile(step) if compiled else step
        result = run(means, batch.x, batch.y, batch.noise[:1])
        results.append([np.asarray(result.loss), np.asarray(result.tally), *weights(model)])
    for eager, whole in zip(*results, strict=True):
        np.testing.assert_allclose(whole, eager, rtol=1e-9, atol=1e-12)


def test_a_step_is_compiled_once_for_each_batch_size(backend, monkeypatch):
    learner, traced = backend.learner(backend.build()), []
    logits = type(learner).logits
    monkeypatch.setattr(
        type(learner),
        "logits",
        lambda self, x, *rest, **k: (traced.append(x.shape), logits(self, x, *rest, **k))[1],
    )
    sizes = (4, 4, 3, 4, 3)
    steps_of(learner, True, [backend.batch(problem(size)) for size in sizes], config=StandardConfig())
    seen = len(traced)
    assert {shape[0] for shape in traced} == {4, 3}
    run = learner.compile(lambda x: learner.logits(x, Mode.EVAL), rowwise=True)
    x = backend.images(problem(8).x)
    expected = learner.logits(x, Mode.EVAL)
    traced.pop()
    for size in (5, 6, 7, 8, 5):
        np.testing.assert_allclose(run(x[:size]), expected[:size], rtol=1e-12)
    assert [shape[0] for shape in traced[seen:]] == [8, 8]  # the rehearsal, and the trace


def test_dropout_moves_on_in_a_compiled_step(backend):
    model = linear(keras.layers.Dropout(0.5, seed=1))
    learner = stcore.make_learner(model, make_optimizer(model, SGD(learning_rate=0.0)))
    batch = backend.batch(problem(), "float32")
    first, second = steps_of(learner, True, [batch, batch], config=TradesConfig(steps=1))
    assert first != second


def test_a_weight_that_the_loss_does_not_read_has_no_gradient(backend):
    model = backend.build("tiny")
    learner = backend.learner(model)
    used = model.trainable_variables[0]
    (_, _), gradients = learner.value_and_grad(lambda: (ops.sum(used * used), {}))
    np.testing.assert_allclose(gradients[0], 2 * np.asarray(used))
    assert gradients[1:] == [None] * (len(gradients) - 1)


def test_a_model_of_float32_stays_so(backend):
    assert jax.config.jax_enable_x64
    model = backend.build("tiny", dtype="float32")
    learner, batch = backend.learner(model), backend.batch(problem(), "float32")
    result = learner.compile(lambda *given: training_step(learner, SHORT, *given))(*batch)
    floats = [variable for variable in model.variables if "float" in variable.dtype]
    assert {str(variable.value.dtype) for variable in floats} == {"float32"}
    assert {str(v.value.dtype) for v in learner.optimizer.velocities} == {"float32"}
    assert {str(value.dtype) for value in (result.loss, *result.metrics.values())} == {"float32"}
    text = str(jax.make_jaxpr(lambda x: learner.logits(x, Mode.BATCH))(batch.x))
    assert re.search(r"f64\[\d", text) is None  # but for scalars, which are Python's


def test_float64_needs_jaxs_64_bit_numbers(backend):
    model = linear(dtype="float64")
    with jax.enable_x64(False):
        with pytest.raises(UsageError, match="JAX_ENABLE_X64=1"):
            stcore.make_classifier(model)
        small = linear()
        x, y = backend.images(problem().x, "float32"), jnp.asarray(problem().y, "int32")
        pair = stcore.find_squeeze_pair(small, x, y, SHORT, rng=0)
        assert {one.dtype.name for one in pair} == {"float32"}
        learner = stcore.make_learner(small, make_optimizer(small, SGD(momentum=0.9)))
        assert np.isfinite(stcore.train_step(learner, SHORT, x, y, rng=0).loss)


def test_the_facade_works_under_a_users_jit(backend):
    model, batch = backend.build(), backend.batch(problem())
    pair = stcore.squeeze_step(model, batch.x, batch.y, config=SHORT, noise=batch.noise)
    eager = stcore.squeeze_step(model, batch.x, batch.y, pair, SHORT)

    @jax.jit
    def step(values, x, y, pair):
        with keras.StatelessScope(zip(model.variables, values, strict=True)):
            return stcore.squeeze_step(model, x, y, stcore.SqueezePair(*pair), SHORT)

    values = [variable.value for variable in model.variables]
    for one, other in zip(step(values, batch.x, batch.y, tuple(pair)), eager, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-12)
    with pytest.raises(UsageError, match="frozen into the traced graph"):
        jax.jit(lambda x, y: stcore.squeeze_step(model, x, y, config=SHORT))(batch.x, batch.y)


@pytest.mark.parametrize("jitted", [False, True])
def test_the_loss_is_differentiable_by_a_users_grad(backend, jitted):
    """Over a stateless scope; the gradients are those of training, and running statistics come out with them."""
    model, batch = backend.build(), backend.batch(problem())
    trainable, others = model.trainable_variables, model.non_trainable_variables

    def loss(values, held, x, y, noise):
        with keras.StatelessScope(
            [*zip(trainable, values, strict=True), *zip(others, held, strict=True)]
        ) as scope:
            total = stcore.squeeze_loss(model, x, y, config=SHORT, noise=noise).total
        return total, [scope.get_current_value(variable) for variable in others]

    grad = jax.grad(loss, has_aux=True)
    given = [v.value for v in trainable], [v.value for v in others], batch.x, batch.y, batch.noise
    gradients, written = (jax.jit(grad) if jitted else grad)(*given)

    learner = backend.learner(model)
    examples = learner.ops.unrecorded(lambda: SHORT.find(learner, batch.x, batch.y, batch.noise))

    def mean_loss():
        return learner.ops.mean(SHORT.losses(learner, batch.x, batch.y, examples).losses), {}

    _, expected = learner.value_and_grad(mean_loss)
    for one, other in zip(gradients, expected, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-7, atol=1e-10)
    for one, variable in zip(written, others, strict=True):
        np.testing.assert_allclose(one, np.asarray(variable), rtol=1e-9)


def test_the_search_is_not_differentiated(backend):
    """Within `unrecorded` weights are constants, so that eager JAX neither reckons nor keeps their way back."""
    model, batch = backend.build(), backend.batch(problem())
    classifier, seen = backend.classifier(model), []

    def search():
        seen.append(model.trainable_variables[0].value)
        return classifier.logits(batch.x, Mode.EVAL)

    def outer(value):
        with keras.StatelessScope([(model.trainable_variables[0], value)]):
            return jnp.sum(classifier.ops.unrecorded(search)) + jnp.sum(value)

    value = model.trainable_variables[0].value
    np.testing.assert_array_equal(jax.grad(outer)(value), np.ones(value.shape))
    assert not isinstance(seen[0], jax.core.Tracer)


def fitted(divergence="kl", rate=0.1, **compiling):
    """A model to fit in two epochs of two batches, the second short. In float64: a sign hangs on rounding."""
    net = linear(dtype="float64")
    objective = TradesConfig(steps=1, epsilon=0.2, step_size=0.1, divergence=divergence)
    net.set_weights([np.random.default_rng(0).normal(0, 0.1, w.shape) for w in net.get_weights()])
    model = SqueezeModel(net, objective, perturbation=AWP(warmup=1))
    model.compile(TorchSGD(rate), **compiling)
    return model


IMAGES = np.random.default_rng(0).uniform(size=(6, 8, 8, 3)).astype("float32")
LABELS = np.arange(6) % 3


@pytest.mark.parametrize("compiling", [{"jit_compile": False}, {"run_eagerly": True}], ids=str)
def test_how_fit_runs_its_steps_changes_nothing(compiling):
    runs = []
    for options in ({}, compiling):
        model = fitted(**options)
        history = model.fit(IMAGES, LABELS, batch_size=4, epochs=2, shuffle=False, verbose=0).history
        runs.append([*model.get_weights(), *history.values()])
    for one, other in zip(*runs, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-6)


def test_fit_keeps_the_class_means_from_epoch_to_epoch():
    """With a rate of zero, and no perturbation, they are those of the network as it is."""
    model = fitted("gkl", rate=0.0)
    model.perturbation = None
    model.fit(IMAGES, LABELS, batch_size=4, epochs=2, shuffle=False, verbose=0)
    predictions = np.asarray(ops.softmax(model.net(IMAGES) / 4))
    means = [predictions[y == LABELS].mean(0) for y in range(3)]
    (told,) = model._memory.numbers()
    np.testing.assert_allclose(told, means, rtol=1e-9)
    assert np.ptp(means, axis=0).max() > 1e-3
    learning, equal = fitted("gkl"), fitted("gkl")
    for one, epochs in ((learning, 2), (equal, 1)):
        one.fit(IMAGES, LABELS, batch_size=4, epochs=epochs, shuffle=False, verbose=0)
    equal._memory = type(equal._memory)()  # forgets
    equal.fit(IMAGES, LABELS, batch_size=4, epochs=2, initial_epoch=1, shuffle=False, verbose=0)
    assert any(
        (one != other).any() for one, other in zip(learning.get_weights(), equal.get_weights(), strict=True)
    )


def test_batches_by_hand_are_fit_and_a_file_of_weights_resumes_it(tmp_path):
    whole, first, second = fitted(), fitted(), fitted()
    whole.fit(IMAGES, LABELS, batch_size=4, epochs=2, shuffle=False, verbose=0)
    first.begin_epoch(1)
    for rows in (slice(4), slice(4, 6)):
        first.train_on_batch(IMAGES[rows], LABELS[rows])
    first.save_weights(tmp_path / "it.weights.h5")
    second.load_weights(tmp_path / "it.weights.h5")
    second.fit(IMAGES, LABELS, batch_size=4, epochs=2, initial_epoch=1, shuffle=False, verbose=0)
    for one, other in zip(second.get_weights(), whole.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)


def test_fit_refuses_what_does_not_fit():
    model = fitted()
    before = model.get_weights()
    for x, y, match in [
        (IMAGES * 255, LABELS, r"x: expected pixels in \[0, 1\]"),
        (IMAGES, LABELS + 1, r"y: expected labels in \[0, 3\)"),
        (IMAGES, np.ones((6, 3)), "y: expected .*sum"),
    ]:
        with pytest.raises(DataError, match=match):
            model.fit(x, y, verbose=0)
    for one, other in zip(model.get_weights(), before, strict=True):
        np.testing.assert_array_equal(one, other)


def test_what_cannot_be(backend):
    with pytest.raises(DeviceError, match="expected auto or one of cpu"):
        engine.use_device("tpu:9")
    engine.use_threads(engine.threads())  # no change is none too late
    with pytest.raises(UsageError, match="before JAX makes its first array"):
        engine.use_threads(engine.threads() + 1)


def test_a_forward_is_traced_again_in_tf32_and_not_after_it(backend, monkeypatch):
    """The precision is part of what a compiled function is cached by: neither reuses the other's products."""
    from stcore.backends.keras.precision import evaluating

    monkeypatch.setattr(engine, "has_tensor_float_32", lambda: True)
    engine.use_device("cpu")
    traced = []
    product = jax.jit(lambda x: traced.append(str(jax.config.jax_default_matmul_precision)) or x @ x)
    x = jnp.ones((3, 3), "float32")
    product(x)
    for _ in range(2):
        with evaluating("tf32", "cpu"):
            product(x)
        product(x)
    assert traced == ["float32", "tensorfloat32"]


def test_the_onnx_of_a_keras_network_is_refused(backend, tmp_path):
    with pytest.raises(UsageError, match="onnx: expected Keras on TensorFlow; received jax"):
        stcore.load("zoo:digits-small-cnn-st", backend="keras").export("onnx", tmp_path / "out")
    assert list(tmp_path.iterdir()) == []
