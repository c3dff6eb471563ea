"""The reference engine, `pyautoattack`, on both backends: same verdicts, honest counts, nothing left behind."""

import importlib.util
import logging
import sys

import numpy as np
import pytest
from harness import load, problem, worst

from stcore.autoattack.reference import run_reference
from stcore.errors import DataError, UsageError

torch = pytest.importorskip("torch")

CLASSES = 5


def built(backend, classes=CLASSES):
    """A network whose classes are near at hand: the batch's mean logits are all zero."""
    model, given = backend.build(classes=classes), problem(batch=12)
    classifier = backend.classifier(model)
    logits = classifier.eval_logits(classifier.images(given.x))
    weights = classifier.weights()
    classifier.load_weights({**weights, "linear.bias": weights["linear.bias"] - logits.mean(axis=0)})
    return model


@pytest.fixture
def engine():
    pytest.importorskip("pyautoattack")


@pytest.fixture
def bridge():
    load("keras")
    from stcore.backends.keras.bridge import KerasBridge

    return lambda model: KerasBridge(model).eval()


def well_classified(backend, model, given):
    """The labels that the model predicts, so that every image is attacked."""
    classifier = backend.classifier(model)
    return classifier.eval_logits(classifier.images(given.x)).argmax(axis=1)


def attack(backend, model, *, batch=4, attacks=("apgd-ce",), epsilon=0.02, norm="linf", labels=None, **settings):
    given = problem(batch=batch, classes=CLASSES)
    labels = well_classified(backend, model, given) if labels is None else labels
    return run_reference(model, given.x, labels, norm=norm, epsilon=epsilon, attacks=attacks, **settings)


# The bridge


@pytest.fixture
def twins():
    """The torch module and the Keras model with the same weights."""
    return built(load("torch")).eval(), built(load("keras"))


def gradient(model, images, cotangents):
    """The logits, and for each cotangent a way back to the pixels."""
    leaf = images.clone().requires_grad_()
    logits = model(leaf)
    return logits.detach(), [torch.autograd.grad(logits, leaf, c, retain_graph=True)[0] for c in cotangents]


def test_the_bridges_gradients_are_the_torch_twins(twins, bridge):
    module, model = twins
    bridged, rng = bridge(model), np.random.default_rng(0)
    for batch in (3, 5):  # the batch is open
        images = torch.tensor(problem(batch=batch).x.transpose(0, 3, 1, 2))
        cotangents = [torch.tensor(rng.normal(size=(batch, CLASSES))) for _ in range(3)]
        logits, gradients = gradient(bridged, images, cotangents)
        expected_logits, expected = gradient(module, images, cotangents)
        assert worst(logits, expected_logits) <= 1e-12
        for one, other in zip(gradients, expected, strict=True):
            assert one.dtype == torch.float64
            assert worst(one, other) <= 1e-12
        with torch.no_grad():
            assert worst(bridged(images), expected_logits) <= 1e-12


def test_the_bridge_is_traced_once(twins, bridge, monkeypatch):
    from stcore.backends.keras.learner import KerasClassifier

    traces, logits = [], KerasClassifier.logits
    monkeypatch.setattr(KerasClassifier, "logits", lambda *args: traces.append(args) or logits(*args))
    bridged = bridge(twins[1])
    for batch in (2, 3, 4):
        gradient(bridged, torch.rand(batch, 3, 8, 8), [torch.ones(batch, CLASSES)])
    assert len(traces) == 1


def test_the_bridge_keeps_dtypes_and_has_no_weights(twins, bridge):
    bridged = bridge(twins[1])
    logits, (back,) = gradient(bridged, torch.rand(2, 3, 8, 8), [torch.ones(2, CLASSES)])
    assert logits.dtype == back.dtype == torch.float32  # of images in float32, whatever the model's own
    assert back.shape == (2, 3, 8, 8)
    assert list(bridged.parameters()) == []


def test_the_bridge_follows_the_models_weights(twins, bridge):
    model = twins[1]
    bridged, images = bridge(model), torch.rand(2, 3, 8, 8, dtype=torch.float64)
    gradient(bridged, images, [])
    model.set_weights([weight * 1.1 for weight in model.get_weights()])
    expected = model(images.numpy().transpose(0, 2, 3, 1), training=False)
    assert worst(bridged(images), expected) <= 1e-12


def test_the_bridge_takes_flat_inputs(bridge):
    import keras

    model = keras.Sequential([keras.Input((6,), dtype="float64"), keras.layers.Dense(CLASSES, dtype="float64")])
    kernel = np.random.default_rng(0).normal(size=(6, CLASSES))
    model.set_weights([kernel, np.zeros(CLASSES)])
    _, (back,) = gradient(bridge(model), torch.rand(2, 6, dtype=torch.float64), [torch.eye(2, CLASSES).double()])
    assert worst(back, kernel.T[:2]) <= 1e-12


def test_the_bridge_says_that_torch_is_missing(monkeypatch):
    load("keras")
    monkeypatch.setitem(sys.modules, "torch", None)
    monkeypatch.delitem(sys.modules, "stcore.backends.keras.bridge", raising=False)
    with pytest.raises(UsageError, match=r"torch not installed; in the repository: pip install '\.\[torch\]'"):
        import stcore.backends.keras.bridge  # noqa: F401


# The engine


def test_both_backends_have_the_same_verdicts(engine):
    results = []
    for backend in (load("torch"), load("keras")):
        model = built(backend)
        results.append(attack(backend, model, batch=12, epsilon=0.01, seed=3))
    one, other = results
    assert 0 < one.fooled.sum() < 12
    np.testing.assert_array_equal(one.fooled, other.fooled)
    np.testing.assert_allclose(one.adversarial, other.adversarial, atol=1e-4)
    assert (one.forwards, one.backwards) == (other.forwards, other.backwards)


LENGTHS = {
    "linf": lambda delta: np.abs(delta).max(axis=1),
    "l2": lambda delta: np.sqrt((delta**2).sum(axis=1)),
    "l1": lambda delta: np.abs(delta).sum(axis=1),
}


@pytest.mark.parametrize(("norm", "epsilon"), [("linf", 0.02), ("l2", 0.2), ("l1", 1.0)])
def test_examples_are_in_the_ball_and_fool_as_said(engine, norm, epsilon):
    backend = load("torch")
    model, given = built(backend), problem(batch=12)
    labels = well_classified(backend, model, given)
    labels[0] = (labels[0] + 1) % CLASSES  # wrong from the start
    result = attack(backend, model, batch=12, labels=labels, norm=norm, epsilon=epsilon, batch_size=5)
    assert result.adversarial.shape == given.x.shape
    lengths = LENGTHS[norm]((result.adversarial - given.x.astype(np.float32)).reshape(12, -1))
    assert epsilon / 2 < lengths.max() <= epsilon * (1 + 1e-5) + 1e-6
    assert 2 < result.fooled.sum() < 12
    assert result.fooled[0]
    assert lengths[0] == 0
    images = given._replace(x=result.adversarial.astype(np.float64))
    np.testing.assert_array_equal(result.fooled, well_classified(backend, model, images) != labels)


def test_no_budget_fools_nobody(backend, engine):
    result = attack(backend, built(backend), epsilon=0.0)
    assert not result.fooled.any()


@pytest.mark.parametrize("batch_size", [4, 3])
def test_counts_are_those_of_the_algorithm(backend, engine, batch_size):
    """Per image of a run that finds nothing: the clean one, its own look, 101 with a way back, and a last look."""
    result = attack(backend, built(backend), epsilon=0.0, batch_size=batch_size)
    checks = 7 * batch_size  # five for randomness, one for the range, one for dynamic defences; first batch only
    assert result.forwards == checks + 4 * (1 + 1 + 101 + 1)
    assert result.backwards == 4 * 101
    assert not result.weight_gradients


def test_weight_gradients_are_noticed(engine):
    """FAB takes `backward`, all the way to the weights; a Keras model's stay out of its reach."""
    for name, expected in (("torch", True), ("keras", False)):
        backend = load(name)
        result = attack(backend, built(backend, classes=3), batch=1, attacks=["fab-t"], epsilon=0.0)
        assert result.weight_gradients is expected
        targets = 2
        assert result.forwards == 7 + 1 + 1 + targets * (2 + 200 + 1) + 1
        assert result.backwards == targets * 100


def test_queries_are_squares(engine):
    backend = load("torch")
    result = attack(backend, built(backend), attacks=["square"], epsilon=0.0, queries=10)
    assert result.forwards == 4 * (7 + 1 + 1 + 1 + 10 + 1 + 1)
    assert result.backwards == 0


def test_versions_settings_apply_to_chosen_attacks(engine):
    """APGD has one restart in standard, five in custom; what is fooled never needs the second."""
    backend = load("torch")
    model = built(backend)
    backwards = {v: attack(backend, model, version=v, epsilon=0.0).backwards for v in ("standard", "custom")}
    assert backwards == {"standard": 404, "custom": 5 * 404}


@pytest.mark.usefixtures("global_random_state")
def test_nothing_is_left_behind(engine):
    backend = load("torch")
    model = built(backend)
    model.train()
    model.bn1.eval()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    first, *others = model.parameters()
    first.grad = kept = torch.ones_like(first)
    tracer = sys.gettrace()
    sys.settrace(trace := lambda *_: None)
    try:
        attack(backend, model, attacks=["apgd-ce", "fab-t"], batch=2, epsilon=0.01)
        assert sys.gettrace() is trace
    finally:
        sys.settrace(tracer)
    assert first.grad is kept
    assert (kept == 1).all()
    assert all(parameter.grad is None and parameter.requires_grad for parameter in others)
    assert [model.training, model.bn1.training, model.bn2.training] == [True, False, True]
    for name, value in model.state_dict().items():
        torch.testing.assert_close(value, before[name], rtol=0, atol=0)


def test_same_seed_same_examples(engine):
    backend = load("torch")
    model = built(backend)
    one, same, other = (attack(backend, model, seed=seed, queries=20, attacks=["square"]) for seed in (0, 0, 1))
    np.testing.assert_array_equal(one.adversarial, same.adversarial)
    assert (one.adversarial != other.adversarial).any()


def test_the_log_goes_to_progress_alone(engine, caplog):
    backend, lines, logger = load("torch"), [], logging.getLogger("auto-attack")
    model, before = built(backend), (logger.level, logger.propagate, list(logger.handlers))
    with caplog.at_level(logging.DEBUG):
        attack(backend, model, attacks=["square"], queries=1, progress=lines.append)
    assert "running square" in lines
    assert caplog.records == []
    assert (logger.level, logger.propagate, list(logger.handlers)) == before


def test_flat_inputs(backend, engine):
    classes, rng = 4, np.random.default_rng(0)  # as few as apgd-t takes
    kernel, x = rng.normal(size=(12, classes)), rng.uniform(size=(6, 12))
    if backend.name == "torch":
        model = torch.nn.Linear(12, classes, bias=False).double()
        model.weight.data = torch.tensor(kernel.T)
    else:
        import keras

        model = keras.Sequential(
            [keras.Input((12,), dtype="float64"), keras.layers.Dense(classes, use_bias=False, dtype="float64")]
        )
        model.set_weights([kernel])
    labels = (x @ kernel).argmax(axis=1)
    result = run_reference(model, x, labels, norm="linf", epsilon=0.12, attacks=["apgd-ce", "apgd-t", "fab-t"])
    assert result.adversarial.shape == x.shape
    np.testing.assert_array_equal(result.fooled, (result.adversarial @ kernel).argmax(axis=1) != labels)
    assert 0 < result.fooled.sum() < 6


def test_square_takes_flat_inputs_in_linf_alone(engine):
    model, x = torch.nn.Linear(12, CLASSES), np.full((2, 12), 0.5)
    settings = {"epsilon": 0.1, "attacks": ["square"], "queries": 3}
    assert run_reference(model, x, np.zeros(2, int), norm="linf", **settings).adversarial.shape == (2, 12)
    for norm in ("l2", "l1"):
        with pytest.raises(UsageError, match="at least 5 pixels high for square"):
            run_reference(model, x, np.zeros(2, int), norm=norm, **settings)


@pytest.mark.parametrize(("name", "least"), [("apgd-dlr", 3), ("apgd-t", 4), ("fab", 2), ("fab-t", 2)])
def test_few_classes_are_refused_where_the_reference_crashes(engine, name, least):
    backend = load("torch")

    def run(classes):
        model, given = built(backend, classes), problem(batch=2)
        labels = well_classified(backend, model, given)
        return run_reference(model, given.x, labels, norm="linf", epsilon=0.0, attacks=[name])

    assert not run(least).fooled.any()
    if least > 2:
        with pytest.raises(
            UsageError, match=f"at least {least} classes for {name}; received {least - 1}; the ref"
        ):
            run(least - 1)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"norm": "l0"}, "norm: expected one of linf, l2, l1; received 'l0'"),
        ({"version": "fast"}, "version: expected one of"),
        ({"attacks": None, "version": "custom"}, "attacks: expected some of apgd-ce"),
        ({"attacks": ["apgd"]}, "attacks: expected some of apgd-ce"),
        ({"epsilon": -1}, "epsilon: expected a number of at least 0"),
        ({"batch_size": 0}, "batch_size: expected a whole number of at least 1"),
        ({"queries": 0}, "queries: expected a whole number of at least 1"),
        ({"seed": 0.5}, "seed: expected a whole number"),
    ],
)
def test_settings_that_do_not_fit(settings, message):
    backend = load("torch")
    with pytest.raises(UsageError, match=message):
        attack(backend, built(backend), **settings)


def test_data_that_do_not_fit(engine):
    backend = load("torch")
    model, given = built(backend), problem(batch=2)
    with pytest.raises(DataError, match="expected images"):
        run_reference(model, given.x[0], given.y, norm="linf", epsilon=0.1)
    with pytest.raises(DataError, match=r"pixels in \[0, 1\]"):
        run_reference(model, given.x * 255, given.y, norm="linf", epsilon=0.1)
    with pytest.raises(DataError, match="labels in"):
        run_reference(model, given.x, given.y + CLASSES, norm="linf", epsilon=0.1)


def test_a_missing_engine_is_named(monkeypatch):
    backend, find = load("torch"), importlib.util.find_spec
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None if name == "pyautoattack" else find(name))
    with pytest.raises(UsageError, match=r"pyautoattack not installed.*pip install '\.\[autoattack\]'"):
        attack(backend, built(backend), labels=np.zeros(4, int))
