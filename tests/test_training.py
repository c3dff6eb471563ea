"""The loop: what it selects, logs, keeps, and how it ends."""

import copy
import dataclasses
import gc
import os
import signal
import threading
import time
from dataclasses import dataclass
from types import SimpleNamespace

import numpy as np
import pytest
from harness import assert_same
from small import EAGER, contents, stcli, train, trained

from stcore.attacks import FGSM
from stcore.base.interrupts import Interrupt
from stcore.base.ranks import Alone
from stcore.base.weights_file import load_weights
from stcore.cli import console
from stcore.core.losses import cross_entropy
from stcore.core.objective import PerExample
from stcore.data import Batches, ImageData
from stcore.errors import DivergedError
from stcore.evaluation.accuracy import Accuracy
from stcore.evaluation.evaluator import Evaluator
from stcore.methods.standard import StandardConfig
from stcore.protocols import Mode
from stcore.training.metrics import EpochSoFar, RunningMeans
from stcore.training.schedules import make_schedule
from stcore.training.trainer import AHEAD, Average, Schedules, Trainer

# The loop alone, with everything around it made up


class Recorder:
    """A learner, an evaluator, a store and a progress that write down what is asked of them."""

    ops = SimpleNamespace(to_numpy=np.asarray, fetch=np.asarray)

    def __init__(self, losses=(), accuracies=(), classes=()):
        self.losses, self.accuracies, self.bad = iter(losses), iter(accuracies), iter(classes)
        self.did, self.rows, self.rates = [], [], []

    # Learner
    def compile(self, fn):
        def step(numbers, *parts):
            size = sum(len(y) for _, y, *_ in parts)
            return SimpleNamespace(loss=next(self.losses, 1.0), metrics={"size": float(size)}, tally=None)

        return step

    def images(self, array):
        return array

    labels = staged = images

    def set_learning_rate(self, rate):
        self.rates.append(rate)

    # Evaluator
    def run(self, batches, advance):
        self.did.append("evaluate")
        return SimpleNamespace(accuracies={"pgd20": Accuracy(next(self.accuracies, 5), 10)})

    def classes(self, x):
        if next(self.bad, None):
            raise DivergedError("the logits")

    # Store
    def save(self, name, epoch):
        self.did.append((name, epoch))

    def promote(self, name):
        (*_, epoch) = (what[1] for what in self.did if what[0] == name.replace("best", "last"))
        self.did.append((name, epoch))

    def snapshot(self):
        return {}

    def due(self):
        return False

    def keep(self, state):
        """Nothing goes on from here."""

    def log(self, row):
        self.rows.append(row)

    # Progress
    def begin(self, label, total, unit="images"):
        self.did.append("begin")

    def advance(self, images, note=""):
        """Nothing to show."""

    def end(self):
        self.did.append("end")


CONSTANT = make_schedule("constant", ())


def trainer(recorder, epochs=3, schedule=CONSTANT, images=64):
    data = ImageData.from_arrays(np.zeros((images, 2, 2, 1), np.uint8), np.arange(images) % 2)
    return Trainer(
        learner=recorder,
        objective=StandardConfig(),
        batches=Batches(data, 40, seed=0),
        selection=data,
        evaluator=recorder,
        select_by="pgd20",
        schedules=Schedules(epochs, 0.1, schedule),
        seed=0,
        store=recorder,
        progress=recorder,
    )


def test_one_cycle_sets_its_rate_before_each_step():
    recorder = Recorder(accuracies=[3, 3])
    run = trainer(recorder, epochs=2, schedule=make_schedule("one-cycle", ()), images=200)  # 5 steps an epoch
    run.schedules = dataclasses.replace(run.schedules, by_step=True)
    run.run()
    middles = [(step + 0.5) / 10 for step in range(10)]
    expected = [0.1 * (m / 0.4 if m < 0.4 else (1 - m) / 0.6) for m in middles]
    assert recorder.rates[1:6] + recorder.rates[7:] == pytest.approx(expected)  # an epoch begins with one, too
    assert recorder.rows[-1]["learning_rate"] == recorder.rates[-1]


def test_what_a_step_takes_is_drawn_ahead_of_it_and_not_far(monkeypatch):
    """By a thread of its own, in the order of the steps."""
    drawn, lead = [], []
    run = trainer(recorder := Recorder(), epochs=1, images=400)  # ten steps
    draw, place = run._drawn, run._placed

    def noted(epoch, batch):
        assert threading.current_thread() is not threading.main_thread()
        drawn.append(int(batch.positions[0]))
        return draw(epoch, batch)

    def placed(part):
        lead.append(len(drawn) - len(recorder.rates) + 1)
        time.sleep(0.01)
        return place(part)

    run.schedules = dataclasses.replace(run.schedules, by_step=True)
    run._drawn, run._placed = noted, placed
    run.run()
    assert drawn == list(range(0, 400, 40))
    assert 1 < max(lead) <= AHEAD + 1


class Killed(Recorder):
    """Keeps the states, and is killed in the evaluation after this epoch."""

    def __init__(self, after=None):
        super().__init__(accuracies=[3, 3])
        self.states, self.after = [], after

    def keep(self, state):
        self.states.append(copy.deepcopy(state))

    def restore(self, snapshot):
        """There are no weights."""

    def run(self, batches, advance):
        if self.states[-1].progress["under_way"]["epoch"] == self.after:
            raise RuntimeError("killed")
        return super().run(batches, advance)


@pytest.mark.parametrize("after", [1, 2])
def test_killed_in_an_evaluation_one_cycle_logs_the_rates_of_a_run_without_a_break(after):
    def begun(recorder):
        run = trainer(recorder, epochs=2, schedule=make_schedule("one-cycle", ()), images=200)
        run.schedules = dataclasses.replace(run.schedules, by_step=True)
        return run

    whole, killed, resumed = Killed(), Killed(after), Killed()
    begun(whole).run()
    with pytest.raises(RuntimeError, match="killed"):
        begun(killed).run()
    on = begun(resumed)
    on.restore(killed.states[-1])
    on.run()
    rates = [[row["learning_rate"] for row in run.rows] for run in (whole, killed, resumed)]
    assert rates[0] == rates[1] + rates[2]
    assert min(rates[0]) > 0


def saved(recorder, name):
    return [what[1] for what in recorder.did if what[0] == name]


def test_the_best_epoch_is_the_later_of_equals():
    recorder = Recorder(accuracies=[3, 7, 7, 6, 7, 2])
    run = trainer(recorder, epochs=6)
    run.run()
    assert run.best == (0.7, 5)
    assert saved(recorder, "best") == ["1", "2", "3", "5"]
    assert saved(recorder, "last") == ["1", "2", "3", "4", "5", "6"]
    assert [row["best_epoch"] for row in recorder.rows] == [1, 2, 3, 3, 5, 5]
    assert [row["pgd20_accuracy"] for row in recorder.rows] == [0.3, 0.7, 0.7, 0.6, 0.7, 0.2]


def test_an_accuracy_of_nought_is_a_best_epoch_too():
    recorder = Recorder(accuracies=[0])
    trainer(recorder, epochs=1).run()
    assert saved(recorder, "best") == ["1"]


def test_metrics_are_means_over_examples():
    recorder = Recorder(losses=[1.0, 3.0])
    trainer(recorder, epochs=1).run()
    (row,) = recorder.rows
    assert row["loss"] == pytest.approx((40 * 1 + 24 * 3) / 64)
    assert row["size"] == pytest.approx((40 * 40 + 24 * 24) / 64)


def test_running_means_do_not_depend_on_when_they_are_looked_at():
    often, once = (RunningMeans(Recorder.ops, EpochSoFar(1)) for _ in range(2))
    for value, examples in ((1.0, 3), (2.0, 5), (4.0, 1)):
        for means in (often, once):
            means.add({"loss": value}, examples)
        often.check()
    once.check()
    assert often._into.means() == once._into.means() == {"loss": pytest.approx((3 + 10 + 4) / 9)}


def test_the_rate_follows_the_schedule():
    recorder = Recorder()
    trainer(recorder, epochs=6, schedule=make_schedule("step", (0.5, 5 / 6))).run()
    assert recorder.rates == pytest.approx([0.1, 0.1, 0.01, 0.01, 0.001, 0.001])
    assert [row["learning_rate"] for row in recorder.rows] == recorder.rates


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_loss_that_is_no_number_ends_the_run(bad):
    recorder = Recorder(losses=[1, 1, 1, bad])
    with pytest.raises(DivergedError, match=r"loss became (nan|inf) in epoch 2\. .* epochs before are kept"):
        trainer(recorder).run()
    assert saved(recorder, "last") == saved(recorder, "best") == ["1"]
    assert recorder.did.count("begin") == recorder.did.count("end")  # no bar is left on the terminal
    with pytest.raises(DivergedError, match=r"in epoch 1\. .* Training stopped: no epoch was finished"):
        trainer(Recorder(losses=[bad])).run()


def test_a_loss_is_looked_at_within_the_epoch_too():
    recorder = Recorder(losses=[1.0, float("nan")])
    with pytest.raises(DivergedError):
        trainer(recorder, images=40 * 50).run()
    assert sum(1 for _ in recorder.losses) == 0
    assert recorder.rows == []


def test_weights_ruined_by_the_last_update_are_not_saved():
    recorder = Recorder(classes=[False, True])
    with pytest.raises(DivergedError, match="the logits"):
        trainer(recorder).run()
    assert saved(recorder, "last") == ["1"]


# What changes with the epoch


@dataclass(frozen=True)
class WarmUp:
    """Cross-entropy in the first epoch, nothing to learn from then on."""

    seen: list
    noise_laws = ()

    def phase(self, epoch):
        return int(epoch >= 2)

    def find(self, model, x, y, noise, phase=0):
        self.seen.append(("find", phase))

    def losses(self, model, x, y, examples, phase=0):
        self.seen.append(("losses", phase))
        loss = cross_entropy(model.ops, model.logits(x, Mode.TRAIN), y)
        return PerExample((1 - phase) * loss, {"cross_entropy": loss, "phase": 0.0 * loss + float(phase)})


def test_a_method_that_changes_with_the_epoch_is_compiled_once_for_each_phase(backend, monkeypatch):
    learner = backend.learner(
        backend.build("tiny", channels=1, classes=2, dtype="float32"), weight_decay=0.0, momentum=0.0
    )
    compiled, compile_step = [], learner.compile

    def counted(fn):
        compiled.append(fn)
        return compile_step(fn)

    rng = np.random.default_rng(0)
    data = ImageData.from_arrays(rng.integers(0, 256, (64, 8, 8, 1), np.uint8), np.arange(64) % 2)
    evaluator = Evaluator(learner, {})
    monkeypatch.setattr(learner, "compile", counted)
    store, objective, weights = Recorder(), WarmUp([]), []
    save = store.save
    store.save = lambda name, epoch: (save(name, epoch), weights.append(learner.weights()))
    Trainer(
        learner=learner,
        objective=objective,
        batches=Batches(data, 24, seed=0),
        selection=data,
        evaluator=evaluator,
        select_by="natural",
        schedules=Schedules(4, 0.1, CONSTANT),
        seed=0,
        store=store,
        progress=store,
    ).run()
    assert [row["phase"] for row in store.rows] == [0, 1, 1, 1]
    assert [row["loss"] > 0 for row in store.rows] == [True, False, False, False]
    assert len(compiled) == 2
    steps = {"torch": [0] * 3 + [1] * 9, "keras": [0, 1]}[backend.name]  # Keras runs its traces from then on
    assert objective.seen == [(what, phase) for phase in steps for what in ("find", "losses")]
    first, last = weights[0], weights[-1]
    learned = {name: array for name, array in last.items() if ".running_" not in name}
    assert_same({name: first[name] for name in learned}, learned)


def test_the_best_weights_are_copied_from_the_file_of_the_last_ones(backend, tmp_path, monkeypatch):
    from stcore import models

    taken, export = [], models.export_weights
    monkeypatch.setattr(models, "export_weights", lambda model: taken.append(model) or export(model))
    run = tmp_path / "run"
    said = train(run, backend=backend.name, ema=0.9, **{**EAGER, "attacks": ""})
    assert said.code == 0, said.err
    for averaged in ("", "-ema"):
        best, last = ((run / f"{name}{averaged}.safetensors").read_bytes() for name in ("best", "last"))
        assert best == last
    assert len(taken) == 2  # the trained ones and the averaged ones


# One of several ranks


class One(Alone):
    """A rank of two; the other one has this."""

    count = 2

    def __init__(self, rank, other=None):
        self.rank, self.other, self.attended = rank, other, 0

    def gather(self, value):
        return [value] if self.other is None else [value, self.other]

    def attend(self):
        self.attended += 1


def test_only_the_rank_that_writes_a_state_builds_it(backend, monkeypatch):
    """The other sends its part as often as the first builds one, or the first would wait."""
    rng = np.random.default_rng(0)
    data = ImageData.from_arrays(rng.integers(0, 256, (48, 8, 8, 1), np.uint8), np.arange(48) % 2)
    learner = backend.learner(backend.build("tiny", channels=1, classes=2, dtype="float32"))
    average, built = Average(Evaluator(learner.copy(), {}), 0.9), []
    for model in (learner, average.evaluator.classifier):
        monkeypatch.setattr(model, "snapshot", lambda: built.append(1) or {})
    counts = []
    for rank in (0, 1):
        store, ranks, kept = Recorder(), One(rank), []
        store.due, store.keep = lambda: True, kept.append
        run = trainer(store, epochs=1)
        ours = {"learner": learner, "average": average, "evaluator": Evaluator(learner, {}), "ranks": ranks}
        dataclasses.replace(run, **ours, batches=Batches(data, 24, 0), selection=data, select_by="natural").run()
        counts.append((len(kept), len(built), ranks.attended))
        built.clear()
    assert counts == [(3, 6, 0), (0, 0, 3)]  # two steps and the epoch's end; of the learner and of the average


def test_a_rank_without_images_takes_part(backend):
    """Of one image the second rank has all: the first evaluates none, and has the accuracies of both."""
    data = ImageData.from_arrays(np.zeros((1, 8, 8, 1), np.uint8), np.array([1]), num_classes=2)
    learner = backend.learner(backend.build("tiny", channels=1, classes=2, dtype="float32"))
    evaluator, other = Evaluator(learner, {"fgsm": FGSM(0.1)}), {"natural": Accuracy(1, 1), "fgsm": Accuracy(0, 1)}
    run = dataclasses.replace(trainer(Recorder()), selection=data, ranks=One(0, other))
    assert run._score(evaluator) == other


# Ctrl-C


class PressesCtrlC(console.Lines):
    """Plain lines, and Ctrl-C at the `at`-th advance of the stretch with this label."""

    def __init__(self, label, at=1, times=1):
        super().__init__(console.make_console())
        self._where, self._at, self._times = label, at, times

    def advance(self, images, note=""):
        super().advance(images)
        if self._label.startswith(self._where):
            self._at -= 1
            if self._at == 0:
                gc.disable()  # an exception raised within a collector's callback would be swallowed
                try:
                    for _ in range(self._times):
                        os.kill(os.getpid(), signal.SIGINT)
                        time.sleep(0.05)  # another thread may take the signal: this one learns of it later
                finally:
                    gc.enable()


def interrupted(monkeypatch, path, label, at=1, times=1, **settings):
    monkeypatch.setattr("stcore.cli.train.make_progress", lambda _: PressesCtrlC(label, at, times))
    before = signal.getsignal(signal.SIGINT)
    said = train(path, steps=1, epochs=3, **settings)
    assert signal.getsignal(signal.SIGINT) is before
    assert said.code == 130
    return said


STOPPING = "\nstopping after this step or evaluation; Ctrl-C again stops at once\n"


def assert_says_how_to_go_on(said, path, epochs, err=STOPPING):
    assert said.err == err
    assert said.out.splitlines()[-3:] == [
        f"interrupted after {epochs} whole epochs",
        f"  to resume:                           stcli train --resume {path}",
        f"  to evaluate the current weights:     stcli evaluate {path}",
    ]


def test_ctrl_c_before_the_first_epoch_is_over(monkeypatch, tmp_path):
    said = interrupted(monkeypatch, tmp_path / "run", "epoch 1")
    assert_says_how_to_go_on(said, tmp_path / "run", 0)
    names = {path.name for path in (tmp_path / "run").iterdir()}
    assert names == {"config.toml", "environment.json", "last.safetensors", "state"}
    assert stcli("evaluate", tmp_path / "run", "--attacks", "fgsm").code == 0

    monkeypatch.undo()
    resume = ["--config", tmp_path / "run/config.toml", "--init-weights", tmp_path / "run/last.safetensors"]
    assert stcli("train", *resume, "--out", tmp_path / "on", "--epochs", "1").code == 0
    assert (tmp_path / "on" / "result.json").is_file()


def test_ctrl_c_in_a_later_epoch(monkeypatch, tmp_path):
    said = interrupted(monkeypatch, tmp_path / "run", "epoch 2")
    assert_says_how_to_go_on(said, tmp_path / "run", 1)
    assert len((tmp_path / "run" / "metrics.jsonl").read_text().splitlines()) == 1
    first, last = (load_weights(tmp_path / "run" / f"{name}.safetensors") for name in ("best", "last"))
    assert (first[1]["epoch"], last[1]["epoch"]) == ("1", "2 (partial)")
    assert any((first[0][name] != last[0][name]).any() for name in first[0])


@pytest.mark.parametrize("epoch", [1, 3])
def test_ctrl_c_during_an_evaluation_finishes_it(monkeypatch, tmp_path, epoch):
    said = interrupted(monkeypatch, tmp_path / "run", "evaluate", at=epoch)
    assert_says_how_to_go_on(said, tmp_path / "run", epoch)
    assert len((tmp_path / "run" / "metrics.jsonl").read_text().splitlines()) == epoch
    assert not (tmp_path / "run" / "result.json").exists()


def test_ctrl_c_during_the_final_evaluation(monkeypatch, tmp_path):
    said = interrupted(monkeypatch, tmp_path / "run", "test best")
    assert_says_how_to_go_on(said, tmp_path / "run", 3)
    assert not (tmp_path / "run" / "result.json").exists()
    assert stcli("evaluate", tmp_path / "run", "--attacks", "fgsm").code == 0


def test_a_second_ctrl_c_ends_it_at_once(monkeypatch, tmp_path):
    said = interrupted(monkeypatch, tmp_path / "run", "epoch 2", times=2)
    assert said.err == STOPPING + "stcli: interrupted\n"
    assert load_weights(tmp_path / "run" / "last.safetensors")[1]["epoch"] == "1"


def test_ctrl_c_is_left_alone_off_the_main_thread():
    came = []

    def work():
        with Interrupt() as interrupt:
            came.append(interrupt.came())

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert came == [False]


# Real runs


@pytest.mark.parametrize("backend", ["torch", "keras"])
def test_a_run_logs_what_squeeze_training_is_judged_by(backend):
    rows = trained(backend).metrics
    assert [row["epoch"] for row in rows] == [1, 2]
    for row in rows:
        assert row["loss"] == pytest.approx(row["natural_loss"] + 6.0 * row["divergence"], rel=1e-4)
        assert row["collaborative_loss"] <= row["natural_loss"] <= row["adversarial_loss"]
        shares = [row[f"selected_{which}"] for which in ("intended", "flipped", "natural")]
        assert min(shares) >= 0
        assert sum(shares) == pytest.approx(1)
        assert row["learning_rate"] > 0
        assert row["images_per_second"] > 0
        for accuracy in ("natural_accuracy", "pgd20_accuracy"):
            assert row[accuracy] * 32 == round(row[accuracy] * 32)  # of the 32 validation images


def test_both_frameworks_train_alike():
    """The same weights, batches and noise: the first epoch's means agree as far as float32 carries.

    That is not far: where a gradient is about nothing, its sign and so a whole step is a matter of rounding. In
    float64 the shared tests hold both together to 1e-9.
    """
    one, other = trained("torch").metrics[0], trained("keras").metrics[0]
    assert one.keys() == other.keys()
    for name in ("loss", "natural_loss", "adversarial_loss", "collaborative_loss", "divergence"):
        assert one[name] == pytest.approx(other[name], abs=2e-2)


@pytest.mark.parametrize("backend", ["torch", "keras"])
def test_the_seed_decides_the_weights(backend, tmp_path):
    if backend == "keras":
        trained(backend)  # or skip

    def weights(name, seed):
        quick = {"steps": 1, "select_by": "natural", "attacks": "", "compile": "off"}
        said = train(tmp_path / name, backend=backend, seed=seed, **quick)
        assert said.code == 0, said.err
        return load_weights(tmp_path / name / "last.safetensors")[0]

    first = weights("first", 1)
    assert_same(weights("again", 1), first)
    other = weights("other", 2)
    assert all((other[name] != first[name]).any() for name in first if name.endswith("weight"))


def test_divergence_keeps_the_checkpoints_of_the_epoch_before(monkeypatch, tmp_path):
    rates = {1: 1.0, 2: 1e30}
    monkeypatch.setattr("stcore.runs.preparation.make_schedule", lambda *_: lambda epoch, epochs: rates[epoch])
    said = train(tmp_path / "run", steps=1, epochs=2)
    assert said.code == 5
    assert said.err.startswith("stcli: the ")
    assert "in epoch 2. Likely" in said.err
    assert "Training stopped: the checkpoints of the epochs before are kept" in said.err
    assert said.err.count("\n") == 1
    for name in ("best", "last"):
        weights, about = load_weights(tmp_path / "run" / f"{name}.safetensors")
        assert about["epoch"] == "1"
        assert all(np.isfinite(array).all() for array in weights.values())
    before = contents(tmp_path / "run")
    assert stcli("evaluate", tmp_path / "run", "--attacks", "fgsm").code == 0
    assert contents(tmp_path / "run") == before


@pytest.mark.parametrize("backend", ["torch", "keras"])
def test_divergence_in_the_only_step_shows_before_anything_is_saved(backend, tmp_path):
    if backend == "keras":
        trained(backend)  # or skip
    said = train(
        tmp_path / "run", backend=backend, steps=1, compile="off", batch_size=64, learning_rate=1e30, attacks=""
    )
    assert said.code == 5
    assert "logits are not finite: its weights have diverged. Lower the learning rate" in said.err
    assert not list((tmp_path / "run").glob("*.safetensors"))
