"""Folded classifiers: equal to the model, which stays as it is; what cannot be folded is left alone."""

from functools import reduce

import numpy as np
import pytest
from harness import assert_same, load, problem, worst
from test_cascade import EPSILON, FEW, Short, assessment, close_examples, run, same_records, task

import stcore
from stcore.attacks import PGD
from stcore.audit import audit, gradients, strength
from stcore.autoattack import AutoAttack
from stcore.autoattack.lanes import lanes_on
from stcore.base.progress import Silent
from stcore.core.equivalence import same_function
from stcore.core.search import forward
from stcore.data.batches import Batch
from stcore.evaluation.assessment import Assessment
from stcore.evaluation.attack_names import split
from stcore.evaluation.evaluator import Evaluator
from stcore.models import export_weights, load_weights
from stcore.protocols import Mode


def images(side=8, batch=4, seed=0):
    return np.random.default_rng(seed).uniform(size=(batch, side, side, 3))


def answers(classifier, x):
    """Logits, and their way back to the pixels."""

    def ask():
        logits, pullback = forward(classifier, x, Mode.EVAL)
        return logits, pullback(logits)[0]

    return [classifier.ops.to_numpy(part) for part in classifier.ops.unrecorded(ask)]


def batch_norms(model):
    """How many a model has."""
    layers = model.modules() if hasattr(model, "modules") else model.layers
    return sum("BatchNorm" in type(layer).__name__ for layer in layers)


# The networks of the package

# Batch norms before and after: pre-activation networks keep those that follow no convolution directly.
NETWORKS = [("resnet8", 9, 0), ("preact-resnet8", 7, 4), ("wrn-10-1", 7, 4), ("vgg16-bn", 13, 0)]


@pytest.mark.parametrize(
    ("net", "before", "after"),  # VGG is five seconds on each backend, and pairs of layers as ResNet has them
    [pytest.param(*one, marks=pytest.mark.slow) if one[0] == "vgg16-bn" else one for one in NETWORKS],
)
def test_folded_it_is_the_same_network(backend, net, before, after):
    model = backend.build(net, side=32)
    classifier = backend.classifier(model)
    x = classifier.images(images(32))
    folded = classifier.folded(x)
    assert (batch_norms(model), batch_norms(folded.model)) == (before, after)
    other = classifier.images(images(32, batch=3, seed=1))
    for one, two in zip(answers(folded, other), answers(classifier, other), strict=True):
        assert worst(one, two) <= 1e-9


def test_the_original_stays_as_it_is(backend):
    model = backend.build("resnet8")
    classifier, before = backend.classifier(model), export_weights(model)
    x = classifier.images(images())
    logits = classifier.eval_logits(x)
    folded = classifier.folded(x)
    answers(folded, x)
    assert_same(export_weights(model), before)
    np.testing.assert_array_equal(classifier.eval_logits(x), logits)
    if backend.name == "torch":
        assert all(module.training for module in model.modules())
        assert all(p.requires_grad and p.grad is None and p.is_contiguous() for p in model.parameters())
        assert not {p.data_ptr() for p in model.parameters()} & {p.data_ptr() for p in folded.model.parameters()}


def test_later_weights_are_seen_by_a_new_folding(backend):
    model = backend.build("resnet8")
    classifier = backend.classifier(model)
    x = classifier.images(images())
    first = classifier.folded(x)
    before = classifier.eval_logits(x)
    load_weights(model, export_weights(backend.build("resnet8", seed=1)))
    assert worst(classifier.folded(x).eval_logits(x), classifier.eval_logits(x)) <= 1e-9
    assert worst(first.eval_logits(x), before) <= 1e-9
    assert worst(classifier.eval_logits(x), before) > 1e-2


def test_an_assessment_attacks_the_weights_it_finds(backend, monkeypatch):
    """One evaluator for several checkpoints: each assessment folds what is loaded then, and compiles once."""
    model, x, y = task(backend)
    attack = AutoAttack(EPSILON, version="custom", attacks=("apgd-ce",))
    it, seen = assessment(backend, attack, of=(model, x, y)), []
    monkeypatch.setattr("stcore.evaluation.evaluator.lanes_on", lambda on: seen.append(on) or lanes_on(on))
    one = it.run(Silent())
    weights = export_weights(model)
    weights["linear.weight"] = -weights["linear.weight"]
    load_weights(model, weights)
    other = it.run(Silent())
    assert len(seen) == 2
    assert seen[0] is not seen[1]
    fresh = assessment(backend, attack, of=(model, x, y)).run(Silent())
    same_records(other.cascades["it"], fresh.cascades["it"])
    assert (one.predictions.predicted["natural"] != other.predictions.predicted["natural"]).any()


@pytest.mark.parametrize("attack", [Short(EPSILON, queries=FEW), Short(EPSILON * 10, "l2", queries=FEW)])
def test_the_cascade_gives_the_same_verdicts(backend, attack, monkeypatch):
    of = task(backend)
    folded, examples = run(backend, attack, of=of)
    monkeypatch.setattr(type(backend.classifier(of[0])), "folded", lambda self, x: self)
    plain, others = run(backend, attack, of=of)
    same_records(folded, plain, but=("distance",))
    close_examples(examples, others)
    assert examples
    for one, other in zip(folded.stages, plain.stages, strict=True):
        assert (one.robust, one.forwards, one.backwards) == (other.robust, other.forwards, other.backwards)


def test_an_attack_that_is_called_folds_too(backend, monkeypatch):
    model, x, y = task(backend)
    classifier, seen = backend.classifier(model), []
    monkeypatch.setattr("stcore.autoattack.attack.lanes_on", lambda on: seen.append(on) or lanes_on(on))
    attack = AutoAttack(EPSILON, version="custom", attacks=("apgd-ce",))
    found = backend.nhwc(attack(model, backend.images(x), backend.tensor(y), batch_size=64))
    assert [batch_norms(one.model) for one in seen] == [0]
    moved = (found != x).any((1, 2, 3))
    assert moved.any()
    assert (classifier.eval_logits(classifier.images(found)).argmax(1) != y)[moved].all()


def test_attacks_by_batch_see_the_folded_network_and_the_verdict_is_the_networks_own(backend, monkeypatch):
    """An evaluator by itself folds nothing: in training weights change from one evaluation to the next."""
    model, x, y = task(backend)
    classifier, attack, attacked, judged = backend.classifier(model), PGD(EPSILON, EPSILON / 4, 3), [], []
    find = PGD.find
    monkeypatch.setattr(
        PGD, "find", lambda self, on, *rest: attacked.append(batch_norms(on.model)) or find(self, on, *rest)
    )
    evaluator = Evaluator(classifier, {"it": attack})
    judge = evaluator.classes
    monkeypatch.setattr(evaluator, "classes", lambda x: judged.append(x) or judge(x))
    found = Assessment(evaluator, split({}), x, y, keep_examples=True).run(Silent())
    assert attacked == [0]
    plain = Evaluator(classifier, {"it": attack}).evaluate_batch(Batch(x, y, np.arange(len(y))))[2]["it"]
    assert attacked == [0, batch_norms(model)]
    assert worst(*(classifier.host_images(points) for points in (judged[0], plain))) <= 1e-9
    own = classifier.eval_logits(judged[0]).argmax(1)
    np.testing.assert_array_equal(found.predictions.predicted["it"], own)


@pytest.mark.parametrize("backend", ["torch"], indirect=True)
def test_an_audit_attacks_a_folded_network_and_asks_the_original(backend, monkeypatch):
    """Its logits and gradients are questions about the network as it is."""
    model, x, _ = task(backend)
    classifier, seen = backend.classifier(model), {"gradients": set(), "attacks": set(), "folded": []}
    fold = type(classifier).folded

    def note(what, on):
        seen[what].add(batch_norms(on.model))

    find, gradient = PGD.find, gradients.forward
    monkeypatch.setattr(PGD, "find", lambda self, on, *rest: note("attacks", on) or find(self, on, *rest))
    monkeypatch.setattr(gradients, "forward", lambda on, *rest: note("gradients", on) or gradient(on, *rest))
    monkeypatch.setattr(strength, "lanes_on", lambda on: note("attacks", on) or lanes_on(on))
    monkeypatch.setattr(type(classifier), "folded", lambda self, x: seen["folded"].append(x) or fold(self, x))
    audit(classifier, x[:6], classifier.eval_logits(classifier.images(x[:6])).argmax(1), epsilon=1e-4, queries=2)
    assert seen["attacks"] == {0}
    assert seen["gradients"] == {batch_norms(model)}
    assert len(seen["folded"]) == 1


# Anybody's modules


def lively(model):
    """Batch norms that are not the identity, and everything in float64."""
    import torch

    generator = torch.Generator().manual_seed(0)
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d) and module.track_running_stats:
            module.running_mean.normal_(0, 0.3, generator=generator)
            module.running_var.uniform_(0.5, 2, generator=generator)
            for parameter in module.parameters():
                parameter.data.uniform_(0.5, 1.5, generator=generator)
    return model.double()


def head(width=6):
    from torch import nn

    return nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, 5)


def torch_cases():
    """By name: a module, and how many of its batch norms are left."""
    import torch
    from torch import nn
    from torch.nn import functional

    class Twice(nn.Module):
        """The convolution's output is also used past the batch norm."""

        def __init__(self):
            super().__init__()
            self.conv, self.bn, self.head = nn.Conv2d(3, 6, 3), nn.BatchNorm2d(6), nn.Sequential(*head())

        def forward(self, x):
            y = self.conv(x)
            return self.head(self.bn(y) + y)

    class Shared(Twice):
        """One convolution before two batch norms."""

        def __init__(self):
            super().__init__()
            self.other = nn.BatchNorm2d(6)

        def forward(self, x):
            return self.head(self.bn(self.conv(x)) + self.other(self.conv(x.flip(3))))

    class Branching(Twice):
        """Asks for a value, which a symbolic trace does not have."""

        def forward(self, x):
            y = self.bn(self.conv(x))
            return self.head(y if y.mean() > 0 else 2 * y)

    class Functional(Twice):
        """Functions beside modules, and dropout by the flag."""

        def forward(self, x):
            y = functional.dropout(functional.relu(self.bn(self.conv(x))), 0.5, self.training)
            return self.head(y.reshape(y.size(0), 6, -1, 4))

    class Restless(Twice):
        """Answers at random: drawn while tracing, the noise would be a constant."""

        def forward(self, x):
            return self.head(self.bn(self.conv(x)) + 0.1 * torch.randn(1, dtype=x.dtype))

    class Rounding(torch.autograd.Function):
        @staticmethod
        def forward(context, x):
            return (8 * x).round() / 8

        @staticmethod
        def backward(context, gradient):
            return gradient

    class StraightThrough(Twice):
        """A way back of its own, which a trace does not see: it would be lost with logits unchanged."""

        def forward(self, x):
            return self.head(self.bn(self.conv(Rounding.apply(x))))

    class Unseen(Twice):
        """A part without a way back, which a trace does not see either."""

        def forward(self, x):
            with torch.no_grad():
                scale = x.mean((1, 2, 3), keepdim=True)
            return self.head(self.bn(self.conv(x / scale)))

    def chain(*modules):
        return nn.Sequential(*modules, *head())

    class Forked(nn.Module):
        """A rectified output that is read unrectified too."""

        def __init__(self):
            super().__init__()
            self.conv, self.relu, self.head = nn.Conv2d(3, 6, 3), nn.ReLU(), nn.Linear(6, 4)

        def forward(self, x):
            y = self.conv(x)
            return self.head(self.relu(y).mean((2, 3)) + y.mean((2, 3)))

    hooked = chain(nn.Conv2d(3, 6, 3), nn.BatchNorm2d(6))
    hooked[0].register_forward_hook(lambda module, given, y: 2 * y)
    normed = nn.utils.parametrizations.weight_norm(nn.Conv2d(3, 6, 3))
    return {
        "bias": (chain(nn.Conv2d(3, 6, 3), nn.BatchNorm2d(6)), 0),
        "no affine": (chain(nn.Conv2d(3, 6, 3, bias=False), nn.BatchNorm2d(6, affine=False)), 0),
        "groups, stride": (chain(nn.Conv2d(3, 6, 3, 2, groups=3), nn.BatchNorm2d(6)), 0),
        "in place": (chain(nn.Conv2d(3, 6, 3), nn.BatchNorm2d(6), nn.ReLU(inplace=True)), 0),
        "dropout": (chain(nn.Conv2d(3, 6, 3), nn.BatchNorm2d(6), nn.Dropout2d(0.5)), 0),
        "functional": (Functional(), 0),
        "nested": (chain(nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)), nn.Conv2d(4, 6, 1)), 0),
        "batch statistics": (chain(nn.Conv2d(3, 6, 3), nn.BatchNorm2d(6, track_running_stats=False)), 1),
        "transposed": (chain(nn.ConvTranspose2d(3, 6, 3), nn.BatchNorm2d(6)), 1),
        "batch norm first": (chain(nn.BatchNorm2d(3), nn.Conv2d(3, 6, 3)), 1),
        "used twice": (Twice(), 1),
        "shared": (Shared(), 2),
        "branching": (Branching(), 1),
        "forked": (Forked(), 0),
        "random": (Restless(), 1),
        "straight-through": (StraightThrough(), 1),
        "no_grad": (Unseen(), 1),
        "hooks": (hooked, 1),
        "weight norm": (chain(normed, nn.BatchNorm2d(6)), 1),
    }


STAY = ("random", "hooks")
NAMES = (
    *("bias", "no affine", "groups, stride", "in place", "dropout", "functional", "nested", "batch statistics"),
    *("transposed", "batch norm first", "used twice", "shared", "branching", "forked", "straight-through"),
    *("no_grad", "weight norm", *STAY),
)


@pytest.mark.parametrize("name", NAMES)
def test_a_module_is_folded_where_that_is_right(name):
    import torch

    load("torch")
    torch.manual_seed(0)
    cases = torch_cases()
    assert set(cases) == set(NAMES)
    model, left = cases[name]
    classifier = stcore.make_classifier(lively(model))
    x = classifier.images(images())
    state = {key: value.clone() for key, value in model.state_dict().items()}
    modes = [module.training for module in model.modules()]
    folded = classifier.folded(x)
    assert (folded is classifier) == (name in STAY)
    assert batch_norms(folded.model) == left
    if name != "random":
        other = classifier.images(images(batch=7, seed=1))
        for one, two in zip(answers(folded, other), answers(classifier, other), strict=True):
            assert worst(one, two) <= 1e-9
    for key, value in model.state_dict().items():
        assert torch.equal(value, state[key])
    assert [module.training for module in model.modules()] == modes


@pytest.mark.parametrize("pooling", ["mean", "module"])
def test_gradients_of_a_folded_network_stay_channels_last(pooling):
    """Behind the mean over the pixels too, and a ReLU writes into the output before it."""
    import torch
    from torch import nn

    class Pooled(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.relu, self.head = nn.Conv2d(3, 6, 3), nn.ReLU(), nn.Linear(6, 4)
            self.pool = nn.AdaptiveAvgPool2d(1)

        def forward(self, x):
            y = self.relu(self.conv(x))
            return self.head(y.mean((2, 3)) if pooling == "mean" else self.pool(y).flatten(1))

    layouts, memory = [], []

    class Watch(torch.fx.Interpreter):
        def run_node(self, node):
            result = super().run_node(node)
            if result.ndim == 4 and result.shape[1] == 6 and result.shape[2] > 1:
                memory.append(result.data_ptr())
                result.register_hook(
                    lambda gradient: layouts.append(gradient.is_contiguous(memory_format=torch.channels_last))
                )
            return result

    load("torch")
    classifier = stcore.make_classifier(lively(Pooled()))
    x = classifier.images(images())
    Watch(classifier.folded(x).model).run(x.clone().requires_grad_()).sum().backward()
    assert layouts == [True, True]
    assert len(set(memory)) == 1


def test_compiled_modules_stay():
    import torch

    load("torch")
    model = lively(torch.nn.Sequential(torch.nn.Conv2d(3, 6, 3), torch.nn.BatchNorm2d(6), *head()))
    x = torch.zeros(2, 3, 8, 8, dtype=torch.float64)
    outside = stcore.make_classifier(torch.compile(model, backend="eager"))
    assert outside.folded(x) is outside
    model.compile(backend="eager")
    inside = stcore.make_classifier(model)
    assert inside.folded(x) is inside


def test_weights_are_channels_last_and_without_gradients():
    import torch

    model = load("torch").build("resnet8")
    classifier = stcore.make_classifier(model)
    folded = classifier.folded(classifier.images(images())).model
    kernels = [p for p in folded.parameters() if p.ndim == 4]
    assert len(kernels) == 9
    assert all(p.is_contiguous(memory_format=torch.channels_last) for p in kernels)
    assert not any(p.requires_grad for p in folded.parameters())


def keras_cases():
    """By name: what comes before the head, and how many batch norms are left."""
    from keras import layers

    one = layers.Conv2D(6, 3)

    def twice(x):
        y = layers.Conv2D(6, 3)(x)
        return layers.Add()([layers.BatchNormalization()(y), y])

    def shared(x):
        return layers.Add()([layers.BatchNormalization()(one(x)), layers.BatchNormalization()(one(1 - x))])

    def chain(*steps):
        return steps

    return {
        "bias": (chain(layers.Conv2D(6, 3), layers.BatchNormalization()), 0),
        "no affine": (chain(layers.Conv2D(6, 3), layers.BatchNormalization(center=False, scale=False)), 0),
        "groups, stride": (chain(layers.Conv2D(6, 3, 2, groups=3), layers.BatchNormalization()), 0),
        "dropout": (chain(layers.Conv2D(6, 3), layers.BatchNormalization(), layers.Dropout(0.5)), 0),
        "activation": (chain(layers.Conv2D(6, 3, activation="relu"), layers.BatchNormalization()), 1),
        "transposed": (chain(layers.Conv2DTranspose(6, 3), layers.BatchNormalization()), 1),
        "another axis": (chain(layers.Conv2D(6, 3), layers.BatchNormalization(axis=1)), 1),
        "batch norm first": (chain(layers.BatchNormalization(), layers.Conv2D(6, 3)), 1),
        "used twice": (twice, 1),
        "shared": (shared, 2),
    }


KERAS_NAMES = (
    *("bias", "no affine", "groups, stride", "dropout", "activation", "transposed", "another axis"),
    *("batch norm first", "used twice", "shared"),
)


CHAINS = [name for name in KERAS_NAMES if name not in ("used twice", "shared")]


@pytest.mark.parametrize(
    ("kind", "name"), [*(("Functional", name) for name in KERAS_NAMES), *(("Sequential", name) for name in CHAINS)]
)
def test_a_keras_model_is_folded_where_that_is_right(kind, name):
    load("keras")
    import keras

    policy = keras.config.dtype_policy()
    keras.config.set_dtype_policy("float64")
    try:
        keras.utils.set_random_seed(0)
        cases = keras_cases()
        assert set(cases) == set(KERAS_NAMES)
        body, left = cases[name]
        pixels, head = keras.Input((8, 8, 3)), [keras.layers.ReLU(), keras.layers.Flatten(), keras.layers.Dense(5)]
        steps = [body, *head] if callable(body) else [*body, *head]
        if kind == "Sequential":
            model = keras.Sequential([pixels, *steps])
        else:
            model = keras.Model(pixels, reduce(lambda x, step: step(x), steps, pixels))
    finally:
        keras.config.set_dtype_policy(policy)
    rng = np.random.default_rng(0)
    for layer in model.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.set_weights([rng.uniform(0.5, 1.5, w.shape) for w in layer.get_weights()])
    classifier = stcore.make_classifier(model)
    before = [w.copy() for w in model.get_weights()]
    x = classifier.images(images())
    folded = classifier.folded(x)
    assert batch_norms(folded.model) == left
    assert (folded is classifier) == (left > 0)
    other = classifier.images(images(batch=7, seed=1))
    for one, two in zip(answers(folded, other), answers(classifier, other), strict=True):
        assert worst(one, two) <= 1e-9
    for one, two in zip(model.get_weights(), before, strict=True):
        np.testing.assert_array_equal(one, two)


# Likeness


@pytest.mark.parametrize(("dtype", "tolerance"), [("float32", 1e-4), ("float64", 1e-9)])
def test_likeness_is_a_matter_of_rounding(backend, dtype, tolerance):
    model, other = (backend.build("tiny", dtype=dtype) for _ in range(2))
    one, two = backend.classifier(model), backend.classifier(other)
    x = one.images(images().astype(dtype))
    weights, largest = export_weights(other), np.abs(one.eval_logits(x)).max()
    for factor, same in ((0.5, True), (2.0, False)):
        moved = weights | {"linear.bias": weights["linear.bias"] + factor * tolerance * largest}
        load_weights(other, moved)
        assert same_function(one, two, x) is same
    load_weights(other, weights | {"linear.bias": weights["linear.bias"] * np.nan})
    assert not same_function(one, two, x)
    assert not same_function(two, two, x)


def test_no_draw_of_a_random_network_is_folded():
    """A coin tossed in Python is traced into one side; a copy that holds it is right every other time."""
    torch, backend = pytest.importorskip("torch"), load("torch")

    class Tossed(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.norm = torch.nn.Conv2d(3, 4, 3, padding=1), torch.nn.BatchNorm2d(4)
            self.linear = torch.nn.Linear(4 * 64, 3)

        def forward(self, x):
            x = x.flip(3) if float(torch.rand(())) < 0.5 else x
            return self.linear(self.norm(self.conv(x)).flatten(1))

    x = backend.batch(problem(batch=4)).x
    for seed in range(30):
        torch.manual_seed(seed)
        classifier = backend.classifier(Tossed().double())
        assert classifier.folded(x) is classifier
