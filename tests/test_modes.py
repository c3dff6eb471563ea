"""What a forward in each mode reads and writes, and that a user's model comes back as it was."""

import threading
import time
from contextlib import nullcontext

import numpy as np
import pytest
from harness import assert_same, load, problem, worst

import stcore
from stcore import AdversarialConfig, SqueezeConfig
from stcore.attacks import FGSM, PGD
from stcore.protocols import Mode

CONFIG = SqueezeConfig(steps=2)
SEARCHES = {
    "find_squeeze_pair": lambda m, b: stcore.find_squeeze_pair(m, b.x, b.y, CONFIG, noise=b.noise),
    "squeeze_step": lambda m, b: stcore.squeeze_step(m, b.x, b.y, config=CONFIG, noise=b.noise),
    "pgd": lambda m, b: PGD(steps=2)(m, b.x, b.y, rng=0),
    "fgsm": lambda m, b: FGSM()(m, b.x, b.y, rng=0),
}
searches = pytest.mark.parametrize("find", SEARCHES.values(), ids=SEARCHES)


def forward(backend, model, x, mode, **options):
    return backend.array(backend.classifier(model).logits(x, mode, **options))


# --- Statistics ---


def test_what_each_mode_reads(every_backend):
    """Other running statistics change EVAL alone; others in the batch change BATCH and TRAIN."""
    given = problem()
    other = given._replace(x=np.concatenate([given.x[:1], given.x[:0:-1] ** 2]))
    plain, moved = every_backend.build(), every_backend.build()
    batch, swapped = every_backend.batch(given), every_backend.batch(other)
    learner = every_backend.learner(moved)
    learner.load_weights({n: 2 * a if ".running_" in n else a for n, a in learner.weights().items()})
    for mode in Mode:
        expected = forward(every_backend, plain, batch.x, mode)
        reads_running = not np.allclose(forward(every_backend, moved, batch.x, mode), expected)
        reads_batch = not np.allclose(forward(every_backend, plain, swapped.x, mode)[0], expected[0])
        assert (reads_running, reads_batch) == ((True, False) if mode is Mode.EVAL else (False, True))
    np.testing.assert_array_equal(*(forward(every_backend, plain, batch.x, m) for m in (Mode.BATCH, Mode.TRAIN)))


def test_what_each_mode_writes(every_backend):
    model, x = every_backend.build(), every_backend.batch(problem()).x
    before = every_backend.statistics(model)
    for mode in (Mode.EVAL, Mode.BATCH):
        forward(every_backend, model, x, mode)
        assert_same(every_backend.statistics(model), before)
    forward(every_backend, model, x, Mode.TRAIN)
    after = every_backend.statistics(model)
    assert all(worst(after[name], before[name]) > 1e-3 for name in before)


def test_running_statistics_follow_by_a_tenth_and_with_the_unbiased_variance(every_backend):
    """conv1 of the network by hand: its output is what bn1 sees."""
    given, model = problem(), every_backend.build()
    before, strict = every_backend.statistics(model), load("strict").build()
    strict.description = type(strict.description)(strict.description.steps[:1])
    seen = strict(given.x.transpose(0, 3, 1, 2), Mode.EVAL)
    forward(every_backend, model, every_backend.images(given.x), Mode.TRAIN)
    after = every_backend.statistics(model)
    for name, batch in (("mean", seen.mean((0, 2, 3))), ("var", seen.var((0, 2, 3), ddof=1))):
        expected = 0.9 * before[f"bn1.running_{name}"] + 0.1 * batch
        assert worst(after[f"bn1.running_{name}"], expected) <= 1e-12


# --- The model comes back as it was ---


def state(backend, model):
    """All that a user could notice."""
    weights = backend.learner(model).weights()
    if backend.name == "keras":
        flags = [(layer.trainable, getattr(layer, "rate", None)) for layer in model._flatten_layers()]
        return weights, flags, [np.asarray(v) for v in model.variables]
    flags = [(m.training, getattr(m, "track_running_stats", None)) for m in model.modules()]
    counters = [b.item() for n, b in model.named_buffers() if n.endswith("tracked")]
    parameters = [
        (p.requires_grad, None if p.grad is None else p.grad.clone().numpy()) for p in model.parameters()
    ]
    return weights, flags, counters, parameters


def assert_same_state(one, other):
    assert_same(one[0], other[0])
    assert one[1] == other[1]
    for a, b in zip(one[2:], other[2:], strict=True):
        np.testing.assert_equal(a, b)


@searches
def test_searches_leave_no_trace(backend, find, global_random_state):
    model, batch = with_dropout(backend), backend.batch(problem())
    before = state(backend, model)
    find(model, batch)
    assert_same_state(state(backend, model), before)


@pytest.mark.parametrize(
    ("search", "after"), [("find_squeeze_pair", 3), ("squeeze_step", 1), ("pgd", 1), ("fgsm", 0)]
)
def test_searches_leave_no_trace_of_a_model_that_raises(backend, search, after):
    model, batch, find = with_dropout(backend), backend.batch(problem()), SEARCHES[search]
    find(model, batch)
    before = state(backend, model)
    mend = sabotage(backend, model, after)
    with pytest.raises(ZeroDivisionError):
        find(model, batch)
    mend()
    assert_same_state(state(backend, model), before)


def sabotage(backend, model, after):
    """The last layer raises after so many calls."""
    calls = []

    def fail(*_):
        calls.append(None)
        if len(calls) > after:
            raise ZeroDivisionError

    if backend.name == "torch":
        return model.linear.register_forward_hook(fail).remove
    layer = model.get_layer("linear")
    original = layer.activation
    layer.activation = lambda x: fail() or original(x)
    return lambda: setattr(layer, "activation", original)


@searches
def test_what_the_user_had_set_in_torch_comes_back(find):
    """Gradients in store, frozen weights, an evaluated submodule, statistics switched off."""
    backend = load("torch")
    import torch

    model, batch = backend.build(), backend.batch(problem())
    for i, parameter in enumerate(model.parameters()):
        parameter.grad = torch.full_like(parameter, i)
        parameter.requires_grad_(i % 2 == 0)
    model.bn1.eval()
    model.bn2.track_running_stats = False
    for training in (True, False):
        model.training = training
        before = state(backend, model)
        find(model, batch)
        assert_same_state(state(backend, model), before)


@pytest.mark.parametrize("interrupts", [0, 1])
def test_ctrl_c_in_an_eager_keras_search_waits_for_it(interrupts, monkeypatch):
    """The search's thread is not left behind, with dropout silenced, in a model that goes on being used."""
    backend = load("keras")
    if backend.engine == "jax":
        pytest.skip("on JAX the search has no thread of its own: there is no tape to be hidden from")
    model, batch = with_dropout(backend), backend.batch(problem())
    find = SEARCHES["find_squeeze_pair"]
    find(model, batch)  # so that the model has been looked at
    before, threads = state(backend, model), threading.active_count()
    mend, join, joins = slow(model), threading.Thread.join, []

    def interrupted(thread, timeout=None):
        joins.append(thread)
        if len(joins) <= interrupts:
            raise KeyboardInterrupt
        return join(thread, timeout)

    monkeypatch.setattr(threading.Thread, "join", interrupted)
    with pytest.raises(KeyboardInterrupt) if interrupts else nullcontext():
        find(model, batch)
    assert joins == [joins[0]] * (1 + interrupts)
    assert threading.active_count() == threads
    mend()
    assert_same_state(state(backend, model), before)


def slow(model):
    """Each forward takes its time; returns what undoes it."""
    layer = model.get_layer("linear")
    original = layer.activation
    layer.activation = lambda x: time.sleep(0.05) or original(x)
    return lambda: setattr(layer, "activation", original)


@pytest.mark.parametrize("mode", [Mode.EVAL, Mode.BATCH])
def test_within_a_stateless_scope_the_weights_are_those_it_maps(mode):
    backend = load("keras")
    import keras

    model, other, x = backend.build(), backend.build(seed=1), backend.batch(problem()).x
    before, expected = forward(backend, model, x, mode), forward(backend, other, x, mode)
    mapping = [(one, two.value) for one, two in zip(model.variables, other.variables, strict=True)]
    with keras.StatelessScope(state_mapping=mapping):
        np.testing.assert_array_equal(forward(backend, model, x, mode), expected)
    np.testing.assert_array_equal(forward(backend, model, x, mode), before)
    assert worst(before, expected) > 1e-2


@searches
def test_searches_within_a_stateless_scope_see_it_too(find):
    backend = load("keras")
    import keras

    model, other, batch = backend.build(), backend.build(seed=1), backend.batch(problem())
    mapping = [(one, two.value) for one, two in zip(model.variables, other.variables, strict=True)]
    expected = find(other, batch)
    with keras.StatelessScope(state_mapping=mapping):
        np.testing.assert_array_equal(find(model, batch), expected)
    assert np.any(np.asarray(find(model, batch)) != np.asarray(expected))


# --- Frozen and evaluated ---


def test_normalisation_frozen_by_the_user_stays_frozen(backend):
    """Frozen bn1 uses running statistics and keeps them, in every mode; bn2 follows the mode."""
    model, x = backend.build(), backend.batch(problem()).x
    if backend.name == "torch":
        model.train().bn1.eval()
    else:
        model.get_layer("bn1").trainable = False
    before = backend.statistics(model)
    forward(backend, model, x, Mode.TRAIN)
    after = backend.statistics(model)
    assert {name for name in before if not np.array_equal(before[name], after[name])} == {
        "bn2.running_mean",
        "bn2.running_var",
    }
    learner = backend.learner(model)
    weights = learner.weights()
    outputs = []
    for factor in (1, 2):
        learner.load_weights(weights | {"bn1.running_var": factor * weights["bn1.running_var"]})
        outputs.append([forward(backend, model, x, mode) for mode in Mode])
    assert all(not np.allclose(one, two) for one, two in zip(*outputs, strict=True))


def test_a_torch_model_in_evaluation_mode_follows_the_mode_of_the_method():
    backend = load("torch")
    x, results = backend.batch(problem()).x, []
    for training in (True, False):
        model = backend.build().train(training)
        results.append([forward(backend, model, x, mode) for mode in Mode])
        results[-1] += backend.statistics(model).values()
        assert {m.training for m in model.modules()} == {training}
    for one, two in zip(*results, strict=True):
        np.testing.assert_array_equal(one, two)


def test_torch_layers_of_other_kinds_write_in_training_alone():
    """Batch norm without running statistics, with a cumulative average (it counts), instance norm."""
    backend = load("torch")
    import torch
    from torch import nn

    model = nn.Sequential(
        nn.BatchNorm2d(3, track_running_stats=False),
        nn.BatchNorm2d(3, momentum=None),
        nn.InstanceNorm2d(3, track_running_stats=True),
        nn.Flatten(),
        nn.Linear(192, 3),
    ).double()
    x = backend.batch(problem()).x
    before = {name: value.clone() for name, value in model.state_dict().items()}
    forward(backend, model, x, Mode.BATCH)
    forward(backend, model, x, Mode.EVAL)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    forward(backend, model, x, Mode.TRAIN)
    changed = {name for name, value in model.state_dict().items() if not torch.equal(value, before[name])}
    assert changed == {f"{i}.running_{s}" for i in (1, 2) for s in ("mean", "var")} | {"1.num_batches_tracked"}


# --- Dropout ---


def with_dropout(backend, nested=False):
    """Batch norm, dropout, linear on 8×8 images; nested: the first two are a model within the model."""
    if backend.name == "torch":
        from collections import OrderedDict

        import torch
        from torch import nn

        with torch.random.fork_rng():
            inner = OrderedDict(bn=nn.BatchNorm2d(3), drop=nn.Dropout(0.5))
            steps = OrderedDict(inner=nn.Sequential(inner)) if nested else inner
            return nn.Sequential(OrderedDict(**steps, flat=nn.Flatten(), linear=nn.Linear(192, 3))).double()
    import keras

    def stem(x):
        x = keras.layers.BatchNormalization(name="bn", dtype="float64")(x)
        return keras.layers.Dropout(0.5, name="drop", dtype="float64", seed=3)(x)

    pixels = keras.Input((8, 8, 3), dtype="float64")
    if nested:
        inner_pixels = keras.Input((8, 8, 3), dtype="float64")
        x = keras.Model(inner_pixels, stem(inner_pixels), name="inner")(pixels)
    else:
        x = stem(pixels)
    x = keras.layers.Flatten(dtype="float64")(x)
    init = keras.initializers.RandomNormal(seed=4)
    return keras.Model(pixels, keras.layers.Dense(3, name="linear", dtype="float64", kernel_initializer=init)(x))


@pytest.mark.parametrize("nested", [False, True])
@pytest.mark.parametrize("mode", [Mode.BATCH, Mode.TRAIN])
def test_dropout_is_off_in_a_search_and_on_in_an_outer_forward(backend, mode, nested):
    model, x = with_dropout(backend, nested), backend.batch(problem()).x
    off = [forward(backend, model, x, mode) for _ in range(2)]
    on = [forward(backend, model, x, mode, dropout=True) for _ in range(3)]
    np.testing.assert_array_equal(*off)
    assert all(worst(one, off[0]) > 1e-2 for one in on)
    assert worst(on[0], on[1]) > 1e-2  # two forwards, two masks
    assert worst(on[1], on[2]) > 1e-2
    np.testing.assert_array_equal(forward(backend, model, x, mode), off[0])


def test_evaluation_has_no_dropout(backend):
    model, x = with_dropout(backend), backend.batch(problem()).x
    np.testing.assert_array_equal(*(forward(backend, model, x, Mode.EVAL, dropout=d) for d in (False, True)))


def test_the_three_outer_forwards_of_one_loss_have_masks_of_their_own(backend):
    """With x for all three points their cross-entropies could differ by the masks alone, and do.

    Sixty-four examples: of a few, the selection might find the natural forward the hardest for each, and the
    adversarial part would be the natural one (once in 3^6 runs for six).
    """
    model, batch = with_dropout(backend), backend.batch(problem(batch=64))
    loss = stcore.squeeze_loss(model, batch.x, batch.y, (batch.x, batch.x))
    parts = [float(backend.array(v)) for v in (loss.natural, loss.adversarial, loss.collaborative)]
    assert len({round(part, 9) for part in parts}) == 3


def test_dropout_frozen_by_the_user_in_torch_stays_off():
    backend = load("torch")
    model, x = with_dropout(backend), backend.batch(problem()).x
    model.drop.eval()
    np.testing.assert_array_equal(*(forward(backend, model, x, Mode.TRAIN, dropout=d) for d in (False, True)))


def test_nested_models_write_no_statistic_in_a_search_and_all_in_a_loss(backend):
    model, batch = with_dropout(backend, nested=True), backend.batch(problem())
    before = state(backend, model)
    SEARCHES["find_squeeze_pair"](model, batch)
    assert_same_state(state(backend, model), before)
    stcore.squeeze_loss(model, batch.x, batch.y, config=CONFIG, noise=batch.noise)
    after = backend.statistics(model)
    assert all(not np.array_equal(after[name], before[0][name]) for name in after)


def test_adversarial_search_reads_running_statistics(backend):
    """AT's x' does not depend on who else is in the batch."""
    given, config = problem(), AdversarialConfig(steps=3)
    model, alone = backend.build(), []
    for rows in (slice(None), slice(0, 2)):
        batch = backend.batch(
            given._replace(x=given.x[rows], y=given.y[rows], noise=[n[rows] for n in given.noise])
        )
        classifier = backend.classifier(model)
        alone.append(backend.nhwc(config.find(classifier, batch.x, batch.y, batch.noise[:1])[0])[:2])
    np.testing.assert_array_equal(*alone)


def test_searches_work_where_torch_records_nothing_at_all():
    """Under `torch.inference_mode`, in which training frameworks validate."""
    backend = load("torch")
    import torch

    model, batch = backend.build("tiny"), backend.batch(problem())
    expected = stcore.find_squeeze_pair(model, batch.x, batch.y, noise=batch.noise)
    with torch.inference_mode():
        inside = backend.batch(problem())
        assert inside.x.is_inference()
        pair = stcore.find_squeeze_pair(model, inside.x, inside.y, noise=inside.noise)
        examples = stcore.find_squeeze_pair(model, batch.x, batch.y, noise=batch.noise)
        scores = stcore.evaluate(model, (inside.x, inside.y), ["pgd20"])
    for one, two, three in zip(expected, pair, examples, strict=True):
        np.testing.assert_array_equal(backend.array(one), backend.array(two))
        np.testing.assert_array_equal(backend.array(one), backend.array(three))
    assert scores == stcore.evaluate(model, (batch.x, batch.y), ["pgd20"])


@pytest.mark.parametrize("attack", ["apgd-t", "fab", "fab-t", "square", "deepfool", "pgd20"])
def test_attacks_are_the_same_bit_for_bit_where_torch_records_nothing(attack):
    """FAB was not: its network could not be folded there."""
    backend = load("torch")
    import torch
    from test_cascade import task

    from stcore.autoattack import AutoAttack
    from stcore.autoattack.versions import ATTACKS

    model, pixels, labels = task(backend, 12, dtype="float32")
    x, y = backend.images(pixels, "float32"), backend.tensor(labels)
    if attack in ATTACKS:
        attack = AutoAttack(0.02, version="custom", attacks=(attack,), queries=30)
    else:
        attack = stcore.attacks.preset(attack, 0.02)
    outside = attack(model, x, y, rng=3)
    with torch.inference_mode():
        inside = attack(model, x, y, rng=3)
    np.testing.assert_array_equal(outside.numpy(), inside.numpy())
    assert (outside != x).any()


def test_threads_that_share_a_model_do_not_mix_their_modes(backend):
    """Forwards under batch statistics beside evaluations: as one after another; the model is left as it was."""
    model, batch = with_dropout(backend), backend.batch(problem())
    classifier, before = backend.classifier(model), state(backend, model)

    def logits(mode):
        return backend.array(classifier.logits(batch.x, mode))

    expected = {mode: logits(mode) for mode in (Mode.EVAL, Mode.BATCH)}
    wrong = []

    def work(mode):
        for _ in range(25):
            if not np.array_equal(logits(mode), expected[mode]):
                wrong.append(mode)

    threads = [threading.Thread(target=work, args=[mode]) for mode in (Mode.EVAL, Mode.BATCH) * 2]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
    assert_same_state(state(backend, model), before)
