"""What a network returns: one reading of its logits, in the weights' precision, whatever the caller's context."""

import contextlib
import warnings
from collections import namedtuple
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from harness import NAMES, assert_close, assert_same, load, problem, worst

import stcore
from stcore import AWP, SqueezeConfig
from stcore.core.dispatch import load_backend
from stcore.errors import DataError, UsageError
from stcore.methods import METHODS
from stcore.models import export_weights, load_weights
from stcore.protocols import Mode
from stcore.runs.plan import make_plan

CONFIG = SqueezeConfig(epsilon=0.05, step_size=0.02, steps=3)
Output = namedtuple("Output", ["logits", "aux"])

ONE_READING = {
    "mapping": lambda z: {"logits": z, "features": 2 * z},
    "mapping of one": lambda z: {"out": z},
    "tuple of one": lambda z: (z,),
    "list of one": lambda z: [z],
    "object": lambda z: SimpleNamespace(logits=z),
    "named tuple": lambda z: Output(z, 2 * z),
}
NO_READING = {
    "tuple of two": (lambda z: (z, 2 * z), r"received tuple of shape \(.*, 3\), shape \(.*, 3\). Wrap the model"),
    "mapping of two": (lambda z: {"a": z, "b": z}, "received dict of 'a', 'b'"),
    "empty": (lambda z: [], "received list of nothing"),
    "object": (lambda z: SimpleNamespace(scores=z), "received types.SimpleNamespace"),
    "nothing": (lambda z: None, "received NoneType"),
}


def wrapped(backend, model, change):
    """The network with another output: `change(logits, training)`."""
    if backend.name == "torch":
        import torch

        class Wrapped(torch.nn.Module):
            def __init__(self):
                super().__init__()
                self.inner = model

            def forward(self, x):
                return change(self.inner(x), self.inner.training)

        return Wrapped()
    import keras

    class Wrapped(keras.Model):
        def __init__(self):
            super().__init__(dtype=next(v.dtype for v in model.weights if "float" in v.dtype))
            self.inner = model

        def call(self, x, training=False):
            return change(self.inner(x, training=training), training)

    outer = Wrapped()
    outer.built = True
    return outer


def loss_of(backend, model, given, dtype="float64"):
    batch = backend.batch(given, dtype)
    loss = stcore.squeeze_loss(model, batch.x, batch.y, config=CONFIG, noise=batch.noise)
    return float(backend.array(loss.total))


@pytest.mark.parametrize("kind", ONE_READING)
def test_a_container_with_one_reading_is_opened(backend, kind):
    model, given = backend.build(), problem()
    plain = loss_of(backend, model, given)
    assert loss_of(backend, wrapped(backend, model, lambda z, _: ONE_READING[kind](z)), given) == plain


@pytest.mark.parametrize("kind", NO_READING)
@pytest.mark.parametrize("always", [True, False], ids=["always", "in training"])
def test_any_other_is_refused_by_name_before_any_work(backend, kind, always):
    """Also if the evaluation returns the logits alone, as with an auxiliary head."""
    change, message = NO_READING[kind]
    model, forwards = backend.build(), []

    def output(z, training):
        forwards.append(training)
        return change(z) if always or training else z

    before = backend.statistics(model)
    with pytest.raises(UsageError, match=f"model: expected logits .*; {message}"):
        loss_of(backend, wrapped(backend, model, output), problem())
    assert forwards == ([False] if always else [False, True])
    assert_same(backend.statistics(model), before)


# Precision

KINDS = ("st", "trades", "mart", "gairat")
"""Each formula of a loss once, on Keras; on PyTorch every method."""


def confident(backend, dtype="float32"):
    """A network sure of its classes: in bfloat16 the differences of its losses vanish."""
    model = backend.build(dtype=dtype)
    weights = export_weights(model)
    weights["linear.weight"] = weights["linear.weight"] * 20
    load_weights(model, weights)
    return model


def to(backend, z, dtype):
    if backend.name == "torch":
        import torch

        return z.to(getattr(torch, dtype))
    import keras

    return keras.ops.cast(z, dtype)


LOSSES = [(name, method) for name in NAMES for method in METHODS if name == "torch" or method in KINDS]


@pytest.mark.parametrize(("backend", "method"), LOSSES, indirect=["backend"])
def test_coarse_logits_are_brought_to_float32_before_any_loss(backend, method):
    """The losses are those of the same logits in float32, for every method."""
    objective = make_plan({"method": method}).objective

    def loss(change):
        network = wrapped(backend, confident(backend), change)
        batch = backend.batch(problem(), "float32")
        noise = batch.noise[: len(objective.noise_laws)]
        result = stcore.training_loss(network, objective, batch.x, batch.y, noise=noise)
        assert "float32" in str(result.total.dtype)
        return float(backend.array(result.total))

    coarse = loss(lambda z, _: to(backend, z, "bfloat16"))
    assert coarse == loss(lambda z, _: to(backend, to(backend, z, "bfloat16"), "float32"))


@pytest.mark.parametrize("perturbation", [None, AWP(gamma=0.05)], ids=["plain", "awp"])
def test_a_step_in_the_callers_autocast_is_the_step_in_bf16(perturbation):
    """Autocast also keeps cast weights: those before a perturbation or, of the caller's forward here, without
    gradients."""
    torch, backend = pytest.importorskip("torch"), load("torch")
    given, weights = problem(), []
    for ours in (True, False):
        learner = backend.learner(confident(backend))
        if ours:
            learner = load_backend("torch").prepare_training(learner, "off", "bf16", "bf16")
        batch = backend.batch(given, "float32")
        with contextlib.nullcontext() if ours else torch.autocast("cpu", torch.bfloat16):
            with torch.no_grad():
                learner.model.eval()(batch.x)
            learner.model.train()
            stcore.train_step(learner, CONFIG, batch.x, batch.y, noise=batch.noise, perturbation=perturbation)
        weights.append(learner.weights())
    assert_close(*weights, 1e-6)
    assert worst(weights[0]["conv1.weight"], export_weights(confident(backend))["conv1.weight"]) > 1e-4


def test_a_mixed_policy_trains_in_float32_at_the_border():
    keras, backend = pytest.importorskip("keras"), load("keras")
    network = keras.Sequential(
        [
            keras.Input((8, 8, 3)),
            keras.layers.Flatten(dtype="mixed_bfloat16"),
            keras.layers.Dense(3, dtype="mixed_bfloat16"),
        ]
    )
    classifier = backend.classifier(network)
    logits = classifier.logits(backend.images(problem().x, "float32"), Mode.EVAL)
    assert logits.dtype.name == "float32" if hasattr(logits.dtype, "name") else str(logits.dtype) == "float32"
    assert np.isfinite(loss_of(backend, network, problem(), "float32"))


@pytest.mark.parametrize("attack", ["apgd-ce", "fab-t", "deepfool"])
def test_float64_logits_of_a_float32_network_are_attacked_as_float32(backend, attack):
    model, batch = backend.build(dtype="float32"), backend.batch(problem(), "float32")
    network = wrapped(backend, model, lambda z, _: to(backend, z, "float64"))
    data = (batch.x, batch.y)
    assert stcore.evaluate(network, data, [attack]) == stcore.evaluate(model, data, [attack])


# Domain


@pytest.mark.parametrize(("backend", "method"), LOSSES, indirect=["backend"])
def test_a_masked_class_counts_as_probability_zero(backend, method):
    """-∞ as a logit is what masks a class; 0 · -∞ in a divergence would be NaN."""
    objective, given = make_plan({"method": method}).objective, problem()
    if getattr(objective, "label_smoothing", 0):  # which gives the masked class a share of the target
        objective = replace(objective, label_smoothing=0.0)
    mask, labels = np.array([0.0, 0.0, 1.0]), given.y % 2  # no label is masked

    def loss(low):
        batch = backend.batch(given._replace(y=labels))
        network = wrapped(backend, backend.build(), lambda z, _: z + backend.tensor(np.where(mask, low, 0.0)))
        noise = batch.noise[: len(objective.noise_laws)]
        return float(backend.array(stcore.training_loss(network, objective, batch.x, batch.y, noise=noise).total))

    masked = loss(-np.inf)
    assert np.isfinite(masked)
    assert masked == pytest.approx(loss(-1e8), rel=1e-9)


def test_a_logit_that_is_no_number_stays_one(backend):
    model = wrapped(backend, backend.build(), lambda z, _: z + backend.tensor(np.array([0.0, np.nan, 0.0])))
    logits = backend.classifier(model).logits(backend.images(problem().x), Mode.EVAL)
    assert np.isnan(backend.array(logits)[:, 1]).all()


def test_integers_are_no_logits(backend):
    model = wrapped(backend, backend.build(), lambda z, _: to(backend, z, "int64"))
    with pytest.raises(UsageError, match=r"expected floating logits; received .*int64, as argmax returns"):
        loss_of(backend, model, problem())


def test_a_softmax_in_bfloat16_is_told_from_logits(backend):
    def softmax(z, _):
        if backend.name == "torch":
            return to(backend, z.softmax(-1), "bfloat16")
        import keras

        return to(backend, keras.ops.softmax(z), "bfloat16")

    with pytest.raises(UsageError, match="which are probabilities"):
        loss_of(backend, wrapped(backend, backend.build(), softmax), problem())


def test_the_trial_in_training_mode_leaves_no_trace(backend):
    """Neither in statistics nor in what dropout draws next."""
    if backend.name == "torch":
        import torch

        model = torch.nn.Sequential(
            torch.nn.Flatten(),
            torch.nn.BatchNorm1d(192),
            torch.nn.Dropout(0.5),
            torch.nn.Linear(192, 3),
        ).double()
        state = lambda: [*model.state_dict().values(), torch.get_rng_state()]  # noqa: E731
    else:
        import keras

        layers = [keras.Input((8, 8, 3)), keras.layers.Flatten(), keras.layers.BatchNormalization()]
        model = keras.Sequential([*layers, keras.layers.Dropout(0.5), keras.layers.Dense(3)])
        state = lambda: model.variables  # noqa: E731
        assert any("seed" in variable.path for variable in model.variables)
    images = backend.images(problem().x, "float64" if backend.name == "torch" else "float32")
    classifier, before = backend.classifier(model), [backend.array(each) for each in state()]
    trial = classifier.trial_logits(images)
    assert np.abs(trial - classifier.eval_logits(images)).max() > 1e-3
    for then, now in zip(before, state(), strict=True):
        np.testing.assert_array_equal(backend.array(now), then)


# What PyTorch has beside plain modules and one optimizer


def test_torchscript_is_evaluated_and_not_trained():
    """Its layers cannot be switched; with a batch norm it failed half-way, and its dropout stayed off."""
    backend = load("torch")
    import torch

    torch.manual_seed(0)
    layers = [torch.nn.Conv2d(3, 4, 3), torch.nn.BatchNorm2d(4), torch.nn.Dropout(0.5), torch.nn.Flatten()]
    plain = torch.nn.Sequential(*layers, torch.nn.Linear(4 * 36, 3)).double()
    batch = backend.batch(problem())
    scripted = torch.jit.script(plain)
    attack = stcore.attacks.preset("pgd20", 0.1)
    y = plain.eval()(batch.x).argmax(1)
    expected = attack(plain, batch.x, y, rng=0)
    np.testing.assert_array_equal(attack(scripted.eval(), batch.x, y, rng=0).numpy(), expected.numpy())
    scripted.train()
    attack(scripted, batch.x, y, rng=0)
    assert scripted.training
    assert all(module.training for module in scripted.modules())
    with pytest.raises(UsageError, match="received TorchScript"):
        stcore.squeeze_loss(scripted, batch.x, batch.y)
    assert all(module.training for module in scripted.modules())


@pytest.mark.parametrize("norm", ["weight_norm", "spectral_norm"])
def test_a_module_whose_hooks_computed_its_weights_is_copied(norm):
    """After a forward the weight is no leaf, which PyTorch does not copy; folding and averaging need copies."""
    backend = load("torch")
    import torch

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        first = getattr(torch.nn.utils, norm)(torch.nn.Linear(192, 8))
    model = torch.nn.Sequential(torch.nn.Flatten(), first, torch.nn.ReLU(), torch.nn.Linear(8, 3)).double()
    batch = backend.batch(problem())
    model(batch.x).sum().backward()
    copy = backend.classifier(model).copy()
    one, other = (np.asarray(each.eval_logits(batch.x)) for each in (backend.classifier(model), copy))
    np.testing.assert_array_equal(one, other)
    with torch.no_grad():
        next(iter(copy.model.parameters())).add_(1.0)
    np.testing.assert_array_equal(np.asarray(backend.classifier(model).eval_logits(batch.x)), one)


def test_what_is_no_single_optimizer_or_has_no_weights_is_refused():
    backend = load("torch")
    import torch

    model = backend.build("tiny")
    for optimizer, said in (
        ([torch.optim.SGD(model.parameters(), 0.1)], "received list"),
        (torch.optim.LBFGS(model.parameters()), "received LBFGS"),
        (torch.optim.SGD, "received type"),
        (None, "received NoneType"),
    ):
        with pytest.raises(UsageError, match=said):
            stcore.make_learner(model, optimizer)
    with pytest.raises(UsageError, match="received a lazy layer"):
        stcore.make_classifier(torch.nn.Sequential(torch.nn.Flatten(), torch.nn.LazyLinear(3)))


def test_a_keras_model_of_two_inputs_is_refused():
    load("keras")
    import keras

    pixels, other = keras.Input((8, 8, 3)), keras.Input((4,))
    both = keras.layers.Concatenate()([keras.layers.Flatten()(pixels), other])
    with pytest.raises(UsageError, match="expected one input, the pixels; received a model of 2"):
        stcore.make_classifier(keras.Model([pixels, other], keras.layers.Dense(3)(both)))


@pytest.mark.parametrize("rng", ["x", 1.5, -1, object()])
def test_what_is_no_source_of_noise_is_refused(backend, rng):
    model, batch = backend.build("tiny"), backend.batch(problem())
    with pytest.raises(UsageError, match="rng: expected a whole number of at least 0, or a numpy Generator"):
        stcore.find_squeeze_pair(model, batch.x, batch.y, rng=rng)


def test_another_order_of_channels_is_said(backend):
    """The framework's own error names neither the model nor what to do."""
    model, batch = backend.build("tiny"), backend.batch(problem())
    turned = batch.x.permute(0, 2, 3, 1) if backend.name == "torch" else batch.x[:, :, :, :2]
    with pytest.raises(UsageError, match="own layout"):
        stcore.squeeze_loss(model, turned, batch.y)
    pixels = backend.array(turned)
    with pytest.raises(UsageError, match="own layout"):
        stcore.evaluate(model, (pixels, backend.array(batch.y)), ["fgsm"])


@pytest.mark.parametrize(("much", "remedy"), [(1e-7, "Clip them"), (254.0, "Divide"), (1.5, "Divide")])
def test_pixels_a_little_out_of_range_are_said_as_such(backend, much, remedy):
    model, batch = backend.build("tiny"), backend.batch(problem())
    x = backend.array(batch.x).copy()
    x.reshape(-1)[0] = 1 + much
    with pytest.raises(DataError, match=remedy) as said:
        stcore.evaluate(model, (x, backend.array(batch.y)), ["fgsm"])
    assert f"{1 + much:.9g}]" in str(said.value)
