"""Traced and compiled steps are the eager ones, and are traced and compiled once."""

import logging
from functools import partial

import numpy as np
import pytest
from harness import assert_close, load, problem

import stcore
from stcore import AdversarialConfig, SqueezeConfig, StandardConfig
from stcore.attacks import PGD
from stcore.protocols import Mode

CONFIG = SqueezeConfig(steps=3)
OBJECTIVES = {"squeeze": CONFIG, "adversarial": AdversarialConfig(steps=3), "standard": StandardConfig()}
SIZES = (6, 6, 6, 4)  # an epoch whose last batch is short


def epoch(backend, dtype="float64"):
    return [backend.batch(problem(size, seed=i), dtype) for i, size in enumerate(SIZES)]


def fit(backend, objective, wrap):
    """Weights after training, and how often Python ran the step."""
    learner, runs = backend.learner(backend.build("tiny")), []
    laws = len(objective.noise_laws)

    def step(x, y, *noise):
        runs.append(None)
        return stcore.train_step(learner, objective, x, y, noise=noise)

    wrapped = wrap(learner, step)
    results = [wrapped(b.x, b.y, *b.noise[:laws]) for b in epoch(backend)]
    losses = [float(backend.array(result.loss)) for result in results]
    return learner.weights(), losses, len(runs)


@pytest.mark.parametrize("objective", OBJECTIVES.values(), ids=OBJECTIVES)
def test_a_compiled_step_is_the_eager_one_and_traced_once(backend, objective):
    eager, eager_losses, _ = fit(backend, objective, lambda learner, step: step)
    weights, losses, runs = fit(backend, objective, lambda learner, step: learner.compile(step))
    assert_close(weights, eager, 1e-12)
    np.testing.assert_allclose(losses, eager_losses, rtol=1e-12)
    if backend.name == "keras":
        assert runs == 1


def test_a_users_own_tf_function_is_the_eager_step():
    backend = load("keras")
    import tensorflow as tf

    eager, eager_losses, _ = fit(backend, CONFIG, lambda learner, step: step)
    weights, losses, runs = fit(backend, CONFIG, lambda learner, step: tf.function(step))
    assert_close(weights, eager, 1e-12)
    np.testing.assert_allclose(losses, eager_losses, rtol=1e-12)
    assert runs <= 2 * 2  # for each size, and once more where variables could have been made


@pytest.mark.parametrize("closed_over", [False, True])
def test_tracing_needs_noise_and_says_so(closed_over):
    """Also where x and y are constants of the traced function: a draw would be the same in every call."""
    backend = load("keras")
    import tensorflow as tf

    model, batch = backend.build("tiny"), backend.batch(problem())
    find = lambda x, y: stcore.find_squeeze_pair(model, x, y, CONFIG)  # noqa: E731
    traced = tf.function(lambda: find(batch.x, batch.y)) if closed_over else tf.function(find)
    with pytest.raises(Exception, match="noise: expected tensors"):  # AutoGraph wraps our UsageError
        traced(*(() if closed_over else (batch.x, batch.y)))


def test_a_batch_may_be_a_constant_of_the_traced_function():
    backend = load("keras")
    import tensorflow as tf

    model, batch = backend.build("tiny"), backend.batch(problem())
    traced = tf.function(lambda: stcore.find_squeeze_pair(model, batch.x, batch.y, CONFIG, noise=batch.noise))
    expected = stcore.find_squeeze_pair(backend.build("tiny"), batch.x, batch.y, CONFIG, noise=batch.noise)
    for one, other in zip(traced(), expected, strict=True):
        np.testing.assert_allclose(one, other, rtol=0, atol=1e-15)


def test_tracing_warns_of_nothing(caplog):
    backend = load("keras")
    import tensorflow as tf

    model, batch = backend.build("tiny"), backend.batch(problem())
    stcore.make_classifier(model)
    with caplog.at_level(logging.WARNING):
        tf.function(lambda x, y, *noise: stcore.find_squeeze_pair(model, x, y, CONFIG, noise=noise))(
            batch.x, batch.y, *batch.noise
        )
    assert not caplog.records


def test_no_gradient_flows_through_a_traced_search():
    backend = load("keras")
    import tensorflow as tf

    model, batch = backend.build("tiny"), backend.batch(problem())

    @tf.function
    def gradient(x, y, one, two):
        with tf.GradientTape() as tape:
            tape.watch(x)
            pair = stcore.find_squeeze_pair(model, x, y, CONFIG, noise=(one, two))
            total = tf.reduce_sum(pair.adversarial)
        return tape.gradient(total, x, unconnected_gradients="zero")

    assert not np.any(gradient(batch.x, batch.y, *batch.noise))


# --- torch.compile ---


@pytest.fixture
def counted():
    """torch.compile with a backend that compiles nothing and counts the graphs it is handed."""
    load("torch")
    import torch

    torch._dynamo.reset()
    graphs = []  # beyond the limit torch would silently stay eager, and the counts would mean nothing

    def backend(graph, inputs):
        graphs.append(graph)
        return graph.forward

    with torch._dynamo.config.patch(recompile_limit=64):
        yield graphs, partial(torch.compile, backend=backend)
    torch._dynamo.reset()


def evaluate(backend, model, batch):
    """What an evaluation asks of the model: gradients in EVAL, then predictions without."""
    adversarial = PGD(steps=2)(model, batch.x, batch.y, rng=0)
    classifier = backend.classifier(model)
    return classifier.ops.unrecorded(lambda: classifier.logits(adversarial, Mode.EVAL))


def test_a_compiled_torch_model_has_three_graphs_for_each_shape(counted):
    """The search (BATCH, pixels differentiated), the collaborative forward (BATCH), the two TRAIN forwards."""
    graphs, compiled = counted
    backend = load("torch")
    learner, (batch, *_, short) = backend.learner(compiled(backend.build("tiny"))), epoch(backend)
    counts = []
    for one in (batch, batch, short, short):
        stcore.train_step(learner, CONFIG, one.x, one.y, noise=one.noise)
        counts.append(len(graphs))
    assert counts == [3, 3, 6, 6]


def test_the_whole_network_is_compiled_where_a_run_asks_for_it(counted, monkeypatch):
    graphs, compiled = counted
    backend = load("torch")
    import torch

    from stcore.backends.torch import prepare_training

    monkeypatch.setattr(torch, "compile", compiled)
    learner = prepare_training(backend.learner(backend.build("tiny")), "on")
    batch = epoch(backend)[0]
    learner.logits(batch.x, Mode.EVAL)
    (graph,) = graphs
    assert sum("conv2d" in str(node.target) for node in graph.graph.nodes) == 2
    assert set(learner.weights()) == set(backend.learner(backend.build("tiny")).weights())


def test_an_epoch_with_a_short_batch_and_an_evaluation_compiles_at_most_eight_graphs(counted):
    graphs, compiled = counted
    backend = load("torch")
    model = compiled(backend.build("tiny"))
    learner, counts = backend.learner(model), []
    for _ in range(3):
        for batch in epoch(backend):
            stcore.train_step(learner, CONFIG, batch.x, batch.y, noise=batch.noise)
        for batch in epoch(backend):
            evaluate(backend, model, batch)
        counts.append(len(graphs))
    assert counts[0] <= 8  # torch's own limit: beyond it a model stays eager for good
    assert counts[1:] == [counts[0]] * 2


@pytest.mark.parametrize("root_training", [True, False])
def test_a_compiled_torch_model_gives_the_same_numbers(counted, root_training):
    _, compiled = counted
    backend = load("torch")
    results = []
    for wrap in (lambda model: model, compiled):
        model = backend.build("tiny").train(root_training)
        wrapped, batch = wrap(model), epoch(backend)[0]
        loss = stcore.squeeze_loss(wrapped, batch.x, batch.y, config=CONFIG, noise=batch.noise)
        loss.total.backward()
        assert {m.training for m in model.modules()} == {root_training}
        gradients = {name: p.grad.numpy() for name, p in model.named_parameters()}
        parts = {name: part.detach().numpy() for name, part in loss._asdict().items()}
        results.append(gradients | parts | backend.statistics(model))
    assert_close(*results, 1e-12)
