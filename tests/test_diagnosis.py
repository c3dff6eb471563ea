"""What the watchers see in a run's figures, and what is done about it."""

import json
import math

import numpy as np
import pytest
from forked import Forked, forked
from harness import assert_same, load
from hypothesis import given, settings
from hypothesis import strategies as st
from small import EAGER, stcli, train
from test_resume import command, kill_at, metrics
from test_training import CONSTANT, Recorder

from stcore.base.weights_file import load_weights
from stcore.data import Batches, ImageData
from stcore.errors import DivergedError, UsageError
from stcore.evaluation.evaluator import Evaluator
from stcore.methods.standard import StandardConfig
from stcore.runs.plan import make_plan
from stcore.runs.states import RunStates, read
from stcore.training.diagnosis import (
    COLLAPSE_EPOCHS,
    NOT_LEARNING_EPOCHS,
    OVERFITTING_EPOCHS,
    Diagnosis,
    why_diverged,
)
from stcore.training.recovery import ROLLBACKS, FailurePolicy
from stcore.training.state import State
from stcore.training.trainer import Average, Schedules, Trainer

LOG_C = math.log(10)


def history(natural, robust, loss):
    return [
        {"epoch": epoch, "natural_accuracy": n, "pgd20_accuracy": r, "loss": value}
        for epoch, (n, r, value) in enumerate(zip(natural, robust, loss, strict=True), 1)
    ]


def kinds(rows, images=5000, **settings):
    return [trouble.kind for trouble in Diagnosis(images, 10, 0.1, **settings)(rows)]


def first_epochs(rows, **settings):
    """Each kind with the first epoch that shows it."""
    shown = {}
    for epoch in range(1, len(rows) + 1):
        for kind in kinds(rows[:epoch], **settings):
            shown.setdefault(kind, epoch)
    return shown


# The rules

shares = st.floats(0, 1, allow_nan=False)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(shares, shares, shares), min_size=1, max_size=40),
    st.integers(1, 60_000),
    st.integers(2, 1000),
)
def test_a_run_that_gets_better_all_the_time_is_in_no_trouble(steps, images, classes):
    """From one and a half times chance up, robust accuracy from nought up, the loss from log C down."""
    naturals, robusts, losses = (np.sort(column) for column in np.array(steps).T)
    chance = 1 / classes
    natural = (1.5 + 0.5 * chance) * chance + naturals * (1 - (1.5 + 0.5 * chance) * chance)
    loss = math.log(classes) * (1 - 0.5 * losses) * np.where(np.arange(len(losses)) < 4, 1, 0.85)
    rows = history(natural, robusts * natural, loss)
    watch = Diagnosis(images, classes, chance)
    assert [watch(rows[:epoch]) for epoch in range(1, len(rows) + 1)] == [[]] * len(rows)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(shares, shares), min_size=1, max_size=40), st.integers(1, 5))
def test_five_images_never_show_anything(accuracies, images):
    rows = history(*np.array(accuracies).T, np.linspace(2, 1, len(accuracies)))
    assert kinds(rows, images=images) == []


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(shares, shares), min_size=1, max_size=40), st.integers(1, 60_000))
def test_of_a_method_that_is_not_robust_robustness_is_no_concern(accuracies, images):
    rows = history(*np.array(accuracies).T, np.linspace(2, 0, len(accuracies)))
    assert kinds(rows, images=images, robust=False) == []


STUCK = history([0.1] * 8, [0.1] * 8, [LOG_C + 0.01] * 8)
COLLAPSED = history(
    [0.5, 0.6, 0.65, 0.85, 0.86, 0.87], [0.3, 0.38, 0.4, 0.01, 0.0, 0.0], [2, 1.8, 1.7, 0.6, 0.5, 0.4]
)
OVERFITTED = history(
    [0.6, 0.75, 0.8] + [0.82] * 12,
    [0.4, 0.5, 0.52, *np.linspace(0.51, 0.44, 12)],
    [1.9, 1.5, 1.4, *np.linspace(1.3, 0.4, 12)],
)


def test_a_loss_at_log_c_and_accuracy_at_chance_is_not_learning():
    assert first_epochs(STUCK) == {"not_learning": NOT_LEARNING_EPOCHS}
    (trouble,) = Diagnosis(5000, 10, 0.1)(STUCK)
    for word in ("10.0%", "log 10 = 2.303", "learning rate", "epsilon", "labels", "init_weights"):
        assert word in trouble.said
    assert first_epochs(history([0.1] * 8, [0.1] * 8, [1.5] * 8)) == {}  # it does fit what it is trained on
    assert first_epochs(history([0.25] * 8, [0.1] * 8, [LOG_C] * 8)) == {}


def test_few_images_keep_no_collapsed_network_secret():
    """60 images of three classes: the interval of 20 right reaches to 47 %, but nothing is learnt all the same."""
    rows = history([1 / 3] * 6, [1 / 3] * 6, [np.log(3)] * 6)
    assert [trouble.kind for trouble in Diagnosis(60, 3, 1 / 3)(rows)] == ["not_learning"]
    learning = history([0.6] * 6, [1 / 3] * 6, [np.log(3)] * 6)
    assert Diagnosis(60, 3, 1 / 3)(learning) == []


def test_naming_the_commonest_class_is_not_learning():
    """As on SVHN: 19.6 % are of one class, and a loss of the classes' entropy is below log C."""
    rows = history([0.196] * 6, [0.196] * 6, [2.22] * 6)
    assert kinds(rows) == []
    assert [trouble.kind for trouble in Diagnosis(5000, 10, 0.196)(rows)] == ["not_learning"]


def test_a_collapse_shows_at_its_second_epoch():
    assert first_epochs(COLLAPSED) == {"collapse": 3 + COLLAPSE_EPOCHS}
    (trouble,) = Diagnosis(5000, 10, 0.1)(COLLAPSED)
    for word in ("from 40.0% in epoch 3 to 0.0%", "87.0%", "steps = 1", "step_size"):
        assert word in trouble.said
    assert first_epochs(COLLAPSED, robust=False) == {}


def test_an_epoch_that_recovers_is_no_collapse():
    rows = history([0.9] * 6, [0.4, 0.02, 0.39, 0.03, 0.4, 0.41], [1.0] * 6)
    assert first_epochs(rows) == {}


def test_what_never_was_robust_does_not_collapse():
    assert first_epochs(history([0.9] * 8, [0.11] + [0.0] * 7, np.linspace(1, 0.5, 8))) == {}


def test_robust_overfitting_is_a_lasting_fall_while_the_loss_falls():
    shown = first_epochs(OVERFITTED)
    assert set(shown) == {"robust_overfitting"}
    assert 3 + OVERFITTING_EPOCHS < shown["robust_overfitting"] < len(OVERFITTED)
    (trouble,) = Diagnosis(5000, 10, 0.1)(OVERFITTED)
    for word in ("(44.0%)", "epoch 3 (52.0%)", "from 1.400 to 0.400", "earlier drops", "awp", "ema"):
        assert word in trouble.said
    assert first_epochs([{**row, "loss": 1.4} for row in OVERFITTED]) == {}  # nothing is being fitted
    assert first_epochs(OVERFITTED, images=200) == {}  # 8 points of 200 images may be chance


def test_why_a_loss_is_no_number():
    assert "fresh weights" in why_diverged({"loss": math.nan, "natural_loss": math.nan}, 1)
    assert "drop it before" in why_diverged({"loss": math.nan, "natural_loss": math.inf}, 7)
    assert "β or ε is too large" in why_diverged({"loss": math.inf, "natural_loss": 1.0}, 7)


# What is done about it


class Noted(Recorder):
    """A recorder with made-up robust accuracies out of 1000, natural ones of 900, that keeps what it is given."""

    def __init__(self, robust, losses=()):
        super().__init__(losses=losses)
        self.robust, self.states, self.said, self.good = iter(robust), [], [], []

    def run(self, batches, advance):
        from types import SimpleNamespace

        from stcore.evaluation.accuracy import Accuracy

        return SimpleNamespace(
            accuracies={"natural": Accuracy(900, 1000), "pgd20": Accuracy(next(self.robust), 1000)}
        )

    def restore(self, snapshot):
        """There is nothing to restore."""

    def keep(self, state):
        self.states.append(state)

    def keep_good(self, state):
        self.good.append(len(state.progress["history"]))

    def rewind(self, state):
        self.rows = list(state.progress["history"])
        self.states.append(state)


def made(recorder, policy, epochs=8):
    data = ImageData.from_arrays(np.zeros((1000, 2, 2, 1), np.uint8), np.arange(1000) % 10)
    return Trainer(
        learner=recorder,
        objective=StandardConfig(),
        batches=Batches(data, 500, seed=0),
        selection=data,
        evaluator=recorder,
        select_by="pgd20",
        schedules=Schedules(epochs, 0.1, CONSTANT),
        seed=0,
        store=recorder,
        progress=recorder,
        failure_policy=FailurePolicy(Diagnosis(1000, 10, 0.1), policy, recorder.said.append),
    )


FALL = [300, 400, 0, 0, 0, 0]


def test_a_warning_is_said_once_and_logged_at_each_epoch():
    recorder = Noted([*FALL, 0, 0])
    run = made(recorder, "warn")
    run.run()
    assert ["trouble" in row for row in recorder.rows] == [False] * 3 + [True] * 5
    assert [said for said in recorder.said if "collapse" in said] == recorder.said[:1]
    assert len(recorder.said) == 1
    assert run.failure_policy.summary(run.history) == {"trouble": {"collapse": 4}}


def test_stop_ends_the_run_as_if_it_were_over():
    recorder = Noted(FALL)
    run = made(recorder, "stop")
    run.run()
    assert (len(run.history), run.best, run.interrupted) == (4, (0.4, 2), False)
    assert run.failure_policy.summary(run.history) == {
        "trouble": {"collapse": 4},
        "stopped": "collapse in epoch 4",
    }
    assert recorder.said[-1] == "training stops early: collapse in epoch 4"
    again = made(Noted([]), "stop")
    again.restore(run.state())
    again.run()  # which has nothing to do any more
    assert len(again.history) == 4


def test_rollback_goes_back_to_the_best_epoch_with_a_tenth_of_the_rate():
    recorder = Noted([*FALL[:4], 410, 420, 430, 440, 450, 460])
    run = made(recorder, "rollback")
    run.run()
    assert [row["epoch"] for row in recorder.rows] == [row["epoch"] for row in run.history] == list(range(1, 9))
    assert [row["pgd20_accuracy"] for row in run.history] == [0.3, 0.4, 0.41, 0.42, 0.43, 0.44, 0.45, 0.46]
    assert recorder.rates == pytest.approx([0.1] * 4 + [0.01] * 6)
    assert recorder.good == [0, 1, 2, 3, 4, 5, 6, 7, 8]
    (undone,) = run.history[2]["rolled_back"]
    assert (undone["trouble"], undone["epoch"], undone["to"]) == ("collapse", 4, 2)
    assert [said[:18] for said in recorder.said] == ["epoch 4: collapse ", "rollback 1 of 2, f"]
    assert run.failure_policy.summary(run.history) == {"rollbacks": [undone]}


def test_after_two_rollbacks_it_stops():
    recorder = Noted([300, 400, *[0] * 20])
    run = made(recorder, "rollback")
    run.run()
    assert [one["to"] for one in run.failure_policy.rollbacks] == [2] * ROLLBACKS
    assert run.failure_policy.stopped == "collapse in epoch 4 after 2 rollbacks"
    assert recorder.rates == pytest.approx([0.1] * 4 + [0.01] * 2 + [0.001] * 2)
    assert run.best == (0.4, 2)
    assert run.history[2]["rolled_back"] == run.failure_policy.rollbacks


def test_a_run_that_does_not_learn_goes_back_to_its_start():
    recorder = Noted([100] * 40)
    run = made(recorder, "rollback")
    run.failure_policy.diagnosis = Diagnosis(1000, 10, 0.95)  # the share of the commonest class
    recorder.losses = iter([LOG_C] * 80)
    run.run()
    assert [one["to"] for one in run.failure_policy.rollbacks] == [0, 0]
    assert recorder.rates == pytest.approx([0.1] * 5 + [0.01] * 5 + [0.001] * 5)
    assert len(run.history) == 5


def test_a_loss_that_is_no_number_ends_stops_or_goes_back():
    losses = [1.0, 1.0, 1.0, math.nan]
    with pytest.raises(DivergedError, match="drop it before this epoch"):
        made(Noted([300, 400], losses), "warn").run()
    run = made(Noted([300, 400], losses), "stop")
    run.run()
    assert (len(run.history), run.failure_policy.stopped) == (1, "nan in epoch 2")
    with pytest.raises(DivergedError):  # there is nothing to evaluate
        made(Noted([], [math.nan]), "stop").run()
    recorder = Noted([300] * 9, [math.nan, 1.0, 1.0, 1.0, math.nan, 1.0])
    run = made(recorder, "rollback", epochs=3)
    run.run()
    assert [(one["trouble"], one["epoch"], one["to"]) for one in run.failure_policy.rollbacks] == [
        ("nan", 1, 0),
        ("nan", 2, 1),
    ]
    assert [row["loss"] for row in run.history] == [1.0] * 3
    assert recorder.rates == pytest.approx([0.1, 0.01, 0.01, 0.001, 0.001])
    with pytest.raises(DivergedError):
        made(Noted([], [math.nan] * 9), "rollback").run()


def test_a_best_that_was_chosen_since_gives_way_with_its_file():
    """Chosen by an accuracy that does not see the collapse, the last epoch was best: its file must not stay."""
    recorder = Noted([*FALL[:4], 410, 420])
    run = made(recorder, "rollback", epochs=4)
    run.select_by = "natural"  # always 90 %, and the later of equals is best
    run.run()
    saved = [what[1] for what in recorder.did if what[0] == "best"]
    assert saved == ["1", "2", "3", "4", "2", "3", "4"]


def test_going_back_is_to_the_very_weights(backend):
    learner = backend.learner(backend.build("tiny", channels=1, classes=2, dtype="float32"))
    rng = np.random.default_rng(0)
    data = ImageData.from_arrays(rng.integers(0, 256, (64, 8, 8, 1), np.uint8), np.arange(64) % 2)
    average = Average(Evaluator(learner.copy(), {}), 0.9)
    store = Noted([])
    run = Trainer(
        learner=learner,
        objective=StandardConfig(),
        batches=Batches(data, 32, seed=0),
        selection=data,
        evaluator=Evaluator(learner, {}),
        select_by="natural",
        schedules=Schedules(1, 0.1, CONSTANT),
        seed=0,
        store=store,
        progress=store,
        average=average,
    )
    begun = run.state()
    kept = State({name: array.copy() for name, array in begun.arrays.items()}, begun.progress)
    run.run()
    assert any((run.state().arrays[name] != kept.arrays[name]).any() for name in kept.arrays)
    for _ in range(2):  # and once more: what was taken up is not used up
        run.go_back(begun)
        assert_same(dict(run.state().arrays), dict(kept.arrays))
        assert (run.history, run.at_start) == ([], True)
        run.run()


# States


def test_a_state_after_a_rollback_takes_the_place_of_later_ones(tmp_path):
    kept = RunStates(tmp_path, 0.0, {})
    for epoch in (5, 6):
        kept.keep(State({"w": np.zeros(2)}, {"under_way": {"epoch": epoch, "steps": 0}}))
    kept.keep_good(State({"w": np.ones(2)}, {"under_way": {"epoch": 3, "steps": 0}}))
    kept.keep(State({"w": np.ones(2)}, {"under_way": {"epoch": 3, "steps": 0}}))
    names = {path.name for path in (tmp_path / "state").iterdir()}
    assert names == {"00000003-000000.safetensors", "good.safetensors"}
    again = RunStates(tmp_path, 0.0, {})
    for found in (again.good(pytest.fail), again.latest(pytest.fail)):
        assert found.progress["under_way"]["epoch"] == 3
    said = []
    (tmp_path / "state" / "good.safetensors").write_bytes(b"damaged")
    assert again.good(said.append) is None
    assert "no rollback will restore it" in said[0]
    (tmp_path / "state" / ".00000004-000000.safetensors.77.part").write_bytes(b"half")
    kept.clear()
    assert not (tmp_path / "state").exists()


# The command


def test_the_option_is_checked_and_kept(tmp_path):
    with pytest.raises(UsageError, match="on_trouble: expected one of warn, stop, rollback; received 'hope'"):
        make_plan({"on_trouble": "hope"})
    assert make_plan({}).optimisation.on_trouble == "warn"
    assert stcli("train", "--on-trouble", "hope", "--out", tmp_path / "run").code == 2


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({}, True),
        ({"method": "standard"}, False),
        ({"method": "collaborative"}, False),
        ({"method": "at", "epsilon": 0.1, "eval_epsilon": 0.2}, False),
        ({"method": "at", "epsilon": 0.1, "eval_epsilon": 0.05}, True),
        ({"method": "trades", "eval_norm": "l2", "eval_epsilon": 0.1}, False),
    ],
)
def test_whose_robustness_is_watched(settings, expected):
    assert make_plan(settings).trains_for_its_attacks is expected


HOT = ["--learning-rate", "300", "--threads", "1", "--steps", "1", "--train-size", "200", "--batch-size", "32"]
HOT += ["--model", "tiny", "--validation-size", "40", "--test-size", "40", "--epochs", "3", "--ema", "0.9"]
HOT += ["--select-by", "fgsm", "--attacks", "fgsm"]


def test_a_rate_far_too_high_ends_with_the_cause_or_goes_back(backend, tmp_path):
    settings = {"backend": backend.name, "learning_rate": 1e30, **EAGER}
    said = train(tmp_path / "warn", **settings)
    assert said.code == 5
    said = train(tmp_path / "back", **settings, on_trouble="rollback")
    assert said.code == 5  # a hundredth of that is too high, too
    assert "back to the start, at 0.1 of the learning rate" in said.out
    assert "back to the start, at 0.01 of the learning rate" in said.out


# Keras' three runs are traced, 14 s; that its states hold all that a run needs, test_resume.py shows.
@pytest.mark.parametrize("name", ["torch", pytest.param("keras", marks=pytest.mark.slow)])
def test_killed_after_a_rollback_it_ends_as_without_a_break(name, tmp_path):
    load(name)
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    settings = ["--backend", name, *HOT, "--on-trouble", "rollback", "--save-every", 0]
    said, _ = forked(*command(*settings, "--out", whole), backend=name)
    assert "rollback 1 of 2" in said
    kill_at(broken, "00000003-000002", Forked(*command(*settings, "--out", broken), backend=name))
    kept, _ = read(max((broken / "state").glob("[0-9]*.safetensors")))
    assert len(kept.progress["remedies"]["rollbacks"]) == 1
    forked(*command("--resume", broken), backend=name)
    for checkpoint in ("best", "last", "best-ema", "last-ema"):
        one, other = (load_weights(run / f"{checkpoint}.safetensors")[0] for run in (whole, broken))
        assert_same(one, other)
    assert metrics(whole) == metrics(broken)
    assert any("rolled_back" in row for row in metrics(whole))
    one, other = (json.loads((run / "result.json").read_text()) for run in (whole, broken))
    assert one["rollbacks"] == other["rollbacks"] != []
    assert one["checkpoints"] == other["checkpoints"]
    assert not (broken / "state").exists()


@pytest.mark.parametrize("policy", ["stop", "rollback"])
def test_a_run_that_stops_early_is_finished_and_says_why(policy, tmp_path, monkeypatch):
    """The first epoch is well, all others end in no number, at whatever rate a rollback leaves."""
    rates = {1: 0.5, 2: 1e30}
    monkeypatch.setattr("stcore.runs.preparation.make_schedule", lambda *_: lambda epoch, epochs: rates[epoch])
    said = train(tmp_path / "run", steps=1, epochs=2, on_trouble=policy, ema=0.5, attacks="fgsm")
    assert said.code == 0, said.err
    result = json.loads((tmp_path / "run" / "result.json").read_text())
    assert result["epochs"] == len(metrics(tmp_path / "run")) == 1
    assert set(result["checkpoints"]) == {"best", "last", "best-ema", "last-ema"}
    assert result["checkpoint_epochs"] == dict.fromkeys(result["checkpoints"], 1)
    assert not (tmp_path / "run" / "state").exists()
    if policy == "stop":
        assert result["stopped"] == "nan in epoch 2"
        assert "rollbacks" not in result
    else:  # as nothing was learnt on 32 images, there was nothing but the start to go back to
        assert result["stopped"] == "nan in epoch 2 after 2 rollbacks"
        assert [one["to"] for one in result["rollbacks"]] == [0, 0]
    assert "training stops early: nan in epoch 2" in said.out


def test_what_a_kill_left_half_written_is_swept_away(tmp_path):
    run = tmp_path / "run"
    assert train(run, steps=1, epochs=2, attacks="", max_hours=0).code == 130
    left = [run / ".last.safetensors.77.part", run / "state" / ".00000001-000001.safetensors.77.part"]
    for path in left:
        path.write_bytes(b"half")
    assert stcli("train", "--resume", run).code == 0
    assert not any(path.exists() for path in left)
    assert not (run / "state").exists()
