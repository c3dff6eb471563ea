"""Guidance by a teacher: its formulas written by hand, every method with each of them, runs with a teacher."""

import dataclasses
import importlib
import json
import math

import numpy as np
import oracle
import pytest
import torch
from harness import assert_close, assert_same, built, load, problem
from rows import SHORT
from small import EAGER, stcli, train
from test_oracle import TOLERANCE, trained
from test_single_step import EPSILON, Hand, batches

import stcore
from stcore import AdversarialConfig, SqueezeConfig, StandardConfig
from stcore.base.weights_file import load_weights
from stcore.core.dispatch import make_classifier
from stcore.core.objective import bounds_of, numbers_of, told, training_step
from stcore.errors import UsageError
from stcore.methods.curriculum import active
from stcore.methods.guided import GUIDANCE, Guided, Targets, make_guidance, published
from stcore.methods.remedies import after_collapse
from stcore.methods.single_step import SingleStepConfig
from stcore.protocols import Mode
from stcore.runs.plan import make_plan, stale
from stcore.runs.teacher import KEPT
from stcore.testing import methods
from stcore.training.schedules import make_schedule

EPOCHS = 5
SHARE, TEMPERATURE = 0.7, 2.5
"""Of ADR, in the first epoch."""


def guided(name, method, teacher=None, **settings):
    guidance = make_guidance(name, **{**published(name, EPOCHS), **settings})
    return Guided(method, guidance, EPOCHS, teacher)


def in_epoch(backend, objective, epoch):
    """The objective with its numbers of an epoch, and its phase."""
    numbers = numbers_of(objective, epoch, None)
    return told(objective, tuple(backend.tensor(np.array(number)) for number in numbers)), objective.phase(epoch)


# --- The formulas by hand ---


class HandWithTeacher(Hand):
    """An update of a network that has a teacher; its losses get the teacher's logits of any points."""

    teacher = oracle.weights(seed=3)

    def ask(self, points):
        """The logits under running statistics, mean 0 and variance 1."""
        w = {name: torch.tensor(array) for name, array in self.teacher.items()}
        hidden = (points @ w["0.weight"].T + w["0.bias"]) / math.sqrt(1 + 1e-5)
        hidden = (hidden * w["1.weight"] + w["1.bias"]).clamp(min=0)
        return hidden @ w["4.weight"].T + w["4.bias"]

    def climb_to(self, start, targets, write):
        point = start.clone().requires_grad_()
        logits = self.logits(self.parameters, point, dropout=False, write=write)
        soft_cross_entropy(logits, targets).sum().backward()
        return point.grad.sign()

    def example(self, x, targets, unit):
        """N-FGSM's."""
        start = (x + 2 * EPSILON * unit).clamp(0, 1)
        return (start + EPSILON * self.climb_to(start, targets, write=True)).clamp(0, 1)


def soft_cross_entropy(logits, targets):
    return -(targets * torch.log_softmax(logits, 1)).sum(1)


def one_hot(y):
    return torch.nn.functional.one_hot(y, oracle.CLASSES).double()


def adr_targets(hand, x, y):
    """Wu et al. (2024): p̃ = λp + (1 − λ)y, λ ← clip(λ − (max p − p_y), 0, 1)."""
    p = torch.softmax(hand.ask(x) / TEMPERATURE, 1)
    rows = []
    for row, label in zip(p, y, strict=True):
        share = min(max(SHARE - float(row.max() - row[label]), 0.0), 1.0)
        rows.append(share * row + (1 - share) * one_hot(label[None])[0])
    return torch.stack(rows)


def adr(hand, p, x, y, unit):
    targets = adr_targets(hand, x, y)
    logits = hand.logits(p, hand.example(x, targets, unit), dropout=True, write=True)
    return soft_cross_entropy(logits, targets)


def distillation(hand, p, x, y, unit):
    """The labels are the teacher's natural prediction alone."""
    targets = torch.softmax(hand.ask(x), 1)
    logits = hand.logits(p, hand.example(x, targets, unit), dropout=True, write=True)
    return soft_cross_entropy(logits, targets)


def rebat(hand, p, x, y, unit):
    """Wang et al. (2023): CE(x') + KL(p_T(x')‖p(x'))."""
    example = hand.example(x, one_hot(y), unit)
    logits = hand.logits(p, example, dropout=True, write=True)
    gap = oracle.directed(torch.softmax(hand.ask(example), 1), torch.softmax(logits, 1))
    return oracle.cross_entropy(logits, y) + 3 * gap


def logits_alike(hand, p, x, y, unit):
    """Cui et al. (2021): the mean squared error of z(x') against the teacher's z(x)."""
    logits = hand.logits(p, hand.example(x, one_hot(y), unit), dropout=True, write=True)
    return oracle.cross_entropy(logits, y) + 3 * ((hand.ask(x) - logits) ** 2).mean(1)


BY_HAND = {"adr": adr, "distillation": distillation, "rebat": rebat, "logits": logits_alike}
TERM = {"rebat": {"teacher_weight": 3.0, "teacher_begin": 1}, "logits": {"teacher_weight": 3.0}}


def teacher_by_hand(backend):
    """The network of `HandWithTeacher`, in this backend."""
    from test_oracle import NETWORKS

    before = oracle.weights
    oracle.weights = lambda: HandWithTeacher.teacher
    try:
        model, _, _ = NETWORKS[backend.name]()
    finally:
        oracle.weights = before
    return make_classifier(model)


@pytest.mark.parametrize("name", BY_HAND)
def test_three_steps_are_those_of_the_formula(backend, name):
    objective = guided(name, SingleStepConfig(epsilon=EPSILON), teacher_by_hand(backend), **TERM.get(name, {}))
    objective, phase = in_epoch(backend, objective, 1)
    hand = HandWithTeacher(BY_HAND[name])
    expected = [hand.step(*batch) for batch in batches()]
    ours, state, _ = trained(backend, objective, batches=batches, phase=phase)
    np.testing.assert_allclose(ours, expected, rtol=TOLERANCE, atol=0)
    assert_close(state, hand.state(), TOLERANCE)


def test_adr_moves_by_half_a_cosine():
    guidance = Targets((0.7, 0.95), (2.5, 2.0))
    assert guidance.numbers(0.0) == pytest.approx((0.7, 2.5))
    assert guidance.numbers(1.0) == pytest.approx((0.95, 2.0))
    assert guidance.numbers(0.5) == pytest.approx((0.825, 2.25))
    assert guidance.numbers(0.25)[0] == pytest.approx(0.95 - 0.25 * (1 + math.cos(math.pi / 4)) / 2)
    objective = guided("adr", AdversarialConfig())
    shares = [float(objective.numbers(epoch, None)[0]) for epoch in range(1, EPOCHS + 1)]
    assert shares == sorted(shares)
    assert (shares[0], shares[-1]) == pytest.approx((0.7, 0.95))


# --- Every method ---

WITH_EXAMPLES = {name: row for name, row in SHORT.items() if row.passes.input_backwards}


@pytest.mark.parametrize("name", SHORT)
def test_labels_of_a_teacher_are_soft_labels_that_one_could_give(backend, name):
    """Search and loss of every method take them."""
    data = problem()
    batch, teacher = backend.batch(data), backend.classifier(backend.build("tiny", seed=5))
    objective, phase = in_epoch(backend, guided("adr", SHORT[name], teacher), 2)
    p = np.exp(scaled := backend.array(teacher.logits(batch.x, Mode.EVAL)) / objective.numbers(2, None)[1])
    p /= np.exp(scaled).sum(1, keepdims=True)
    label = p[np.arange(len(data.y)), data.y]
    share = np.clip(objective.numbers(2, None)[0] - (p.max(1) - label), 0, 1)[:, None]
    targets = share * p + (1 - share) * np.eye(p.shape[1])[data.y]
    results = []
    for one, labels, at in ((objective, batch.y, phase), (SHORT[name], backend.tensor(targets), phase // 2)):
        learner = backend.learner(built(backend))
        loss = stcore.train_step(learner, one, batch.x, labels, rng=0, phase=at).loss
        results.append((float(backend.array(loss)), learner.weights()))
    (ours, weights), (expected, others) = results
    assert ours == pytest.approx(expected, rel=1e-12)
    assert_close(weights, others, 1e-10)


@pytest.mark.parametrize("guidance", ["rebat", "logits"])
@pytest.mark.parametrize("name", WITH_EXAMPLES)
def test_a_term_is_added_to_every_method_without_a_forward(name, guidance):
    backend, data = load("torch"), problem()
    batch, teacher = backend.batch(data), backend.classifier(backend.build("tiny", seed=5))
    plain = WITH_EXAMPLES[name]
    objective = guided(guidance, plain, teacher, teacher_weight=2.0, teacher_begin=2)
    drawn = tuple(map(backend.images, methods.draw(plain.noise_laws, data.x.shape, 0)))

    def losses(epoch):
        classifier, phase = backend.classifier(backend.build()), objective.phase(epoch)
        examples = objective.find(classifier, batch.x, batch.y, drawn, phase)
        torch.manual_seed(0)
        return objective.losses(classifier, batch.x, batch.y, examples, phase), examples

    (before, _), (after, found) = losses(1), losses(2)
    assert "guidance" not in before.metrics
    term = backend.array(after.metrics["guidance"])
    assert term.min() >= 0
    assert term.max() > 1e-4
    if plain.phase(1) == plain.phase(2):
        np.testing.assert_allclose(
            backend.array(after.losses), backend.array(before.losses) + term, rtol=1e-9, atol=1e-12
        )
    about = found.examples[0] if guidance == "rebat" else batch.x
    np.testing.assert_array_equal(backend.array(found.teacher), backend.array(teacher.logits(about, Mode.EVAL)))


ROWS = {
    f"{name} around {what}": guided(name, SHORT[what])
    for what in ("at", "trades", "st", "n-fgsm")
    for name in GUIDANCE
}


@pytest.mark.parametrize("name", ROWS)
def test_a_guided_step_keeps_the_rules_of_methods_and_costs_one_forward_more(backend, name):
    teacher = backend.classifier(backend.build("tiny-smooth", seed=5))
    objective, phase = in_epoch(backend, dataclasses.replace(ROWS[name], teacher=teacher), EPOCHS)
    passes = methods.check_step(backend, objective, phase)
    assert passes._replace(forwards=passes.forwards + 1) == objective.passes
    assert objective.passes.units == objective.objective.passes.units + 1


@pytest.mark.parametrize("name", ROWS)
def test_both_backends_find_and_lose_the_same(name):
    """Compiled as a run compiles it: the numbers of the epoch are inputs."""
    results = []
    for backend in map(load, ("torch", "keras")):
        teacher = backend.classifier(backend.build("tiny-smooth", seed=5))
        objective, learner = dataclasses.replace(ROWS[name], teacher=teacher), backend.learner(backend.build())
        run, batch = compiled(learner, objective), backend.batch(problem())
        drawn = tuple(map(backend.images, methods.draw(objective.noise_laws, problem().x.shape, 0)))
        numbers = (backend.tensor(np.array(number)) for number in objective.numbers(EPOCHS, None))
        loss = run(tuple(numbers), batch.x, batch.y, drawn).loss
        results.append((float(backend.array(loss)), learner.weights()))
    (one, ours), (two, theirs) = results
    assert two == pytest.approx(one, rel=1e-9)
    assert_close(theirs, ours, 1e-7)


def compiled(learner, objective):
    phase = objective.phase(EPOCHS)

    def step(numbers, x, y, noise):
        return training_step(learner, told(objective, numbers), x, y, noise, phase)

    return learner.compile(step)


def test_a_teacher_answers_in_the_precision_of_the_search(backend):
    module = importlib.import_module(f"stcore.backends.{backend.name}")
    classifier = backend.classifier(backend.build("tiny", dtype="float32"))
    x = backend.images(problem().x.astype(np.float32), "float32")
    exact, coarse = (
        backend.array(module.in_precision(classifier, kind).logits(x, Mode.EVAL)) for kind in ("fp32", "bf16")
    )
    assert 1e-5 < np.abs(coarse - exact).max() < 0.1
    np.testing.assert_array_equal(exact, classifier.eval_logits(x))


def test_in_a_loop_of_ones_own_the_numbers_are_those_of_the_first_epoch(backend):
    batch, losses = backend.batch(problem()), []
    teacher = backend.classifier(backend.build("tiny", seed=5))
    alone = stcore.Guided(AdversarialConfig(steps=1), stcore.Targets(), EPOCHS, teacher)
    for objective, phase in ((alone, 0), in_epoch(backend, alone, 1)):
        learner = backend.learner(built(backend))
        losses.append(
            backend.array(stcore.train_step(learner, objective, batch.x, batch.y, rng=0, phase=phase).loss)
        )
    assert losses[0] == pytest.approx(losses[1], rel=1e-12)


def test_keras_fit_takes_a_teacher():
    """Distillation is training with the teacher's probabilities as labels."""
    backend, data = load("keras"), problem(12)
    import keras

    from stcore.backends.keras import SqueezeModel

    teacher, trained = backend.classifier(backend.build("tiny", seed=5)), []
    x, y = backend.images(data.x), backend.tensor(data.y)
    logits = backend.array(teacher.logits(x, Mode.EVAL))
    p = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    guidance = Targets((1.0, 1.0), (1.0, 1.0), rectified=False)
    for objective, labels in ((Guided(StandardConfig(), guidance, 2, teacher), y), (StandardConfig(), p)):
        model = SqueezeModel(backend.build("tiny"), objective)
        model.compile(keras.optimizers.SGD(0.1))
        model.fit(x, labels, batch_size=6, epochs=2, verbose=0, shuffle=False)
        trained.append({w.path: np.asarray(w) for w in model.net.weights})
    (ours, theirs) = (list(weights.values()) for weights in trained)
    for one, other in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-8)  # Keras rounds p to float32


# --- Around and within others ---


def test_a_guided_method_is_seen_through():
    method = SingleStepConfig()
    objective = guided("adr", stcore.methods.curriculum.with_curriculum(method, (), ("epsilon@1",), 4))
    assert active(objective, objective.phase(1)).epsilon == method.epsilon / 4
    longer = after_collapse(objective)
    assert isinstance(longer, Guided)
    assert active(longer, longer.phase(4)).steps == 2
    assert after_collapse(guided("adr", AdversarialConfig())) is None
    assert bounds_of(guided("adr", AdversarialConfig(bounds=(0.0, 255.0)))) == (0.0, 255.0)


def test_what_cannot_be_is_said():
    with pytest.raises(UsageError, match="guidance: expected a method that finds adversarial examples"):
        guided("rebat", StandardConfig())
    backend = load("torch")
    batch = backend.batch(problem())
    with pytest.raises(UsageError, match="teacher: expected a network; received none"):
        stcore.train_step(
            backend.learner(backend.build()), guided("adr", SqueezeConfig(steps=1)), batch.x, batch.y
        )
    for settings, said in [
        ({"guidance": "adr"}, "guidance: expected teacher beside it"),
        ({"teacher_share": (0.5, 0.5)}, "teacher_share: expected teacher beside it"),
        ({"teacher": "average", "ema": None}, "teacher: expected ema beside teacher = average"),
        (
            {"teacher": "average", "guidance": "hints"},
            "guidance: expected one of adr, distillation, rebat, logits",
        ),
        ({"teacher": "average", "teacher_weight": 1.0}, "teacher_weight: expected none with guidance = adr"),
        ({"teacher": "average", "teacher_share": (0.5,)}, "teacher_share: expected two numbers"),
        ({"teacher": "average", "teacher_share": (0.5, 1.5)}, r"teacher_share: expected a number in \[0, 1\]"),
        ({"teacher": "average", "teacher_temperature": (0.0, 1.0)}, "teacher_temperature: expected a number"),
        ({"teacher": "average", "guidance": "rebat", "teacher_weight": -1.0}, "teacher_weight: expected a number"),
        (
            {"teacher": "average", "guidance": "rebat", "teacher_begin": 0},
            "teacher_begin: expected a whole number",
        ),
        ({"teacher": "average", "guidance": "logits", "method": "standard"}, "guidance: expected a method that"),
        ({"drop_factor": 0.5, "schedule": "cosine"}, "drop_factor: expected drops beside it"),
        ({"drop_factor": 1.5}, r"drop_factor: expected a number in \[0, 1\]"),
    ]:
        with pytest.raises(UsageError, match=said):
            make_plan(settings)


def test_a_teacher_brings_its_published_settings_along():
    plan = make_plan({"teacher": "average"})
    assert (plan.method.guidance, plan.optimisation.ema) == ("adr", 0.995)
    assert (plan.method.teacher_share, plan.method.teacher_temperature) == ((0.7, 0.95), (2.5, 2.0))
    assert make_plan({"teacher": "zoo:digits-small-cnn-st"}).method.guidance == "distillation"
    late = make_plan({"teacher": "average", "guidance": "rebat", "epochs": 200, "ema": 0.999})
    assert (late.method.teacher_begin, late.method.teacher_weight, late.optimisation.ema) == (105, 1.0, 0.999)
    assert plan.units == make_plan({}).units + 1
    assert {"guidance", "teacher_share"} <= stale(plan.flat(), {"teacher": "zoo:digits-small-cnn-st"})
    assert "teacher_begin" in stale(late.flat(), {"epochs": 100})


def test_rebats_schedule_divides_by_one_and_a_half():
    schedule = make_schedule("step", (0.5, 0.75), 1 / 1.5)
    assert [schedule(epoch, 200) for epoch in (1, 99, 100, 149, 150, 200)] == pytest.approx(
        [1, 1, 1 / 1.5, 1 / 1.5, 1 / 2.25, 1 / 2.25]
    )


# --- Runs ---


@pytest.mark.parametrize("name", ["torch", "keras"])
def test_a_frozen_teacher_is_kept_with_the_run(name, tmp_path):
    """The run continues when the file no longer exists."""
    load(name)
    teacher, run, whole = tmp_path / "teacher", tmp_path / "run", tmp_path / "whole"
    settings = {**(EAGER if name == "keras" else {"steps": 1, "attacks": "fgsm"}), "backend": name, "seed": 1}
    assert train(teacher, **{**settings, "epochs": 1, "seed": 5}).code == 0
    file = teacher / "last.safetensors"
    given = {**settings, "epochs": 2, "teacher": file, "method": "at"}
    assert train(whole, **given).code == 0
    assert train(run, "--max-hours", "1e-9", **given).code == 130
    kept, before = load_weights(run / KEPT)[0], load_weights(file)[0]
    assert_same(kept, before)
    file.unlink()
    assert stcli("train", "--resume", run).code == 0
    assert_same(load_weights(run / "last.safetensors")[0], load_weights(whole / "last.safetensors")[0])
    settings = json.loads(json.dumps(make_plan({"teacher": "average"}).flat()))
    assert settings["teacher"] == "average"


def test_a_teacher_of_other_images_is_refused(tmp_path):
    said = train(tmp_path / "run", teacher="zoo:cifar10-resnet-s-16-n-fgsm")
    assert said.code == 2
    assert "teacher: expected a network of 8×8×1 images in 10 classes; zoo:cifar10" in said.err
    assert not (tmp_path / "run").exists()
