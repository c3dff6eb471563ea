"""E-AT: a search by Auto-PGD in the ball of a norm that is drawn for each batch."""

import json

import numpy as np
import pytest
from harness import assert_close, assert_same, load, problem
from hypothesis import given, settings
from hypothesis import strategies as st
from small import EAGER, stcli, train

import stcore
from stcore import EatConfig
from stcore.attacks.short_apgd import ShortAPGD
from stcore.base.weights_file import load_weights
from stcore.core.objective import draws, phase_of_step, training_step
from stcore.errors import UsageError
from stcore.methods.curriculum import with_curriculum
from stcore.protocols import Mode
from stcore.runs.plan import make_plan, stale
from stcore.runs.preparation import set_up
from stcore.testing import methods

BALLS = ("linf:0.1", "l1:2", "l2:0.5")
METHOD = EatConfig(balls=BALLS, steps=3)
RADII = {"linf": 0.1, "l1": 2.0, "l2": 0.5}


def size(norm, offset):
    axes = (1, 2, 3)
    if norm == "linf":
        return np.abs(offset).max(axes)
    return np.abs(offset).sum(axes) if norm == "l1" else np.sqrt((offset**2).sum(axes))


# --- The draw ---


@given(
    wrong=st.lists(st.integers(0, 40), min_size=2, max_size=2),
    extra=st.lists(st.integers(0, 60), min_size=2, max_size=2),
)
@settings(max_examples=50, deadline=None)
def test_a_ball_is_drawn_in_proportion_to_its_errors(wrong, extra):
    method = EatConfig()
    searched = [one + more + 1 for one, more in zip(wrong, extra, strict=True)]
    remembered = method.remember(None, np.array([*wrong, *searched], float))
    errors = [one / all_ for one, all_ in zip(wrong, searched, strict=True)]
    expected = errors[0] / sum(errors) if sum(errors) else 0.5
    chances = (np.arange(2000) + 0.5) / 2000
    drawn = np.array([method.drawn(3, remembered, chance) for chance in chances])
    assert (drawn == 0).mean() == pytest.approx(expected, abs=1e-3)


def test_until_every_ball_was_drawn_all_are_alike():
    method = EatConfig()
    for remembered in (None, np.array([[3.0, 0.0], [9.0, 0.0]])):
        np.testing.assert_array_equal(method.probabilities(remembered), [0.5, 0.5])
    twice = method.remember(method.remember(None, np.array([3.0, 1, 9, 4])), np.array([1.0, 2, 6, 6]))
    np.testing.assert_array_equal(twice, [[4, 3], [15, 10]])


def test_the_draw_of_a_step_is_that_of_the_seed_and_of_no_other_step():
    phases = [phase_of_step(METHOD, 1, epoch, step, None) for epoch in (1, 2) for step in range(60)]
    assert phases == [phase_of_step(METHOD, 1, epoch, step, None) for epoch in (1, 2) for step in range(60)]
    assert phases != [phase_of_step(METHOD, 2, epoch, step, None) for epoch in (1, 2) for step in range(60)]
    assert set(phases) == {0, 1, 2}
    assert draws(METHOD)
    assert not draws(stcore.SqueezeConfig())
    assert not draws(EatConfig(balls=("l1:12",)))


def test_a_curriculum_draws_its_stages_phases():
    staged = with_curriculum(METHOD, ("1@0.5",), (), 4)
    remembered = np.array([[0.0, 5, 0], [5, 5, 5]])
    for epoch, steps in ((1, 1), (4, 3)):
        settings, phase = staged.active(staged.drawn(epoch, remembered, 0.3))
        assert (settings.steps, phase) == (steps, 1)


# --- The search ---


@pytest.mark.parametrize("norm", RADII)
def test_the_search_stays_in_its_ball_and_keeps_its_highest_and_first_wrong_points(backend, norm):
    data = problem(16)
    batch, model = backend.batch(data), backend.classifier(backend.build("tiny"))
    loss = lambda x: -np.log(probabilities(backend, model, x))[np.arange(16), data.y]  # noqa: E731
    reached = ShortAPGD(RADII[norm], 6, norm).search(model, batch.x, batch.y)
    before = loss(batch.x)
    for point in (reached.highest, reached.first_wrong):
        x = backend.nhwc(point)
        assert size(norm, x - data.x).max() <= RADII[norm] * (1 + 1e-9)
        assert (x >= 0).all()
        assert (x <= 1).all()
    assert (loss(reached.highest) >= before - 1e-12).all()
    assert (loss(reached.highest) > before + 1e-6).any()
    fooled = backend.array(reached.fooled)
    wrong = probabilities(backend, model, reached.first_wrong).argmax(1) != data.y
    np.testing.assert_array_equal(fooled, wrong.astype(float))
    natural = probabilities(backend, model, batch.x).argmax(1) != data.y
    assert (fooled >= natural).all()
    same = np.abs(backend.nhwc(reached.first_wrong) - data.x).max((1, 2, 3)) == 0
    np.testing.assert_array_equal(same, natural)


def probabilities(backend, model, x):
    z = backend.array(model.logits(x, Mode.EVAL))
    e = np.exp(z - z.max(1, keepdims=True))
    return e / e.sum(1, keepdims=True)


# --- The method ---


@pytest.mark.parametrize("phase", range(3))
def test_the_loss_is_the_cross_entropy_of_the_drawn_balls_example(backend, phase):
    assert methods.check_step(backend, METHOD, phase) == METHOD.passes
    data, norm = problem(16), list(RADII)[phase]
    batch, model = backend.batch(data), backend.classifier(backend.build("tiny-smooth"))
    found = METHOD.find(model, batch.x, batch.y, (), phase)
    assert 0 < size(norm, backend.nhwc(found.adversarial) - data.x).max() <= RADII[norm] * (1 + 1e-9)
    expected = backend.array(model.logits(found.adversarial, Mode.BATCH))
    result = METHOD.losses(model, batch.x, batch.y, found, phase)
    log_p = expected - np.log(np.exp(expected).sum(1, keepdims=True))
    np.testing.assert_allclose(backend.array(result.losses), -log_p[np.arange(16), data.y], rtol=1e-9)
    tally, fooled = backend.array(result.tally).reshape(2, 3), backend.array(found.fooled).sum()
    counts = np.zeros((2, 3))
    counts[:, phase] = fooled, 16
    np.testing.assert_allclose(tally, counts)


@pytest.mark.parametrize("phase", range(3))
def test_both_backends_make_the_same_step(phase):
    results = []
    for backend in map(load, ("torch", "keras")):
        learner, batch = backend.learner(backend.build()), backend.batch(problem())

        def step(x, y, of=learner, at=phase):
            return training_step(of, METHOD, x, y, (), at)

        result = learner.compile(step)(batch.x, batch.y)
        results.append((float(backend.array(result.loss)), backend.array(result.tally), learner.weights()))
    (one, tally, ours), (two, other, theirs) = results
    assert two == pytest.approx(one, rel=1e-9)
    np.testing.assert_array_equal(tally, other)
    assert_close(theirs, ours, 1e-7)


def test_what_cannot_be_is_said():
    for balls, said in [
        ((), "balls: expected at least one"),
        (("linf:0.1", "linf:0.2"), "each of another norm"),
        (("l3:1",), "balls: the norm in l3:1: expected one of linf, l2, l1"),
        (("linf:wide",), "balls: "),
        (("linf:1.5",), r"balls: .*expected a number in \[0, 1\]"),
    ]:
        with pytest.raises(UsageError, match=said):
            EatConfig(balls=balls)
    setup = set_up(make_plan({"method": "e-at", "cuda_graph": True, "device": "cpu"}))
    with pytest.raises(UsageError, match="cuda_graph: expected a method with one search in an epoch"):
        setup._capture(None)


# --- Plans and runs ---


def test_the_evaluation_is_the_union_of_the_balls():
    plan = make_plan({"method": "e-at", "balls": ("linf:0.2", "l1:3")})
    union = "union:linf:0.2:apgd20+l1:3:apgd20"
    assert (plan.norm, plan.evaluation.epsilon, plan.evaluation.select_by) == ("linf", 0.2, union)
    assert plan.evaluation.attacks == ("fgsm", "pgd20", union)
    assert plan.trains_for_its_attacks
    assert not make_plan({"method": "e-at", "balls": ("l1:3",)}).trains_for_its_attacks
    assert {"eval_epsilon", "select_by"} <= stale(plan.flat(), {"balls": ("l1:5",)})
    assert "balls" in stale(plan.flat(), {"method": "st"})
    assert make_plan(plan.flat()).flat() == plan.flat()


def test_a_run_continues_bit_for_bit_and_is_judged_by_the_union(backend, tmp_path):
    settings = {"backend": backend.name, "method": "e-at", "epochs": 2, **EAGER, "train_size": 100}
    settings.pop("attacks")
    words = ("--balls", "linf:0.2", "l1:3")
    whole, run = tmp_path / "whole", tmp_path / "run"
    assert train(whole, *words, **settings).code == 0
    stopped = train(run, "--max-hours", "1e-9", *words, **settings)
    assert stopped.code == 130, stopped.err
    assert stcli("train", "--resume", run).code == 0
    assert_same(load_weights(whole / "last.safetensors")[0], load_weights(run / "last.safetensors")[0])
    scores = json.loads((run / "result.json").read_text())["checkpoints"]["last"]
    union = scores["union:linf:0.2:apgd20+l1:3:apgd20"]["correct"]
    assert union <= min(scores[f"{ball}:apgd20"]["correct"] for ball in ("linf:0.2", "l1:3"))
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    shares = [(row["linf_share"], row["l1_share"]) for row in rows]
    assert all(sum(pair) == pytest.approx(1) for pair in shares)
    drawn = [phase_of_step(EatConfig(), 0, 1, step, None) for step in range(3)]
    images = [40, 40, 20]
    assert shares[0][0] == pytest.approx(
        sum(n for n, phase in zip(images, drawn, strict=True) if phase == 0) / 100
    )


def test_keras_fit_draws_a_ball_for_each_batch():
    backend, data = load("keras"), problem(12)
    import keras

    from stcore.backends.keras import SqueezeModel

    model = SqueezeModel(backend.build("tiny"), EatConfig(balls=("linf:0.1", "l1:2"), steps=1), seed=3)
    model.compile(keras.optimizers.SGD(0.1))
    history = model.fit(
        backend.images(data.x), backend.tensor(data.y), batch_size=3, epochs=2, verbose=0, shuffle=False
    ).history
    drawn = [phase_of_step(EatConfig(), 3, 1, step, None) for step in range(4)]
    assert history["linf_share"][0] == pytest.approx(drawn.count(0) / 4)
    assert len(history["loss"]) == 2
