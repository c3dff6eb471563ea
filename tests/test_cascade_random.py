"""A network that answers at random: `rand` averages gradients, and lets most of twenty forwards decide."""

from dataclasses import replace

import numpy as np
from harness import load
from test_cascade import CLASSES, EPSILON, Short, run, task

from stcore.attacks.apgd import APGD
from stcore.autoattack import AutoAttack, Cascade, Stage
from stcore.autoattack.records import NONE

GRADIENTS = {"torch": 20, "keras": 4}  # averaged in a step: Keras traces each of them
NOISE = 0.6  # of the logits: enough for one forward in some to err


def noisy(backend, model):
    """The model with normal noise on its logits, new in each forward."""
    if backend.name == "torch":
        import torch

        class Noisy(torch.nn.Module):
            def __init__(self):
                super().__init__()
                self.inner, self.source = model, torch.Generator().manual_seed(0)

            def forward(self, x):
                logits = self.inner(x)
                return logits + NOISE * torch.randn(logits.shape, generator=self.source, dtype=logits.dtype)

        return Noisy()
    import keras

    class Noise(keras.layers.Layer):
        def __init__(self):
            super().__init__(dtype="float64")
            self.source = keras.random.SeedGenerator(0)

        def call(self, logits):
            return logits + NOISE * keras.random.normal(keras.ops.shape(logits), dtype="float64", seed=self.source)

    return keras.Model(model.input, Noise()(model.output))


def rand(backend, epsilon):
    """`rand` with 20 steps, and on Keras fewer gradients in each; twenty forwards still decide."""
    whole = Short(epsilon, version="rand").stages(CLASSES)
    assert {(stage.samples, stage.attack.samples) for stage in whole} == {(20, 20)}

    class Rand(Short):
        def stages(self, classes):
            samples = GRADIENTS[backend.name]
            return tuple(replace(stage, attack=replace(stage.attack, samples=samples)) for stage in whole)

    return Rand(epsilon, version="rand")


def test_one_lucky_forward_fools_nobody(backend):
    """At ε = 0 nothing can be found, though single forwards err now and then."""
    model, x, _ = task(backend)
    classifier = backend.classifier(model)
    logits = classifier.eval_logits(classifier.images(x))
    y = logits.argmax(axis=1)
    first, second = np.sort(logits, axis=1)[:, :-3:-1].T
    clear = np.flatnonzero(first - second > 1.5 * NOISE)  # a seventh of the forwards err, and far from half
    assert len(clear) >= 3
    of = noisy(backend, model), x[clear], y[clear]
    many, _ = run(backend, rand(backend, 0.0), of=of)
    assert (many.records.attack == NONE).all()

    class Single(AutoAttack):
        def stages(self, classes):
            return (Stage("apgd-ce", APGD(0.0)),)

    one, _ = run(backend, Single(0.0), of=of)
    assert (one.records.attack != NONE).any()


def test_one_unlucky_first_forward_condemns_nobody(backend):
    """Images that most forwards classify correctly are attacked, also those that the first got wrong."""
    model, x, _ = task(backend)
    classifier = backend.classifier(model)
    logits = classifier.eval_logits(classifier.images(x))
    first, second = np.sort(logits, axis=1)[:, :-3:-1].T
    clear = np.tile(np.flatnonzero(first - second > 1.5 * NOISE), 8)
    x, y = x[clear], logits.argmax(axis=1)[clear]
    random = backend.classifier(noisy(backend, model))

    def begun(samples):
        once = random.eval_logits(random.images(x))
        predict = lambda points: random.eval_logits(random.images(points)).argmax(axis=1)  # noqa: E731
        made = Cascade(random, [Stage("apgd-ce", APGD(0.1), samples=samples)], x, y, once, predict)
        return made, (once.argmax(axis=1) != y)

    single, wrong = begun(1)
    np.testing.assert_array_equal(single.records.robust, ~wrong)
    many, wrong = begun(20)
    assert wrong.any()
    assert many.records.robust.all()
    assert (many.records.predicted == y).all()
    assert many.forwards[0] == 20 * wrong.sum()


def test_what_falls_errs_in_most_forwards(backend):
    model, x, y = task(backend)
    random = noisy(backend, model)
    found, examples = run(backend, rand(backend, 3 * EPSILON), of=(random, x, y))
    assert examples
    classifier = backend.classifier(random)
    rows = sorted(examples)
    points = classifier.images(np.stack([examples[row] for row in rows]))
    errs = np.mean([classifier.eval_logits(points).argmax(axis=1) != y[rows] for _ in range(200)], axis=0)
    assert errs.mean() > 0.5
    assert errs.min() > 0.25  # near one half the vote of twenty may go either way
    assert found.stages[0].forwards % GRADIENTS[backend.name] == 0


def test_gradients_are_averaged_over_the_samples():
    backend = load("torch")
    model, x, y = task(backend, images=4)
    random = noisy(backend, model)
    counted = []
    random.register_forward_hook(lambda *_: counted.append(None))
    classifier = backend.classifier(random)
    attack = APGD(EPSILON, samples=20)
    given = classifier.images(x), classifier.labels(y), classifier.labels((y + 1) % CLASSES)
    state = attack.start(classifier.ops, *given, (given[0] - given[0],))
    pace = {name: classifier.pixels(value) for name, value in attack.pace(np.zeros(4, int)).items()}
    attack.step(classifier, *given, state, pace)
    assert len(counted) == 20 == attack.forwards == attack.backwards
