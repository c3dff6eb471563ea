"""Traced and compiled steps are the eager ones, and are traced and compiled once."""

import logging
import shutil
from contextlib import contextmanager
from functools import cache, partial
from types import SimpleNamespace

import numpy as np
import pytest
from harness import assert_close, load, problem

import stcore
from stcore import (
    AWP,
    AdversarialConfig,
    BatConfig,
    CollaborativeConfig,
    GairatConfig,
    MartConfig,
    SqueezeConfig,
    StandardConfig,
    TradesConfig,
)
from stcore.attacks import PGD
from stcore.data import Batches, ImageData, in_order
from stcore.errors import UsageError
from stcore.evaluation.evaluator import Evaluator
from stcore.protocols import Mode
from stcore.training.trainer import Schedules, Trainer

CONFIG = SqueezeConfig(steps=2)
OBJECTIVES = {"squeeze": CONFIG, "adversarial": AdversarialConfig(steps=2), "standard": StandardConfig()}
BASELINES = {
    "trades2": TradesConfig(steps=2, examples=2),
    "mart": MartConfig(steps=2),
    "collaborative": CollaborativeConfig(steps=2),
    "gairat": GairatConfig(steps=2, begin_epoch=2),
    "bat": BatConfig(steps=2, inner="kl"),
}
SIZES = (6, 6, 4)  # an epoch whose last batch is short


def epoch(backend, dtype="float64", sizes=SIZES):
    return [backend.batch(problem(size, seed=i), dtype) for i, size in enumerate(sizes)]


def fit(backend, objective, wrap, sizes=SIZES):
    """Weights after training, and how often Python ran the step."""
    learner, runs = backend.learner(backend.build("tiny")), []
    laws = len(objective.noise_laws)

    def step(x, y, *noise):
        runs.append(None)
        return stcore.train_step(learner, objective, x, y, noise=noise)

    wrapped = wrap(learner, step)
    results = [wrapped(b.x, b.y, *b.noise[:laws]) for b in epoch(backend, sizes=sizes)]
    losses = [float(backend.array(result.loss)) for result in results]
    return learner.weights(), losses, len(runs)


@cache
def fit_eagerly(backend, objective, sizes=SIZES):
    return fit(backend, objective, lambda learner, step: step, sizes)


@pytest.mark.parametrize("objective", (OBJECTIVES | BASELINES).values(), ids=OBJECTIVES | BASELINES)
def test_a_compiled_step_is_the_eager_one_and_traced_once(backend, objective):
    eager, eager_losses, _ = fit_eagerly(backend, objective)
    weights, losses, runs = fit(backend, objective, lambda learner, step: learner.compile(step))
    assert_close(weights, eager, 1e-12)
    np.testing.assert_allclose(losses, eager_losses, rtol=1e-12)
    if backend.name == "keras":
        assert runs == 1


@pytest.mark.parametrize(("objective", "sizes"), [(CONFIG, SIZES[:2]), (StandardConfig(), SIZES)])
def test_a_users_own_tf_function_is_the_eager_step(objective, sizes):
    backend = load("keras")
    import tensorflow as tf

    eager, eager_losses, _ = fit_eagerly(backend, objective, sizes)
    weights, losses, runs = fit(backend, objective, lambda learner, step: tf.function(step), sizes)
    assert_close(weights, eager, 1e-12)
    np.testing.assert_allclose(losses, eager_losses, rtol=1e-12)
    assert runs <= 2 * len({*sizes})  # for each size, and once more where variables could have been made


FINDS = {
    "find_squeeze_pair": lambda m, x, y, noise=None: stcore.find_squeeze_pair(m, x, y, CONFIG, noise=noise),
    "squeeze_step": lambda m, x, y, noise=None: stcore.squeeze_step(m, x, y, config=CONFIG, noise=noise),
    "pgd": lambda m, x, y, noise=None: PGD(steps=2)(m, x, y, noise=noise and noise[:1]),
}
finds = pytest.mark.parametrize("find", FINDS.values(), ids=FINDS)


@finds
@pytest.mark.parametrize("autograph", [False, True])
@pytest.mark.parametrize("closed_over", [False, True])
def test_tracing_needs_noise_and_says_so(find, closed_over, autograph):
    """Also where x and y are constants of the traced function: a draw would be the same in every call."""
    backend = load("keras")
    import tensorflow as tf

    model, batch = backend.build("tiny"), backend.batch(problem())
    fn = (lambda: find(model, batch.x, batch.y)) if closed_over else (lambda x, y: find(model, x, y))
    kind = Exception if autograph else UsageError  # AutoGraph may wrap it
    with pytest.raises(kind, match="noise: expected tensors"):
        tf.function(fn, autograph=autograph)(*(() if closed_over else (batch.x, batch.y)))


@finds
@pytest.mark.parametrize("open_batch", [False, True])
def test_a_traced_search_with_noise_is_the_eager_one_and_warns_of_nothing(find, open_batch, caplog):
    backend = load("keras")
    import tensorflow as tf

    model, batch = backend.build("tiny"), backend.batch(problem())
    arguments = (batch.x, batch.y, *batch.noise)
    specs = [tf.TensorSpec([None, *v.shape[1:]], v.dtype) for v in arguments] if open_batch else None
    traced = tf.function(lambda x, y, *noise: find(model, x, y, noise), input_signature=specs)
    expected = find(model, batch.x, batch.y, batch.noise)
    with caplog.at_level(logging.WARNING):
        found = traced(*arguments)
    assert not caplog.records
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-15)
    assert np.abs(np.asarray(expected) - np.asarray(batch.x)).max() > 1 / 255


def test_a_batch_may_be_a_constant_of_the_traced_function():
    backend = load("keras")
    import tensorflow as tf

    model, batch = backend.build("tiny"), backend.batch(problem())
    traced = tf.function(lambda: stcore.find_squeeze_pair(model, batch.x, batch.y, CONFIG, noise=batch.noise))
    expected = stcore.find_squeeze_pair(model, batch.x, batch.y, CONFIG, noise=batch.noise)
    for one, other in zip(traced(), expected, strict=True):
        np.testing.assert_allclose(one, other, rtol=0, atol=1e-15)


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
def counted(request):
    """torch.compile with a backend that compiles nothing and counts the graphs it is handed.

    Under torch's own limit of graphs: beyond it torch warns once and stays eager, and the counts would mean
    nothing. So afterwards it must not have warned; or must have, where the fixture's parameter says so.
    """
    load("torch")
    import torch

    torch._dynamo.reset()
    graphs, messages = [], []

    def backend(graph, inputs):
        graphs.append(graph)
        return graph.forward

    with warned(messages):
        yield graphs, partial(torch.compile, backend=backend)
    torch._dynamo.reset()
    assert bool(messages) == getattr(request, "param", False)


@contextmanager
def warned(messages):
    """What torch warns of about its limit of graphs: its loggers do not reach pytest's handler."""
    handler = logging.Handler(logging.WARNING)
    handler.emit = lambda record: (
        messages.append(record.getMessage()) if "recompile_limit" in record.getMessage() else None
    )
    logger = logging.getLogger("torch._dynamo")
    logger.addHandler(handler)
    try:
        yield
    finally:
        logger.removeHandler(handler)


def evaluate(backend, model, batch):
    """What an evaluation asks of the model: gradients in EVAL, then predictions without."""
    adversarial = PGD(steps=2)(model, batch.x, batch.y, rng=0)
    classifier = backend.classifier(model)
    return classifier.ops.unrecorded(lambda: classifier.logits(adversarial, Mode.EVAL))


def test_a_compiled_torch_model_has_three_graphs_whatever_the_batch_size(counted):
    """The search (BATCH, pixels differentiated), the collaborative forward (BATCH), the two TRAIN forwards."""
    graphs, compiled = counted
    backend = load("torch")
    learner, (batch, *_, short) = backend.learner(compiled(backend.build("tiny"))), epoch(backend)
    counts = []
    for one in (batch, batch, short, short):
        stcore.train_step(learner, CONFIG, one.x, one.y, noise=one.noise)
        counts.append(len(graphs))
    assert counts == [3, 3, 3, 3]


def test_with_static_shapes_full_batches_are_compiled_and_the_short_one_is_eager(counted, monkeypatch):
    """As on a GPU. Sizes are the graphs' own: none is symbolic."""
    graphs, compiled = counted
    backend = load("torch")
    from stcore.backends.torch.learner import TorchClassifier

    monkeypatch.setattr(TorchClassifier, "static_shapes", True)
    learner, (batch, *_, short) = backend.learner(compiled(backend.build("tiny"), dynamic=False)), epoch(backend)
    counts, eager = [], backend.learner(backend.build("tiny"))
    for one in (batch, short, batch, short):
        for trained in (learner, eager):
            stcore.train_step(trained, CONFIG, one.x, one.y, noise=one.noise)
        counts.append(len(graphs))
    assert counts == [3, 3, 3, 3]
    inputs = [node for graph in graphs for node in graph.graph.nodes if node.op == "placeholder"]
    shapes = [tuple(node.meta["example_value"].shape) for node in inputs if "example_value" in node.meta]
    assert shapes.count(tuple(batch.x.shape)) == 3  # whole numbers, none a symbol
    assert_close(learner.weights(), eager.weights(), 1e-12)


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


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize(
    ("objective", "steps_graphs"),
    [
        (CONFIG, 3),  # the search (BATCH, pixels differentiated), the collaborative forward, the TRAIN forwards
        (AdversarialConfig(steps=2), 2),  # the search (EVAL, pixels differentiated: PGD's too), the TRAIN forward
        (StandardConfig(), 1),  # the TRAIN forward
    ],
    ids=OBJECTIVES,
)
def test_a_run_compiles_five_graphs_at_most_and_none_after_its_first_epoch(
    counted, monkeypatch, objective, steps_graphs, channels
):
    """The trainer's own sequence. To those of the step come the predictions (EVAL, no gradient), and PGD."""
    graphs, events = run_compiled(counted, monkeypatch, objective, channels)
    pgd = not isinstance(objective, AdversarialConfig)
    assert events == [
        ("train", steps_graphs + 1),  # with the look at the weights before they are saved
        ("evaluate", steps_graphs + 1 + pgd),
        ("train", steps_graphs + 1 + pgd),
        ("evaluate", steps_graphs + 1 + pgd),
        ("final", steps_graphs + 1 + pgd),
    ]
    assert len(graphs) <= 5 < 8  # torch's own limit: beyond it a model stays eager for good


@pytest.mark.parametrize("objective", (OBJECTIVES | BASELINES).values(), ids=OBJECTIVES | BASELINES)
def test_no_method_compiles_more_than_six_graphs_nor_any_after_its_first_epoch(counted, monkeypatch, objective):
    """At most EVAL with and without pixel gradients, BATCH for pixels or weights, TRAIN, and one more.

    With AWP, whose forwards come to those of the method alone.
    """
    graphs, events = run_compiled(counted, monkeypatch, objective, 3, AWP())
    assert events[1][1] == events[-1][1] == len(graphs) <= 6


@pytest.mark.parametrize("counted", [True], indirect=True)
def test_torch_would_say_that_it_stopped_compiling(counted, monkeypatch):
    """So that the silence in the test above means something."""
    import torch

    with torch._dynamo.config.patch(recompile_limit=2):
        run_compiled(counted, monkeypatch, CONFIG, 3)


def run_compiled(counted, monkeypatch, objective, channels, perturbation=None):
    """Two epochs of 6, 6, 6, 4 images, each with an evaluation of 9, 4; a final one of 8, 8, 3."""
    graphs, compiled = counted
    backend = load("torch")
    import torch

    from stcore.backends.torch import prepare_training

    monkeypatch.setattr(torch, "compile", compiled)
    model = backend.build("tiny", dtype="float32", channels=channels)
    learner = prepare_training(backend.learner(model), "on")
    assert model.conv1.weight.is_contiguous(memory_format=torch.channels_last)
    rng, events = np.random.default_rng(0), []

    def data(size):
        images = rng.integers(256, size=(size, 8, 8, channels), dtype=np.uint8)
        return ImageData(images, rng.integers(3, size=size), 3, "random")

    store = SimpleNamespace(
        due=lambda: False,
        keep=lambda state: None,
        save=lambda name, epoch: events.append(("train", len(graphs))),
        promote=lambda name: None,
        log=lambda row: events.append(("evaluate", len(graphs))),
    )
    progress = SimpleNamespace(begin=lambda *_: None, advance=lambda *_: None, end=lambda: None)
    evaluator = Evaluator(learner, {"pgd": PGD(steps=2)})
    schedules = Schedules(2, 0.1, lambda epoch, epochs: 1.0)
    batches = Batches(data(22), 6, seed=0)
    parts = (learner, objective, batches, data(13), evaluator, "pgd", schedules, 0, store, progress)
    Trainer(*parts, eval_batch_size=9, perturbation=perturbation).run()
    evaluator.run(in_order(data(19), 8))
    events.append(("final", len(graphs)))
    return graphs, events


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


@pytest.mark.slow  # the compiler itself, C++ included: half a minute where nothing is cached
@pytest.mark.skipif(shutil.which("g++") is None, reason="inductor needs a C++ compiler")
def test_a_network_that_inductor_compiled_is_searched_and_evaluated_as_the_eager_one():
    """Its graphs may not let the first way back overwrite what the next ones read."""
    backend = load("torch")
    import torch

    model, batch = backend.build("tiny", dtype="float32"), backend.batch(problem(), "float32")
    compiled = torch.compile(model)
    torch.testing.assert_close(
        stcore.find_squeeze_pair(compiled, batch.x, batch.y, CONFIG, noise=batch.noise),
        stcore.find_squeeze_pair(model, batch.x, batch.y, CONFIG, noise=batch.noise),
    )
    scores = [
        stcore.evaluate(one, (batch.x, batch.y), ["pgd20", "apgd-ce"], epsilon=0.01) for one in (model, compiled)
    ]
    assert scores[0] == scores[1]
