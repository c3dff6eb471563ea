"""Catastrophic overfitting: what shows it within an epoch, and what is done about it."""

import dataclasses
import json

import numpy as np
import pytest
from harness import assert_same, load
from small import EAGER, Run, stcli, train
from test_diagnosis import Noted, made

from stcore import AdversarialConfig, FastSqueezeConfig, SingleStepConfig, SqueezeConfig, StandardConfig
from stcore.base.weights_file import load_weights
from stcore.data import ImageData
from stcore.evaluation.accuracy import Accuracy
from stcore.methods.curriculum import with_curriculum
from stcore.methods.remedies import after_collapse
from stcore.training.collapse import LOOKS, CollapseWatch
from stcore.training.trainer import LOOK_EVERY

# --- What shows it ---

SINGLE = SingleStepConfig()


class Told(CollapseWatch):
    """A watch with given accuracies: (under one step, under many) of each look, in percent."""

    def __init__(self, looks, closer=(90, 0)):
        super().__init__(None, None, chance=0.1, seed=0)
        self.looks, self.closer, self.asked = iter(looks), closer, []

    def _accuracies(self, search, images, steps):
        self.asked.append((images, steps))
        if (images, steps) == LOOKS[0][:2]:
            self.look = next(self.looks)
        shares = self.closer if images == LOOKS[-1][0] else self.look
        return tuple(Accuracy(round(share * images / 100), images) for share in shares)


def said(looks, closer=(90, 0), search=SINGLE):
    watch = Told(looks, closer)
    return [watch(search) is not None for _ in looks]


SOUND = [(30, 25), (36, 17), (40, 38), (45, 41), (45, 44), (40, 28), (48, 41)]


def test_a_fall_under_many_steps_alone_is_a_collapse():
    assert said([*SOUND, (80, 0), (90, 3)]) == [False] * 7 + [True] * 2


def test_a_network_that_was_never_robust_and_defeats_the_search_is_one_too():
    """As FGSM without noise may give from the first steps; not while one step is withstood by chance alone."""
    assert all(said([(60, 3), (70, 3), (80, 0)], (80, 1)))
    assert not any(said([(9, 6), (12, 3), (16, 0)], (13, 5)))


@pytest.mark.parametrize(
    ("looks", "closer"),
    [
        pytest.param([*SOUND, (10, 6)], (12, 6), id="both fall"),
        pytest.param([*SOUND, (48, 9)], (45, 35), id="chance, as more images show"),
        pytest.param([*SOUND, (12, 0)], (11, 0), id="at chance"),
        pytest.param([(0, 0)] * 3, (0, 0), id="nothing at all"),
    ],
)
def test_other_falls_are_none(looks, closer):
    assert not any(said(looks, closer))


@pytest.mark.parametrize(
    "search",
    [SqueezeConfig(), AdversarialConfig(steps=3), StandardConfig(), SingleStepConfig(epsilon=0.0)],
    ids=["K = 10", "K = 3", "no search", "no ball"],
)
def test_longer_searches_are_not_watched(search):
    watch = Told([])
    assert watch(search) is None
    assert watch.asked == []


def test_a_look_is_cheap(backend):
    """On a network: its counts are those of the attacks."""
    rng = np.random.default_rng(0)
    data = ImageData.from_arrays(rng.integers(0, 256, (300, 8, 8, 1), np.uint8), np.arange(300) % 2)
    classifier = backend.classifier(backend.build("tiny", channels=1, classes=2, dtype="float32"))
    watch = CollapseWatch(classifier, data, 0.5, seed=0)
    assert watch(SingleStepConfig(epsilon=0.01)) is None
    for images, steps, _ in LOOKS:
        one, many = watch._accuracies(SingleStepConfig(epsilon=0.01), images, steps)
        assert (one.total, many.total) == (images, images)


# --- The remedy ---


@pytest.mark.parametrize(
    ("objective", "changes"),
    [
        (SingleStepConfig(start_scale=0.0), {"steps": 2, "start_scale": 1.0, "project": True}),
        (SingleStepConfig(), {"steps": 2, "start_scale": 2.0, "project": True}),
        (FastSqueezeConfig(steps=2), {"steps": 4}),
        (AdversarialConfig(steps=1, init="natural"), {"steps": 2, "init": "uniform"}),
        (SqueezeConfig(steps=2), {"steps": 4}),
    ],
)
def test_the_search_is_twice_as_long_and_starts_at_noise(objective, changes):
    assert after_collapse(objective) == dataclasses.replace(objective, **changes)


@pytest.mark.parametrize("objective", [SqueezeConfig(), SqueezeConfig(steps=3), StandardConfig()])
def test_what_does_not_collapse_so_has_no_such_remedy(objective):
    assert after_collapse(objective) is None
    assert after_collapse(with_curriculum(objective, (), (), 4)) is None


def test_of_a_curriculum_each_short_stage_is_longer():
    early = with_curriculum(SqueezeConfig(), ("1@0.25", "3@0.5"), (), 4)
    assert [stage.steps for _, stage in after_collapse(early).stages] == [2, 3, 10]
    assert after_collapse(with_curriculum(SqueezeConfig(), ("3@0.25",), (), 4)) is None


# --- What is done about it ---


def steps_of(run):
    return run.method.steps


def watched(recorder, policy, collapses_at, epochs=8):
    """A run of 30 steps an epoch; `collapses_at`: at which looks the watch says so."""
    run = made(recorder, policy, epochs)
    run.batches = type(run.batches)(run.batches.data, 33, seed=0)
    run.objective, looks, run.seen_steps = SingleStepConfig(epsilon=0.1), iter(range(1, 1000)), []

    class Watch(Told):
        def __call__(self, search):
            run.seen_steps.append(search.steps)
            return "collapse: said" if next(looks) in collapses_at else None

    run.watch = Watch([])
    return run


def test_it_is_looked_at_across_epochs_and_said_once():
    recorder = Noted([300, 400, 0, 0, 0, 0, 0, 0])
    run = watched(recorder, "warn", {3, 4, 5})
    assert len(run.batches) == 31
    run.run()
    assert len(run.seen_steps) == 8 * 31 // LOOK_EVERY
    assert recorder.said == ["epoch 3, step 13: collapse: said"]
    assert ["trouble" in row for row in recorder.rows] == [False, False, True, True, True, True, True, True]
    assert recorder.rows[2]["trouble"] == {"collapse": "epoch 3, step 13: collapse: said"}


def test_stop_ends_the_run_in_the_middle_of_the_epoch():
    recorder = Noted([300, 400])
    run = watched(recorder, "stop", {3})
    run.run()
    assert (len(run.history), run.failure_policy.stopped) == (2, "collapse in epoch 3")
    first = Noted([300])
    run = watched(first, "stop", {1})  # nothing is saved yet: the epoch is finished
    run.run()
    assert (len(run.history), run.failure_policy.stopped) == (1, "collapse in epoch 1")


def test_rollback_goes_on_with_a_longer_search_at_the_same_rate():
    recorder = Noted([300, 400, 410, 420, 430, 440, 450, 460])
    run = watched(recorder, "rollback", {3})
    run.run()
    assert recorder.rates == pytest.approx([0.1] * 9)
    assert run.seen_steps == [1] * 3 + [2] * (len(run.seen_steps) - 3)
    assert steps_of(run) == 2
    (undone,) = run.history[2]["rolled_back"]
    assert (undone["epoch"], undone["to"], undone["remedy"]) == (3, 2, "longer search")
    assert "with twice the steps of search" in recorder.said[-1]
    assert "trouble" not in run.history[2]
    again = watched(Noted([]), "rollback", ())
    again.restore(run.state())
    assert steps_of(again) == 2  # a resumed run's


def test_twice_at_most_and_then_it_stops():
    recorder = Noted([300, 400])
    run = watched(recorder, "rollback", {3, 4, 5, 6})
    run.run()
    assert [one["remedy"] for one in run.failure_policy.rollbacks] == ["longer search"] * 2
    assert run.seen_steps == [1, 1, 1, 2, 4]
    assert run.failure_policy.stopped == "collapse in epoch 3 after 2 rollbacks"


def collapsing(monkeypatch, at):
    """Every watch says so at this look, of one step."""
    looks = iter(range(1, 100))

    def look(self, search):
        number = next(looks)
        return "collapse: said" if search.steps == 1 and number == at else None

    monkeypatch.setattr(CollapseWatch, "__call__", look)


@pytest.mark.parametrize("backend", ["torch", "keras"], indirect=True)
def test_a_run_that_goes_back_ends_the_same_after_a_break(backend, tmp_path, monkeypatch):
    """It is interrupted right after the rollback, and resumed."""
    load(backend.name)
    settings = {"backend": backend.name, "epochs": 2, "method": "n-fgsm", **EAGER, "on_trouble": "rollback"}
    monkeypatch.setattr("stcore.training.trainer.LOOK_EVERY", 1)
    collapsing(monkeypatch, 2)
    whole = train(tmp_path / "whole", **settings)
    assert whole.code == 0, whole.err
    assert "rollback 1 of 2, from epoch 1: back to the start, with twice the steps of search" in whole.out
    collapsing(monkeypatch, 2)
    from stcore.training.recovery import FailurePolicy

    abandoned = FailurePolicy.abandoned
    with monkeypatch.context() as patched:

        def stopping(self, trainer, trouble, epoch):
            abandoned(self, trainer, trouble, epoch)
            trainer.interrupted = True

        patched.setattr(FailurePolicy, "abandoned", stopping)
        assert train(tmp_path / "broken", **settings).code == 130
    assert stcli("train", "--resume", tmp_path / "broken").code == 0
    for name in ("best", "last"):
        one, other = (load_weights(tmp_path / run / f"{name}.safetensors")[0] for run in ("whole", "broken"))
        assert_same(one, other)
    result = json.loads((tmp_path / "broken" / "result.json").read_text())
    assert [one["remedy"] for one in result["rollbacks"]] == ["longer search"]
    assert Run(tmp_path / "whole", whole).metrics[0]["rolled_back"]


def test_only_what_trains_for_its_attacks_is_watched(tmp_path, monkeypatch):
    seen = []
    monkeypatch.setattr(CollapseWatch, "__call__", lambda self, search: seen.append(search.steps))
    monkeypatch.setattr("stcore.training.trainer.LOOK_EVERY", 1)
    settings = {"epochs": 1, "attacks": "fgsm"}
    assert train(tmp_path / "standard", method="standard", **settings).code == 0
    assert train(tmp_path / "collaborative", method="collaborative", **settings).code == 0
    assert seen == []
    assert train(tmp_path / "single", method="fast-st", **settings).code == 0
    assert set(seen) == {1}
