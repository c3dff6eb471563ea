"""How many forwards a step makes, in which modes and order, and that the search computes no weight gradient."""

from collections import Counter

import numpy as np
import pytest
from harness import load, problem

import stcore
from stcore import AdversarialConfig, SqueezeConfig, StandardConfig
from stcore.protocols import Mode

K = 10


class Watch:
    """A learner whose forwards are noted as (mode, dropout), and its model's own calls counted."""

    def __init__(self, backend, net="tiny"):
        self.model = backend.build(net)
        self.learner = backend.learner(self.model)
        self.calls, self.forwards, original = 0, [], self.learner.logits

        def logits(x, mode, *, dropout=False):
            self.forwards.append((mode, dropout))
            return original(x, mode, dropout=dropout)

        self.learner.logits = logits
        self._count(backend)

    def _count(self, backend):
        def count(*_):
            self.calls += 1

        if backend.name == "torch":
            self.model.register_forward_pre_hook(count)
        else:
            layer = self.model.get_layer("linear")
            original = layer.activation
            layer.activation = lambda x: count() or original(x)

    def step(self, batch, objective):
        """The forwards of one training step, after a first one: that looks at the model once more."""
        for _ in range(2):
            self.calls = 0
            self.forwards.clear()
            noise = batch.noise[: len(objective.noise_laws)]
            stcore.train_step(self.learner, objective, batch.x, batch.y, noise=noise)
        assert self.calls == len(self.forwards)
        return self.forwards


OUTER = [(Mode.BATCH, True), (Mode.TRAIN, True), (Mode.TRAIN, True)]


def test_squeeze_training_makes_twenty_four_forwards(backend):
    """x once, K times the pair, then collaborative, natural, adversarial."""
    forwards = Watch(backend).step(backend.batch(problem()), SqueezeConfig(steps=K))
    assert forwards == [(Mode.BATCH, False)] * (1 + 2 * K) + OUTER
    assert len(forwards) == 24


def test_adversarial_training_makes_k_evaluating_forwards_and_a_training_one(backend):
    forwards = Watch(backend).step(backend.batch(problem()), AdversarialConfig(steps=K))
    assert forwards == [(Mode.EVAL, False)] * K + [(Mode.TRAIN, True)]


def test_standard_training_makes_one_forward(backend):
    assert Watch(backend).step(backend.batch(problem()), StandardConfig()) == [(Mode.TRAIN, True)]


def test_the_outer_forwards_are_collaborative_natural_adversarial(every_backend):
    batch, seen = every_backend.batch(problem(4, 4)), []
    classifier = every_backend.classifier(every_backend.build(side=4))
    original = classifier.logits
    classifier.logits = lambda x, mode, **options: seen.append(x) or original(x, mode, **options)
    adversarial, collaborative = batch.noise
    SqueezeConfig().losses(classifier, batch.x, batch.y, stcore.SqueezePair(adversarial, collaborative))
    assert [id(x) for x in seen] == [id(collaborative), id(batch.x), id(adversarial)]


def test_one_step_updates_the_statistics_by_natural_then_adversarial(backend):
    """Twice, by hand: natural first, so the adversarial weighs more."""
    given, model = problem(), backend.build("tiny")
    batch, pair = backend.batch(given), backend.pair([given.x + 0.005 * noise for noise in given.noise])
    stcore.squeeze_loss(model, batch.x, batch.y, pair)
    expected = backend.build("tiny")
    for point in (batch.x, pair.adversarial):
        backend.classifier(expected).logits(point, Mode.TRAIN)
    for name, value in backend.statistics(expected).items():
        np.testing.assert_array_equal(backend.statistics(model)[name], value, err_msg=name)


# --- No weight gradient in a search ---


def searches(model, batch):
    config = SqueezeConfig(steps=3)
    stcore.find_squeeze_pair(model, batch.x, batch.y, config, noise=batch.noise)
    stcore.squeeze_step(model, batch.x, batch.y, config=config, noise=batch.noise)
    stcore.attacks.PGD(steps=3)(model, batch.x, batch.y, rng=0)


def test_no_gradient_of_a_torch_weight_is_computed_in_a_search():
    backend = load("torch")
    model, batch, computed = backend.build("resnet8"), backend.batch(problem()), []
    for parameter in model.parameters():
        parameter.register_hook(lambda _: computed.append(None))
    searches(model, batch)
    assert not computed
    assert all(parameter.grad is None for parameter in model.parameters())
    stcore.squeeze_loss(model, batch.x, batch.y, config=SqueezeConfig(steps=1), noise=batch.noise).total.backward()
    assert len(computed) == len(list(model.parameters()))


def test_torch_does_not_even_run_the_kernels_of_weight_gradients():
    """A convolution's backward is asked for its input's gradient alone."""
    backend = load("torch")
    from torch.utils._python_dispatch import TorchDispatchMode

    masks = []

    class Record(TorchDispatchMode):
        def __torch_dispatch__(self, function, types, args=(), kwargs=None):
            if "convolution_backward" in str(function):
                masks.append(tuple(args[-1]))
            return function(*args, **(kwargs or {}))

    model, batch = backend.build("resnet8"), backend.batch(problem())
    with Record():
        searches(model, batch)
    assert set(masks) == {(True, False, False)}


def operations(function, *arguments):
    """How often each kind of operation stands in the graph that TensorFlow runs, after its optimiser."""
    from tensorflow.python.eager import context

    context.enable_graph_collection()
    try:
        function(*arguments)
        graphs = context.export_run_metadata().function_graphs
    finally:
        context.disable_graph_collection()
    kinds = Counter()
    for graph in graphs:
        kinds.update(node.op for node in graph.post_optimization_graph.node)
        for body in graph.post_optimization_graph.library.function:
            kinds.update(f"library {node.op}" for node in body.node_def)
    return kinds


def test_no_gradient_of_a_keras_weight_is_in_the_optimised_graph_of_a_search():
    backend = load("keras")
    import tensorflow as tf

    model, batch = backend.build("tiny"), backend.batch(problem())

    @tf.function
    def search(x, y, one, two):
        return stcore.find_squeeze_pair(model, x, y, SqueezeConfig(steps=3), noise=(one, two))

    @tf.function
    def loss(x, y, one, two):
        with tf.GradientTape() as tape:
            total = stcore.squeeze_loss(model, x, y, config=SqueezeConfig(steps=3), noise=(one, two)).total
        return tape.gradient(total, [v.value for v in model.trainable_variables])

    def convolutions(function):
        kinds = operations(function, batch.x, batch.y, *batch.noise)
        return kinds["Conv2DBackpropInput"], kinds["Conv2DBackpropFilter"]

    assert convolutions(search) == (6, 0)  # of x, x' and x'', through two layers, once in the loop's body
    assert convolutions(loss) == (6 + 3, 6)  # the outer forwards need none for the pixels


@pytest.mark.parametrize("steps", [0, 1, 10])
def test_the_graph_of_a_search_does_not_grow_with_k(steps):
    backend = load("keras")
    import tensorflow as tf

    model, batch = backend.build("tiny"), backend.batch(problem())

    @tf.function
    def search(x, y, one, two):
        return stcore.find_squeeze_pair(model, x, y, SqueezeConfig(steps=steps), noise=(one, two))

    graph = search.get_concrete_function(batch.x, batch.y, *batch.noise).graph.as_graph_def()
    convolutions = sum(
        n.op == "Conv2D" for n in [*graph.node, *(n for f in graph.library.function for n in f.node_def)]
    )
    assert convolutions <= (0 if steps == 0 else 2 * (1 + 2) * 2)
