"""SGD and AdamW: Keras' are torch's, and each weight has its own share of the rate and its own decay."""

import builtins

import numpy as np
import pytest
from harness import load, worst
from harness import problem as images

from stcore import make_learner
from stcore.core.dispatch import load_backend
from stcore.core.objective import Part, accumulated_step
from stcore.core.optimizers import SGD, AdamW
from stcore.errors import UsageError
from stcore.methods.standard import StandardConfig
from stcore.models import export_weights, trainable_weights

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


@pytest.mark.parametrize(
    "settings",
    [SGD(momentum=0.9, weight_decay=0.01, nesterov=True), AdamW(weight_decay=0.01)],
    ids=["sgd", "adamw"],
)
def test_training_never_imports_what_torch_compile_needs(monkeypatch, settings):
    """Its import takes more than a second; torch's own ask for it when they are made and at every step."""
    torch = pytest.importorskip("torch")
    from stcore.backends.torch import make_optimizer

    imported, real = [], builtins.__import__
    monkeypatch.setattr(builtins, "__import__", lambda name, *rest: imported.append(name) or real(name, *rest))

    def plain(model, settings):
        given = {"weight_decay": settings.weight_decay}
        if isinstance(settings, SGD):
            given |= {"momentum": settings.momentum, "nesterov": settings.nesterov}
        kind = torch.optim.SGD if isinstance(settings, SGD) else torch.optim.AdamW
        return kind(model.parameters(), settings.learning_rate, **given)

    finals = []
    for make in (make_optimizer, plain):
        model = torch.nn.Linear(3, 2)
        torch.nn.init.constant_(model.weight, 0.5)
        torch.nn.init.zeros_(model.bias)
        optimizer = make(model, settings)
        for _ in range(3):
            optimizer.zero_grad()
            model(torch.arange(6.0).reshape(2, 3)).square().sum().backward()
            optimizer.step()
            optimizer.load_state_dict(optimizer.state_dict())
        finals.append(model.weight.detach().numpy())
        assert ("torch._dynamo" in imported) == (make is plain)  # so it would show
    np.testing.assert_array_equal(*finals)
    for name in ("add_param_group", "load_state_dict", "state_dict", "zero_grad"):  # torch's import it once
        assert not hasattr(getattr(type(make_optimizer(model, settings)), name), "__wrapped__")


RATES_OF_ADAMW = [1e-2] * 10 + [1e-3] * 10


def by_hand(weights, gradients, settings):
    """Adam with decoupled weight decay, from Algorithm 2 of Loshchilov and Hutter, 2019, in numpy."""
    weights, (one, two) = [w.copy() for w in weights], settings.betas
    means, squares = [np.zeros_like(w) for w in weights], [np.zeros_like(w) for w in weights]
    for step, (rate, given) in enumerate(zip(RATES_OF_ADAMW, gradients, strict=True), start=1):
        for k, g in enumerate(given):
            means[k] = one * means[k] + (1 - one) * g
            squares[k] = two * squares[k] + (1 - two) * g**2
            adapted = means[k] / (1 - one**step) / (np.sqrt(squares[k] / (1 - two**step)) + 1e-8)
            weights[k] = weights[k] - rate * (adapted + settings.weight_decay * weights[k])
    return weights


def made(backend, settings, net="tiny"):
    """A learner with the optimizer of a run, in float64."""
    model = backend.build(net)
    return make_learner(model, load_backend(backend.name).make_optimizer(model, settings))


@pytest.mark.parametrize("betas", [(0.9, 0.999), (0.0, 0.95)], ids=str)
def test_adamw_is_that_of_the_formula_over_twenty_steps(backend, betas):
    """Each backend, TensorFlow or JAX, to 1e-9 in float64; drops of the rate included."""
    settings = AdamW(learning_rate=1e-2, weight_decay=0.05, betas=betas)
    learner, rng = made(backend, settings), np.random.default_rng(0)
    weights = list(trainable_weights(learner.model).values())  # in the order of the gradients
    start = [backend.array(weight).copy() for weight in weights]
    gradients = [[rng.normal(size=w.shape) * 10.0 ** rng.integers(-4, 2) for w in start] for _ in RATES_OF_ADAMW]
    step = learner.compile(learner.apply_gradients)
    for rate, given in zip(RATES_OF_ADAMW, gradients, strict=True):
        learner.set_learning_rate(rate)
        step([backend.tensor(g) for g in given])
    for weight, wanted in zip(weights, by_hand(start, gradients, settings), strict=True):
        assert worst(backend.array(weight), wanted) <= 1e-9


def one_step(backend, settings, clip_norm=None, net="tiny"):
    """The weights before and after a step of standard training, by name."""
    learner = made(backend, settings, net)
    batch = backend.batch(images())
    before = export_weights(learner.model)
    accumulated_step(learner, StandardConfig(), [Part(batch.x, batch.y, ())], clip_norm=clip_norm)
    after = export_weights(learner.model)
    return before, {name: after[name] - before[name] for name in before if ".running" not in name}


def test_a_frozen_weight_stays_and_the_others_move_as_before(backend):
    _, moves = one_step(backend, SGD(learning_rate=1.0))
    first = next(iter(moves))
    owner = first.rpartition(".")[0]
    _, frozen = one_step(backend, SGD(learning_rate=1.0, freeze=(f"{owner}.*",)))
    stayed = {name for name, move in frozen.items() if not move.any()}
    assert stayed == {name for name in moves if name.startswith(f"{owner}.")}
    for name in moves.keys() - stayed:
        assert worst(frozen[name], moves[name]) <= 1e-12


@pytest.mark.parametrize("kind", [SGD, AdamW])
def test_decay_and_the_share_of_the_rate_are_each_weights_own(backend, kind):
    """From one step each: what the shares do, and what the decay of matrices alone does."""
    plain = kind(learning_rate=0.1)
    before, moves = one_step(backend, plain)
    names = list(moves)
    updates = kind(learning_rate=0.1, layer_decay=0.5).updates({name: before[name].shape for name in names})
    assert len({update.share for update in updates.values()}) > 2
    _, shared = one_step(backend, kind(learning_rate=0.1, layer_decay=0.5))
    _, decayed = one_step(backend, kind(learning_rate=0.1, weight_decay=0.3, decay_vectors=False))
    for name in names:
        assert worst(shared[name], updates[name].share * moves[name]) <= 1e-12
        by_decay = -0.1 * 0.3 * before[name] if before[name].ndim > 1 else 0.0
        assert worst(decayed[name], moves[name] + by_decay) <= 1e-12


def test_a_long_gradient_is_scaled_to_the_length_and_a_short_one_is_not(backend):
    _, moves = one_step(backend, SGD(learning_rate=1.0))
    length = np.sqrt(sum((move**2).sum() for move in moves.values()))
    for clip_norm, factor in ((length / 4, length / 4 / (length + 1e-6)), (2 * length, 1.0)):
        _, clipped = one_step(backend, SGD(learning_rate=1.0), clip_norm)
        for name, move in moves.items():
            assert worst(clipped[name], factor * move) <= 1e-12


VIT = ["cls_token", "pos_embed", "patch_embed.proj.weight", "blocks.0.norm1.weight", "blocks.0.mlp.fc1.weight",
       "blocks.1.attn.qkv.weight", "norm.weight", "head.weight"]  # fmt: skip
CONV = ["stem.0.weight", "stages.0.blocks.0.conv_dw.weight", "stages.0.blocks.1.mlp.fc1.weight",
            "stages.1.downsample.1.weight", "stages.1.blocks.0.norm.weight", "head.norm.weight"]  # fmt: skip
DEPTHS = {
    "vit": (VIT, [0, 0, 0, 1, 1, 2, 3, 3]),
    "convnext": (CONV, [1, 2, 3, 4, 5, 6]),
    "resnet": (["conv1.weight", "layer1.0.conv1.weight", "layer1.0.downsample.0.weight", "layer2.0.bn1.bias",
                "linear.weight"], [0, 1, 1, 2, 3]),
    "in a wrapper": (["net.stem.bias", "net.blocks.0.bias", "net.blocks.11.bias", "net.head.bias"], [0, 1, 2, 3]),
    "no numbered block": (["conv1.weight", "conv1.bias", "conv2.weight", "fc.weight"], [0, 0, 1, 2]),
}  # fmt: skip


@pytest.mark.parametrize(("names", "depths"), DEPTHS.values(), ids=DEPTHS)
def test_blocks_are_counted_from_the_networks_entrance_to_its_head(names, depths):
    updates = AdamW(layer_decay=0.5).updates(dict.fromkeys(names, (2, 2)))
    assert [update.share for update in updates.values()] == [0.5 ** (max(depths) - depth) for depth in depths]


@pytest.mark.parametrize(
    ("patterns", "said"),
    [
        (("blocks.7.*",), "expected patterns of weights such as cls_token.*received 'blocks.7.*'"),
        (("clstoken",), "Did you mean 'cls_token'"),
        (("*",), "expected a weight left to train; received patterns of all 8"),
    ],
)
def test_patterns_that_fit_no_weight_or_every_weight_are_refused(patterns, said):
    with pytest.raises(UsageError, match=said):
        SGD(freeze=patterns).updates(dict.fromkeys(VIT, (2, 2)))


def test_the_twin_networks_have_the_same_names(backend):
    model = backend.build("resnet8")
    names = sorted(trainable_weights(model))
    assert names == sorted(name for name in export_weights(model) if ".running" not in name)
