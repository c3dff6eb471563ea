"""TorchSGD for Keras is torch's SGD."""

import builtins

import numpy as np
import pytest
from harness import load, worst

from stcore import make_learner

SETTINGS = [
    {},
    {"momentum": 0.9},
    {"momentum": 0.9, "weight_decay": 5e-4},
    {"momentum": 0.9, "weight_decay": 5e-4, "nesterov": True},
    {"momentum": 0.0, "weight_decay": 0.1},
]
RATES = [0.1, 0.1, 0.1, 0.01, 0.01, 0.001]  # Keras' own SGD parts from torch's at the first drop


@pytest.fixture(scope="module")
def keras():
    load("keras")
    import keras

    return keras


def torch_sgd(weights, gradients, settings, rates):
    load("torch")
    import torch

    parameters = [torch.nn.Parameter(torch.tensor(w)) for w in weights]
    optimizer = torch.optim.SGD(parameters, **{"lr": rates[0], "momentum": 0.0} | settings)
    for rate, step in zip(rates, gradients, strict=True):
        optimizer.param_groups[0]["lr"] = rate
        for parameter, gradient in zip(parameters, step, strict=True):
            parameter.grad = None if gradient is None else torch.tensor(gradient)
        optimizer.step()
    return [p.detach().numpy() for p in parameters]


def keras_sgd(keras, weights, gradients, settings, rates):
    from stcore.backends.keras import TorchSGD

    variables = [keras.Variable(w, dtype="float64") for w in weights]
    optimizer = TorchSGD(rates[0], **{"momentum": 0.0} | settings)
    optimizer.build(variables)
    for rate, step in zip(rates, gradients, strict=True):
        optimizer.learning_rate = rate
        optimizer.apply([None if g is None else keras.ops.convert_to_tensor(g) for g in step], variables)
    return [np.array(v.value) for v in variables]


def problem():
    rng = np.random.default_rng(0)
    shapes = [(3, 4), (4,), ()]
    return [np.array(rng.normal(size=s)) for s in shapes], [
        [np.array(rng.normal(size=s)) for s in shapes] for _ in RATES
    ]


@pytest.mark.parametrize("settings", SETTINGS, ids=str)
def test_updates_are_torchs_over_drops_of_the_rate(keras, settings):
    weights, gradients = problem()
    expected = torch_sgd(weights, gradients, settings, RATES)
    for one, other in zip(keras_sgd(keras, weights, gradients, settings, RATES), expected, strict=True):
        assert worst(one, other) <= 1e-14


def test_a_weight_without_gradient_is_neither_updated_nor_decayed(keras):
    weights, gradients = problem()
    settings = {"momentum": 0.9, "weight_decay": 0.1}
    for step in gradients[2:4]:
        step[0] = None
    expected = torch_sgd(weights, gradients, settings, RATES)
    received = keras_sgd(keras, weights, gradients, settings, RATES)
    for one, other in zip(received, expected, strict=True):
        assert worst(one, other) <= 1e-14


def test_the_rate_is_read_inside_a_traced_step(keras):
    """A drop of the rate needs no new trace, and is not rounded to float32."""
    import tensorflow as tf

    from stcore.backends.keras import TorchSGD

    weights, gradients = problem()
    settings = {"momentum": 0.9, "weight_decay": 5e-4}
    variables = [keras.Variable(w, dtype="float64") for w in weights]
    optimizer, traces = TorchSGD(RATES[0], **settings), []
    optimizer.build(variables)

    @tf.function
    def step(*given):
        traces.append(None)
        optimizer.apply(given, variables)

    for rate, given in zip(RATES, gradients, strict=True):
        optimizer.learning_rate = rate
        step(*map(tf.constant, given))
    assert len(traces) == 1
    for one, other in zip(variables, torch_sgd(weights, gradients, settings, RATES), strict=True):
        assert worst(one.value, other) <= 1e-14


def test_a_schedule_of_keras_is_refused(keras):
    from stcore.backends.keras import TorchSGD
    from stcore.errors import UsageError

    for rate in (keras.optimizers.schedules.ExponentialDecay(0.1, 10, 0.9), lambda: 0.1):
        with pytest.raises(
            UsageError, match=r"learning_rate: expected a number; received (Exp|function).*between epochs"
        ):
            TorchSGD(rate)
    for rate in (1, np.float32(0.5)):
        assert float(TorchSGD(rate).learning_rate) == rate


def test_the_configuration_makes_the_same_optimizer_again(keras):
    from stcore.backends.keras import TorchSGD

    given = TorchSGD(0.05, momentum=0.8, weight_decay=3e-4, nesterov=True, name="mine")
    given.learning_rate = 0.005
    config = keras.optimizers.serialize(given)
    again = keras.optimizers.deserialize(config)
    assert isinstance(again, TorchSGD)
    assert keras.optimizers.serialize(again) == config
    assert again.get_config()["learning_rate"] == 0.005
    weights, gradients = problem()
    results = []
    for optimizer in (given, again):
        variables = [keras.Variable(w, dtype="float64") for w in weights]
        optimizer.build(variables)
        for step in gradients:
            optimizer.apply([keras.ops.convert_to_tensor(g) for g in step], variables)
        results.append([np.array(v.value) for v in variables])
    for one, other in zip(*results, strict=True):
        np.testing.assert_array_equal(one, other)


def test_a_keras_model_compiles_fits_saves_and_goes_on_with_it(keras, tmp_path):
    from stcore.backends.keras import TorchSGD

    rng = np.random.default_rng(0)
    x = rng.normal(size=(64, 5)).astype("float32")
    y = (x[:, 0] > 0).astype("int64")
    kernel = keras.initializers.RandomNormal(seed=1)
    model = keras.Sequential([keras.Input((5,)), keras.layers.Dense(2, kernel_initializer=kernel)])
    model.compile(TorchSGD(0.5, weight_decay=1e-4), keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    options = {"batch_size": 16, "shuffle": False, "verbose": 0}
    losses = model.fit(x, y, epochs=3, **options).history["loss"]
    assert losses[-1] < 0.7 * losses[0]
    model.save(tmp_path / "model.keras")
    again = keras.models.load_model(tmp_path / "model.keras")
    drop = keras.callbacks.LearningRateScheduler(lambda epoch: 0.05)
    for one in (model, again):
        one.fit(x, y, epochs=1, callbacks=[drop], **options)
        assert float(one.optimizer.learning_rate) == 0.05
    for one, other in zip(model.weights, again.weights, strict=True):
        np.testing.assert_array_equal(one, other)


def test_learners_set_the_rate_of_either_optimizer(backend):
    model = backend.build()
    optimizer = backend.optimizer(model, lr=0.1)
    make_learner(model, optimizer).set_learning_rate(0.01)
    rate = optimizer.param_groups[0]["lr"] if backend.name == "torch" else float(optimizer.learning_rate)
    assert rate == 0.01


def test_training_never_imports_what_torch_compile_needs(monkeypatch):
    """Its import takes more than a second; torch's own SGD asks for it when it is made and at every step."""
    torch = pytest.importorskip("torch")
    from stcore.backends.torch.training import make_sgd

    imported, real = [], builtins.__import__
    monkeypatch.setattr(builtins, "__import__", lambda name, *rest: imported.append(name) or real(name, *rest))

    def plain(model, rate, momentum, weight_decay, nesterov):
        settings = {"momentum": momentum, "weight_decay": weight_decay, "nesterov": nesterov}
        return torch.optim.SGD(model.parameters(), rate, **settings)

    finals = []
    for make in (make_sgd, plain):
        model = torch.nn.Linear(3, 2)
        torch.nn.init.constant_(model.weight, 0.5)
        torch.nn.init.zeros_(model.bias)
        optimizer = make(model, 0.1, 0.9, 0.01, True)
        for _ in range(3):
            optimizer.zero_grad()
            model(torch.arange(6.0).reshape(2, 3)).square().sum().backward()
            optimizer.step()
            optimizer.load_state_dict(optimizer.state_dict())
        finals.append(model.weight.detach().numpy())
        assert ("torch._dynamo" in imported) == (make is plain)  # so it would show
    np.testing.assert_array_equal(*finals)
    for name in ("add_param_group", "load_state_dict", "state_dict", "zero_grad"):  # torch's import it once
        assert not hasattr(getattr(type(make_sgd(model, 0.1, 0.9, 0.01, True)), name), "__wrapped__")
