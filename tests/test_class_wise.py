"""The generalized KL with class-wise weights: its formula, and the class means that a run keeps between epochs."""

import copy
import dataclasses
from types import SimpleNamespace

import numpy as np
import pytest
from harness import assert_close, assert_same, load, problem
from hypothesis import given
from hypothesis import strategies as st
from small import EAGER, Run, plan, stcli, train
from test_training import CONSTANT, Killed

import stcore
from stcore import ClassWise, FastSqueezeConfig, MartConfig, SqueezeConfig, TradesConfig
from stcore.base.ranks import Alone, pieces
from stcore.core.divergences import DIVERGENCES, GeneralizedKL, for_search
from stcore.core.objective import Remembering, bounds_of, training_step, unwrapped
from stcore.data import Batches, ImageData
from stcore.errors import UsageError
from stcore.evaluation.evaluator import Evaluator
from stcore.methods.class_wise import class_wise
from stcore.methods.curriculum import Curriculum, active, with_curriculum
from stcore.methods.remedies import after_collapse
from stcore.protocols import Mode
from stcore.runs.states import read
from stcore.training.memory import Memory
from stcore.training.trainer import Schedules, Trainer

CLASSES = 3
RNG = np.random.default_rng(0)
MEANS = RNG.dirichlet(np.ones(CLASSES), CLASSES)
HARD = np.array([2, 0, 2, 1, 2])
SOFT = RNG.dirichlet(np.ones(CLASSES), 5)
NATURAL, ADVERSARIAL = RNG.normal(0, 2, (2, 5, CLASSES))
TRADES = TradesConfig(divergence="gkl", beta=20.0, epsilon=1.0, step_size=0.25, bounds=(-9.0, 9.0), steps=2)


def softmax(z):
    e = np.exp(z - z.max(1, keepdims=True))
    return e / e.sum(1, keepdims=True)


def gkl(natural, adversarial, weights, beta, alpha):
    """β·½·Var_w(z − z') + α·KL(p‖p') by pairs of classes, and its gradients: ∂z with p constant, and ∂z'."""
    p, q = softmax(natural), softmax(adversarial)
    gaps = natural - adversarial
    pairs = np.einsum("bj,bk,bjk->b", weights, weights, (gaps[:, :, None] - gaps[:, None]) ** 2) / 4
    variance = weights * (gaps - (weights * gaps).sum(1, keepdims=True))
    value = beta * pairs + alpha * (p * (np.log(p) - np.log(q))).sum(1)
    return value, beta * variance, -beta * variance + alpha * (q - p)


class Identity:
    """A network whose logits are its pixels."""

    def __init__(self, backend):
        self.ops = backend.ops

    def logits(self, x, mode, *, dropout=False):
        return x


@pytest.mark.parametrize("uniform", [False, True], ids=["weighted", "uniform"])
@pytest.mark.parametrize(("ratio", "name"), [(0.2, "loss"), (1.0, "search"), (0.0, "variance alone")])
def test_the_generalized_kl_is_its_papers(every_backend, ratio, name, uniform):
    ops, weights = every_backend.ops, MEANS[HARD]
    given = None if uniform else every_backend.tensor(7.0 * weights)  # in proportion
    value, pullback = ops.vjp(
        lambda a, b: GeneralizedKL(given, ratio)(ops, ops.log_softmax(a), ops.log_softmax(b)),
        every_backend.tensor(NATURAL),
        every_backend.tensor(ADVERSARIAL),
    )
    own = np.full_like(weights, 1 / CLASSES) if uniform else weights
    expected, *gradients = gkl(NATURAL, ADVERSARIAL, own, 1.0, ratio)
    np.testing.assert_allclose(every_backend.array(value), expected, rtol=1e-12)
    for found, oracle in zip(pullback(ops.ones_like(value)), gradients, strict=True):
        np.testing.assert_allclose(every_backend.array(found), oracle, atol=1e-9)


def test_its_ratio_is_that_of_the_paper_and_one_in_the_search():
    own = DIVERGENCES["gkl"]
    assert 20 * own.ratio == pytest.approx(4)
    assert for_search(own).ratio == 1
    assert for_search(DIVERGENCES["js"]) is DIVERGENCES["js"]
    with pytest.raises(UsageError, match="ratio"):
        GeneralizedKL(ratio=-1.0)


def told(backend, objective, means=MEANS):
    return ClassWise(objective).told((backend.tensor(means),))


@pytest.mark.parametrize("y", [HARD, SOFT], ids=["classes", "soft labels"])
def test_each_example_has_the_weights_of_its_class(every_backend, y):
    weights = MEANS[HARD] if y is HARD else SOFT @ MEANS
    targets = np.eye(CLASSES)[HARD] if y is HARD else SOFT
    x, other, labels = map(every_backend.tensor, (NATURAL, ADVERSARIAL, y))
    result = told(every_backend, TRADES).losses(Identity(every_backend), x, labels, (other,))
    cross_entropy = -(targets * np.log(softmax(NATURAL))).sum(1)
    expected = cross_entropy + gkl(NATURAL, ADVERSARIAL, weights, 20.0, 4.0)[0]
    np.testing.assert_allclose(every_backend.array(result.losses), expected, rtol=1e-12)
    tally = targets.T @ softmax(NATURAL / 4)
    np.testing.assert_allclose(every_backend.array(result.tally), tally, rtol=1e-12)


def test_the_search_ascends_variance_and_kl_alike(every_backend):
    noise = np.random.default_rng(2).normal(size=NATURAL.shape)

    def climbed(ratio):
        point = NATURAL + 0.5 * noise
        for _ in range(4):
            gradient = gkl(NATURAL, point, MEANS[HARD], 1.0, ratio)[2]
            point = np.clip(point + 0.25 * np.sign(gradient), NATURAL - 1, NATURAL + 1)
        return point

    x, y, unit = map(every_backend.tensor, (NATURAL, HARD, noise))
    search = told(every_backend, dataclasses.replace(TRADES, noise_std=0.5, steps=4))
    (found,) = search.find(Identity(every_backend), x, y, (unit,))
    np.testing.assert_allclose(every_backend.array(found), climbed(1.0), atol=1e-12)
    assert np.abs(climbed(1.0) - climbed(0.2)).max() > 0.1  # the loss's own ratio leads elsewhere


@pytest.mark.parametrize("objective", [TRADES, SqueezeConfig(divergence="gkl")], ids=["trades", "st"])
def test_equal_means_are_no_means(backend, objective):
    """In the search, the loss and the update; and the tally is there without them."""
    objective, given, after = dataclasses.replace(objective, bounds=(0.0, 1.0), steps=2), problem(), []
    equal = np.full((CLASSES, CLASSES), 1 / CLASSES)
    for method in (objective, ClassWise(objective), told(backend, objective, equal)):
        learner, batch = backend.learner(backend.build("tiny")), backend.batch(given)
        noise = batch.noise[: len(objective.noise_laws)]
        result = stcore.train_step(learner, method, batch.x, batch.y, noise=noise)
        after.append(learner.weights())
        assert (result.tally is None) == (method is objective)
    assert_close(after[1], after[0], 1e-12)
    assert_close(after[2], after[0], 1e-12)


METHODS = {
    "trades": TradesConfig(divergence="gkl", beta=20.0, steps=2),
    "trades adversarial first": TradesConfig(
        divergence="gkl", adversarial_first=True, share_natural=True, steps=2
    ),
    "st": SqueezeConfig(divergence="gkl", beta=20.0, steps=2),
    "st, in the search alone": SqueezeConfig(inner_divergence="gkl", steps=2),
    "fast-st": FastSqueezeConfig(divergence="gkl", beta=20.0),
    "fast-st of the image": FastSqueezeConfig(divergence="gkl", beta=20.0, natural="image"),
}


@pytest.mark.parametrize("objective", METHODS.values(), ids=METHODS)
def test_the_frameworks_make_the_same_steps(objective):
    results = []
    for backend in (load("torch"), load("keras")):
        learner, tallies = backend.learner(backend.build("tiny")), []
        method = told(backend, objective)
        for seed in range(2):
            batch = backend.batch(problem(seed=seed, law="uniform"))
            noise = batch.noise[: len(method.noise_laws)]
            tallies.append(backend.array(training_step(learner, method, batch.x, batch.y, noise).tally))
        results.append({**learner.weights(), "tally": sum(tallies)})
        assert tallies[0].sum() == pytest.approx(6)
    assert_close(*results, 1e-8)


@pytest.mark.parametrize("name", ["trades", "st"])
def test_a_compiled_step_is_the_eager_one(backend, name):
    results = []
    for compiled in (False, True):
        learner, batch = backend.learner(backend.build("tiny")), backend.batch(problem())
        noise = batch.noise[: len(METHODS[name].noise_laws)]

        def step(means, x, y, noise, learner=learner):
            return training_step(learner, ClassWise(METHODS[name]).told((means,)), x, y, noise).tally

        run = learner.compile(step) if compiled else step
        tally = backend.array(run(backend.tensor(MEANS), batch.x, batch.y, noise))
        results.append({**learner.weights(), "tally": tally})
    assert_close(*results, 1e-9)


# --- What is remembered ---


def test_a_class_without_an_image_keeps_its_means():
    method, tally = ClassWise(TRADES, CLASSES), 10 * MEANS * [[1], [0], [2]]
    np.testing.assert_allclose(method.remember(None, tally), [MEANS[0], np.full(3, 1 / 3), MEANS[2]])
    np.testing.assert_allclose(method.remember(MEANS[::-1], tally), [MEANS[0], MEANS[1], MEANS[2]])
    (first,) = method.numbers(1, None)
    np.testing.assert_allclose(first, 1 / CLASSES)
    assert method.numbers(2, MEANS) == (MEANS,)
    assert ClassWise(TRADES).numbers(1, None) == ()


IMAGES = ImageData.from_arrays(
    np.random.default_rng(1).integers(0, 256, (64, 8, 8, 3), np.uint8), np.arange(64) % CLASSES
)


def trainer(backend, store, epochs=2, accumulate=1, rate=0.0, objective=METHODS["trades"], ranks=Alone()):
    learner = backend.learner(backend.build("tiny", dtype="float64"), momentum=0.9, weight_decay=0.0)
    return Trainer(
        learner=learner,
        objective=class_wise(objective, CLASSES),
        batches=Batches(IMAGES, 24, seed=0),
        selection=IMAGES,
        evaluator=Evaluator(learner, {}),
        select_by="natural",
        schedules=Schedules(epochs, rate, CONSTANT),
        seed=0,
        store=store,
        progress=store,
        accumulate=accumulate,
        ranks=ranks,
    )


class States(Killed):
    """A store that is asked for a state after each step, and keeps all."""

    def due(self):
        return True

    def promote(self, name):
        """There are no files."""


@pytest.mark.parametrize("parts", [1, 2])
def test_the_class_means_of_an_epoch_are_a_recount(backend, parts):
    """With a rate of zero the network stays, so that the natural logits of every step can be had again."""
    store = States()
    run = trainer(backend, store, epochs=1, accumulate=parts)
    run.run()
    predictions, labels = [], []
    for batch in Batches(IMAGES, 24, seed=0).epoch(1):
        for where in pieces(len(batch.labels), 1, parts)[0]:
            x = run.learner.images(batch.images[where])
            predictions.append(softmax(backend.array(run.learner.logits(x, Mode.BATCH)) / 4))
            labels.append(batch.labels[where])
    predictions, labels = np.concatenate(predictions), np.concatenate(labels)
    assert len(labels) == 64
    means = [predictions[labels == y].mean(0) for y in range(CLASSES)]
    np.testing.assert_allclose(run._memory.remembered, means, rtol=1e-10)
    assert np.ptp(means, axis=0).max() > 1e-3  # classes differ


def test_the_step_is_traced_once_for_all_epochs(backend, monkeypatch):
    """The first epoch's weights are numbers as those of any other."""
    told_of, tell = [], ClassWise.told

    def noted(self, numbers):
        told_of.append(numbers[0].shape)
        return tell(self, numbers)

    monkeypatch.setattr(ClassWise, "told", noted)
    run = trainer(backend, States(), epochs=3)
    run.run()
    assert len(run._steps) == 1
    assert {shape[-1] for shape in told_of} == {CLASSES}
    # PyTorch asks in every step, TensorFlow in one trace; JAX looks first, and traces two sizes of batch.
    assert len(told_of) == {"torch": 9, "tensorflow": 1, "jax": 3}[backend.engine]


@pytest.mark.parametrize("step", [2, 4, 6])
def test_in_the_middle_of_an_epoch_or_at_its_end_it_continues_bit_for_bit(backend, step):
    whole, resumed = States(), States()
    first = trainer(backend, whole, rate=0.5)
    first.run()
    places = [(it.progress["under_way"]["epoch"], it.progress["under_way"]["steps"]) for it in whole.states]
    state = whole.states[next(i for i, place in enumerate(places) if place == (1 + step // 4, 1 + (step - 1) % 3))]
    second = trainer(backend, resumed, rate=0.5)
    second.restore(copy.deepcopy(state))
    second.run()
    assert_same(second.state().arrays, first.state().arrays)
    assert whole.rows[-1]["loss"] == resumed.rows[-1]["loss"]
    plain = trainer(backend, States(), rate=0.5)
    plain.restore(state._replace(arrays=forgotten(state.arrays)))
    plain.run()
    remembered = [run._memory.remembered for run in (first, plain)]
    assert (remembered[0] != remembered[1]).any()  # what was kept matters


def forgotten(arrays):
    return {name: array for name, array in arrays.items() if not name.startswith("memory/")}


def test_a_rollback_takes_the_class_means_back(backend):
    store = States()
    run = trainer(backend, store, epochs=1, rate=0.5)
    run.run()
    good, remembered = run.state(), run._memory.remembered.copy()
    run.schedules = dataclasses.replace(run.schedules, epochs=2)
    run.run()
    assert (run._memory.remembered != remembered).any()
    run.go_back(good)
    np.testing.assert_array_equal(run._memory.remembered, remembered)
    assert run._memory.tally is None


class Several:
    """One rank of several, which knows what the others send."""

    def __init__(self, rank, sent):
        self.rank, self.count, self.sent = rank, len(sent), sent

    def gather(self, value):
        return [*self.sent[: self.rank], value, *self.sent[self.rank + 1 :]]


@given(st.integers(1, 4), st.integers(1, 4), st.sets(st.integers(0, 3)))
def test_every_rank_has_its_own_tally_back_and_no_one_is_lost(before, after, silent):
    """As many ranks have what they had, bit for bit; fewer or more share what there is."""
    learner = SimpleNamespace(pixels=np.array, ops=SimpleNamespace(to_numpy=np.asarray))
    tallies = [None if rank in silent else np.full((2, 2), 0.1 * (rank + 1)) for rank in range(before)]
    states = [Memory(learner, Several(rank, tallies), None, tallies[rank]).state() for rank in range(before)]
    for state in states[1:]:
        assert_same(state, states[0])
    memories = [Memory(learner, Several(rank, [None] * after)) for rank in range(after)]
    for memory in memories:
        memory.restore(states[0])
    owned = [memory.tally for memory in memories]
    if before == after:
        for one, other in zip(owned, tallies, strict=True):
            np.testing.assert_array_equal(one, other)
    np.testing.assert_allclose(
        sum(one for one in owned if one is not None), sum(one for one in tallies if one is not None)
    )


@pytest.mark.parametrize("method", ["trades", "st", "fast-st"])
def test_a_run_that_is_interrupted_continues_bit_for_bit(tmp_path, backend, method):
    settings = {"backend": backend.name, "epochs": 3, "divergence": "gkl", "beta": 20, "method": method, **EAGER}
    settings |= {"steps": 1} if method == "fast-st" else {"steps": 2}
    whole = train(tmp_path / "whole", **settings)
    assert whole.code == 0, whole.err
    stopped = train(tmp_path / "run", "--max-hours", "1e-9", **settings)
    assert stopped.code == 130, stopped.err
    (kept,) = (tmp_path / "run" / "state").glob("*.safetensors")
    state, _ = read(kept)
    assert state.progress["under_way"]["steps"] == 1
    assert state.arrays["memory/tally/0"].sum() == pytest.approx(40, rel=1e-5)
    assert stcli("train", "--resume", tmp_path / "run").code == 0
    runs = [Run(tmp_path / name, whole) for name in ("whole", "run")]
    assert_same(*(run.weights() for run in runs))
    assert [row["loss"] for row in runs[0].metrics] == [row["loss"] for row in runs[1].metrics]


# --- Wrappers ---


def test_a_plan_wraps_the_method_and_each_stage_of_its_curriculum():
    objective = plan(method="trades", divergence="gkl").objective
    assert isinstance(objective, ClassWise)
    assert isinstance(objective, Remembering)
    assert objective.objective == plan(method="trades", divergence="gkl").method.objective(1).objective
    ramped = plan(method="st", divergence="gkl", epochs=3, ramp=("beta@1",)).objective
    assert isinstance(ramped, Curriculum)
    assert [type(stage) for _, stage in ramped.stages] == [ClassWise] * 3
    assert [active(ramped, ramped.phase(epoch)).beta for epoch in (1, 2, 3)] == pytest.approx([2, 4, 6])
    assert ramped.numbers(2, MEANS) == (MEANS,)
    for name in ("trades", "mart", "standard"):
        assert not isinstance(plan(method=name).objective, ClassWise)


def test_means_of_ones_own_are_not_replaced():
    own, open_ = ClassWise(TRADES, means=MEANS), ClassWise(TRADES)
    assert class_wise(own, CLASSES) is own
    assert class_wise(open_, CLASSES).classes == CLASSES


def test_what_a_wrapper_says_is_what_its_method_says():
    method = FastSqueezeConfig(divergence="gkl", bounds=(-1.0, 1.0))
    wrapped = ClassWise(method)
    assert unwrapped(ClassWise(method)) is method
    assert active(wrapped, 0) is method
    assert bounds_of(wrapped) == (-1.0, 1.0)
    assert (wrapped.passes, wrapped.noise_laws, wrapped.phase(3)) == (method.passes, method.noise_laws, 0)
    longer = after_collapse(wrapped)
    assert longer == ClassWise(dataclasses.replace(method, steps=2))
    assert after_collapse(ClassWise(TRADES.__class__(divergence="gkl"))) is None
    stages = class_wise(with_curriculum(method, (), ("beta@1",), 2), CLASSES)
    assert [active(after_collapse(stages), phase).steps for phase in (0, 1)] == [2, 2]


def test_a_ramp_trains_with_class_means(backend):
    run = trainer(backend, States(), rate=0.5, objective=with_curriculum(METHODS["trades"], (), ("beta@1",), 2))
    run.run()
    np.testing.assert_allclose(run._memory.remembered.sum(1), 1)


@pytest.mark.parametrize("objective", [TradesConfig(), MartConfig(), SqueezeConfig(divergence="js")])
def test_a_method_without_the_divergence_is_refused(objective):
    with pytest.raises(UsageError, match="expected a method with divergence = gkl"):
        ClassWise(objective)


@dataclasses.dataclass(frozen=True)
class Blind(TradesConfig):
    """A method that never sees the natural images."""

    def losses(self, model, x, y, examples, phase=0):
        return super().losses(model, x + 0.0, y, examples, phase)


def test_a_method_that_forwards_no_natural_image_is_refused(backend):
    x, other, y = map(backend.tensor, (NATURAL, ADVERSARIAL, HARD))
    with pytest.raises(UsageError, match="whose loss forwards the natural images"):
        told(backend, Blind(divergence="gkl")).losses(Identity(backend), x, y, (other,))


@dataclasses.dataclass(frozen=True)
class Otherwise(MartConfig):
    """A method that means something else by the name."""

    divergence: str = "to the left"


def test_a_method_may_mean_something_else_by_the_name():
    method = Otherwise()
    assert class_wise(method) is method
