"""The cascade: equal on both backends, whatever the batch, and after any interruption; what it writes down."""

import copy
import os
import signal
import time
from dataclasses import dataclass, replace
from functools import cache

import numpy as np
import pytest
from forked import Forked
from harness import load, problem
from hypothesis import given, settings
from hypothesis import strategies as st

import stcore
from stcore.attacks import PGD, square
from stcore.autoattack import AutoAttack, Cascade
from stcore.autoattack.records import NONE
from stcore.autoattack.versions import ATTACKS, notes, stages
from stcore.base.progress import Silent
from stcore.errors import DataError, DivergedError, UsageError
from stcore.evaluation.assessment import Assessment
from stcore.evaluation.attack_names import split
from stcore.evaluation.evaluator import Evaluator
from stcore.evaluation.folder import EvaluationFolder
from stcore.models import export_weights, load_weights

EPSILON = 0.02
CLASSES = 5
FEW = 60  # queries of Square
IMAGES = 24


@dataclass(frozen=True)
class Short(AutoAttack):
    """AutoAttack with 20 steps of APGD and of FAB, not 100: steps of each kind, and four reviews of the step size.

    What holds of each step needs no more of them; what depends on how far a search comes takes AutoAttack itself.
    """

    def stages(self, classes):
        return tuple(
            replace(stage, attack=replace(stage.attack, steps=20)) if hasattr(stage.attack, "steps") else stage
            for stage in super().stages(classes)
        )


def task(backend, images=IMAGES, *, net="tiny-smooth", dtype="float64", classes=CLASSES, channels=3):
    """Images that the network mostly classifies as their labels say, so that there is something to attack."""
    x = problem(batch=images, classes=classes, channels=channels).x.astype(dtype)
    model = backend.build(net, dtype=dtype, classes=classes, channels=channels)
    classifier = backend.classifier(model)
    logits = classifier.eval_logits(classifier.images(x)).astype(np.float64)
    mean, spread = logits.mean(axis=0), logits.std(axis=0)  # so that every class is some image's
    weights = export_weights(model)
    weights["linear.weight"] = weights["linear.weight"] / spread[:, None]
    weights["linear.bias"] = (weights["linear.bias"] - mean) / spread
    load_weights(model, weights)
    y = classifier.eval_logits(classifier.images(x)).argmax(axis=1)
    y[::11] = (y[::11] + 1) % classes  # some are wrong from the start
    return model, x, y


class Folded(Evaluator):
    """An evaluator of a network that stays as it is: folded once, and each attack traced once, for all tests."""

    def __init__(self, classifier, images):
        super().__init__(classifier, {})
        super().fold(images)

    def fold(self, images):
        """Does nothing more."""


@cache
def shared(name, dtype="float64"):
    """A task with its evaluator, for who looks for examples and changes nothing."""
    backend = load(name)
    model, x, y = task(backend, IMAGES if dtype == "float64" else 200, dtype=dtype)
    return Folded(backend.classifier(model), x), x, y


def assessment(
    backend, attack, *, batch_size=64, positions=None, seed=0, of=None, keep=False, images=IMAGES, dtype="float64"
):
    if of:
        model, x, y = of
        evaluator = Evaluator(backend.classifier(model), {}, seed)
    else:
        evaluator, x, y = shared(backend.name, dtype)
        evaluator, x, y = copy.copy(evaluator), x[:images], y[:images]
        evaluator.seed = seed
    if positions is not None:
        x, y = x[positions], y[positions]
    return Assessment(
        evaluator, split({"it": attack}), x, y, batch_size=batch_size, positions=positions, keep_examples=keep
    )


class Kept:
    """Keeps the last state and all examples."""

    def __init__(self, state=None):
        self.state, self.examples = state, {}

    def load(self):
        return self.state

    def due(self):
        return False

    def save(self, state, examples):
        self.state = {name: np.array(array) for name, array in state.items()}
        for name, found in examples.items():
            self.examples.setdefault(name, {}).update(found)


def run(backend, attack, **options):
    """The records, and the examples found by row."""
    store = Kept()
    found = assessment(backend, attack, keep=True, **options).run(Silent(), store)
    return found.cascades["it"], store.examples.get("it", {})


@cache
def of_one_batch(name, attack):
    """What `run` gives of few images in a single batch: read only."""
    return run(load(name), attack, images=10)


def members(norm):
    names = [name for name in ATTACKS if (name, norm) != ("pma", "l1")]
    one = [Short(EPSILON * SCALE[norm], norm, "custom", (name,), queries=FEW) for name in names]
    return [pytest.param(attack, id=f"{attack.attacks[0]}-{norm}") for attack in one]


SCALE = {"linf": 1.0, "l2": 10.0, "l1": 50.0}
ALL = [param for norm in SCALE for param in members(norm)]
WHOLE = Short(EPSILON, queries=FEW)


def same_records(one, other, but=()):
    for name, array in one.records.arrays().items():
        if name not in but:
            np.testing.assert_array_equal(array, getattr(other.records, name), err_msg=name)


def close_examples(one, other, tolerance=1e-9):
    assert one.keys() == other.keys()
    assert max((np.abs(one[row] - other[row]).max() for row in one), default=0.0) <= tolerance


# Equal on both backends, whatever the batch


@pytest.mark.parametrize("attack", [*ALL, WHOLE])
def test_verdicts_are_those_of_the_other_backend_sample_by_sample(attack):
    load("keras")
    (one, ones), (other, others) = (of_one_batch(name, attack) for name in ("torch", "keras"))
    same_records(one, other, but=("distance",))
    np.testing.assert_allclose(one.records.distance, other.records.distance, atol=1e-9)
    close_examples(ones, others)
    assert 0 < one.stages[-1].robust.correct < (one.records.natural == one.records.label).sum()


@pytest.mark.parametrize(
    "attack",  # a third are of the slow tier: ten seconds, for attacks that differ from these in their norm alone
    [
        *members("linf"),
        *(pytest.param(*one.values, id=one.id, marks=pytest.mark.slow) for one in members("l2")),
        WHOLE,
    ],
)
def test_the_batch_size_changes_nothing(backend, attack):
    whole, examples = of_one_batch(backend.name, attack)
    for batch_size in (1, 7) if attack == WHOLE else (1,) if attack.norm == "linf" else (7,):
        part, found = run(backend, attack, images=10, batch_size=batch_size)
        np.testing.assert_array_equal(part.records.robust, whole.records.robust)
        assert found.keys() == examples.keys()
        # Of several runs that fool it, which comes first depends on who waits for whom: equal runs are compared.
        same = (part.records.restart == whole.records.restart) & (part.records.target == whole.records.target)
        same &= part.records.attack == whole.records.attack
        assert same[list(examples)].mean() > 0.5
        rows = [row for row in examples if same[row]]
        close_examples({row: found[row] for row in rows}, {row: examples[row] for row in rows})


def test_in_float32_hardly_a_verdict_depends_on_the_batch_size(backend):
    attack = Short(EPSILON, version="custom", attacks=("apgd-ce", "apgd-t", "square"), queries=FEW)
    of = {"images": 200, "dtype": "float32"}
    verdicts = [run(backend, attack, **of, batch_size=size)[0].records.robust for size in (32, 100)]
    assert 0.05 < verdicts[0].mean() < 0.85
    assert (verdicts[0] == verdicts[1]).mean() >= 0.995


def test_an_image_does_not_care_for_its_neighbours(backend):
    """A shard's images, at their places in the whole data set, fall as they do in the whole."""
    attack = Short(EPSILON, version="custom", attacks=("apgd-ce", "square"), queries=FEW)
    whole, _ = run(backend, attack)
    rows = np.arange(1, IMAGES, 3)
    part, _ = run(backend, attack, positions=rows)
    for name, array in part.records.arrays().items():
        np.testing.assert_allclose(array, getattr(whole.records, name)[rows], atol=1e-9)


def test_another_seed_is_another_noise(backend):
    attack = Short(EPSILON, version="custom", attacks=("apgd-ce",))
    (_, ones), (_, others) = (run(backend, attack, seed=seed) for seed in (0, 1))
    shared = ones.keys() & others.keys()
    assert shared
    assert any(np.abs(ones[row] - others[row]).max() > 1e-3 for row in shared)


def test_shortcuts_change_no_bit(monkeypatch):
    """Searches that stop once settled, windows drawn for many steps, forwards that set no modes: as without."""
    backend = load("torch")
    from stcore.backends.torch import learner, ops

    of, modes, plain = task(backend, 14), [], learner.in_mode
    monkeypatch.setattr(learner, "in_mode", lambda *args: modes.append(None) or plain(*args))
    fast, examples = run(backend, WHOLE, of=of, batch_size=9)
    few = len(modes)
    monkeypatch.setattr(ops, "fixed_point", ops.fori_loop)
    monkeypatch.setattr(square, "RUN", 1)
    monkeypatch.setattr(learner, "FoldedClassifier", learner.TorchClassifier)
    slow, others = run(backend, WHOLE, of=of, batch_size=9)
    assert few < 0.2 * (len(modes) - few)  # left are the natural images, the trial of the copy, and verifications
    same_records(fast, slow)
    assert examples.keys() == others.keys()
    for row, point in examples.items():
        np.testing.assert_array_equal(point, others[row])


def test_keys_are_reckoned_when_lanes_begin(monkeypatch):
    """Once for each, and not at each step: here all of them, five restarts of each image, fit into a batch."""
    reckoned, keys_of = [], Cascade._keys_of
    monkeypatch.setattr(Cascade, "_keys_of", lambda self, jobs: reckoned.append(len(jobs)) or keys_of(self, jobs))
    attack = Short(EPSILON, version="custom", attacks=("apgd-ce",))
    found, _ = run(load("torch"), attack, images=10)
    assert reckoned == [5 * (found.records.natural == found.records.label).sum()]


# Stopped and gone on


class Stop:
    """Asks to stop when it is asked for the `limit`-th time."""

    def __init__(self, limit=10**9):
        self.count, self.limit = 0, limit

    def __call__(self):
        self.count += 1
        return self.count > self.limit


@pytest.fixture(scope="module")
def unstopped(backend):
    """The records and the examples of the whole, and how often it asked whether to stop."""
    store, stop = Kept(), Stop()
    found = assessment(backend, WHOLE, images=14, batch_size=9, keep=True).run(Silent(), store, stop)
    return found.cascades["it"], store.examples["it"], stop.count


@pytest.mark.parametrize("share", [0.03, 0.3, 0.55, 0.8, 0.97])
def test_stopped_anywhere_it_goes_on_bit_for_bit(backend, unstopped, share):
    (whole, examples, count), store = unstopped, Kept()
    stop = Stop(int(share * count))
    assert assessment(backend, WHOLE, images=14, batch_size=9, keep=True).run(Silent(), store, stop) is None
    on = assessment(backend, WHOLE, images=14, batch_size=9, keep=True).run(Silent(), store)
    same_records(on.cascades["it"], whole)
    found = store.examples.get("it", {})
    assert found.keys() == examples.keys()
    for row, point in examples.items():
        np.testing.assert_array_equal(found[row], point)
    for one, other in zip(on.cascades["it"].stages, whole.stages, strict=True):
        assert (one.forwards, one.backwards, one.robust) == (other.forwards, other.backwards, other.robust)


CHILD = """
import sys
sys.path.insert(0, {tests!r})
from harness import load
import test_cascade as t
from pathlib import Path
backend = load({name!r})
store = t.EvaluationFolder(Path({folder!r}), {{"of": "a test"}}, every=0.0)
t.assessment(backend, t.Short(t.EPSILON, queries=t.FEW), batch_size=9, keep=True).run(t.Silent(), store)
print("done", flush=True)
"""


def test_killed_at_random_points_it_goes_on_bit_for_bit(backend, tmp_path):
    """SIGKILL, which no handler sees, again and again until the evaluation gets through."""
    folder, rng, kills = tmp_path / "it", np.random.default_rng(0), 0
    child = CHILD.format(tests=os.path.dirname(__file__), name=backend.name, folder=str(folder))
    while True:
        process = Forked("-c", child, backend=backend.name)
        if kills < 3:
            before = (folder / "state.npz").stat().st_mtime_ns if (folder / "state.npz").is_file() else 0
            while process.poll() is None:  # let it get somewhere, then kill it at any moment
                now = (folder / "state.npz").stat().st_mtime_ns if (folder / "state.npz").is_file() else 0
                if now != before:
                    break
                time.sleep(0.01)
            time.sleep(rng.uniform(0, 0.4))
            process.send_signal(signal.SIGKILL)
        out, _ = process.communicate()
        if "done" in out:
            break
        kills += 1
        assert kills < 10
    assert kills
    store = EvaluationFolder(folder, {"of": "a test"})
    attack = Short(EPSILON, queries=FEW)
    on = assessment(backend, attack, batch_size=9).run(Silent(), store).cascades["it"]
    store.finish({}, {"accuracies": {}})
    whole, examples = run(backend, attack, batch_size=9)
    same_records(on, whole)
    from stcore.base.files import read_arrays

    kept = read_arrays(folder / "it-examples.npz")
    assert kept["rows"].tolist() == sorted(examples)
    for row, point in zip(kept["rows"], kept["examples"], strict=True):
        np.testing.assert_array_equal(point, examples[row])


# What is written down


@pytest.mark.parametrize("norm", SCALE)
def test_every_example_is_in_the_ball_in_range_and_misclassified(backend, norm):
    evaluator, x, y = shared(backend.name)
    attack = Short(EPSILON * SCALE[norm], norm, queries=FEW)
    found, examples = run(backend, attack)
    assert examples
    records, classifier = found.records, evaluator.classifier
    measure = {"linf": np.inf, "l2": 2, "l1": 1}[norm]
    for row, point in examples.items():
        distance = np.linalg.norm((point - x[row]).reshape(-1), measure)
        assert distance == pytest.approx(records.distance[row], rel=1e-12)
        assert distance <= attack.epsilon * (1 + 1e-6) + 1e-7
        assert 0 <= point.min() <= point.max() <= 1
        predicted = classifier.eval_logits(classifier.images(point[None])).argmax()
        assert predicted == records.predicted[row] != y[row]
    fooled = records.attack != NONE
    assert set(np.flatnonzero(fooled)) == set(examples)
    assert (records.natural[fooled] == y[fooled]).all()  # what is wrong already is not attacked
    targeted = np.array([stage.targets > 0 for stage in attack.stages(CLASSES)])[records.attack[fooled]]
    assert ((records.target[fooled] != NONE) == targeted).all()
    assert np.isnan(records.distance[~fooled]).all()


def test_an_attack_that_lies_is_not_believed(backend):
    """Points out of the ball, out of range, or classified right do not count."""
    model, x, y = task(backend)

    class Liar:
        epsilon, norm, bounds, evaluations = 0.1, "linf", (0.0, 1.0), 1

        def start(self, x, keys):
            return {"adversarial": x.copy(), "success": np.zeros(len(x))}

        def propose(self, x, state, step, keys):
            points = x.copy()
            for lane, lie in enumerate(self.lies):
                points[lane] = np.clip(lie(x[lane]), None, None)
            return points

        def judge(self, state, points, logits, y):
            return {"adversarial": points, "success": np.ones(len(points))}

    Liar.lies = [lambda p: 1 - p, lambda p: p + 2.0, lambda p: p + 0.05 - p.min() - 0.1]
    classifier = backend.classifier(model)
    right = np.flatnonzero(classifier.eval_logits(classifier.images(x)).argmax(1) == y)[:5]
    x, y = x[right], y[right]
    logits = classifier.eval_logits(classifier.images(x))
    stage = stcore.autoattack.Stage("square", Liar())
    cascade = Cascade(
        classifier,
        [stage],
        x,
        y,
        logits,
        lambda p: np.nan_to_num(classifier.eval_logits(classifier.images(p))).argmax(1),
    )
    while cascade.advance():
        pass
    assert cascade.records.robust.all()
    assert not cascade.found


def test_what_the_cascade_costs_is_what_is_counted(backend):
    """Robust images cost each stage's evaluations; the network is asked no more often than that."""
    found, _ = run(backend, AutoAttack(1e-4, queries=FEW), images=3)
    robust = int(found.records.robust.sum())
    assert robust == (found.records.natural == found.records.label).sum() == 2
    targets = CLASSES - 1
    costs = [(stage.forwards, stage.backwards) for stage in found.stages]
    assert costs == [
        (101 * robust, 101 * robust),
        (101 * targets * robust, 101 * targets * robust),
        (101 * targets * robust, 101 * targets * robust),
        ((FEW + 1) * robust, 0),
    ]


def test_a_fooled_image_costs_no_more(backend):
    """Whoever falls leaves, and the next one takes its place."""
    found, _ = run(backend, AutoAttack(0.5, queries=FEW), batch_size=4)
    right = (found.records.natural == found.records.label).sum()
    assert found.stages[0].robust.correct <= right // 4
    assert found.stages[0].forwards < 101 * right / 3


# Versions


def test_the_versions_are_the_published_ones():
    def said(version, norm="linf", classes=10, **options):
        return [
            (s.name, s.restarts, s.targets, s.attack.evaluations, s.samples)
            for s in stages(version, norm, 0.1, classes, **options)
        ]

    for norm in ("linf", "l2"):
        assert said("standard", norm) == [
            ("apgd-ce", 1, 0, 101, 1),
            ("apgd-t", 1, 9, 101, 1),
            ("fab-t", 1, 9, 101, 1),
            ("square", 1, 0, 5001, 1),
        ]
    assert said("standard", "l1") == [
        ("apgd-ce", 5, 0, 103, 1),
        ("apgd-t", 1, 5, 103, 1),
        ("fab-t", 1, 9, 101, 1),
        ("square", 1, 0, 5001, 1),
    ]
    assert said("plus", "l1")[5:] == [("apgd-t", 1, 9, 103, 1), ("fab-t", 1, 9, 101, 1)]
    assert said("plus") == [
        ("apgd-ce", 5, 0, 101, 1),
        ("apgd-dlr", 5, 0, 101, 1),
        ("fab", 1, 0, 101, 1),
        ("fab", 4, 0, 101, 1),
        ("square", 1, 0, 5001, 1),
        ("apgd-t", 1, 9, 101, 1),
        ("fab-t", 1, 9, 101, 1),
    ]
    assert said("fast") == [("apgd-ce", 1, 0, 26, 1), ("malt", 1, 0, 1, 1), ("apgd-t", 1, 9, 46, 1)]
    assert said("malt") == [*said("standard")[:1], ("malt", 1, 0, 1, 1), *said("standard")[1:]]
    assert said("malt", "l1") == [*said("standard", "l1")[:1], ("malt", 1, 0, 1, 1), *said("standard", "l1")[1:]]
    assert [stage.name for stage in stages("malt", "linf", 0.1, 2)] == ["apgd-ce", "apgd-t", "fab-t", "square"]
    assert said("custom", attacks=("pma-rand", "apgd-pm")) == [
        ("pma-rand", 1, 0, 101, 20),
        ("pma-rand", 1, 0, 101, 20),
        ("apgd-pm", 5, 0, 101, 1),
    ]
    assert said("rand") == [("apgd-ce", 1, 0, 101, 20), ("apgd-dlr", 1, 0, 101, 20)]
    assert said("standard", classes=3)[1:3] == [("apgd-t", 1, 2, 101, 1), ("fab-t", 1, 2, 101, 1)]
    assert said("custom", attacks=("square", "apgd-dlr")) == [
        ("square", 1, 0, 5001, 1),
        ("apgd-dlr", 5, 0, 101, 1),
    ]


@pytest.mark.parametrize(
    ("classes", "said"), [(2, "plain difference"), (3, "denominator"), (7, "6 targets"), (10, None)]
)
def test_few_classes_are_said(classes, said):
    assert "FAB-T and Square left out" in notes(classes, ["standard", "fast"])[-1]
    assert (notes(classes) == []) if said is None else (said in notes(classes)[0])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"version": "best"}, "version: expected one of standard"),
        ({"norm": "l0"}, "norm: expected one of linf, l2, l1; received 'l0'"),
        ({"attacks": ("square",)}, "of no other's; received square with version standard"),
        ({"version": "custom"}, "received none with version custom"),
        ({"version": "custom", "attacks": ("cw",)}, "attacks: expected one of apgd-ce"),
        ({"version": "custom", "attacks": ("fab", "fab")}, "expected each attack once"),
        ({"version": "custom", "attacks": ("apgd-t", "malt")}, "attacks: expected apgd-t or fab-t after malt"),
        (
            {"version": "custom", "attacks": ("pma",), "norm": "l1"},
            "norm: expected one of linf, l2; received 'l1'",
        ),
        ({"version": "custom", "attacks": ("fab-rand",)}, "attacks: expected one of apgd-ce"),
        ({"epsilon": -1.0}, "epsilon"),
        ({"queries": 0}, "queries: expected a whole number of at least 1"),
    ],
)
def test_settings_that_do_not_fit(options, message):
    with pytest.raises(UsageError, match=message):
        AutoAttack(**options)


# Any network, any data


@pytest.mark.parametrize("classes", [2, 3])
def test_few_classes(backend, classes):
    """The worst case of a linear network is known; the cascade finds all that can be found, and nothing else."""
    rng = np.random.default_rng(5)
    w, b = rng.normal(size=(12, classes)), rng.normal(size=classes) * 0.1
    model = linear(backend, w, b)
    x = rng.uniform(0.3, 0.7, (60, 12))
    logits = x @ w + b
    y = logits.argmax(axis=1)
    epsilon = 0.1
    margins = [
        min(
            logits[i, y[i]] - logits[i, j] - epsilon * np.abs(w[:, y[i]] - w[:, j]).sum()
            for j in range(classes)
            if j != y[i]
        )
        for i in range(60)
    ]
    clear = np.abs(margins) > 1e-3
    scores = stcore.evaluate(model, (x[clear], y[clear]), {"aa": AutoAttack(epsilon, queries=FEW)})
    assert scores["aa"].correct == (np.array(margins)[clear] > 0).sum()
    assert 0.1 < scores["aa"].value < 0.9


def linear(backend, w, b):
    if backend.name == "torch":
        import torch

        model = torch.nn.Sequential(torch.nn.Linear(*w.shape)).double()
        with torch.no_grad():
            model[0].weight.copy_(torch.tensor(w.T))
            model[0].bias.copy_(torch.tensor(b))
        return model
    import keras

    model = keras.Sequential([keras.Input((len(w),)), keras.layers.Dense(w.shape[1], dtype="float64")])
    model.layers[0].set_weights([w, b])
    return model


@pytest.mark.parametrize(
    ("norm", "shape"),
    [("linf", (6, 10, 1)), ("l2", (8, 8, 1)), ("l1", (6, 10, 3))],
    ids=["grey and not square", "grey", "not square"],
)
def test_images_of_any_shape(backend, shape, norm):
    """Some fall, and the others come through all attacks."""
    x = np.random.default_rng(0).uniform(size=(6, *shape))
    model = convolutional(backend, x)
    own = x if backend.name == "keras" else x.transpose(0, 3, 1, 2)
    y = stcore.make_classifier(model).eval_logits(backend.images(x)).argmax(axis=1)
    attack = Short(0.003 * SCALE[norm], norm, queries=FEW)
    assert 1 < stcore.evaluate(model, (own, y), {"aa": attack})["aa"].correct < 5


def convolutional(backend, x, classes=4):
    """A convolution, softplus and a linear layer, whose logits on these images are of mean 0 and variance 1."""
    rng, (height, width, channels) = np.random.default_rng(1), x.shape[1:]
    inside = (height - 2, width - 2, 4)
    kernel = rng.normal(size=(3, 3, channels, 4)) / np.sqrt(9 * channels)
    dense = rng.normal(size=(*inside, classes))
    if backend.name == "torch":
        import torch

        nn, features = torch.nn, int(np.prod(inside))
        model = nn.Sequential(nn.Conv2d(channels, 4, 3), nn.Softplus(), nn.Flatten(), nn.Linear(features, classes))
        model.double()

        def put(dense, bias):
            flat = dense.transpose(3, 2, 0, 1).reshape(classes, -1)
            values = (kernel.transpose(3, 2, 0, 1), np.zeros(4), flat, bias)
            for parameter, value in zip(model.parameters(), values, strict=True):
                parameter.data = torch.tensor(value)
    else:
        import keras

        model = keras.Sequential(
            [
                keras.Input(x.shape[1:], dtype="float64"),
                keras.layers.Conv2D(4, 3, activation="softplus", dtype="float64"),
                keras.layers.Flatten(dtype="float64"),
                keras.layers.Dense(classes, dtype="float64"),
            ]
        )

        def put(dense, bias):
            model.set_weights([kernel, np.zeros(4), dense.reshape(-1, classes), bias])

    put(dense, np.zeros(classes))
    logits = stcore.make_classifier(model).eval_logits(backend.images(x))
    mean, spread = logits.mean(axis=0), logits.std(axis=0)
    put(dense / spread, -mean / spread)
    return model


@settings(max_examples=5, deadline=None)
@given(size=st.integers(1, 9))
def test_batches_and_arrays_are_the_same_data(size):
    backend = load("torch")
    model, x, y = task(backend, images=9)
    native = np.ascontiguousarray(x.transpose(0, 3, 1, 2))
    loader = [(native[i : i + size], y[i : i + size]) for i in range(0, 9, size)]
    attacks = {"aa": Short(EPSILON, version="custom", attacks=("apgd-ce",))}
    assert stcore.evaluate(model, loader, attacks) == stcore.evaluate(model, (native, y), attacks)


def test_called_on_a_batch_it_gives_native_examples(backend):
    evaluator, x, y = shared(backend.name)
    attack, model = Short(EPSILON, version="custom", attacks=("apgd-ce",)), evaluator.classifier.model
    found = backend.nhwc(attack(model, backend.images(x), backend.tensor(y), rng=3, batch_size=64))
    seed = int(np.random.default_rng(3).integers(2**63))
    _, examples = run(backend, attack, seed=seed)
    for row in range(len(x)):
        np.testing.assert_allclose(found[row], examples.get(row, x[row]), atol=1e-12)


# What a claim is worth, at the edges


def flat_logits(backend, shape=(4,)):
    """A network of three classes whose logits are all 0 near the middle: ties, of which the first class wins."""
    if backend.name == "torch":
        import torch

        class Flat(torch.nn.Module):
            def __init__(self):
                super().__init__()
                self.weight = torch.nn.Parameter(torch.eye(4, 3, dtype=torch.float64))

            def forward(self, x):
                away = torch.relu(x - 0.55)
                return away @ self.weight

        return Flat()
    import keras

    pixels = keras.Input(shape, dtype="float64")
    away = keras.layers.ReLU(dtype="float64")(keras.layers.Rescaling(1.0, -0.55, dtype="float64")(pixels))
    dense = keras.layers.Dense(3, use_bias=False, dtype="float64")
    model = keras.Model(pixels, dense(away))
    dense.set_weights([np.eye(4, 3)])
    return model


@pytest.mark.parametrize("name", [*ATTACKS, "pgd20"])
def test_of_a_tie_the_predicted_class_decides(backend, name):
    """Whoever reaches equal logits has fooled a network that then predicts class 0, where 1 or 2 is the label."""
    x = np.full((4, 4), 0.5)
    x[0, 1] = x[1, 1] = x[2, 2] = 0.6  # classified as 1, 1, 2
    x[3, 0] = 0.6  # and as 0, which it stays in a tie
    y = np.array([1, 1, 2, 0])
    model = flat_logits(backend)
    attack = (
        {"it": AutoAttack(0.08, version="custom", attacks=(name,), queries=200)} if name in ATTACKS else [name]
    )
    scores = stcore.evaluate(model, (x, y), attack, epsilon=0.08)
    assert scores["natural"].correct == 4
    assert list(scores.values())[1].correct <= 1


def test_numbers_that_are_none_end_it_with_an_error(backend):
    """A network that breaks within the ball is neither robust nor fooled."""
    if backend.name == "torch":
        import torch

        class Breaks(torch.nn.Module):
            def __init__(self):
                super().__init__()
                self.weight = torch.nn.Parameter(torch.eye(4, 3, dtype=torch.float64))

            def forward(self, x):
                return x @ self.weight + torch.log(x[:, 1:2] - 0.55) * 0.0

        model = Breaks()
    else:
        import keras

        class Breaks(keras.layers.Layer):
            def call(self, x):
                return keras.ops.log(x[:, 1:2] - 0.55) * 0.0

        pixels = keras.Input((4,), dtype="float64")
        dense = keras.layers.Dense(3, use_bias=False, dtype="float64")
        model = keras.Model(pixels, dense(pixels) + Breaks(dtype="float64")(pixels))
        dense.set_weights([np.eye(4, 3)])
    x = np.full((3, 4), 0.5)
    x[:, 1] = 0.6
    for name in ("apgd-ce", "fab-t", "square"):
        attack = {"it": AutoAttack(0.1, version="custom", attacks=(name,), queries=50)}
        with pytest.raises(DivergedError, match="not finite"):
            stcore.evaluate(model, (x, np.array([1, 1, 1])), attack)


def test_half_precision_is_refused():
    backend = load("torch")
    import torch

    model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(192, 3)).bfloat16()
    data = np.zeros((2, 3, 8, 8), "float32"), np.array([0, 1])
    with pytest.raises(UsageError, match="expected float32 or float64 for this attack; received half precision"):
        stcore.evaluate(model, data, ["apgd-ce"])
    assert backend.name == "torch"


def test_a_network_that_changes_its_input_is_refused_and_the_data_is_as_it_was():
    load("torch")
    import torch

    class Shifts(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.linear = torch.nn.Linear(8, 3)

        def forward(self, x):
            return self.linear(x.sub_(0.5))

    x = np.random.default_rng(0).uniform(size=(5, 8)).astype("float32")
    before = x.copy()
    with pytest.raises(UsageError, match="changes its input in place"):
        stcore.evaluate(Shifts(), (x, np.zeros(5, int)), ["apgd-ce"])
    np.testing.assert_array_equal(x, before)


@pytest.mark.parametrize("attacks", [{"natural": AutoAttack()}, {"a/b": AutoAttack()}, {"a": "pgd20"}, "apgd-ce"])
def test_names_that_would_be_mistaken_are_refused(attacks):
    backend = load("torch")
    model, x, y = task(backend, images=3)
    with pytest.raises(UsageError, match="attacks: expected a"):
        stcore.evaluate(model, (x.transpose(0, 3, 1, 2), y), attacks)


@pytest.mark.parametrize(
    "data", [[1, 2], [], [(np.zeros((2, 3, 8, 8)), [0, 1]), (np.zeros((2, 3, 9, 9)), [0, 1])]]
)
def test_data_that_is_no_data(data):
    backend = load("torch")
    model, _, _ = task(backend, images=3)
    with pytest.raises(DataError, match=r"data: expected a tuple \(x, y\), or batches"):
        stcore.evaluate(model, data, ["pgd20"])


def test_examples_of_any_attack_are_kept_as_host_images(backend):
    model, x, y = task(backend, images=5)
    evaluator, store = Evaluator(backend.classifier(model), {"pgd": PGD(0.1, 0.05, 2)}), Kept()
    Assessment(evaluator, split({}), x, y, batch_size=2, keep_examples=True).run(Silent(), store)
    found = store.examples["pgd"]
    assert sorted(found) == list(range(5))
    assert all(isinstance(point, np.ndarray) and point.shape == x.shape[1:] for point in found.values())


def test_a_state_that_was_loaded_stays_as_it_was(backend):
    """Square writes in place, but not into what it was given."""
    model, x, y = task(backend)
    classifier = backend.classifier(model)
    logits = classifier.eval_logits(classifier.images(x))
    stages = AutoAttack(EPSILON, version="custom", attacks=("square",), queries=FEW).stages(CLASSES)

    def fresh():
        return Cascade(
            classifier, stages, x, y, logits, lambda p: classifier.eval_logits(classifier.images(p)).argmax(1)
        )

    one = fresh()
    for _ in range(5):
        one.advance()
    state = one.save()
    before = {name: array.copy() for name, array in state.items()}
    for cascade in (one, fresh()):
        cascade.load(state)
        for _ in range(10):
            cascade.advance()
        for name, array in before.items():
            np.testing.assert_array_equal(state[name], array, err_msg=name)


@pytest.mark.parametrize("batch_size", [1, 3, 64])
def test_what_waits_counts_down_and_no_batch_is_larger_than_asked_for(backend, batch_size):
    """Of images that all hold, each step takes one evaluation off each lane."""
    model, x, y = task(backend, images=5)
    classifier = backend.classifier(model)
    logits = classifier.eval_logits(classifier.images(x))
    attack = Short(1e-6, version="custom", attacks=("square", "apgd-t"), queries=4)
    cascade = Cascade(
        classifier,
        attack.stages(CLASSES),
        x,
        y,
        logits,
        lambda p: classifier.eval_logits(classifier.images(p)).argmax(1),
        batch_size=batch_size,
    )
    right = int((logits.argmax(1) == y).sum())
    jobs = [right, right * (CLASSES - 1)]
    for stage, evaluations in enumerate((5, 21)):
        assert cascade.stage == stage
        left = jobs[stage] * evaluations
        assert cascade.waiting == left
        while left:
            before = cascade.forwards[stage]
            cascade.advance()
            lanes = cascade.forwards[stage] - before
            assert 1 <= lanes <= batch_size
            left -= lanes
            assert cascade.waiting == left
        cascade.advance()
    assert cascade.stage == 2


def test_every_attack_that_is_over_is_kept_at_once(backend):
    class Counting(Kept):
        saves = 0

        def save(self, state, examples):
            self.saves += 1
            super().save(state, examples)

    store = Counting()
    assessment(backend, Short(EPSILON, queries=FEW), images=6).run(Silent(), store)
    assert store.saves == 4 + 1


@pytest.mark.parametrize("shape", [(4, 5), (3, 4, 5, 2)], ids=["without channels", "volumes"])
def test_images_that_an_attack_does_not_take_are_refused_before_any_pass(backend, shape):
    """Square moves windows over (H, W, C); APGD and FAB would have worked for hours before it."""
    classes, size = 3, int(np.prod(shape))
    if backend.name == "torch":
        import torch

        model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(size, classes)).double()
        x = torch.rand(6, *shape, dtype=torch.float64)
    else:
        import keras

        flat = [keras.layers.Flatten(dtype="float64"), keras.layers.Dense(classes, dtype="float64")]
        model = keras.Sequential([keras.Input(shape, dtype="float64"), *flat])
        x = keras.random.uniform((6, *shape), dtype="float64")
    y = np.arange(6) % classes
    with pytest.raises(UsageError, match=r"for square; received images of .*apgd-ce\+apgd-t\+fab-t"):
        stcore.evaluate(model, (x, y), {"aa": WHOLE})
    others = Short(EPSILON, version="custom", attacks=("apgd-ce", "fab-t"))
    assert stcore.evaluate(model, (x, y), {"aa": others})["aa"].total == 6
