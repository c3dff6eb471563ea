"""Accuracies, their intervals, and the attacks behind them: against closed forms, on both backends."""

import numpy as np
import pytest
from harness import NAMES, load, problem
from hypothesis import given, settings
from hypothesis import strategies as st

import stcore
from stcore.attacks import FGSM, PGD, preset
from stcore.data.batches import Batch
from stcore.errors import DivergedError, UsageError
from stcore.evaluation.accuracy import Accuracy
from stcore.evaluation.evaluator import Evaluator

# Intervals


def assert_exact(correct, total, confidence=0.95):
    from scipy.stats import binomtest

    exact = binomtest(correct, total).proportion_ci(confidence, method="exact")
    np.testing.assert_allclose(Accuracy(correct, total).interval(confidence), (exact.low, exact.high), atol=1e-10)


@settings(max_examples=60, deadline=None)
@given(data=st.data(), total=st.integers(1, 10_000), confidence=st.sampled_from([0.9, 0.95, 0.99]))
def test_intervals_are_clopper_and_pearsons(data, total, confidence):
    assert_exact(data.draw(st.integers(0, total)), total, confidence)


@pytest.mark.parametrize("total", [1, 2, 347, 10_000])
def test_intervals_of_none_and_of_all_correct(total):
    assert_exact(0, total)
    assert_exact(total, total)
    assert Accuracy(0, total).interval()[0] == 0.0
    assert Accuracy(total, total).interval()[1] == 1.0


def test_the_share():
    assert Accuracy(3, 4).value == 0.75


# A linear classifier, whose worst case is known

DIMENSION = 12


def linear(backend):
    """Logits (0, w·x + b) of flat inputs in float64, with its w and b."""
    rng = np.random.default_rng(1)
    w, b = rng.normal(size=DIMENSION), 0.1
    w -= w.mean()  # so that both classes occur
    if backend.name == "torch":
        import torch

        model = torch.nn.Sequential(torch.nn.Linear(DIMENSION, 2)).double()
        with torch.no_grad():
            model[0].weight.copy_(torch.tensor(np.stack([np.zeros_like(w), w])))
            model[0].bias.copy_(torch.tensor([0.0, b], dtype=torch.float64))
    else:
        import keras

        model = keras.Sequential([keras.Input((DIMENSION,)), keras.layers.Dense(2, dtype="float64")])
        model.layers[0].set_weights([np.stack([np.zeros_like(w), w], axis=1), np.array([0.0, b])])
    return model, w, b


def worst_margins(x, y, w, b, epsilon, norm):
    """How far on the right side of the boundary each example stays under the best perturbation."""
    side = np.where(y == 1, 1.0, -1.0)
    if norm == "linf":  # each pixel goes its own way, as far as the ball and [0, 1] let it
        x = np.clip(x - epsilon * side[:, None] * np.sign(w), 0, 1)
        return side * (x @ w + b)
    return side * (x @ w + b) - epsilon * np.linalg.norm(w)


@pytest.mark.parametrize(
    ("norm", "epsilon", "low", "high"), [("linf", 0.1, 0.0, 1.0), ("linf", 0.03, 0.0, 1.0), ("l2", 0.1, 0.2, 0.8)]
)
def test_robust_accuracy_of_a_linear_model_is_its_closed_form(backend, norm, epsilon, low, high):
    model, w, b = linear(backend)
    rng = np.random.default_rng(0)
    x = rng.uniform(low, high, (400, DIMENSION))
    y = (x @ w + b > 0).astype(np.int64)
    y[::10] = 1 - y[::10]  # some are wrong from the start
    margins = worst_margins(x, y, w, b, epsilon, norm)
    clear = np.abs(margins) > 1e-3  # for l2, 20 steps turn a random start to within 1e-3 of the best direction
    x, y, margins = x[clear], y[clear], margins[clear]
    assert 0.2 < (margins > 0).mean() < 0.8

    attacks = {name: preset(name, epsilon, norm) for name in ("fgsm", "pgd20")}
    scores = stcore.evaluate(model, (x, y), attacks, batch_size=150)
    assert scores["natural"].correct == ((x @ w + b > 0) == (y == 1)).sum()
    for name in attacks:
        assert scores[name].correct == (margins > 0).sum()
        assert scores[name].total == len(x)


def test_by_hand_the_worst_case_is_the_attacks_own_point(backend):
    """The closed form above, for one attack's examples themselves."""
    model, w, _ = linear(backend)
    x, y = np.random.default_rng(2).uniform(0.2, 0.8, (5, DIMENSION)), np.array([0, 1, 0, 1, 1])
    side = np.where(y == 1, 1.0, -1.0)[:, None]
    found = FGSM(0.1)(model, backend.tensor(x), backend.tensor(y))
    np.testing.assert_allclose(backend.array(found), x - 0.1 * side * np.sign(w), atol=1e-15)
    found = FGSM(0.1, norm="l2")(model, backend.tensor(x), backend.tensor(y))
    np.testing.assert_allclose(backend.array(found), x - 0.1 * side * w / np.linalg.norm(w), atol=1e-12)


# Attacks


def test_fgsm_is_one_step_of_pgd(backend):
    from stcore.core.losses import cross_entropy
    from stcore.protocols import Mode

    batch = backend.batch(problem())
    model = backend.build()
    classifier, ops = backend.classifier(model), backend.ops
    value, pullback = ops.vjp(lambda x: cross_entropy(ops, classifier.logits(x, Mode.EVAL), batch.y), batch.x)
    gradient = backend.array(pullback(ops.ones_like(value))[0])
    by_hand = np.clip(backend.array(batch.x) + 0.1 * np.sign(gradient), 0, 1)
    one_step = PGD(0.1, step_size=0.1, steps=1, init="natural")
    for attack in (FGSM(0.1), one_step):
        np.testing.assert_array_equal(backend.array(attack(model, batch.x, batch.y)), by_hand)


def test_steps_stay_in_the_ball_and_in_range(backend):
    batch = backend.batch(problem())
    x = backend.array(batch.x)
    for norm in ("linf", "l2"):
        moved = backend.array(PGD(0.1, 0.05, 3, norm=norm)(backend.build(), batch.x, batch.y, rng=0)) - x
        size = np.abs(moved).max() if norm == "linf" else np.sqrt((moved**2).sum((1, 2, 3))).max()
        assert 0.05 < size <= 0.1 + 1e-12
        assert (moved + x).min() >= 0
        assert (moved + x).max() <= 1


# Evaluation


def own_layout(backend, x):
    return x if backend.name == "keras" else x.transpose(0, 3, 1, 2)


def batches(x, y, size, first=0):
    """Batches whose first example stands at position `first`."""
    for begin in range(0, len(x), size):
        where = slice(begin, begin + size)
        yield Batch(x[where], y[where], first + np.arange(len(x))[where])


def test_predictions_do_not_depend_on_the_batch_size_or_on_the_neighbours(backend):
    given = problem(batch=24)
    x = given.x
    attack = {"pgd": PGD(0.1, 0.03, 4)}
    evaluator = Evaluator(backend.classifier(backend.build()), attack, seed=3)
    whole = evaluator.run(batches(x, given.y, 24)).predicted
    for size in (1, 7, 16):
        assert_same(evaluator.run(batches(x, given.y, size)).predicted, whole)
    tail = evaluator.run(batches(x[10:], given.y[10:], 9, first=10)).predicted
    assert_same(tail, {name: classes[10:] for name, classes in whole.items()})


def test_starts_depend_on_seed_and_position_alone():
    from stcore.base.seeding import Stream, sample_uniform

    def noise(seed, positions):
        return sample_uniform(seed, Stream.ATTACK, np.asarray(positions), (4, 4, 1))

    np.testing.assert_array_equal(noise(0, [5, 2])[::-1], noise(0, [2, 5]))
    np.testing.assert_array_equal(noise(0, range(9))[[2, 5]], noise(0, [2, 5]))
    assert (noise(1, [2]) != noise(0, [2])).mean() > 0.9


@pytest.mark.parametrize("settings", [{}, {"norm": "l2"}, {"init": "gaussian", "noise_std": 0.1}], ids=str)
def test_attacks_start_from_the_same_images_in_either_layout(settings):
    given = problem(batch=5)
    starts = [
        backend.nhwc(
            PGD(0.1, steps=0, **settings)(backend.build(), backend.images(given.x), backend.tensor(given.y), rng=5)
        )
        for backend in map(load, NAMES)
    ]
    np.testing.assert_array_equal(*starts)
    assert (starts[0] != given.x).mean() > 0.99


class Recording:
    """An attack that only keeps the noise it is handed."""

    noise_laws = ("uniform", "normal")

    def __init__(self):
        self.seen = []

    def find(self, model, x, y, noise, /):
        self.seen.append(noise)
        return x


def test_evaluation_draws_as_for_host_images_whatever_the_models_layout(backend, monkeypatch):
    from stcore.base.seeding import Stream, sample_normal, sample_uniform

    if backend.name == "keras":
        monkeypatch.setattr("stcore.backends.keras.learner.KerasClassifier.compiled", False)  # noise to look at
    given, model = problem(batch=5), backend.build()
    own, host = Recording(), Recording()
    stcore.evaluate(model, (own_layout(backend, given.x), given.y), {"it": own}, batch_size=2, seed=3)
    Evaluator(backend.classifier(model), {"it": host}, seed=3).run(batches(given.x, given.y, 3))
    laws = (sample_uniform, sample_normal)
    for draw, law in enumerate(laws):
        expected = law(3, Stream.ATTACK, np.arange(5), (8, 8, 3), draw=draw)
        for recorded in (own, host):
            drawn = np.concatenate([backend.nhwc(noise[draw]) for noise in recorded.seen])
            np.testing.assert_array_equal(drawn, expected)


def assert_same(one, other):
    assert one.keys() == other.keys()
    for name in one:
        np.testing.assert_array_equal(one[name], other[name])


def test_no_budget_no_harm(backend):
    given = problem(batch=20)
    data = (own_layout(backend, given.x), given.y)
    scores = stcore.evaluate(backend.build(), data, ["pgd20"], epsilon=0.0)
    assert scores["pgd20"] == scores["natural"]


def test_evaluation_leaves_the_model_as_it_was(backend):
    from stcore.models import export_weights

    given, model = problem(), backend.build()
    if backend.name == "torch":
        model.train()
        model.bn1.eval()
    before = export_weights(model)
    stcore.evaluate(model, (own_layout(backend, given.x), given.y), [PGD(0.1, 0.05, 2)], batch_size=4)
    assert_same(export_weights(model), before)
    if backend.name == "torch":
        assert [model.training, model.bn1.training, model.bn2.training] == [True, False, True]
        assert model.bn1.track_running_stats
        assert all(weight.grad is None and weight.requires_grad for weight in model.parameters())


def test_native_tensors_and_names_are_taken(backend):
    given = problem()
    batch = backend.batch(given)
    model = backend.build()
    scores = stcore.evaluate(model, (batch.x, batch.y), [FGSM(0.1), "fgsm"], epsilon=0.1)
    assert list(scores) == ["natural", repr(FGSM(0.1)), "fgsm"]
    assert scores["fgsm"] == scores[repr(FGSM(0.1))]
    assert list(stcore.evaluate(model, (batch.x, batch.y), {"mine": FGSM(0.1)})) == ["natural", "mine"]


def test_no_logits_that_are_no_numbers_are_counted(backend):
    """argmax of NaN is a class as any other: an accuracy of 1/C that looks like a result."""
    from stcore.models import export_weights, load_weights

    given, model = problem(), backend.build()
    weights = export_weights(model)
    load_weights(model, {**weights, "linear.bias": np.full(3, np.nan)})
    with pytest.raises(UsageError, match="model: expected finite logits; received NaN"):
        stcore.evaluate(model, (own_layout(backend, given.x), given.y), [])
    evaluator = Evaluator(backend.classifier(model), {})
    with pytest.raises(DivergedError, match="logits are not finite"):
        evaluator.run(batches(given.x, given.y, 6))
    load_weights(model, {**weights, "linear.bias": np.array([0.0, -np.inf, 0.0])})  # a class that is masked out
    evaluator.run(batches(given.x, given.y, 6))
